"""Bad and odd inputs of every node: a right result, or an error that names node, input, expectation, finding and cure.

After each, the same process still paints as it did before.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

HEIGHT, WIDTH, CHANNELS = 32, 24, 16
CELLS = (4, 3)
SENTENCE = re.compile(r"(VIPaint\w+), input `(\w+)`: expected .+, found .+\. .+\.", re.DOTALL)

Changes = dict[str, Any] | Callable[[Any], dict[str, Any]]
Check = Callable[[Any, str, tuple[Any, ...]], None]
# Name of the case, node, inputs that are not the usual ones, and what is checked of the outputs or, for an error,
# the input that it names and more of its words.
Row = tuple[str, str, Changes, str | Check]


@pytest.fixture(scope="module")
def work(pack, tiny, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """Usual inputs, `run(node, **changes)` in inference mode as the host runs nodes, and the first result."""
    import folder_paths

    generator = torch.Generator().manual_seed(5)
    image = torch.rand(1, HEIGHT, WIDTH, 3, generator=generator)
    mask = torch.zeros(1, HEIGHT, WIDTH)
    mask[:, :, WIDTH // 2 :] = 1
    fills = torch.rand(2, HEIGHT, WIDTH, 3, generator=generator)
    nodes = {node.GET_SCHEMA().node_id: node for node in pack.NODES}
    folder = tmp_path_factory.mktemp("vipaint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(folder_paths.folder_names_and_paths, "vipaint", ([str(folder)], {".safetensors"}))
        presets = pack.core.PRESETS
        patch.setitem(presets, "fast", replace(presets["fast"], levels=(1.0, 30.0), refine_steps=2))
        balanced = replace(presets["balanced"], refine_steps=2, rounds=1, solver_steps=1)
        patch.setitem(presets, "paper-2", replace(presets["paper-2"], steps=2, draws=2, refine_steps=2))
        patch.setitem(presets, "balanced", balanced)
        usual: dict[str, dict[str, Any]] = {"VIPaintUnconditional": {"model": tiny.model}}

        def run(node: str, **changes: Any) -> tuple[Any, ...]:
            with torch.inference_mode():
                output = nodes[node].execute(**{**usual[node], **changes})
            return output.result if output.result is not None else (output.ui,)

        (prompt,) = run("VIPaintUnconditional")
        with torch.inference_mode():
            latent = {"samples": tiny.vae.encode(image), "noise_mask": mask[:, None]}
        model = {"model": tiny.model, "positive": prompt, "negative": prompt, "seed": 0, "cfg": 1.0}
        picture = {"image": image, "mask": mask, "vae": tiny.vae}
        usual["VIPaintInpaint"] = {**model, "fills": 1, "preset": "fast", **picture}
        usual["VIPaintFit"] = {**model, "preset": "fast", **picture}
        usual["VIPaintBaseline"] = {**model, "fills": 1, "method": {"method": "ding", "steps": 2}, **picture}
        whole = {"degradation": "none"}
        once = {"fills": 1, "steps": 4, "attempts": 1, "noise": 0.0}
        usual["VIPaintRestore"] = {**model, **once, "degradation": whole, **picture}
        usual["VIPaintComposite"] = {"fills": fills, "original": image, "mask": mask}
        cut = {"width": 16, "height": 16, "context": 2.0, "enlarge": 1.0}
        usual["VIPaintCrop"] = {"image": image, "mask": mask, **cut}
        usual["VIPaintUncertainty"] = {"images": fills}
        (fitted,) = run("VIPaintFit")
        usual["VIPaintSample"] = {**model, "posterior": fitted, "fills": 1}
        usual["VIPaintSavePosterior"] = {"posterior": fitted, "filename_prefix": "usual"}
        run("VIPaintSavePosterior")
        usual["VIPaintLoadPosterior"] = {"file": "usual_00001_.safetensors"}
        before = run("VIPaintInpaint")[0]["samples"]
        yield SimpleNamespace(**locals())


# --- what makes odd inputs ---

NO_PICTURE = {"image": None, "mask": None, "vae": None}


def given(name: str, change: Callable[[torch.Tensor], Any]) -> Changes:
    """The usual image, mask or fills, changed."""
    return lambda work: {name: change(getattr(work, name))}


def sized(height: int, width: int, hole: float = 1.0) -> Changes:
    """A picture of another size and a mask of the value `hole`."""
    return {"image": torch.full((1, height, width, 3), 0.5), "mask": torch.full((1, height, width), hole)}


def latent(change: Callable[[torch.Tensor], Any] = lambda t: t, **entries: Any) -> Changes:
    """`latent_image` in place of the picture: samples changed, other entries added, None leaves one out."""

    def make(work: Any) -> dict[str, Any]:
        found = {**work.latent, "samples": change(work.latent["samples"]), **entries}
        return {**NO_PICTURE, "latent_image": {name: value for name, value in found.items() if value is not None}}

    return make


def prompted(change: Callable[[torch.Tensor, dict[str, Any]], Any]) -> Changes:
    """`positive` made from the usual prompt's tensor and settings."""
    return lambda work: {"positive": change(*work.prompt[0])}


def vae(**tensors: Any) -> Changes:
    """A VAE as the host builds it from these tensors."""

    def make(work: Any) -> dict[str, Any]:
        import comfy.sd

        return {"vae": comfy.sd.VAE(sd={name.replace("__", "."): value for name, value in tensors.items()})}

    return make


def taesd(channels: int, value: float | None = None) -> Changes:
    """A small VAE with so many latent channels, all its weights of one value."""

    def make(work: Any) -> dict[str, Any]:
        import comfy.sd
        import comfy.taesd.taesd as taesd

        coders = {"taesd_encoder": taesd.Encoder(channels), "taesd_decoder": taesd.Decoder(channels)}
        tensors = {f"{coder}.{k}": v for coder, net in coders.items() for k, v in net.state_dict().items()}
        filled = {k: torch.full_like(v, 0.0 if value is None else value) for k, v in tensors.items()}
        return {"vae": comfy.sd.VAE(sd={**filled, "vae_scale": torch.tensor(1.0), "vae_shift": torch.tensor(0.0)})}

    return make


def model(change: Callable[[Any], Any]) -> Changes:
    """A clone of the model to which something is done, as other nodes do it."""

    def make(work: Any) -> dict[str, Any]:
        clone = work.tiny.model.clone()
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
    """change(work, fit): another fit."""
    return lambda work: {"posterior": change(work, work.fitted)}


def start(levels: tuple[float, ...], shape: tuple[int, ...] = (1, CHANNELS, *CELLS), **options: Any) -> Changes:
    """A posterior with these keypoints, as `fast` makes it, of a latent of zeros whose upper line is seen."""

    def make(work: Any, fitted: Any) -> Any:
        core = work.pack.core
        seen = torch.zeros(shape[0], 1, *shape[2:])
        seen[:, :, 0] = 1
        observation = core.Observation(torch.zeros(shape), seen).to("cpu", options.get("dtype", torch.float32))
        return replace(
            fitted,
            posterior=core.HierarchicalPosterior.initial(observation, levels),
            observation=observation,
            preset=replace(fitted.preset, levels=levels),
        )

    return posterior(make)


def stored(change: Callable[[bytes], bytes]) -> Changes:
    """A file in the posteriors' folder: the usual one with other bytes."""

    def make(work: Any) -> dict[str, Any]:
        whole = (work.folder / "usual_00001_.safetensors").read_bytes()
        (work.folder / "odd.safetensors").write_bytes(change(whole))
        return {"file": "odd.safetensors"}

    return make


def forged(**entries: Any) -> Changes:
    """A file with other entries in its header whose digest is right."""

    def make(work: Any) -> dict[str, Any]:
        from vipaint_core import storage

        tensors, header = storage._read(work.folder / "usual_00001_.safetensors", storage.FORMAT)
        storage._write(tensors, storage.FORMAT, {**header, **entries}, {}, work.folder / "odd.safetensors")
        return {"file": "odd.safetensors"}

    return make


# --- what is right ---


def samples_of(result: tuple[Any, ...]) -> torch.Tensor:
    samples = result[0]["samples"]
    assert torch.isfinite(samples).all()
    return samples


def same_as(changes: Changes) -> Check:
    """The same result as with these inputs."""

    def check(work: Any, node: str, result: tuple[Any, ...]) -> None:
        other = work.run(node, **(changes(work) if callable(changes) else changes))
        for found, expected in zip(result, other, strict=True):
            if isinstance(found, dict):
                found, expected = found["samples"], expected["samples"]
            if isinstance(found, torch.Tensor):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

    return check


AS_USUAL = same_as({})


def unlike(changes: Changes) -> Check:
    """Finite, and another result than with these inputs."""

    def check(work: Any, node: str, result: tuple[Any, ...]) -> None:
        other = work.run(node, **(changes(work) if callable(changes) else changes))
        assert (samples_of(result) - samples_of(other)).abs().max() > 1e-3

    return check


def of_size(batch: int, height: int, width: int) -> Check:
    def check(work: Any, node: str, result: tuple[Any, ...]) -> None:
        assert samples_of(result).shape == (batch, CHANNELS, height, width)

    return check


def kept(work: Any, node: str, result: tuple[Any, ...]) -> None:
    """Nothing to paint: the picture as it was encoded."""
    torch.testing.assert_close(samples_of(result), work.latent["samples"], rtol=1e-4, atol=1e-4)


def hidden(cells: int) -> Check:
    """So many cells count as hidden."""

    def check(work: Any, node: str, result: tuple[Any, ...]) -> None:
        samples_of(result)
        assert int((result[1].observation.seen == 0).sum()) == cells

    return check


def soft(work: Any, node: str, result: tuple[Any, ...]) -> None:
    samples_of(result)
    seen = result[1].observation.seen
    assert 0 < seen.min() and seen.max() < 1


def pictures(expected: Callable[[Any], torch.Tensor]) -> Check:
    """The first output, to rounding."""

    def check(work: Any, node: str, result: tuple[Any, ...]) -> None:
        torch.testing.assert_close(result[0], expected(work), rtol=1e-5, atol=1e-5)

    return check


def numbers(low: float, high: float) -> Check:
    """All numbers of all outputs lie within these."""

    def check(work: Any, node: str, result: tuple[Any, ...]) -> None:
        assert all(bool(((low <= t) & (t <= high)).all()) for t in result)

    return check


def cut_of(height: int, width: int) -> Check:
    """A picture and a mask of this size, with numbers from 0 to 1."""

    def check(work: Any, node: str, result: tuple[Any, ...]) -> None:
        assert result[0].shape == (1, height, width, 3) and result[1].shape == (1, height, width)
        numbers(0, 1)(work, node, result[:2])

    return check


def saved(name: str) -> Check:
    def check(work: Any, node: str, result: tuple[Any, ...]) -> None:
        assert result[0]["text"] == [name]
        assert (work.folder / name).is_file()

    return check


def fits(work: Any, node: str, result: tuple[Any, ...]) -> None:
    assert torch.equal(result[0].posterior.mu, work.fitted.posterior.mu)


# --- the table ---

P, S, C, U = "VIPaintInpaint", "VIPaintSample", "VIPaintComposite", "VIPaintUncertainty"
FIT, BASELINE, EMPTY = "VIPaintFit", "VIPaintBaseline", "VIPaintUnconditional"
R, X, SAVE, LOAD = "VIPaintRestore", "VIPaintCrop", "VIPaintSavePosterior", "VIPaintLoadPosterior"

GREY = torch.full((1, HEIGHT, WIDTH, 3), 0.5)
DOT = torch.zeros(1, HEIGHT, WIDTH)
DOT[0, 5, 7] = 1
CORNER = torch.zeros(1, HEIGHT, WIDTH)
CORNER[0, 0, 0] = 1
CHECKERS = ((torch.arange(HEIGHT)[:, None] + torch.arange(WIDTH)) % 2).float()[None]
TWO = torch.stack([torch.zeros(HEIGHT, WIDTH), torch.ones(HEIGHT, WIDTH)])

IMAGES: list[Row] = [
    ("3-d", P, given("image", lambda t: t[0]), "image; (batch, height, width, 3); 32 x 24 x 3"),
    ("5-d", P, given("image", lambda t: t[None]), "image; 1 x 1 x 32 x 24 x 3"),
    ("2-channels", P, given("image", lambda t: t[..., :2]), "image; 1 x 32 x 24 x 2"),
    ("channels-first", P, given("image", lambda t: t.movedim(-1, 1)), "image; 1 x 3 x 32 x 24"),
    ("grey", P, {"image": GREY[..., :1]}, same_as({"image": GREY})),
    ("alpha", P, given("image", lambda t: torch.cat([t, t[..., :1]], -1)), AS_USUAL),
    ("bytes", P, given("image", lambda t: (t * 255).byte()), "image; from 0 to 1; torch.uint8; 255"),
    ("bytes-as-floats", P, given("image", lambda t: t * 255), "image; from 0 to 1; values up to 25; 255"),
    ("negative-bytes", P, given("image", lambda t: t * -255), "image; values up to 25"),
    ("integers", P, given("image", lambda t: t.round().long()), "image; torch.int64"),
    ("bools", P, given("image", lambda t: t > 0.5), "image; torch.bool"),
    ("complex", P, given("image", lambda t: t.to(torch.complex64)), "image; another kind; complex64"),
    ("sparse", P, given("image", lambda t: t.to_sparse()), "image; another kind; sparse"),
    ("meta", P, given("image", lambda t: t.to("meta")), "image; another kind; meta"),
    ("half", P, given("image", lambda t: t.half()), same_as(given("image", lambda t: t.half().float()))),
    ("bfloat16", P, given("image", lambda t: t.bfloat16()), same_as(given("image", lambda t: t.bfloat16().float()))),
    ("double", P, given("image", lambda t: t.double()), AS_USUAL),
    ("strided", P, given("image", lambda t: t.mT.contiguous().mT), AS_USUAL),
    ("wants-gradient", P, given("image", lambda t: t.clone().requires_grad_()), AS_USUAL),
    ("a-little-bright", P, given("image", lambda t: t * 1.2 - 0.1), of_size(1, *CELLS)),
    ("nan", P, given("image", lambda t: t * torch.nan), "image; finite; NaN"),
    ("one-infinity", P, given("image", lambda t: t.masked_fill(DOT[..., None] > 0, torch.inf)), "image; infinity"),
    ("empty-batch", P, given("image", lambda t: t[:0]), "image; 0 x 32 x 24 x 3"),
    ("no-height", P, given("image", lambda t: t[:, :0]), "image; 1 x 0 x 24 x 3"),
    ("scalar", P, {"image": torch.tensor(1.0)}, "image; no size"),
    ("list", P, given("image", lambda t: t.tolist()), "image; list"),
    ("array", P, given("image", lambda t: np.ones((1, HEIGHT, WIDTH, 3))), "image; ndarray"),
    ("empty-string", P, {"image": ""}, "image; str"),
    ("none", P, {"image": None}, "latent_image; neither"),
    ("nothing-at-all", P, NO_PICTURE, "latent_image; neither"),
    ("twice", P, lambda work: {"latent_image": work.latent}, "image; both"),
    ("1-x-1", P, sized(1, 1), of_size(1, 1, 1)),
    ("1-x-1-seen", P, sized(1, 1, hole=0.0), of_size(1, 1, 1)),
    ("1-x-1-balanced", P, lambda work: {**sized(1, 1), "preset": "balanced"}, of_size(1, 1, 1)),
    ("one-line", P, sized(1, 70), of_size(1, 1, 9)),
    ("odd-size", P, sized(37, 31), of_size(1, 5, 4)),
    ("larger-than-the-model", P, sized(8, 400), "model; stopped with; pictures of this size"),
    ("batch-of-3", P, {"image": GREY.expand(3, -1, -1, -1), "fills": 2}, of_size(6, *CELLS)),
]

MASKS: list[Row] = [
    ("2-d", P, given("mask", lambda t: t[0]), AS_USUAL),
    ("4-d", P, given("mask", lambda t: t[:, None]), AS_USUAL),
    ("0-d", P, {"mask": torch.tensor(1.0)}, "mask; (batch, height, width); no size"),
    ("1-d", P, {"mask": torch.ones(WIDTH)}, "mask; found 24"),
    ("5-d", P, given("mask", lambda t: t[None, None]), "mask; 1 x 1 x 1 x 32 x 24"),
    ("3-channels", P, given("mask", lambda t: t.expand(1, 3, -1, -1)), "mask; 1 x 3 x 32 x 24"),
    ("smaller", P, {"mask": torch.ones(1, 16, WIDTH)}, "mask; 24 x 32 pixels; 24 x 16 pixels; Resize"),
    ("turned", P, given("mask", lambda t: t.mT), "mask; 24 x 32 pixels; 32 x 24 pixels"),
    ("batch-of-3", P, {"mask": torch.ones(3, HEIGHT, WIDTH)}, "mask; 3 masks"),
    ("one-for-two", P, {"image": GREY.expand(2, -1, -1, -1)}, of_size(2, *CELLS)),
    ("one-black-one-white", P, {"image": GREY.expand(2, -1, -1, -1), "mask": TWO}, hidden(12)),
    ("empty-batch", P, given("mask", lambda t: t[:0]), "mask; 0 x 32 x 24"),
    ("none", P, {"mask": None}, "mask; no mask"),
    ("list", P, {"mask": [1, 0]}, "mask; list"),
    ("string", P, {"mask": "mask.png"}, "mask; str"),
    ("bools", P, given("mask", lambda t: t > 0), AS_USUAL),
    ("integers", P, given("mask", lambda t: t.long()), AS_USUAL),
    ("bytes", P, given("mask", lambda t: (t * 255).byte()), "mask; from 0 to 1; up to 255"),
    ("half", P, given("mask", lambda t: t.half()), AS_USUAL),
    ("beyond-0-to-1", P, given("mask", lambda t: t * 3 - 1), AS_USUAL),
    ("complex", P, given("mask", lambda t: t.to(torch.complex64)), "mask; another kind"),
    ("meta", P, given("mask", lambda t: t.to("meta")), "mask; another kind"),
    ("nan", P, given("mask", lambda t: t * torch.nan), "mask; NaN"),
    ("infinity", P, given("mask", lambda t: t / 0), "mask; infinity"),
    ("ones", P, given("mask", torch.ones_like), hidden(12)),
    ("ones-balanced", P, lambda work: {"mask": torch.ones_like(DOT), "preset": "balanced"}, hidden(12)),
    ("zeros", P, given("mask", torch.zeros_like), kept),
    ("zeros-balanced", P, lambda work: {"mask": torch.zeros_like(DOT), "preset": "balanced"}, kept),
    ("one-pixel", P, {"mask": DOT}, hidden(1)),
    ("one-pixel-balanced", P, {"mask": DOT, "preset": "balanced"}, hidden(1)),
    ("all-but-one-pixel", P, {"mask": 1 - DOT}, hidden(12)),
    ("checkers", P, {"mask": CHECKERS}, hidden(12)),
    ("grey", P, {"mask": torch.full_like(DOT, 0.5)}, soft),
    ("grey-balanced", P, {"mask": torch.full_like(DOT, 0.5), "preset": "balanced"}, soft),
    ("nearly-black", P, {"mask": torch.full_like(DOT, 1e-45)}, kept),
    ("nearly-white", P, {"mask": torch.full_like(DOT, 1 - 1e-7)}, soft),
]

LATENTS: list[Row] = [
    ("usual", P, latent(), of_size(1, *CELLS)),
    ("half", P, latent(lambda t: t.half()), same_as(latent(lambda t: t.half().float()))),
    ("double", P, latent(lambda t: t.double()), same_as(latent())),
    ("integers", P, latent(lambda t: t.long()), "latent_image; floating-point; torch.int64"),
    ("complex", P, latent(lambda t: t.to(torch.complex64)), "latent_image; another kind"),
    ("meta", P, latent(lambda t: t.to("meta")), "latent_image; another kind"),
    ("3-d", P, latent(lambda t: t[0]), "latent_image; 16 x 4 x 3"),
    ("5-d", P, latent(lambda t: t[:, :, None]), "latent_image; SD3; 1 x 16 x 1 x 4 x 3; video"),
    ("film", P, latent(lambda t: t[:, :, None].expand(-1, -1, 9, -1, -1)), "latent_image; 1 x 16 x 9 x 4 x 3"),
    ("4-channels", P, latent(lambda t: t[:, :4]), "latent_image; 16 channels; 4 channels"),
    ("empty-batch", P, latent(lambda t: t[:0]), "latent_image; 0 x 16 x 4 x 3"),
    ("no-width", P, latent(lambda t: t[..., :0]), "latent_image; 1 x 16 x 4 x 0"),
    ("nan", P, latent(lambda t: t * torch.nan), "latent_image; NaN; --fp32-vae"),
    ("infinity", P, latent(lambda t: t / 0), "latent_image; infinity"),
    ("zeros", P, latent(torch.zeros_like), of_size(1, *CELLS)),
    ("1-x-1", P, latent(lambda t: t[..., :1, :1]), of_size(1, 1, 1)),
    ("larger-than-the-model", P, latent(lambda t: t[..., :1].expand(-1, -1, -1, 50)), "model; pictures of this size"),
    ("batch-of-2", P, latent(lambda t: t.expand(2, -1, -1, -1)), of_size(2, *CELLS)),
    (
        "nested",
        P,
        latent(lambda t: torch.nested.nested_tensor([t[0], t[0]], layout=torch.jagged)),
        "latent_image; another structure",
    ),
    ("no-samples", P, latent(samples=None), "latent_image; another structure"),
    ("samples-list", P, latent(lambda t: t.tolist()), "latent_image; another structure"),
    ("tensor", P, lambda work: {**NO_PICTURE, "latent_image": work.latent["samples"]}, "latent_image"),
    ("list", P, {**NO_PICTURE, "latent_image": []}, "latent_image; another structure"),
    ("no-mask", P, latent(noise_mask=None), "mask; Set Latent Noise Mask"),
    ("mask-connected", P, lambda work: {**latent(noise_mask=None)(work), "mask": work.mask}, same_as(latent())),
    (
        "mask-replaces",
        P,
        lambda work: {**latent(noise_mask=torch.ones(1, 1, 9, 9))(work), "mask": work.mask},
        hidden(8),
    ),
    ("mask-of-latent-size", P, latent(noise_mask=torch.ones(1, 1, *CELLS)), hidden(12)),
    ("mask-larger", P, latent(noise_mask=torch.ones(1, 1, 99, 77)), hidden(12)),
    ("mask-smaller", P, latent(noise_mask=torch.ones(1, 1, 1, 1)), hidden(12)),
    ("masks-of-3", P, latent(noise_mask=torch.ones(3, 1, 8, 6)), "latent_image; 1 mask; 3 masks"),
    ("mask-nan", P, latent(noise_mask=torch.full((1, 1, 8, 6), torch.nan)), "latent_image; NaN"),
    ("mask-string", P, latent(noise_mask="white"), "latent_image; str"),
    ("batch-index", P, latent(batch_index=[7]), same_as(latent())),
    ("with-vae", P, lambda work: {**latent()(work), "vae": work.tiny.vae}, same_as(latent())),
]

PROMPTS: list[Row] = [
    ("none", P, {"positive": None}, "positive; NoneType"),
    ("empty", P, {"positive": []}, "positive; none; VIPaintUnconditional"),
    ("empty-negative", P, {"negative": []}, "negative; none"),
    ("text", P, {"positive": "a cat"}, "positive; str"),
    ("bare-tensor", P, prompted(lambda t, _: t), "positive; Tensor"),
    ("list-of-tensors", P, prompted(lambda t, _: [t]), "positive; another structure"),
    ("no-settings", P, prompted(lambda t, _: [[t]]), "positive; another structure"),
    ("settings-none", P, prompted(lambda t, _: [[t, None]]), "positive; another structure"),
    ("tuple", P, prompted(lambda t, s: [(t, s)]), AS_USUAL),
    ("batch-of-2", P, prompted(lambda t, s: [[t.expand(2, -1, -1), s]]), "positive; batch of 2"),
    ("2-d", P, prompted(lambda t, s: [[t[0], s]]), "positive; 1 x 64"),
    ("no-tokens", P, prompted(lambda t, s: [[t[:, :0], s]]), "positive; 1 x 0 x 64"),
    ("nan", P, prompted(lambda t, s: [[t * torch.nan, s]]), "positive; NaN"),
    ("pooled-nan", P, prompted(lambda t, s: [[t, {"pooled_output": s["pooled_output"] / 0}]]), "positive; NaN"),
    ("string-inside", P, prompted(lambda t, s: [["a cat", s]]), "positive; str"),
    ("of-another-encoder", P, prompted(lambda t, s: [[t[..., :32], s]]), "model; mat1 and mat2; text encoder"),
    ("no-pooled", P, prompted(lambda t, s: [[t, {}]]), "model; stopped with; text encoder"),
    ("two", P, prompted(lambda t, s: [[t, s], [t, s]]), AS_USUAL),
    ("many-tokens", P, prompted(lambda t, s: [[t.expand(-1, 300, -1), s]]), of_size(1, *CELLS)),
]

MODELS: list[Row] = [
    ("none", P, {"model": None}, "model; NoneType"),
    ("string", P, {"model": "sd3.safetensors"}, "model; str"),
    ("vae", P, lambda work: {"model": work.tiny.vae}, "model; VAE"),
    ("films", P, model(films), "model; SD3 (FLOW)"),
    ("loses-numbers", P, model(loses_numbers), "model; NaN or infinity"),
    ("fails", P, model(fails), "model; RuntimeError: the network is broken"),
    ("other-levels", P, model(discrete), of_size(1, *CELLS)),
    ("none", EMPTY, {"model": None}, "model; NoneType"),
    ("films", EMPTY, model(films), "model; SD3 (FLOW)"),
    ("fails-unasked", FIT, model(fails), fits),
    ("fails", BASELINE, model(fails), "model; the network is broken"),
    ("loses-numbers", BASELINE, model(loses_numbers), "model; NaN"),
]

VAES: list[Row] = [
    ("none", P, {"vae": None}, "vae; no vae"),
    ("model", P, lambda work: {"vae": work.tiny.model}, "vae; ModelPatcher"),
    ("string", P, {"vae": "taesd"}, "vae; str"),
    ("without-weights", P, vae(nothing=torch.zeros(1)), "vae; holds no VAE; Load VAE"),
    ("4-channels", P, taesd(4), "vae; 16 channels; 4 channels"),
    ("of-pixels", P, vae(pixel_space_vae=torch.tensor(1.0)), "vae; 16 channels; 3 channels"),
    ("nan", P, taesd(CHANNELS, torch.nan), "vae; NaN; --fp32-vae"),
    ("blind", P, taesd(CHANNELS, 0.0), of_size(1, *CELLS)),
]


def degraded(degradation: str, **knobs: Any) -> dict[str, Any]:
    return {"degradation": {"degradation": degradation, **knobs}}


RESTORED: list[Row] = [
    ("no-mask", R, {"mask": None}, of_size(1, *CELLS)),
    ("white-mask", R, {"mask": torch.ones(1, HEIGHT, WIDTH)}, of_size(1, *CELLS)),
    ("grey-mask", R, {"mask": torch.full_like(DOT, 0.5)}, unlike({"mask": None})),
    ("one-pixel", R, {"mask": 1 - DOT}, of_size(1, *CELLS)),
    ("mask-size", R, {"mask": torch.ones(1, 8, 8)}, "mask; 24 x 32 pixels; 8 x 8 pixels"),
    ("mask-nan", R, given("mask", lambda t: t * torch.nan), "mask; NaN"),
    ("1-x-1", R, {**sized(1, 1, 0.0), **degraded("super-resolution", factor="8", kind="area")}, of_size(1, 1, 1)),
    ("odd-size", R, {**sized(9, 7, 0.0), **degraded("super-resolution", factor="2", kind="bicubic")}, of_size(1, 3, 2)),
    ("batch-of-2", R, {"image": GREY.expand(2, -1, -1, -1), "mask": TWO, "fills": 3}, of_size(6, *CELLS)),
    ("double", R, given("image", lambda t: t.double()), AS_USUAL),
    ("nan", R, given("image", lambda t: t * torch.nan), "image; NaN"),
    ("bytes", R, given("image", lambda t: (t * 255).byte()), "image; torch.uint8"),
    ("none", R, {"image": None}, "image; NoneType"),
    ("larger-than-the-model", R, {**sized(8, 400), "mask": None}, "model; pictures of this size"),
    ("noise-nan", R, {"noise": torch.nan}, "noise; a number; nan"),
    ("noise-negative", R, {"noise": -0.1}, "noise; -0.1"),
    ("noise-largest", R, {"noise": 1.0}, unlike({})),
    ("steps-0", R, {"steps": 0}, "steps; from 4 to 200; 0"),
    ("attempts-0", R, {"attempts": 0}, "attempts; from 1 to 20; 0"),
    ("attempts-float", R, {"attempts": 1.5}, "attempts; 1.5"),
    ("fills-text", R, {"fills": "2"}, "fills; '2'"),
    ("unknown", R, degraded("rain"), "degradation; one of none; 'rain'"),
    ("text", R, {"degradation": "none"}, "degradation; one of none; 'none'"),
    ("nothing", R, {"degradation": {}}, "degradation; None"),
    ("no-knob", R, degraded("gaussian blur"), "degradation; sigma to be a number from 0.1 to 32.0; None"),
    ("sigma-nan", R, degraded("gaussian blur", sigma=torch.nan), "degradation; sigma; nan"),
    ("wide", R, degraded("gaussian blur", sigma=6.0), "degradation; less than 24 pixels; reaches 24; smaller blur"),
    ("long", R, degraded("motion blur", length=48.0, angle=0.0), "degradation; less than 24 pixels; reaches 24"),
    ("nearly-wide", R, degraded("motion blur", length=46.0, angle=45.0), of_size(1, *CELLS)),
    ("factor", R, degraded("super-resolution", factor="3", kind="area"), "degradation; factor; one of 2, 4, 8; '3'"),
    ("factor-number", R, degraded("super-resolution", factor=2, kind="area"), "degradation; factor; found 2"),
    ("kind", R, degraded("super-resolution", factor="2", kind="lanczos"), "degradation; kind; 'lanczos'"),
    ("vae-none", R, {"vae": None}, "vae; NoneType"),
    ("vae-4-channels", R, taesd(4), "vae; 16 latent channels; 4 channels"),
    ("vae-of-pixels", R, vae(pixel_space_vae=torch.tensor(1.0)), "vae; 16 latent channels; 3 channels"),
    ("vae-without-weights", R, vae(nothing=torch.zeros(1)), "vae; holds no VAE"),
    ("vae-nan", R, taesd(CHANNELS, torch.nan), "model; NaN"),
    ("vae-blind", R, taesd(CHANNELS, 0.0), of_size(1, *CELLS)),
    ("model-fails", R, model(fails), "model; the network is broken"),
    ("model-loses-numbers", R, model(loses_numbers), "model; NaN or infinity"),
]

WIDGETS: list[Row] = [
    ("fills-0", P, {"fills": 0}, "fills; from 1 to 64; found 0"),
    ("fills-negative", P, {"fills": -1}, "fills; found -1"),
    ("fills-many", P, {"fills": 65}, "fills; found 65"),
    ("fills-half", P, {"fills": 1.5}, "fills; a whole number; 1.5"),
    ("fills-text", P, {"fills": "2"}, "fills; '2'"),
    ("fills-none", P, {"fills": None}, "fills; None"),
    ("fills-12", P, {"fills": 12}, of_size(12, *CELLS)),
    ("seed-negative", P, {"seed": -1}, "seed; from 0; found -1"),
    ("seed-largest", P, {"seed": 2**64 - 1}, unlike({})),
    ("seed-too-large", P, {"seed": 2**64}, "seed; found 18446744073709551616"),
    ("seed-float", P, {"seed": 1.0}, "seed; a whole number; 1.0"),
    ("seed-nan", P, {"seed": torch.nan}, "seed; nan"),
    ("cfg-0", P, {"cfg": 0}, AS_USUAL),
    ("cfg-0-is-the-negative-prompt", P, prompted(lambda t, s: [[t + 1, s]]), unlike({})),
    ("cfg-negative", P, {"cfg": -1.0}, "cfg; from 0.0 to 100.0; -1.0"),
    ("cfg-nan", P, {"cfg": torch.nan}, "cfg; a number; nan"),
    ("cfg-infinity", P, {"cfg": torch.inf}, "cfg; inf"),
    ("cfg-text", P, {"cfg": "4"}, "cfg; '4'"),
    ("cfg-tensor", P, {"cfg": torch.tensor(4.0)}, "cfg; tensor(4.)"),
    ("cfg-100", P, {"cfg": 100.0}, of_size(1, *CELLS)),
    ("preset-unknown", P, {"preset": "best"}, "preset; balanced; 'best'"),
    ("preset-empty", P, {"preset": ""}, "preset; ''"),
    ("preset-none", P, {"preset": None}, "preset; None"),
    ("preset-list", P, {"preset": ["fast"]}, "preset; ['fast']"),
    ("preset-upper-case", P, {"preset": "FAST"}, "preset; 'FAST'"),
    ("preset-unknown", FIT, {"preset": "best"}, "preset; balanced"),
    ("seed-negative", FIT, {"seed": -5}, "seed; -5"),
    ("cfg-nan", FIT, {"cfg": torch.nan}, "cfg; nan"),
    ("fills-0", S, {"fills": 0}, "fills; from 1 to 64"),
    ("seed-negative", S, {"seed": -5}, "seed; -5"),
    ("first-negative", S, {"first_fill": -1}, "first_fill; from 0; -1"),
    ("first-float", S, {"first_fill": 0.5}, "first_fill; 0.5"),
    ("first-huge", S, {"first_fill": 10**20}, "first_fill; 1000000"),
    ("first-last", S, {"first_fill": 1_000_000}, unlike({})),
    ("fills-0", BASELINE, {"fills": 0}, "fills; from 1 to 64"),
    ("seed-negative", BASELINE, {"seed": -5}, "seed; -5"),
    ("cfg-infinity", BASELINE, {"cfg": torch.inf}, "cfg; inf"),
    ("method-unknown", BASELINE, {"method": {"method": "best"}}, "method; ding; 'best'"),
    ("method-missing", BASELINE, {"method": {}}, "method; None"),
    ("method-none", BASELINE, {"method": None}, "method; None"),
    ("method-text", BASELINE, {"method": "ding"}, "method; 'ding'"),
    ("method-list", BASELINE, {"method": {"method": ["ding"]}}, "method; ['ding']"),
    ("knob-of-another", BASELINE, {"method": {"method": "ding", "jumps": 3}}, "method; jumps"),
    ("knob-0", BASELINE, {"method": {"method": "ding", "steps": 0}}, "method; steps; 0"),
    ("knob-huge", BASELINE, {"method": {"method": "ding", "steps": 10**9}}, "method; steps"),
    ("knob-float", BASELINE, {"method": {"method": "ding", "steps": 2.5}}, "method; steps; 2.5"),
    ("knob-text", BASELINE, {"method": {"method": "ding", "steps": "2"}}, "method; steps; '2'"),
    ("knob-nan", BASELINE, {"method": {"method": "dps", "steps": 2, "scale": torch.nan}}, "method; scale; nan"),
    ("image-nan", BASELINE, given("image", lambda t: t * torch.nan), "image; NaN"),
    ("mask-zeros", BASELINE, given("mask", torch.zeros_like), kept),
    ("mask-ones", BASELINE, given("mask", torch.ones_like), of_size(1, *CELLS)),
]

HIGH = (0.5, 1.0, 30.0)
POSTERIORS: list[Row] = [
    ("none", S, {"posterior": None}, "posterior; NoneType; VIPaintFit"),
    ("path", S, {"posterior": "cat.safetensors"}, "posterior; str"),
    ("latent", S, lambda work: {"posterior": work.latent}, "posterior; dict"),
    ("bare", S, posterior(lambda work, fitted: fitted.posterior), "posterior; HierarchicalPosterior"),
    ("family", S, posterior(lambda work, f: replace(f, family="SDXL (EPS)")), "posterior; SD3 (FLOW); SDXL (EPS)"),
    ("no-family", S, posterior(lambda work, f: replace(f, family="")), "posterior; unnamed"),
    ("4-channels", S, start(HIGH, (1, 4, 4, 3)), "posterior; 16 latent channels; 4 latent channels"),
    ("other-size", S, start(HIGH, (1, CHANNELS, 5, 7)), of_size(1, 5, 7)),
    ("larger-than-the-model", S, start(HIGH, (1, CHANNELS, 2, 50)), "model; pictures of this size"),
    ("batch-of-3", S, start(HIGH, (3, CHANNELS, 2, 2)), of_size(3, 2, 2)),
    ("1-keypoint", S, start((2.0,)), of_size(1, *CELLS)),
    ("40-keypoints", S, start(tuple(0.1 * 1.2**k for k in range(40))), of_size(1, *CELLS)),
    ("keypoint-far-up", S, start((1e-3, 1e5)), of_size(1, *CELLS)),
    ("double", S, start(HIGH, dtype=torch.float64), of_size(1, *CELLS)),
    ("levels-above", S, lambda work: {**model(discrete)(work), **start(HIGH)(work)}, "posterior; 14.6; 30"),
    (
        "nan",
        S,
        posterior(lambda work, f: replace(f, posterior=replace(f.posterior, mu=f.posterior.mu * torch.nan))),
        "posterior; NaN",
    ),
]

FILES: list[Row] = [
    ("none", SAVE, {"posterior": None}, "posterior; NoneType"),
    ("name", SAVE, {"filename_prefix": "odd/Größe 1"}, saved("odd/Größe 1_00001_.safetensors")),
    ("name-empty", SAVE, {"filename_prefix": ""}, "filename_prefix; ''"),
    ("name-blank", SAVE, {"filename_prefix": "  "}, "filename_prefix; '  '"),
    ("name-dot", SAVE, {"filename_prefix": "."}, "filename_prefix; '.'"),
    ("name-outside", SAVE, {"filename_prefix": "../odd"}, "filename_prefix; '../odd'"),
    ("name-around", SAVE, {"filename_prefix": "a/../../odd"}, "filename_prefix; inside models/vipaint"),
    ("name-absolute", SAVE, {"filename_prefix": "/tmp/odd"}, "filename_prefix; '/tmp/odd'"),
    ("name-of-folder", SAVE, {"filename_prefix": "odd/"}, "filename_prefix; 'odd/'"),
    ("name-with-null", SAVE, {"filename_prefix": "odd\0"}, "filename_prefix"),
    ("name-with-lines", SAVE, {"filename_prefix": "odd\nname"}, "filename_prefix"),
    ("name-long", SAVE, {"filename_prefix": "o" * 300}, "filename_prefix; shorter"),
    ("name-none", SAVE, {"filename_prefix": None}, "filename_prefix; None"),
    ("name-number", SAVE, {"filename_prefix": 7}, "filename_prefix; 7"),
    ("name-of-a-file", SAVE, {"filename_prefix": "usual_00001_.safetensors/odd"}, "filename_prefix; can be written"),
    ("usual", LOAD, {}, fits),
    ("missing", LOAD, {"file": "missing.safetensors"}, "file; 'missing.safetensors'; Refresh"),
    ("empty-name", LOAD, {"file": ""}, "file; ''"),
    ("none", LOAD, {"file": None}, "file; None"),
    ("outside", LOAD, {"file": "../../etc/passwd"}, "file; '../../etc/passwd'"),
    ("empty-file", LOAD, stored(lambda whole: b""), "file; odd.safetensors"),
    ("truncated", LOAD, stored(lambda whole: whole[:-100]), "file; odd.safetensors; cannot be read"),
    ("half", LOAD, stored(lambda whole: whole[: len(whole) // 2]), "file; odd.safetensors"),
    ("prolonged", LOAD, stored(lambda whole: whole + b"\0" * 8), "file; odd.safetensors"),
    ("one-bit", LOAD, stored(lambda whole: whole[:-1] + bytes([whole[-1] ^ 1])), "file; damaged or was altered"),
    ("huge-header", LOAD, stored(lambda whole: (2**62).to_bytes(8, "little") + whole[8:]), "file; cannot be read"),
    ("text", LOAD, stored(lambda whole: b"a posterior"), "file; cannot be read"),
    ("pickle", LOAD, stored(lambda whole: b"\x80\x04\x95cos\nsystem\n"), "file; cannot be read"),
    ("old", LOAD, stored(lambda whole: whole.replace(b'"version":"2"', b'"version":"1"')), "file; of version 1"),
    ("new", LOAD, stored(lambda whole: whole.replace(b'"version":"2"', b'"version":"9"')), "file; update VIPaint"),
    ("reversed-keypoints", LOAD, forged(levels=[30.0, 1.0]), "file; s_1 < ... < s_K"),
    ("more-keypoints", LOAD, forged(levels=[1.0, 2.0, 3.0]), "file; mu of shape"),
    ("endless-steps", LOAD, forged(preset={"name": "", "description": "", "levels": [1.0], "steps": 10**12}), "file"),
]

WHITE = torch.ones(1, HEIGHT, WIDTH)
PIXEL = {"fills": torch.ones(1, 1, 1, 3), "original": torch.zeros(1, 1, 1, 3), "mask": torch.ones(1, 1, 1)}
COMPOSITES: list[Row] = [
    ("black", C, {"mask": WHITE * 0}, pictures(lambda work: work.image.expand(2, -1, -1, -1))),
    ("white", C, {"mask": WHITE, "feather": 0}, pictures(lambda work: work.fills)),
    ("white-feathered", C, {"mask": WHITE, "feather": 512}, pictures(lambda work: work.fills)),
    ("one-pixel", C, {"mask": DOT}, numbers(0, 1)),
    ("all-but-one-pixel", C, {"mask": 1 - DOT}, numbers(0, 1)),
    ("checkers", C, {"mask": CHECKERS, "feather": 512}, numbers(0, 1)),
    ("1-x-1", C, PIXEL, pictures(lambda work: PIXEL["fills"])),
    ("1-x-1-seen", C, {**PIXEL, "mask": torch.zeros(1, 1, 1)}, pictures(lambda work: PIXEL["original"])),
    ("one-line", C, {"fills": GREY[:, :1], "original": GREY[:, :1], "mask": DOT[:, 5:6]}, numbers(0, 1)),
    ("alpha", C, given("fills", lambda t: torch.cat([t, t[..., :1]], -1)), AS_USUAL),
    ("half", C, given("fills", lambda t: t.half()), same_as(given("fills", lambda t: t.half().float()))),
    ("bytes", C, given("fills", lambda t: (t * 255).byte()), "fills; torch.uint8"),
    ("original-bytes", C, {"original": (GREY * 255).byte()}, "original; torch.uint8"),
    ("nan", C, given("fills", lambda t: t * torch.nan), "fills; NaN"),
    ("original-nan", C, {"original": GREY * torch.nan}, "original; NaN"),
    ("mask-nan", C, given("mask", lambda t: t * torch.nan), "mask; NaN"),
    ("mask-bytes", C, given("mask", lambda t: (t * 255).byte()), "mask; up to 255"),
    ("mask-size", C, {"mask": torch.ones(1, 8, 8)}, "mask; 24 x 32 pixels; 8 x 8 pixels"),
    ("masks-of-2", C, {"mask": torch.ones(2, HEIGHT, WIDTH)}, "mask; 2 masks"),
    ("fills-size", C, given("fills", lambda t: t[:, :20]), "fills; 24 x 32 pixels; 24 x 20 pixels"),
    ("fills-of-3", C, {"fills": GREY.expand(3, -1, -1, -1), "original": TWO[..., None]}, "fills; multiple of 2"),
    ("no-fills", C, given("fills", lambda t: t[:0]), "fills; 0 x 32 x 24 x 3"),
    ("fills-latent", C, lambda work: {"fills": work.latent}, "fills; dict"),
    ("original-none", C, {"original": None}, "original; NoneType"),
    ("mask-none", C, {"mask": None}, "mask; NoneType"),
    ("feather-negative", C, {"feather": -1}, "feather; from 0 to 512; -1"),
    ("feather-huge", C, {"feather": 10**6}, "feather; 1000000"),
    ("feather-float", C, {"feather": 1.5}, "feather; 1.5"),
    ("match-nan", C, {"colour_match": torch.nan}, "colour_match; nan"),
    ("match-negative", C, {"colour_match": -0.1}, "colour_match; -0.1"),
    ("match-0", C, {"colour_match": 0}, numbers(0, 1)),
]


def cropped(change: Callable[[Any], Any] = lambda crop: crop, **cut: Any) -> Changes:
    """Fills of a cut, and a crop that is not as it was."""

    def make(work: Any) -> dict[str, Any]:
        image, _, crop = work.run("VIPaintCrop", **cut)
        return {"fills": image, "crop": change(crop)}

    return make


CROPS: list[Row] = [
    ("black", X, {"mask": WHITE * 0}, cut_of(16, 16)),
    ("white", X, {"mask": WHITE}, cut_of(16, 16)),
    ("one-pixel", X, {"mask": DOT}, cut_of(16, 16)),
    ("one-pixel-enlarged", X, {"mask": DOT, "enlarge": 16.0}, cut_of(16, 16)),
    ("corner", X, {"mask": CORNER, "width": 64}, cut_of(16, 64)),
    ("1-x-1", X, {"image": GREY[:, :1, :1], "mask": WHITE[:, :1, :1]}, cut_of(16, 16)),
    ("one-line", X, {"image": GREY[:, :1], "mask": WHITE[:, :1]}, cut_of(16, 16)),
    ("nan", X, given("image", lambda t: t * torch.nan), "image; NaN"),
    ("bytes", X, {"image": (GREY * 255).byte()}, "image; torch.uint8"),
    ("empty", X, {"image": GREY[:0]}, "image; 0 x 32 x 24 x 3"),
    ("none", X, {"image": None}, "image; NoneType"),
    ("mask-none", X, {"mask": None}, "mask; NoneType"),
    ("mask-size", X, {"mask": torch.ones(1, 8, 8)}, "mask; 24 x 32 pixels; 8 x 8 pixels"),
    ("masks-of-2", X, {"mask": TWO}, "mask; 2 masks"),
    ("width-0", X, {"width": 0}, "width; from 16 to 8192; 0"),
    ("height-huge", X, {"height": 10**6}, "height; 1000000"),
    ("height-text", X, {"height": "512"}, "height; '512'"),
    ("context-nan", X, {"context": torch.nan}, "context; nan"),
    ("context-below-1", X, {"context": 0.5}, "context; from 1.0 to 16.0; 0.5"),
    ("enlarge-infinity", X, {"enlarge": torch.inf}, "enlarge; inf"),
    ("usual", C, cropped(), numbers(0, 1)),
    ("one-pixel", C, lambda work: {**cropped(mask=DOT)(work), "mask": DOT}, numbers(0, 1)),
    ("of-a-black-mask", C, lambda work: {**cropped(mask=WHITE * 0)(work), "mask": WHITE * 0}, numbers(0, 1)),
    ("region", C, cropped(lambda crop: crop.regions), "crop; VIPaintCrop"),
    ("dict", C, cropped(lambda crop: {}), "crop; VIPaintCrop"),
    (
        "of-2-pictures",
        C,
        cropped(lambda crop: replace(crop, regions=crop.regions * 2)),
        "original; 2 of 24 x 32 pixels",
    ),
    ("of-a-larger-picture", C, cropped(lambda crop: replace(crop, picture=(64, 64))), "original; 1 of 64 x 64 pixels"),
    ("other-fills", C, lambda work: {"crop": cropped(width=96)(work)["crop"]}, "fills; 96 x 16; 24 x 32"),
]

MAPS: list[Row] = [
    ("one", U, {"images": GREY}, "images; at least 2"),
    ("one-each", U, {"fills": 1}, "images; at least 2"),
    ("odd-number", U, {"images": GREY.expand(3, -1, -1, -1), "fills": 2}, "images; multiple of 2; batch of 3"),
    ("more-than-there-are", U, {"fills": 5}, "images; multiple of 5; batch of 2"),
    ("negative", U, {"fills": -2}, "fills; from 0; -2"),
    ("float", U, {"fills": 2.0}, "fills; 2.0"),
    ("alike", U, {"images": GREY.expand(4, -1, -1, -1)}, numbers(0, 0.02)),
    ("1-x-1", U, {"images": torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 1, 3)}, numbers(0, 1)),
    ("scale-1", U, {"full_scale": 1.0}, numbers(0, 1)),
    ("scale-smallest", U, {"full_scale": 1e-30}, numbers(0, 1)),
    ("scale-nan", U, {"full_scale": torch.nan}, "full_scale; nan"),
    ("scale-infinity", U, {"full_scale": torch.inf}, "full_scale; inf"),
    ("scale-negative", U, {"full_scale": -1.0}, "full_scale; -1.0"),
    ("nan", U, {"images": GREY * torch.nan}, "images; NaN"),
    ("bytes", U, {"images": (GREY * 255).byte().expand(2, -1, -1, -1)}, "images; torch.uint8"),
    ("3-d", U, {"images": GREY[0]}, "images; 32 x 24 x 3"),
    ("empty", U, {"images": GREY[:0]}, "images; 0 x 32 x 24 x 3"),
    ("none", U, {"images": None}, "images; NoneType"),
    ("latent", U, lambda work: {"images": work.latent}, "images; dict"),
]

# What other nodes leave on the GPU.
DEVICES: list[Row] = [
    ("image", P, given("image", lambda t: t.cuda()), AS_USUAL),
    ("mask", P, given("mask", lambda t: t.cuda()), AS_USUAL),
    ("latent", P, latent(lambda t: t.cuda()), same_as(latent())),
    ("latent-mask", P, lambda work: latent(noise_mask=work.mask[:, None].cuda())(work), same_as(latent())),
    ("prompt", P, prompted(lambda t, s: [[t.cuda(), s]]), AS_USUAL),
    ("posterior", S, posterior(lambda work, f: f.to("cuda")), AS_USUAL),
    ("image", X, given("image", lambda t: t.cuda()), cut_of(16, 16)),
    ("fills", C, given("fills", lambda t: t.cuda()), numbers(0, 1)),
    ("original", C, lambda work: {"original": work.image.cuda()}, AS_USUAL),
    ("images", U, lambda work: {"images": work.fills.cuda()}, numbers(0, 1)),
]

TABLE = {
    "image": IMAGES,
    "mask": MASKS,
    "latent": LATENTS,
    "prompt": PROMPTS,
    "model": MODELS,
    "vae": VAES,
    "widget": WIDGETS,
    "posterior": POSTERIORS,
    "file": FILES,
    "composite": COMPOSITES,
    "map": MAPS,
    "crop": CROPS,
    "restored": RESTORED,
    **({"device": DEVICES} if torch.cuda.is_available() else {}),
}
ROWS = [
    pytest.param(*row[1:], id=f"{topic}-{row[0]}-{row[1].removeprefix('VIPaint')}")
    for topic, rows in TABLE.items()
    for row in rows
]


@pytest.mark.parametrize(("node", "changes", "expected"), ROWS)
def test_odd_inputs(work, node: str, changes: Changes, expected: str | Check) -> None:
    inputs = changes(work) if callable(changes) else changes
    if callable(expected):
        expected(work, node, work.run(node, **inputs))
    else:
        name, *words = expected.split("; ")
        with pytest.raises(ValueError, match=node) as caught:
            work.run(node, **inputs)
        sentence = SENTENCE.fullmatch(str(caught.value))
        assert sentence and sentence.groups() == (node, name), caught.value
        assert all(word in str(caught.value) for word in words), caught.value
    assert torch.equal(work.run("VIPaintInpaint")[0]["samples"], work.before)


def interrupt() -> None:
    import comfy.model_management

    comfy.model_management.interrupt_current_processing()
    comfy.model_management.throw_exception_if_processing_interrupted()


def run_out_of_memory() -> None:
    raise torch.OutOfMemoryError("no memory is left")


def paint_until(work: Any, preset: str, event: Callable[[], None]) -> None:
    """Paints; the event comes with the network's second call and all after it, and reaches the host as it is."""
    from comfy.model_management import InterruptProcessingException

    calls = []

    def second(given: Any) -> torch.Tensor:
        calls.append(None)
        if len(calls) > 1:
            event()
        return given["denoised"]

    model = work.tiny.model.clone()
    model.set_model_sampler_post_cfg_function(second)
    with pytest.raises(InterruptProcessingException if event is interrupt else torch.OutOfMemoryError):
        work.run("VIPaintInpaint", preset=preset, model=model)


PRESETS = ["fast", "balanced", "paper-2"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("event", [interrupt, run_out_of_memory])
def test_the_host_s_own_events_reach_it(work, event: Callable[[], None], preset: str) -> None:
    """It frees memory, or says that the prompt was stopped, only where it sees them as they are."""
    import comfy.model_management

    before = work.run("VIPaintInpaint", preset=preset)[0]["samples"]
    paint_until(work, preset, event)
    assert not comfy.model_management.in_training
    assert torch.equal(work.run("VIPaintInpaint", preset=preset)[0]["samples"], before)


def test_an_interrupt_of_older_hosts_reaches_them(work, monkeypatch) -> None:
    """There it is an Exception."""
    import comfy.model_management

    class Interrupt(Exception):
        pass

    monkeypatch.setattr(comfy.model_management, "InterruptProcessingException", Interrupt)
    paint_until(work, "balanced", interrupt)


def live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize("preset", PRESETS)
def test_no_tensor_outlives_a_run(work, preset: str) -> None:
    def runs() -> None:
        work.run("VIPaintInpaint", preset=preset)
        paint_until(work, preset, interrupt)
        paint_until(work, preset, run_out_of_memory)

    runs()
    before = live_tensors()
    runs()
    assert live_tensors() == before


def test_every_node_is_in_the_table(pack) -> None:
    assert {row.values[0] for row in ROWS} == {node.GET_SCHEMA().node_id for node in pack.NODES}
