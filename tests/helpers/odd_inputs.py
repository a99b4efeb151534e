"""Odd inputs of nodes, and what is right for them: a result, or an error that says what to do.

Errors name the node as the menu shows it, the input, what was expected, what was found, and a cure. After each input
the same process still paints as it did before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

HEIGHT, WIDTH, CHANNELS = 32, 24, 16
CELLS = (4, 3)
SENTENCE = re.compile(r"(.+), input `(\w+)`: expected .+, found .+\. .+\.", re.DOTALL)

INPAINT, RESTORE, FIT, SAMPLE = "VIPaintInpaint", "VIPaintRestore", "VIPaintFit", "VIPaintSample"
SAVE, LOAD, BASELINE = "VIPaintSavePosterior", "VIPaintLoadPosterior", "VIPaintBaseline"
SAMPLER, SIGMAS = "VIPaintSampler", "VIPaintSigmas"
MASK, CROP, COMPOSITE, UNCERTAINTY, UNCONDITIONAL = (
    "VIPaintMask",
    "VIPaintCrop",
    "VIPaintComposite",
    "VIPaintUncertainty",
    "VIPaintUnconditional",
)

Changes = dict[str, Any] | Callable[[Any], dict[str, Any]]
Check = Callable[[Any, str, tuple[Any, ...]], None]
# Name of the case, inputs that are not the usual ones, and what is checked of the outputs or, for an error, the input
# that it names and more of its words.
Row = tuple[str, Changes, str | Check]


def rows(node: str, table: Iterable[Row]) -> list[Any]:
    """Parameters (node, changes, expected) of a table of one node."""
    return [pytest.param(node, *row, id=f"{node.removeprefix('VIPaint')}-{name}") for name, *row in table]


def check(usual: SimpleNamespace, node: str, changes: Changes, expected: str | Check) -> None:
    inputs = made(usual, changes)
    if callable(expected):
        expected(usual, node, usual.run(node, **inputs))
    else:
        name, *words = expected.split("; ")
        with pytest.raises(ValueError, match="VIPaint") as caught:
            usual.run(node, **inputs)
        sentence = SENTENCE.fullmatch(str(caught.value))
        assert sentence and sentence.groups() == (usual.names[node], name), caught.value
        assert all(word in str(caught.value) for word in words), caught.value
    assert torch.equal(usual.run(INPAINT)[0]["samples"], usual.before)


def made(usual: SimpleNamespace, changes: Changes) -> dict[str, Any]:
    return changes(usual) if callable(changes) else changes


# --- odd inputs ---

NO_PICTURE = {"image": None, "mask": None, "vae": None}
GREY = torch.full((1, HEIGHT, WIDTH, 3), 0.5)
WHITE = torch.ones(1, HEIGHT, WIDTH)
DOT = torch.zeros(1, HEIGHT, WIDTH)
DOT[0, 5, 7] = 1
# What Load Image gives where a file has no transparency.
PLACEHOLDER = torch.zeros(1, 64, 64)
CORNER = torch.zeros(1, HEIGHT, WIDTH)
CORNER[0, 0, 0] = 1
CHECKERS = ((torch.arange(HEIGHT)[:, None] + torch.arange(WIDTH)) % 2).float()[None]
BLACK_AND_WHITE = torch.stack([torch.zeros(HEIGHT, WIDTH), torch.ones(HEIGHT, WIDTH)])


def given(name: str, change: Callable[[torch.Tensor], Any]) -> Changes:
    """The usual image, mask or fills, changed."""
    return lambda usual: {name: change(getattr(usual, name))}


def sized(height: int, width: int, hole: float = 1.0) -> dict[str, Any]:
    """A picture of another size and a mask of the value `hole`."""
    return {"image": torch.full((1, height, width, 3), 0.5), "mask": torch.full((1, height, width), hole)}


def latent(change: Callable[[torch.Tensor], Any] = lambda t: t, **entries: Any) -> Callable[[Any], dict[str, Any]]:
    """`latent_image` in place of the picture: samples changed, other entries added, None leaves one out."""

    def make(usual: SimpleNamespace) -> dict[str, Any]:
        found = {**usual.latent, "samples": change(usual.latent["samples"]), **entries}
        return {**NO_PICTURE, "latent_image": {name: value for name, value in found.items() if value is not None}}

    return make


def prompted(change: Callable[[torch.Tensor, dict[str, Any]], Any]) -> Changes:
    """`positive` made from the usual prompt's tensor and settings."""
    return lambda usual: {"positive": change(*usual.prompt[0])}


def vae(**tensors: Any) -> Changes:
    """A VAE as the host builds it from these tensors."""

    def make(usual: SimpleNamespace) -> dict[str, Any]:
        import comfy.sd

        return {"vae": comfy.sd.VAE(sd={name.replace("__", "."): value for name, value in tensors.items()})}

    return make


def taesd(channels: int, value: float = 0.0) -> Changes:
    """A small VAE with so many latent channels, all its weights of one value."""

    def make(usual: SimpleNamespace) -> dict[str, Any]:
        import comfy.sd
        import comfy.taesd.taesd as taesd

        coders = {"taesd_encoder": taesd.Encoder(channels), "taesd_decoder": taesd.Decoder(channels)}
        tensors = {f"{coder}.{k}": v for coder, net in coders.items() for k, v in net.state_dict().items()}
        filled = {k: torch.full_like(v, value) for k, v in tensors.items()}
        return {"vae": comfy.sd.VAE(sd={**filled, "vae_scale": torch.tensor(1.0), "vae_shift": torch.tensor(0.0)})}

    return make


def model(change: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    """A clone of the model to which something is done, as other nodes do it."""

    def make(usual: SimpleNamespace) -> dict[str, Any]:
        clone = usual.tiny.model.clone()
        return {"model": change(clone) or clone}

    return make


def films(clone: Any) -> None:
    import comfy.latent_formats

    clone.add_object_patch("latent_format", comfy.latent_formats.Wan21())


def loses_numbers(clone: Any) -> None:
    clone.set_model_sampler_post_cfg_function(lambda given: given["denoised"] * torch.nan)


def fails(clone: Any) -> None:
    def wrapper(_function: Any, _given: Any) -> torch.Tensor:
        raise RuntimeError("the network is broken")

    clone.set_model_unet_function_wrapper(wrapper)


def discrete(clone: Any) -> Any:
    """The model with the noise levels of SD1.5, which end at 14.6."""
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    return ModelSamplingDiscrete().patch(clone, "eps", False)[0]


def posterior(change: Callable[[Any, Any], Any]) -> Changes:
    """change(usual, fitted): another fitted posterior."""
    return lambda usual: {"posterior": change(usual, usual.fitted)}


def start(keypoints: tuple[float, ...], shape: tuple[int, ...] = (1, CHANNELS, *CELLS), **options: Any) -> Any:
    """A posterior with these keypoints, as `fast` makes it, of a latent of zeros whose upper line is observed."""

    def make(usual: SimpleNamespace, fitted: Any) -> Any:
        core = usual.pack.core
        weight = torch.zeros(shape[0], 1, *shape[2:])
        weight[:, :, 0] = 1
        observation = core.LatentObservation.masked(torch.zeros(shape), weight)
        observation = observation.to("cpu", options.get("dtype", torch.float32))
        return replace(
            fitted,
            posterior=core.HierarchicalPosterior.initial(observation, keypoints),
            observation=observation,
            preset=fitted.preset.with_changes(fit={"keypoints": keypoints}),
        )

    return posterior(make)


def stored(change: Callable[[bytes], bytes]) -> Changes:
    """A file in the posteriors' folder: the usual one with other bytes."""

    def make(usual: SimpleNamespace) -> dict[str, Any]:
        whole = (usual.folder / "usual_00001_.safetensors").read_bytes()
        (usual.folder / "odd.safetensors").write_bytes(change(whole))
        return {"file": "odd.safetensors"}

    return make


def forged(**entries: Any) -> Changes:
    """A file with other entries in its header whose digest is right."""

    def make(usual: SimpleNamespace) -> dict[str, Any]:
        storage = usual.pack.core.posterior.storage
        tensors, header, _ = storage.read(usual.folder / "usual_00001_.safetensors")
        storage.write(tensors, {**header, **entries}, {}, usual.folder / "odd.safetensors")
        return {"file": "odd.safetensors"}

    return make


def cropped(change: Callable[[Any], Any] = lambda crop: crop, **cut: Any) -> Callable[[Any], dict[str, Any]]:
    """Fills of a cut, and a crop that is not as it was."""

    def make(usual: SimpleNamespace) -> dict[str, Any]:
        image, _, crop = usual.run(CROP, **cut)
        return {"fills": image, "crop": change(crop)}

    return make


def degraded(degradation: str, **settings: Any) -> dict[str, Any]:
    return {"degradation": {"degradation": degradation, **settings}}


# --- right results ---


def samples_of(result: tuple[Any, ...]) -> torch.Tensor:
    samples = result[0]["samples"]
    assert torch.isfinite(samples).all()
    return samples


def same_as(changes: Changes) -> Check:
    """The same result as with these inputs."""

    def check(usual: Any, node: str, result: tuple[Any, ...]) -> None:
        other = usual.run(node, **made(usual, changes))
        for found, expected in zip(result, other, strict=True):
            if isinstance(found, dict):
                found, expected = found["samples"], expected["samples"]
            if isinstance(found, torch.Tensor):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

    return check


AS_USUAL = same_as({})


def unlike(changes: Changes) -> Check:
    """Finite, and another result than with these inputs."""

    def check(usual: Any, node: str, result: tuple[Any, ...]) -> None:
        other = usual.run(node, **made(usual, changes))
        assert (samples_of(result) - samples_of(other)).abs().max() > 1e-3

    return check


def of_size(batch: int, height: int, width: int) -> Check:
    def check(usual: Any, node: str, result: tuple[Any, ...]) -> None:
        assert samples_of(result).shape == (batch, CHANNELS, height, width)

    return check


def kept(usual: Any, node: str, result: tuple[Any, ...]) -> None:
    """Nothing to paint: the picture as it was encoded."""
    torch.testing.assert_close(samples_of(result), usual.latent["samples"], rtol=1e-4, atol=1e-4)


def hidden(cells: int) -> Check:
    """So many cells count as hidden."""

    def check(usual: Any, node: str, result: tuple[Any, ...]) -> None:
        samples_of(result)
        assert int((result[1].observation.cell_weight == 0).sum()) == cells

    return check


def soft(usual: Any, node: str, result: tuple[Any, ...]) -> None:
    """All cells are observed, none of them surely."""
    samples_of(result)
    weight = result[1].observation.weight
    assert 0 < weight.min() and weight.max() < 1


def pictures(expected: Callable[[Any], torch.Tensor]) -> Check:
    """The first output, to rounding."""

    def check(usual: Any, node: str, result: tuple[Any, ...]) -> None:
        torch.testing.assert_close(result[0], expected(usual), rtol=1e-5, atol=1e-5)

    return check


def numbers(low: float, high: float) -> Check:
    """All numbers of all outputs lie within these."""

    def check(usual: Any, node: str, result: tuple[Any, ...]) -> None:
        assert all(bool(((low <= t) & (t <= high)).all()) for t in result)

    return check


def cut_of(height: int, width: int) -> Check:
    """A picture and a mask of this size, with numbers from 0 to 1."""

    def check(usual: Any, node: str, result: tuple[Any, ...]) -> None:
        assert result[0].shape == (1, height, width, 3) and result[1].shape == (1, height, width)
        numbers(0, 1)(usual, node, result[:2])

    return check


def saved(name: str) -> Check:
    def check(usual: Any, node: str, result: tuple[Any, ...]) -> None:
        assert result[0]["text"] == [name]
        assert (usual.folder / name).is_file()

    return check


def as_fitted(usual: Any, node: str, result: tuple[Any, ...]) -> None:
    assert torch.equal(result[0].posterior.mu, usual.fitted.posterior.mu)
