"""Checks of what reaches the nodes: every one raises an InputError."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator
from typing import Any

import torch
from comfy.sd import VAE
from comfy_api.v0_0_2 import io

from ..vipaint_core import SHOWN_TOO, FittedPosterior, gain_levels, reachable_level, shown_too
from ..vipaint_core.imaging.masks import snapped
from .errors import InputError
from .host.model_info import ModelInfo

# Colours of pictures with a high dynamic range stay below; 8-bit numbers do not.
BRIGHTEST = 16.0
# Side in pixels of the black mask that the host's Load Image gives where a picture has no transparency.
PLACEHOLDER = 64


def size(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "no size"


def check_widgets(node: type[io.ComfyNode], **values: Any) -> None:
    """Values within the limits of their widgets: the host checks what is typed in, not what comes by a link."""
    for socket in node.define_schema().inputs:
        flaw = _flaw(socket, values[socket.id]) if socket.id in values else None
        if flaw is not None:
            raise InputError(socket.id, *flaw, "Choose another value.")


def _flaw(socket: io.Input, value: Any) -> tuple[str, str] | None:
    """What is expected of a widget, and what was found, where that is something else."""
    if isinstance(socket, io.DynamicCombo.Input):
        settings = {option.key: option.inputs for option in socket.options}
        key = value.get(socket.id) if isinstance(value, dict) else value
        if not isinstance(value, dict) or not isinstance(key, str) or key not in settings:
            return f"one of {', '.join(settings)}", reprlib.repr(key)
        for setting in settings[key]:
            flaw = _flaw(setting, value.get(setting.id))
            if flaw is not None:
                return f"{setting.id} to be {flaw[0]}", flaw[1]
        return None
    if isinstance(socket, io.Combo.Input):
        good, expected = value in socket.options, f"one of {', '.join(socket.options)}"
    else:
        kind, words = (int, "a whole number") if isinstance(socket, io.Int.Input) else ((int, float), "a number")
        good = isinstance(value, kind) and not isinstance(value, bool) and socket.min <= value <= socket.max
        expected = f"{words} from {socket.min} to {socket.max}"
    return None if good else (expected, reprlib.repr(value))


def check_tensor(name: str, value: Any, what: str, fix: str) -> torch.Tensor:
    """A plain tensor of finite real numbers, at least one."""
    if not isinstance(value, torch.Tensor):
        raise InputError(name, what, type(value).__name__, fix)
    if value.layout is not torch.strided or value.is_meta or value.is_complex() or value.is_quantized:
        found = f"a tensor of another kind ({value.dtype}, {value.layout}, {value.device.type})"
        raise InputError(name, what, found, fix)
    if not value.numel():
        raise InputError(name, what, f"an empty batch or size: {size(value)}", fix)
    if not bool(torch.isfinite(value.float()).all()):
        raise InputError(name, "finite numbers", "NaN or infinity", fix)
    return value


def check_vae(vae: VAE) -> None:
    if not callable(getattr(vae, "spacial_compression_encode", None)):
        raise InputError("vae", "a VAE", type(vae).__name__, "Connect a VAE output.")
    if getattr(vae, "first_stage_model", vae) is None:
        raise InputError("vae", "a VAE", "none: the checkpoint holds no VAE", "Load the model's VAE with Load VAE.")


def check_decoder(info: ModelInfo, vae: VAE) -> None:
    """A VAE whose latents are the model's."""
    check_vae(vae)
    if vae.latent_channels != info.channels:
        raise InputError(
            "vae",
            f"one of {info.channels} latent channels, as {info.family} has",
            f"{vae.latent_channels} channels",
            "Connect the VAE that belongs to the model.",
        )


def check_conditioning(name: str, conditioning: Any) -> None:
    """One prompt for all rows: fills of one picture must not get the prompts of others."""
    fix = "Connect a text encoder or VIPaint Unconditional."
    if not isinstance(conditioning, list):
        raise InputError(name, "a conditioning", type(conditioning).__name__, fix)
    if not conditioning:
        raise InputError(name, "at least one conditioning", "none", fix)
    for entry in conditioning:
        if not isinstance(entry, (list, tuple)) or len(entry) != 2 or not isinstance(entry[1], dict):
            raise InputError(name, "a conditioning: pairs of tensor and settings", "another structure", fix)
        cross, settings = entry
        texts = [value for value in (cross, settings.get("pooled_output")) if value is not None]
        for text in texts:
            check_tensor(name, text, "an encoded prompt", "Encode it again with the model's text encoder.")
        if cross is not None and cross.ndim != 3:
            raise InputError(name, "an encoded prompt (batch, tokens, channels)", size(cross), fix)
        for what, batch in _batches(cross, settings):
            if isinstance(batch, torch.Tensor) and batch.ndim > 1 and len(batch) > 1:
                raise InputError(
                    name,
                    f"one of the {what} for all pictures",
                    f"a batch of {len(batch)} {what}",
                    "Paint pictures with different conditioning one after the other.",
                )


# What the host would deal out to rows, by the key of a conditioning's settings.
_NAMES = {
    "pooled_output": "pooled prompts",
    "concat_latent_image": "inpainting pictures",
    "concat_mask": "inpainting masks",
    "mask": "masks",
    "reference_latents": "reference pictures",
}


def _batches(cross: Any, settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What of a conditioning the host would deal out to rows, by name: tensors of any of its fields."""
    yield "prompts", cross
    for key, value in settings.items():
        if key in ("mask", "concat_mask") and isinstance(value, torch.Tensor) and value.ndim == 2:
            # A single one, without an axis of rows.
            continue
        for tensor in _tensors(value):
            yield _NAMES.get(key, f"`{key}`"), tensor
    control = settings.get("control")
    while control is not None:
        yield "control pictures", getattr(control, "cond_hint_original", None)
        for extra in getattr(control, "extra_concat_orig", None) or ():
            yield "control masks", extra
        control = getattr(control, "previous_controlnet", None)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def check_latent(info: ModelInfo, latent: Any, name: str = "latent_image") -> torch.Tensor:
    """The samples of a LATENT that suit the model, (B, C, H, W) or, with a frame, (B, C, 1, H, W).

    name: the input that they come from.
    """
    samples = latent.get("samples") if isinstance(latent, dict) else None
    found = "another structure"
    if isinstance(samples, torch.Tensor) and not samples.is_nested:
        found = "" if _is_single(info, samples) else size(samples)
    if not isinstance(samples, torch.Tensor) or found:
        raise InputError(
            name,
            f"the latent of single pictures for {info.family}",
            f"{found}, as video and audio models use",
            "Encode a picture with the VAE of an image model.",
        )
    if samples.shape[1] != info.channels:
        raise InputError(
            name,
            f"{info.channels} channels, as {info.family} has",
            f"{samples.shape[1]} channels",
            "Encode the picture with the VAE that belongs to the model.",
        )
    fix = "Encode again; some VAEs need more precision: start ComfyUI with --fp32-vae."
    check_tensor(name, samples, "an encoded picture", fix)
    if not samples.is_floating_point():
        raise InputError(name, "floating-point numbers", f"whole numbers ({samples.dtype})", fix)
    return samples


def _is_single(info: ModelInfo, samples: torch.Tensor) -> bool:
    """Whether latents have the shape of single pictures."""
    return samples.ndim == 4 or (samples.ndim == 5 and samples.shape[2] == 1 and info.has_frame_axis)


def check_mask(name: str, mask: Any) -> torch.Tensor:
    """Masks as (N, 1, H, W) float in [0, 1], nearly black and nearly white ones snapped."""
    mask = check_tensor(name, mask, "a mask (batch, height, width)", "Check the node that makes the mask.")
    if mask.ndim not in (2, 3, 4) or (mask.ndim == 4 and mask.shape[1] != 1):
        raise InputError(name, "a mask (batch, height, width)", size(mask), "Connect a MASK output.")
    whole, mask = not mask.is_floating_point(), mask.reshape(-1, 1, *mask.shape[-2:]).float()
    if whole and float(mask.max()) > 1:
        raise InputError(
            name, "values from 0 to 1", f"whole numbers up to {int(mask.max())}", "Divide the mask by 255."
        )
    return snapped(mask.clamp(0, 1))


def pair(name: str, mask: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures or latents (B, ...) and masks (N, 1, H, W), one for each: one of them serves all of the others.

    name: the input of the mask.
    """
    if len(mask) != len(rows) and 1 not in (len(mask), len(rows)):
        raise InputError(
            name,
            f"1 mask or {len(rows)}, one for each picture",
            f"{len(mask)} masks",
            "Repeat or cut the batch of masks or of pictures. Any number of masks goes with a single picture.",
        )
    count = max(len(mask), len(rows))
    return rows.expand(count, *rows.shape[1:]), mask.expand(count, *mask.shape[1:])


def check_masked_pictures(name: str, mask: Any, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (B, H, W, C) and their masks (B, 1, H, W), see `check_mask` and `pair`."""
    found = check_mask(name, mask)
    if found.shape[-2:] != pictures.shape[1:3]:
        refuse_placeholder(name, found)
        height, width = pictures.shape[1:3]
        raise InputError(
            name,
            f"the picture's size, {width} x {height} pixels",
            f"{found.shape[-1]} x {found.shape[-2]} pixels",
            "Resize the mask to the picture.",
        )
    return pair(name, found, pictures)


def check_masked_latents(name: str, mask: Any, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (B, C, ..., h, w) and their masks (B, 1, H, W) of any size, see `check_mask` and `pair`."""
    found = check_mask(name, mask)
    # Of a picture of 64 x 64 pixels a black mask of that size may have been painted.
    if tuple(samples.shape[-2:]) != (PLACEHOLDER // 8, PLACEHOLDER // 8):
        refuse_placeholder(name, found)
    return pair(name, found, samples)


def refuse_placeholder(name: str, mask: torch.Tensor) -> None:
    """Raises InputError for the mask that the host's Load Image gives with pictures without transparency."""
    if tuple(mask.shape[-2:]) == (PLACEHOLDER, PLACEHOLDER) and not mask.any():
        raise InputError(
            name,
            "a painted mask",
            f"the black mask of {PLACEHOLDER} x {PLACEHOLDER} pixels that Load Image gives where none was painted",
            "Right-click Load Image, choose Open in Mask Editor, paint over what is to be replaced and save; "
            "or connect the mask of another node.",
        )


def check_image(name: str, image: Any, with_alpha: bool = False) -> torch.Tensor:
    """The picture as (B, H, W, 3) float, or (B, H, W, 4) where it has an alpha that is wanted."""
    fix = "Check the node that makes the picture."
    image = check_tensor(name, image, "a picture (batch, height, width, 3)", fix)
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise InputError(name, "a picture (batch, height, width, 3)", size(image), "Connect an IMAGE output.")
    largest = float(image.abs().max()) if image.is_floating_point() else None
    if largest is None or largest > BRIGHTEST:
        found = f"whole numbers ({image.dtype})" if largest is None else f"values up to {largest:.0f}"
        raise InputError(name, "colours from 0 to 1", found, "Divide the colours by 255.")
    image = image.float()
    return image.expand(-1, -1, -1, 3) if image.shape[-1] == 1 else image[..., : 4 if with_alpha else 3]


def check_posterior(info: ModelInfo, fitted: Any, name: str = "posterior") -> None:
    """A posterior that was fitted with a model of the same family. name: of the input."""
    if not isinstance(fitted, FittedPosterior):
        raise InputError(
            name,
            "a VIPaint posterior",
            type(fitted).__name__,
            "Connect VIPaint Fit Posterior or VIPaint Load Posterior.",
        )
    found = fitted.observation.shape[0]
    if fitted.family != info.family or found != info.channels:
        raise InputError(
            name,
            f"one fitted with {info.family}, {info.channels} latent channels, as the connected model",
            f"one fitted with {fitted.family or 'an unnamed family'}, {found} latent channels",
            "Connect the model that it was fitted with, or fit again.",
        )
    parameters = (fitted.posterior.mu, fitted.posterior.log_tau, fitted.posterior.gamma)
    if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
        raise InputError(name, "finite numbers", "NaN or infinity", "Fit again, with a lower cfg or another preset.")
    highest = fitted.posterior.levels[-1]
    limit = reachable_level(info.largest_level, fitted.observation.shape)
    if highest > limit * 1.001:
        raise InputError(
            name,
            f"keypoints at noise levels up to {limit:.3g}, which the model knows",
            f"a keypoint at {highest:.3g}",
            "Connect the model that it was fitted with, or fit again.",
        )


def check_start(fitted: FittedPosterior, given: FittedPosterior) -> None:
    """Whether the gains of a given posterior may serve another one, which has none yet.

    Raises InputError, where `start_from` raises ValueError too.
    """
    gains, shape, found = given.gains, fitted.observation.shape, given.observation.shape
    if gains is None or not gains.levels:
        raise InputError(
            "start_from",
            "a posterior that has gains",
            f"one of `{given.preset.name}` without",
            "Fit it with `balanced`, without a chosen fill and with strength 1.",
        )
    if shape != found or fitted.observation.y.shape[1:] != given.observation.y.shape[1:]:
        raise InputError(
            "start_from",
            f"one of latents of {shape[2]} x {shape[1]} cells, as the picture",
            f"one of {found[2]} x {found[1]}",
            "Resize the picture, or fit it by itself.",
        )
    wanted = gain_levels(fitted)
    if not wanted or not wanted <= set(gains.levels):
        raise InputError(
            "start_from",
            f"one that was fitted for the noise levels of `{fitted.preset.name}`",
            f"one of `{given.preset.name}`",
            "Choose the preset and the strength that it was fitted with.",
        )
    if (share := shown_too(fitted.observation, given.observation)) < SHOWN_TOO:
        raise InputError(
            "start_from",
            f"one whose mask shows at least {100 * SHOWN_TOO:.0f} % of what this mask shows",
            f"one that shows {math.floor(100 * share)} %",
            "Fit this picture by itself, or start from one whose hole is nearly in the same place.",
        )


def fills_per_picture(name: str, rows: int, pictures: int) -> int:
    """Fills per picture, or per mask of one picture, of a batch that holds all fills of the first one first."""
    if rows % pictures:
        raise InputError(
            name,
            f"a multiple of {pictures}, the same number of fills for each picture or mask",
            f"a batch of {rows}",
            "Connect the fills, the pictures and the masks of one run.",
        )
    return rows // pictures
