"""The pack imported as the host imports it, and a tiny model loaded in inference mode as the host loads it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import host


@pytest.fixture(scope="session")
def pack(comfyui: Path) -> SimpleNamespace:
    """The pack's modules: `pack.bridge`, `pack.core`, ... and `pack.root`."""
    return host.load_pack()


@pytest.fixture(scope="session")
def tiny(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A tiny SD3 with its VAE: `tiny.model`, `tiny.vae`. Loaded in inference mode, hence inference tensors."""
    import comfy.sd

    maker = host.load_module("vipaint_tiny_checkpoints", host.ROOT / "tests" / "tiny_checkpoints.py")
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
