"""Renders scenes and encodes them, so that the denoiser can be trained without drawing or encoding anything.

    python -m training.latents --parts 5

Part k covers its own range of seeds: more parts can be added at any time. The folder is named after the encoder's
weights, so latents of different encoders never mix.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from tqdm import tqdm

from training import autoencoder, common, data
from training.scenes import Scene, is_novel

PART = 20_000
"""Scenes in one part."""
_CHUNK = 1_000


def folder_for(work: Path, model: AutoencoderTiny) -> Path:
    """The folder for latents of this encoder."""
    digest = hashlib.sha256()
    for value in model.encoder.state_dict().values():
        digest.update(value.float().contiguous().cpu().numpy().tobytes())
    return work / f"latents-{digest.hexdigest()[:8]}"


def make_part(folder: Path, model: AutoencoderTiny, part: int, size: int, processes: int) -> None:
    """Render and encode one part, unless it is there already."""
    latents, truths = folder / f"{part:03d}.npy", folder / f"{part:03d}.jsonl"
    if latents.exists() and truths.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    first = common.TRAINING_SEEDS + part * size
    encoded, lines, pictures = [], [], []
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for picture, truth in tqdm(
            pool.imap(data.render_one, range(first, first + size), chunksize=64), f"part {part}", size
        ):
            lines.append(truth + "\n")
            pictures.append(picture)
            if len(pictures) == _CHUNK or len(lines) == size:
                encoded.append(autoencoder.encode(model, np.stack(pictures)).numpy())
                pictures = []
    truths.write_text("".join(lines))
    partial = latents.with_suffix(".partial.npy")
    np.save(partial, np.concatenate(encoded))
    partial.replace(latents)


def load(folder: Path) -> tuple[torch.Tensor, list[Scene]]:
    """All parts: latents float16 [N, C, 16, 16] and the truth about each scene."""
    parts = sorted(p for p in folder.glob("[0-9][0-9][0-9].npy"))
    if not parts:
        raise FileNotFoundError(f"There are no latents in {folder}; run `python -m training.latents` first.")
    latents = torch.from_numpy(np.concatenate([np.load(p) for p in parts]))
    truths = [
        Scene.from_json(json.loads(line))
        for p in parts
        for line in p.with_suffix(".jsonl").read_text().splitlines()
    ]
    if any(map(is_novel, truths)):
        raise ValueError(
            f"{folder} has scenes with pairs that are kept from training: the rule has changed, make it anew."
        )
    return latents, truths


def main() -> None:
    """Render scenes and encode them with the trained autoencoder."""
    parser = common.parser(main.__doc__)
    parser.add_argument("--parts", type=int, default=5, help=f"how many parts of {PART} scenes there shall be")
    options = parser.parse_args()
    device = common.prepare(options.threads)
    model = AutoencoderTiny.from_pretrained(options.work / "autoencoder").eval()
    model = model.to(device, memory_format=torch.channels_last)
    for part in range(options.parts):
        make_part(folder_for(options.work, model), model, part, PART, options.threads)


if __name__ == "__main__":
    main()
