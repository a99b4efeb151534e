"""A tiny model, loaded in inference mode as the host loads it, and what nodes are given with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import family_cases
import pytest
import torch


class AnyDevice:
    """A denoiser for tensors of any device, as tests make them; `device` is the host's."""

    def __init__(self, denoiser, device):
        self._denoiser, self.device = denoiser, device

    def __call__(self, u, s):
        return self._denoiser(u.to(self.device), s.to(self.device)).to(u.device)

    def __getattr__(self, name):
        return getattr(self._denoiser, name)


@pytest.fixture(scope="session")
def open_denoiser(pack) -> Callable[..., Any]:
    """`work(denoiser)` inside the host's guider and in inference mode, as the host runs nodes; returns its result.

    prompts: positive and negative. options: of `host.denoiser.open_denoiser`.
    """
    host = pack.host

    def run(model, prompts, work, *, cfg=1.0, **options):
        info = host.model_info.model_info(model)
        inputs = host.denoiser.SamplingInputs(model, info, *prompts, cfg, 0, host.memory.AUTO)
        with torch.inference_mode():
            return host.denoiser.open_denoiser(inputs, lambda d, device: work(AnyDevice(d, device)), **options)

    return run


@pytest.fixture(scope="session")
def tiny(checkpoint) -> SimpleNamespace:
    """A tiny SD3 with its VAE: `tiny.model`, `tiny.vae`, `tiny.path`. Its weights are inference tensors."""
    import comfy.sd

    path: Path = checkpoint("sd3")
    with torch.inference_mode():
        model, _, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path), output_clip=False)
    return SimpleNamespace(model=model, vae=vae, path=path)


@pytest.fixture(scope="session")
def tiny_info(pack, tiny) -> Any:
    return pack.host.model_info.model_info(tiny.model)


@pytest.fixture(scope="session")
def load_family(pack, checkpoint) -> Callable[[str], family_cases.Case]:
    """A family's case by its name; each is loaded once."""
    return cache(partial(family_cases.load_case, pack, checkpoint))


@pytest.fixture(params=family_cases.ALL)
def family(request, load_family) -> family_cases.Case:
    return load_family(request.param)


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
def paint(pack, tiny, conditioning, picture) -> Callable[..., tuple[Any, ...]]:
    """Latent and posterior of VIPaint Inpaint on the picture, with what a test wants different."""
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


@pytest.fixture(scope="session")
def shorten_presets(pack) -> Callable[[pytest.MonkeyPatch], None]:
    """Gives presets few levels and steps: the same paths in less time."""
    changes = {
        # Beside the others a preset whose fills are all drawn alone.
        "fast": {"fit": {"keypoints": (1.0, 30.0), "chains": 0}, "schedule": {"steps": 2, "resamplings": 1}},
        "balanced": {"schedule": {"steps": 2, "resamplings": 1}, "sampler": {"solver_steps": 1}},
        "paper-2": {"fit": {"steps": 2, "draws": 2}, "schedule": {"steps": 2}},
    }

    def shorten(patch):
        for name, change in changes.items():
            patch.setitem(pack.core.PRESETS, name, pack.core.PRESETS[name].with_changes(**change))

    return shorten


@pytest.fixture
def short_presets(shorten_presets, monkeypatch) -> None:
    shorten_presets(monkeypatch)
