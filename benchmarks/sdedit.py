"""Eight strengths from one guide: one strip of ours against eight warm image-to-image calls, float32.

python -m benchmarks.sdedit

Both sides start at diffusers' own start steps, encode the guide's pixels, and decode their pictures.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.common import STEPS, Theirs, a_backend, agree, alternate, ours, report
from playground.images.examples import EXAMPLES
from playground.images.sdedit import SDEdit
from playground.images.strengths import of_diffusers

GUIDE, W = "beach", 4.0
STRENGTHS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class TheirImg2Img(Theirs):
    """A warm StableDiffusionImg2ImgPipeline: the same networks, solver and grid."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        from diffusers import StableDiffusionImg2ImgPipeline

        self.img2img = StableDiffusionImg2ImgPipeline(**self.pipe.components, requires_safety_checker=False)
        self.img2img.set_progress_bar_config(disable=True)
        self.guide = EXAMPLES[GUIDE].picture(size)

    def edit(self, strength: float, seed: int) -> np.ndarray:
        """One picture [H, W, 3] in [0, 1]; its generator draws the noise that our seed means."""
        return self.img2img(
            EXAMPLES[GUIDE].prompt,
            image=self.guide,
            strength=strength,
            num_inference_steps=STEPS,
            guidance_scale=W,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
        ).images[0]


def main() -> None:
    with a_backend() as backend:
        model = backend.model(next(iter(backend.models)))
        theirs = TheirImg2Img(model.picture_size)
        levels = [of_diffusers(s, STEPS).t0("trailing", model.denoiser.schedule) for s in STRENGTHS]
        recipe = SDEdit(guide=GUIDE, prompt=EXAMPLES[GUIDE].prompt, w=W, steps=STEPS, strip=tuple(levels))
        first = ours(backend, recipe.but(seed=999))
        worst = agree(first, [theirs.edit(s, 999) for s in STRENGTHS])
        mine, reference = alternate(
            lambda i: ours(backend, recipe.but(seed=i)),
            lambda i: [theirs.edit(s, i) for s in STRENGTHS],
            rounds=5,
        )
    print(f"ours {mine:.2f} s, diffusers {reference:.2f} s, pictures agree within {worst:.2f}/255")
    report(
        ratio=round(mine / reference, 3),
        seconds=round(mine, 3),
        diffusers=round(reference, 3),
        evaluations=first.count.evaluations,
        sample_forwards=first.count.sample_forwards,
    )


if __name__ == "__main__":
    main()
