"""The guider's conditioning, prepared for the denoiser: ordinary tensors, and latents of other sizes."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import comfy.conds
import comfy.controlnet
import comfy.samplers
import torch

Conds = dict[str, list[dict[str, Any]]]


@contextlib.contextmanager
def replaced_conditioning(guider: Any, conds: Conds) -> Iterator[None]:
    """Other processed conditioning in the guider for the time being: the host cleans up what it has prepared itself."""
    before = guider.conds
    guider.conds = conds
    try:
        yield
    finally:
        guider.conds = before


def conditioning_at(guider: Any, latents: torch.Tensor, factor: int) -> Conds:
    """The guider's conditioning processed anew for latents of 1 / factor of its own size.

    Masks, control pictures and pictures of inpainting models are resized by the host. Areas in cells are divided here.

    latents: of the new size, in the host's shape.
    """
    conds = {name: [_reduced(cond, factor) for cond in conds] for name, conds in guider.original_conds.items()}
    comfy.samplers.preprocess_conds_hooks(conds)
    comfy.samplers.filter_registered_hooks_on_conds(conds, guider.model_options)
    zeros = torch.zeros_like(latents)
    found: Conds = comfy.samplers.process_conds(guider.inner_model, zeros, conds, latents.device, zeros)
    return found


def _reduced(cond: dict[str, Any], factor: int) -> dict[str, Any]:
    area = cond.get("area")
    if area is None or area[0] == "percentage":
        return cond.copy()
    half = len(area) // 2
    sizes, places = (tuple(part // factor for part in area[:half]), tuple(part // factor for part in area[half:]))
    return {**cond, "area": (*(max(1, size) for size in sizes), *places)}


def without_inference_tensors(conds: Conds) -> Conds:
    """A copy whose inference tensors are ordinary clones, which autograd needs."""
    copied: Conds = _ordinary(conds, {})
    return copied


def _ordinary(value: Any, known: dict[int, Any]) -> Any:
    """A copy without inference tensors. The host compares by identity, hence one copy per object."""
    if id(value) in known:
        return known[id(value)]
    result = value
    if isinstance(value, torch.Tensor):
        result = value.clone() if value.is_inference() else value
    elif isinstance(value, dict):
        result = {key: _ordinary(item, known) for key, item in value.items()}
    elif isinstance(value, list):
        result = [_ordinary(item, known) for item in value]
    elif isinstance(value, tuple):
        items = [_ordinary(item, known) for item in value]
        result = type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    elif isinstance(value, comfy.conds.CONDRegular):
        result = copy.copy(value)
        result.cond = _ordinary(value.cond, known)
    elif isinstance(value, comfy.controlnet.ControlBase):
        result = copy.copy(value)
        for name in ("previous_controlnet", "cond_hint_original", "extra_concat_orig"):
            setattr(result, name, _ordinary(getattr(value, name), known))
        result.vae = None if value.vae is None else _EncodesOnce(value.vae)
    known[id(value)] = result
    return result


class _EncodesOnce:
    """The VAE of a ControlNet, which asks it for the latents of its picture whenever the size is not the last one.

    The picture does not depend on the state: each size of it is encoded once, outside of the graph.
    """

    def __init__(self, vae: Any) -> None:
        self._vae, self._latents = vae, dict[torch.Size, torch.Tensor]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        if pixels.shape not in self._latents:
            with torch.no_grad():
                self._latents[pixels.shape] = self._vae.encode(pixels)
        return self._latents[pixels.shape].clone()
