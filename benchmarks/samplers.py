"""Everything that paints in the toy benchmark, by name, each through a node of the host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tools import in_process
from toy_prior import model as toy

PACK = in_process.load_pack()

import nodes as stock  # noqa: E402  (the host's: `toy_prior.model` has activated it)

KSAMPLER = "masked KSampler"
JACOBIAN_FREE = "balanced, jacobian_free"


@dataclass(frozen=True)
class Task:
    """originals (N, 3, H, W) in [0, 1], one mask (H, W) for all of them, True is painted."""

    model: Any
    vae: Any
    conditioning: Any
    originals: torch.Tensor
    mask: torch.Tensor
    fills: int
    seed: int

    @property
    def picture(self) -> dict[str, Any]:
        """The host's image and mask, as this pack's nodes take them."""
        image = self.originals.movedim(1, -1)
        return {"image": image, "mask": self.mask[None].float().expand(len(image), -1, -1), "vae": self.vae}

    @property
    def latent(self) -> dict[str, torch.Tensor]:
        """The host's LATENT, a row per fill: the same encoded picture as this pack's, nothing hidden is in it."""
        hole = self.picture["mask"][:, None]
        latents = self.vae.encode(PACK.observe.fill_from_nearest(self.picture["image"], hole))
        return {
            "samples": latents.repeat_interleave(self.fills, 0),
            "noise_mask": hole.repeat_interleave(self.fills, 0),
        }


@dataclass(frozen=True)
class Sampler:
    """draw(task): latents (N * fills, C, H, W) in the host's scale, all fills of the first picture first.
    settings: what decides them beside the task."""

    draw: Callable[[Task], torch.Tensor]
    settings: Any


def masked_ksampler() -> Sampler:
    def draw(task: Task) -> torch.Tensor:
        latent = task.latent
        return toy.ksampler(task.model, task.conditioning, latent["samples"], task.seed, latent["noise_mask"])

    return Sampler(draw, toy.EULER_STEPS)


def preset(name: str, **inputs: Any) -> Sampler:
    """VIPaint Inpaint at its defaults, but for `inputs`."""
    settings = PACK.core.PRESETS[name]
    draw = partial(_ours, PACK.inpaint.VIPaintInpaint, preset=name, **inputs)
    return Sampler(draw, (settings, inputs) if inputs else settings)


def baseline(name: str) -> Sampler:
    node, settings = PACK.baseline.VIPaintBaseline, PACK.baseline.BASELINES[name].settings()
    return Sampler(lambda task: _ours(node, task, method={"method": name}), settings)


def _ours(node: Any, task: Task, **inputs: Any) -> torch.Tensor:
    conditioning = (task.conditioning, task.conditioning)
    output = node.execute(
        task.model, *conditioning, seed=task.seed, cfg=1.0, fills=task.fills, **inputs, **task.picture
    )
    return output.result[0]["samples"]


@dataclass(frozen=True)
class External:
    """A sampler node of another installed pack at its defaults, but for `inputs`."""

    node_id: str
    inputs: dict[str, Any]

    def __call__(self, model: Any, conditioning: Any, **given: Any) -> dict[str, torch.Tensor]:
        """The host's LATENT that it makes of a model, one prompt, `latent_image`, `seed` and `cfg`."""
        node = stock.NODE_CLASS_MAPPINGS[self.node_id]
        given |= {"model": model, "positive": conditioning, "negative": conditioning}
        (out,) = getattr(node(), node.FUNCTION)(**_defaults(node), **given | self.inputs)
        return out

    def draw(self, task: Task) -> torch.Tensor:
        return self(task.model, task.conditioning, latent_image=task.latent, seed=task.seed, cfg=1.0)["samples"]


def _defaults(node: Any) -> dict[str, Any]:
    """What a new node of this class has in its widgets; links, seed and guidance are the task's."""
    found = {}
    for name, (kind, *options) in node.INPUT_TYPES()["required"].items():
        if isinstance(kind, str) and kind.isupper() and kind not in ("INT", "FLOAT", "STRING", "BOOLEAN"):
            continue
        if name not in ("seed", "cfg"):
            widget = options[0] if options else {}
            found[name] = widget["default"] if "default" in widget else kind[0]
    return found


# Samplers of other packs that take part where their pack is there.
EXTERNAL = {"LanPaint": External("LanPaint_KSampler", {})}


def load_packs(folders: list[Path]) -> None:
    """Makes the nodes of other packs known to the host. Raises ValueError for folders without nodes."""
    for folder in folders:
        if not asyncio.run(stock.load_custom_node(str(folder.resolve()))):
            raise ValueError(f"expected a pack with nodes in {folder}, found none; the host's message is above")


def samplers() -> Mapping[str, Sampler]:
    """All that can be run here, by name."""
    return {
        KSAMPLER: masked_ksampler(),
        **{name: preset(name) for name in PACK.core.PRESETS},
        JACOBIAN_FREE: preset("balanced", gradients="jacobian_free"),
        **{name: baseline(name) for name in PACK.baseline.BASELINES},
        **{name: Sampler(node.draw, (node.node_id, node.inputs)) for name, node in EXTERNAL.items()},
    }
