"""Representation alignment (Yu et al. 2025, "REPA"): what the denoiser sees in noise shall tell what the scene is.

Halfway through the denoiser, two small heads predict what the scene verifier sees in the noise-free scene, and the
cosine between the two joins the loss. The verifier was trained to name what is there; so the denoiser need not find
out from errors of v alone which shapes belong together. In training only: nothing of it is left in the model.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn

from playground.images.verifier import Verifier
from training import common

LATENT_PIXELS = 8
"""Side of the square of pixels that one position of the latent stands for."""


class LinearDecoder(nn.Module):
    """The best linear map from each position of the latent to its 8x8 pixels, found by least squares.

    About 28 dB, which is enough for the verifier, for one product of matrices.

    Args:
        autoencoder: its encoder makes the latents.
        pictures: scenes, uint8 [N, 128, 128, 3], to fit it to.
    """

    weight: Tensor

    def __init__(self, autoencoder: AutoencoderTiny, pictures: Tensor) -> None:
        super().__init__()
        with torch.no_grad():
            signed = common.to_signed(pictures)
            inputs = self._with_one(autoencoder.encode(signed).latents.float())
            squares = nn.functional.pixel_unshuffle(signed, LATENT_PIXELS).permute(0, 2, 3, 1)
            solution = torch.linalg.lstsq(inputs.flatten(0, 2), squares.flatten(0, 2)).solution
        self.register_buffer("weight", solution)

    @staticmethod
    def _with_one(latents: Tensor) -> Tensor:
        return nn.functional.pad(latents.permute(0, 2, 3, 1), (0, 1), value=1.0)

    def forward(self, latents: Tensor) -> Tensor:
        """Pictures [B, 3, 128, 128] in about [-1, 1] of latents [B, C, 16, 16]."""
        return nn.functional.pixel_shuffle(
            (self._with_one(latents) @ self.weight).permute(0, 3, 1, 2), LATENT_PIXELS
        )


class Alignment:
    """The two heads, what they are compared with, and their optimiser.

    Args:
        unet: the denoiser; its middle and the block after it are listened to. Before it is compiled.
        verifier: sees the scene; its maps of 16x16 and 8x8 are to be predicted.
        decode: pictures of latents.
        pictures: some scenes as :class:`LinearDecoder` takes them, for the mean and spread of the maps.
        rate: learning rate of the heads.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        verifier: Verifier,
        decode: nn.Module,
        pictures: Tensor,
        rate: float = 1e-3,
    ) -> None:
        device = next(unet.parameters()).device
        self.verifier = verifier.requires_grad_(False).eval().to(device)
        self.decode = decode.to(device)
        with torch.no_grad():
            maps = self._maps(common.to_signed(pictures).to(device))
        self.normal = [(m.mean((0, 2, 3), keepdim=True), m.std((0, 2, 3), keepdim=True) + 1e-3) for m in maps]
        self.seen: dict[int, Tensor] = {}
        listened = (unet.up_blocks[0], unet.mid_block)
        for at, block in enumerate(listened):
            block.register_forward_hook(lambda _module, _inputs, output, at=at: self.seen.__setitem__(at, output))
        width = unet.config.block_out_channels[-1]
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 1), nn.SiLU(), nn.Conv2d(width, m.shape[1], 1)) for m in maps
        ).to(device)
        self.optimizer = torch.optim.AdamW(self.heads.parameters(), rate)

    def _maps(self, pictures: Tensor) -> list[Tensor]:
        return [m.float() for m in self.verifier(pictures).maps[-2:]]

    def loss(self, clean: Tensor) -> Tensor:
        """One minus the cosine, mean over places and maps, after the denoiser was called.

        Args:
            clean: the noise-free latents [B, C, 16, 16] of that call.
        """
        with torch.no_grad():
            maps = self._maps(self.decode(clean))
        cosines = [
            nn.functional.cosine_similarity(head(self.seen.pop(at)).float(), (m - mean) / spread, dim=1).mean()
            for at, (head, m, (mean, spread)) in enumerate(zip(self.heads, maps, self.normal, strict=True))
        ]
        return 1 - torch.stack(cosines).mean()

    def step(self) -> None:
        """Update the heads; the gradients are forgotten afterwards."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict:
        """Heads and optimiser."""
        return {"heads": self.heads.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Inverse of :meth:`state_dict`."""
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
