"""A posterior given a chosen fill: more like it, or with a part of it kept."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from comfy.model_patcher import ModelPatcher

from ..vipaint_core import FittedPosterior, KeptContent, around, given_cells
from ..vipaint_core.imaging.holes import latent_hole, pad_to_cells
from . import preflight, validation
from .errors import InputError
from .host.messages import say, warn
from .host.model_info import ModelInfo, level_of_strength
from .observation import in_model_scale

# Pixels along a latent cell, of all VAEs that there are.
CELLS = (32, 16, 8, 4, 2, 1)
# Any odd number of 64 bits.
OTHER_NOISE = 0x9F4A7C15D1B54A33


def seed_around(seed: int) -> int:
    """The seed of draws around a fill: the noise that a fill was itself drawn with would lead back to it."""
    return seed ^ OTHER_NOISE


class Chosen(NamedTuple):
    """What the node is given beside a posterior: fills (a LATENT), from 0 to 1 how far to leave them, what to keep."""

    around: dict[str, Any] | None
    variation: float
    keep: torch.Tensor | None


class Varied(NamedTuple):
    """posterior: to draw from, a row for each chosen fill. open: the same before `variation` 0 left nothing to draw."""

    posterior: FittedPosterior
    open: FittedPosterior


def varied(model: ModelPatcher, info: ModelInfo, fitted: FittedPosterior, chosen: Chosen) -> Varied:
    """The posterior given the chosen fills, the posterior itself where there are none. Raises InputError."""
    if chosen.around is None:
        preflight.check_chosen({} if chosen.keep is None else {"keep": chosen.keep})
        return Varied(fitted, fitted)
    latents = _chosen_latents(info, fitted, chosen.around)
    mask = None if chosen.keep is None else validation.check_mask("keep", chosen.keep)
    if mask is not None:
        latents, mask = validation.pair("keep", mask, latents)
    pictures = len(fitted.observation.y)
    if len(latents) % pictures:
        raise InputError(
            "around",
            f"one fill of each of {pictures} pictures or masks, or the same number of each",
            f"{len(latents)}",
            "Choose a fill of every picture in VIPaint Choose Fill.",
        )
    each = len(latents) // pictures
    if mask is None and chosen.variation >= 1 and each == 1:
        return Varied(fitted, fitted)
    fitted = fitted.rows(torch.arange(pictures).repeat_interleave(each))
    if mask is not None:
        fitted = given_cells(fitted, latents, _kept_weight(fitted, mask))
        if bool(fitted.observation.complete.all()):
            warn("keep covers the whole hole, so there is nothing to draw: the fill is returned")
    if chosen.variation >= 1:
        return Varied(fitted, fitted)
    if chosen.variation <= 0:
        warn("variation 0 keeps the whole fill, so there is nothing to draw")
        return Varied(given_cells(fitted, latents, torch.ones_like(fitted.observation.cell_weight)), fitted)
    level = level_of_strength(model, info.coordinate, chosen.variation)
    begun = around(fitted, KeptContent(latents, level))
    return Varied(begun, begun)


def _chosen_latents(info: ModelInfo, fitted: FittedPosterior, latent: dict[str, Any]) -> torch.Tensor:
    """Chosen fills (N, C, H, W) in model scale."""
    samples = validation.check_latent(info, latent, "around")
    _, height, width = fitted.observation.shape
    if tuple(samples.shape[-2:]) != (height, width):
        raise InputError(
            "around",
            f"a fill of {width} x {height} latent cells, as the posterior's",
            f"one of {samples.shape[-1]} x {samples.shape[-2]}",
            "Connect the latent of a fill as VIPaint painted it, before it is enlarged or cut.",
        )
    with torch.inference_mode(False), torch.no_grad():
        return in_model_scale(info, samples)


def _kept_weight(fitted: FittedPosterior, mask: torch.Tensor) -> torch.Tensor:
    """The weight of each latent cell, (N, 1, h, w), of a mask (N, 1, H, W): a cell is kept as far as all of it is.

    Raises InputError for a mask of another size, and for one that keeps no hidden cell.
    """
    _, height, width = fitted.observation.shape
    cell = next(
        (cell for cell in CELLS if -(-mask.shape[-2] // cell) == height and -(-mask.shape[-1] // cell) == width), 0
    )
    if not cell:
        raise InputError(
            "keep",
            f"a mask of the fill's size, {width} x {height} latent cells ({8 * width} x {8 * height} pixels with most "
            "models)",
            f"{mask.shape[-1]} x {mask.shape[-2]} pixels",
            "Paint it on the fill itself, as VAE Decode or VIPaint Composite shows it.",
        )
    with torch.inference_mode(False), torch.no_grad():
        padded = pad_to_cells(mask.detach().clone(), cell)
        weight = (1 - latent_hole(1 - padded, (height, width))).cpu().clone()
    hidden = fitted.observation.cell_weight < 1
    added = (weight > fitted.observation.cell_weight) & hidden
    for row, own in enumerate(added):
        if not own.any() and bool(hidden[row].any()):
            raise InputError(
                "keep",
                "white over at least one whole latent cell of the hole (8 x 8 pixels with most models)",
                "a black mask" if not mask[row].any() else "white that covers none of them",
                "Paint white over what is to be kept, a little beyond its edge.",
            )
    say(f"keeps {float(added.sum() / hidden.sum().clamp_min(1)):.0%} of the hole")
    return weight
