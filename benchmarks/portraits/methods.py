"""Everything that paints in portraits, by name, each through a node of the host."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import rearrange, repeat

from benchmarks.harness.host import PACK, stock
from benchmarks.harness.keys import preset_settings
from toy_prior import model as toy

KSAMPLER = "masked KSampler"
JACOBIAN_FREE = "balanced, jacobian_free"


@dataclass(frozen=True)
class Task:
    """What is painted: fills of one hole in several pictures.

    pictures: (N, 3, H, W) in [0, 1].
    hole: (H, W) bool, True is painted.
    positive, negative: prompts for all pictures, zeros where None. cfg: their guidance scale.
    """

    model: Any
    vae: Any
    pictures: torch.Tensor
    hole: torch.Tensor
    fills: int
    seed: int
    positive: Any = None
    negative: Any = None
    cfg: float = 1.0

    @property
    def conditioning(self) -> Any:
        return PACK.host.text_inputs.zero_conditioning(self.model) if self.positive is None else self.positive

    @property
    def prompts(self) -> dict[str, Any]:
        """What a sampler's node is told: `positive`, `negative` and `cfg`."""
        negative = self.conditioning if self.negative is None else self.negative
        return {"positive": self.conditioning, "negative": negative, "cfg": self.cfg}

    @property
    def image_inputs(self) -> dict[str, Any]:
        """The picture as this pack's nodes take it: `image`, `mask` and `vae`."""
        image = rearrange(self.pictures, "n c h w -> n h w c")
        return {"image": image, "mask": repeat(self.hole.float(), "h w -> n h w", n=len(image)), "vae": self.vae}

    @property
    def latent_input(self) -> dict[str, torch.Tensor]:
        """The host's LATENT, a row per fill: the same encoded picture as this pack's, nothing hidden is in it."""
        hole = rearrange(self.image_inputs["mask"], "n h w -> n 1 h w")
        latents = self.vae.encode(PACK.observation.fill_from_nearest(self.image_inputs["image"], hole))
        rows = {"samples": latents, "noise_mask": hole}
        return {name: repeat(part, "n ... -> (n fills) ...", fills=self.fills) for name, part in rows.items()}


@dataclass(frozen=True)
class Method:
    """draw(task): latents (N * fills, C, H, W) in the host's scale, all fills of the first picture first.

    settings: what decides them beside the task.
    """

    draw: Callable[[Task], torch.Tensor]
    settings: Any


def masked_ksampler(task: Task) -> torch.Tensor:
    latent, prompts = task.latent_input, task.prompts
    return toy.ksampler(
        task.model,
        prompts["positive"],
        latent["samples"],
        task.seed,
        latent["noise_mask"],
        cfg=prompts["cfg"],
        negative=prompts["negative"],
    )


def preset_method(name: str, **inputs: Any) -> Method:
    """VIPaint Inpaint at its defaults, but for `inputs`."""
    settings = {**preset_settings(PACK.core.PRESETS[name]), "inputs": inputs}
    return Method(partial(_execute, PACK.inpaint.VIPaintInpaint, {"preset": name, **inputs}), settings)


def sampler_method(name: str, steps: int) -> Method:
    """VIPaint Sampler at the levels of so many steps of the host's schedule `simple`."""
    settings = {**preset_settings(PACK.core.PRESETS[name]), "simple": steps}

    def draw(task: Task) -> torch.Tensor:
        custom = importlib.import_module("comfy_extras.nodes_custom_sampler")
        (sampler,) = PACK.sampler.VIPaintSampler.execute(name).result
        (sigmas,) = custom.BasicScheduler.execute(task.model, "simple", steps, 1.0).result
        prompts = task.conditioning, task.conditioning
        run = custom.SamplerCustom.execute
        samples: torch.Tensor = run(
            task.model, True, task.seed, 1.0, *prompts, sampler, sigmas, task.latent_input
        ).result[0]["samples"]
        return samples

    return Method(draw, settings)


def baseline_method(name: str) -> Method:
    """VIPaint Baseline at the method's own settings."""
    settings = PACK.baseline.BASELINES[name].settings()
    return Method(partial(_execute, PACK.baseline.VIPaintBaseline, {"method": {"method": name}}), settings)


def _execute(node: Any, inputs: dict[str, Any], task: Task) -> torch.Tensor:
    """What a node of this pack paints."""
    common = {"model": task.model, **task.prompts, "seed": task.seed, "fills": task.fills}
    samples: torch.Tensor = node.execute(**common, **inputs, **task.image_inputs).result[0]["samples"]
    return samples


@dataclass(frozen=True)
class ExternalSampler:
    """A sampler node of another installed pack at its defaults, but for `inputs`."""

    node_id: str
    inputs: dict[str, Any]

    def __call__(self, **given: Any) -> dict[str, torch.Tensor]:
        """The host's LATENT that it makes of `model`, `positive`, `negative`, `latent_image`, `seed` and `cfg`."""
        node = stock.NODE_CLASS_MAPPINGS[self.node_id]
        (out,) = getattr(node(), node.FUNCTION)(**_widget_defaults(node), **given | self.inputs)
        return out

    def draw(self, task: Task) -> torch.Tensor:
        return self(model=task.model, latent_image=task.latent_input, seed=task.seed, **task.prompts)["samples"]


def _widget_defaults(node: Any) -> dict[str, Any]:
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
EXTERNAL = {"LanPaint": ExternalSampler("LanPaint_KSampler", {})}


def methods() -> dict[str, Method]:
    """All that can be run here, by name."""
    return {
        KSAMPLER: Method(masked_ksampler, {"steps": toy.EULER_STEPS}),
        **{name: preset_method(name) for name in PACK.core.PRESETS},
        JACOBIAN_FREE: preset_method("balanced", gradients="jacobian_free"),
        **{name: baseline_method(name) for name in PACK.baseline.BASELINES},
        **{name: Method(node.draw, {"node": node.node_id, "inputs": node.inputs}) for name, node in EXTERNAL.items()},
    }
