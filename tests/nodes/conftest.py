"""The pack imported as the host imports it, and a tiny model loaded in inference mode as the host loads it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tools import in_process


class AnyDevice:
    """A denoiser for tensors of any device, as tests make them."""

    def __init__(self, denoiser, device):
        self._denoiser, self._device = denoiser, device

    def __call__(self, u, s):
        return self._denoiser(u.to(self._device), s.to(self._device)).to(u.device)

    def __getattr__(self, name):
        return getattr(self._denoiser, name)


def open_denoiser(bridge, *models_and_prompts, work, **inputs):
    """`bridge.open_denoiser` in inference mode, as the host runs nodes."""

    def near(denoiser, place, device):
        return work(AnyDevice(denoiser, device), place, device)

    with torch.inference_mode():
        return bridge.open_denoiser(*models_and_prompts, work=near, **inputs)


@pytest.fixture(scope="session")
def pack(comfyui: Path) -> SimpleNamespace:
    """The pack's modules: `pack.bridge`, `pack.core`, ... and `pack.root`; `pack.open_denoiser`."""
    pack = in_process.load_pack()
    pack.open_denoiser = partial(open_denoiser, pack.bridge)
    return pack


@pytest.fixture(scope="session")
def tiny(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A tiny SD3 with its VAE: `tiny.model`, `tiny.vae`. Loaded in inference mode, hence inference tensors."""
    import comfy.sd

    maker = in_process.load_module("vipaint_tiny_checkpoints", in_process.ROOT / "tests" / "tiny_checkpoints.py")
    path = maker.make(maker.FAMILIES["sd3"], tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors")
    with torch.inference_mode():
        model, _, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path), output_clip=False)
    return SimpleNamespace(model=model, vae=vae, path=path)


@pytest.fixture
def conditioning() -> tuple[list, list]:
    """Different positive and negative prompts, inference tensors as text encoders return them."""
    with torch.inference_mode():
        generator = torch.Generator().manual_seed(3)
        return tuple(
            [[torch.randn(1, 3, 64, generator=generator), {"pooled_output": torch.randn(1, 64, generator=generator)}]]
            for _ in range(2)
        )


@pytest.fixture
def picture() -> tuple[torch.Tensor, torch.Tensor]:
    """A 64 x 48 picture and a mask whose right half is painted."""
    image = torch.rand(1, 64, 48, 3, generator=torch.Generator().manual_seed(5))
    mask = torch.zeros(1, 64, 48)
    mask[:, :, 24:] = 1
    return image, mask


@pytest.fixture
def paint(pack, tiny, conditioning, picture):
    """VIPaintInpaint on the picture, with what a test wants different."""
    image, mask = picture
    positive, negative = conditioning

    def run(**changes):
        arguments = {
            "model": tiny.model,
            "positive": positive,
            "negative": negative,
            "seed": 0,
            "cfg": 1.0,
            "fills": 2,
            "preset": "fast",
            "image": image,
            "mask": mask,
            "vae": tiny.vae,
        }
        with torch.inference_mode():
            return pack.inpaint.VIPaintInpaint.execute(**{**arguments, **changes}).result

    return run
