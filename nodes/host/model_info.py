"""What the nodes need to know of a MODEL, found out once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import comfy.model_base
import comfy.model_sampling
import torch
from comfy.model_patcher import ModelPatcher

from ...vipaint_core import VARIANCE_EXPLODING, Coordinate, rectified_flow
from ..errors import InputError

# Image-to-image networks have no noise level; CogVideoX's v-prediction mixes two coordinates.
_REFUSED = ("IMG_TO_IMG", "IMG_TO_IMG_FLOW", "V_PREDICTION_DDPM")
# The host runs these at z = x0 + sigma * eps, whatever the network inside predicts.
_EXPLODING = ("EPS", "COSMOS_RFLOW")
# Image families whose latents have an axis of frames, of which they use one: they share a film's autoencoder.
_ONE_FRAME = ("QwenImage", "JoyImage", "Krea2", "Anima", "CosmosPredict2")
# What families make of which the shape of the latents does not tell it.
_OUTPUT_KINDS = {
    "films": ("SVD_img2vid",),
    "sharper copies": ("HunyuanImage21Refiner", "SeedVR2"),
    "no pictures": ("TripoSplat", "RT_DETR_v4", "SAM3", "DepthAnything3"),
}
_LOAD_ANOTHER = "Load an image model such as SD1.5, SDXL, SD3 or Flux."


@dataclass(frozen=True)
class ModelInfo:
    """Facts of a MODEL.

    family: its name, e.g. `SD3 (FLOW)`: posteriors are exchanged within one family only.
    coordinate: the map between the core's noise levels and the model's.
    largest_level: the largest noise-to-signal ratio that the model was trained for; infinite for flows.
    channels: of its latents.
    has_frame_axis: the host's latents of single pictures are (B, C, 1, H, W); the core's never have that axis.
    latent_format: the host's, between its latents and model scale.
    """

    family: str
    coordinate: Coordinate
    largest_level: float
    channels: int
    has_frame_axis: bool
    latent_format: Any

    def to_model_scale(self, samples: torch.Tensor) -> torch.Tensor:
        """The host's latents of pictures, (B, C, H, W) or (B, C, 1, H, W), as the core's (B, C, H, W)."""
        latents: torch.Tensor = self.latent_format.process_in(self.add_frame_axis(samples))
        return self.drop_frame_axis(latents)

    def to_host_latent(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse of `to_model_scale`, with an axis of frames where the family has one."""
        samples: torch.Tensor = self.latent_format.process_out(self.add_frame_axis(latents))
        return samples

    def add_frame_axis(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) as (B, C, 1, H, W), where the family has an axis of frames."""
        return latents.unsqueeze(2) if self.has_frame_axis and latents.ndim == 4 else latents

    def drop_frame_axis(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse of `add_frame_axis`."""
        return latents.squeeze(2) if self.has_frame_axis else latents


def model_info(model: ModelPatcher, name: str = "model") -> ModelInfo:
    """The facts of an image model. Raises InputError for everything else; name: the input that it comes from."""
    if not callable(getattr(model, "get_model_object", None)):
        raise InputError(name, "a model", type(model).__name__, "Connect a MODEL output.")
    family, kind = family_of(model), output_kind(model)
    if kind != "pictures":
        found = f"the family {family}, which makes {kind}"
        raise InputError(name, "a model that makes single pictures", found, _LOAD_ANOTHER)
    coordinate = coordinate_of(model)
    if coordinate is None:
        kinds = " / ".join(
            base.__name__
            for base in type(model.get_model_object("model_sampling")).__mro__
            if base.__module__ == "comfy.model_sampling"
        )
        found = f"the family {family} with sampling {kinds}, whose noise levels VIPaint does not know"
        raise InputError(name, "a diffusion or rectified-flow image model", found, _LOAD_ANOTHER)
    latent_format = model.get_model_object("latent_format")
    return ModelInfo(
        family,
        coordinate,
        largest_level(model, coordinate),
        int(latent_format.latent_channels),
        latent_format.latent_dimensions == 3,
        latent_format,
    )


def family_of(model: ModelPatcher) -> str:
    """Name of a model's family."""
    kind = getattr(getattr(model.model, "model_type", None), "name", "unknown")
    known = model.model.model_config if type(model.model) is comfy.model_base.BaseModel else model.model
    return f"{type(known).__name__} ({kind})"


def output_kind(model: ModelPatcher) -> str:
    """What a model makes: `pictures`, `films`, `sharper copies`, `sound` or `no pictures`."""
    network = model.model
    for kind, names in _OUTPUT_KINDS.items():
        if _is_one_of(network, comfy.model_base, names):
            return kind
    if "audio_model" in network.model_config.unet_config:
        return "sound"
    dimensions = model.get_model_object("latent_format").latent_dimensions
    one_frame = _is_one_of(network, comfy.model_base, _ONE_FRAME) and not getattr(network, "image_to_video", False)
    return {1: "no pictures", 2: "pictures", 3: "pictures" if one_frame else "films"}.get(dimensions, "no pictures")


def coordinate_of(model: ModelPatcher) -> Coordinate | None:
    """The map between the core's noise levels and a model's, None for unknown kinds of sampling."""
    sampling = model.get_model_object("model_sampling")
    if _is_one_of(sampling, comfy.model_sampling, _REFUSED):
        return None
    if isinstance(sampling, comfy.model_sampling.CONST):
        return rectified_flow(float(getattr(sampling, "noise_scale", 1.0)))
    return VARIANCE_EXPLODING if _is_one_of(sampling, comfy.model_sampling, _EXPLODING) else None


def largest_level(model: ModelPatcher, coordinate: Coordinate) -> float:
    """The largest noise-to-signal ratio that a model was trained for; infinite for flows."""
    # A flow's largest sigma is the time 1, at which nothing of the picture is left.
    sigma = float(model.get_model_object("model_sampling").sigma_max) * coordinate.noise_scale
    if coordinate.flow and sigma >= coordinate.noise_scale * (1 - 1e-6):
        return math.inf
    return float(coordinate.s_of_sigma(sigma))


def level_of_strength(model: ModelPatcher, coordinate: Coordinate, strength: float) -> float:
    """The noise-to-signal ratio at which the host's samplers begin with this `denoise`, schedule `simple`.

    strength: share of the model's own time from picture to noise, below 1.
    """
    sigma = float(model.get_model_object("model_sampling").percent_to_sigma(1 - strength))
    return float(coordinate.s_of_sigma(sigma * coordinate.noise_scale))


def is_distilled(model: ModelPatcher) -> bool:
    """Whether a model is known to be distilled for few steps: Flux schnell, and what is sampled as LCM.

    Files of Turbo and Lightning checkpoints do not tell.
    """
    kinds = {kind.__name__ for kind in type(model.get_model_object("model_sampling")).__mro__}
    schnell = type(model.model.model_config).__name__ == "FluxSchnell"
    return schnell or bool(kinds & {"LCM", "ModelSamplingDiscreteDistilled"})


def _is_one_of(value: Any, module: ModuleType, names: tuple[str, ...]) -> bool:
    """Whether `value` is of one of the classes; a host may not have all of them."""
    return any(isinstance(value, getattr(module, name, ())) for name in names)
