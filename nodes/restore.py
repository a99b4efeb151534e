"""Sharp, large or whole pictures from blurred, small or damaged ones, compared pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy_api.v0_0_2 import io
from einops import rearrange

from ..vipaint_core import PixelObservation, RestorationConfig, restoration_method
from ..vipaint_core.problem.likelihood import misfit
from ..vipaint_core.problem.operators import (
    Blur,
    Compose,
    Downsample,
    LinearOperator,
    gaussian_kernel,
    motion_kernel,
)
from ..vipaint_core.sampling.restoration import BATCH
from . import preflight, sockets, validation
from .errors import InputError
from .execution import names_node
from .host.decoder import HostDecoder
from .host.denoiser import Conditioning
from .host.memory import AUTO
from .host.messages import warn
from .sampling import Draws, run_method, sampling_inputs, to_latent

# What autoencoders cannot show of a picture, standard deviation of colours from 0 to 1.
DECODER_ERROR = 0.015
FACTORS = ("2", "4", "8")
NOT_CONNECTED = object()
# A picture that leaves so many times the noise's deviation is another one.
UNEXPLAINED = 2.0


def degradation_input() -> io.Input:
    """A choice of what was done to the picture that shows that degradation's settings only."""
    pixels = {"step": 0.1, "round": 0.01}
    gaussian = [
        io.Float.Input(
            "sigma",
            default=3.0,
            min=0.1,
            max=32.0,
            tooltip="Radius of the blur in pixels, one standard deviation. Higher sharpens more.",
            **pixels,
        )
    ]
    motion = [
        io.Float.Input(
            "length",
            default=15.0,
            min=1.0,
            max=200.0,
            tooltip="How far the picture has moved, in pixels. Higher sharpens more.",
            **pixels,
        ),
        io.Float.Input(
            "angle",
            default=0.0,
            min=-180.0,
            max=180.0,
            step=1.0,
            round=0.1,
            tooltip="Direction of the move in degrees, counterclockwise: 0 is along the lines, 90 along the columns.",
        ),
    ]
    reduced = [
        io.Combo.Input(
            "factor", options=list(FACTORS), default="4", tooltip="How many times as large the picture becomes."
        ),
        io.Combo.Input(
            "kind",
            options=["bicubic", "area"],
            default="bicubic",
            tooltip="How the small picture was made of a large one: most programs reduce with bicubic, area takes means "
            "of blocks.",
        ),
    ]
    return io.DynamicCombo.Input(
        "degradation",
        options=[
            io.DynamicCombo.Option("none", []),
            io.DynamicCombo.Option("gaussian blur", gaussian),
            io.DynamicCombo.Option("motion blur", motion),
            io.DynamicCombo.Option("super-resolution", reduced),
        ],
        tooltip="What was done to the picture; it must be known, so try a few values. none: only the mask's white is "
        "missing. gaussian blur: out of focus. motion blur: moved in a straight line. super-resolution: made small.",
    )


def check_something_is_missing(degradation: dict[str, Any], noise: float | None, has_mask: bool) -> None:
    """Raises InputError where nothing was done to the picture, and it would be drawn as it is.

    noise: None where it is not known yet.
    """
    if degradation.get("degradation") == "none" and noise == 0 and not has_mask:
        raise InputError(
            "degradation",
            "what was done to the picture, or a mask of what is missing",
            "none, no noise and no mask",
            "Choose blur or super-resolution, raise noise, or connect a mask.",
        )


def operator_of(degradation: dict[str, Any], size: tuple[int, int]) -> tuple[LinearOperator, int]:
    """What made a picture of `size` (height, width) and how many times as large its original was."""
    kind = degradation["degradation"]
    if kind == "none":
        return Compose(), 1
    if kind == "super-resolution":
        factor = int(degradation["factor"])
        return Downsample(factor, degradation["kind"]), factor
    gaussian = kind == "gaussian blur"
    kernel = (
        gaussian_kernel(degradation["sigma"])
        if gaussian
        else motion_kernel(degradation["length"], degradation["angle"])
    )
    radius = len(kernel) // 2
    if radius >= min(size):
        raise InputError(
            "degradation",
            f"a blur that reaches less than {min(size)} pixels, the picture's smaller side",
            f"one that reaches {radius}",
            "Choose a smaller blur or a larger picture.",
        )
    return Blur(kernel), 1


def observed(
    pixels: torch.Tensor, hole: torch.Tensor | None, operator: LinearOperator, decoder: HostDecoder, noise: float
) -> PixelObservation:
    """Pictures (B, H, W, 3) as an observation; hole (B, 1, H, W), 1 is not to be believed. noise: see the node."""
    # Nodes run in inference mode, whose tensors autograd refuses: leave it and copy.
    with torch.inference_mode(False), torch.no_grad():
        y = rearrange(pixels, "b h w c -> b c h w").detach().cpu().clone()
        weight = torch.ones_like(y[:, :1]) if hole is None else 1 - hole.detach().cpu().clone()
        return PixelObservation(y, weight, operator, decoder, decoder.shape, math.hypot(noise, DECODER_ERROR))


def judge(observation: PixelObservation, restored: torch.Tensor) -> None:
    """Says which of the restored pictures (B * fills, H, W, 3) do not explain the given ones."""
    with torch.inference_mode(False), torch.no_grad():
        pictures = rearrange(restored.detach().cpu().float().clone(), "n h w c -> n c h w")
        each = len(pictures) // len(observation.y)
        found = observation.rows(torch.arange(len(pictures)) // each)
        residual = torch.where(found.weight > 0, found.y - found.operator.A(pictures), 0.0)
        left = misfit(found, residual).flatten().sqrt()
    bad = [f"{number} ({size:.1f} times)" for number, size in enumerate(left.tolist(), 1) if size > UNEXPLAINED]
    if bad:
        warn(
            f"does not explain the given picture: {', '.join(bad)} what noise would leave. Try another degradation, "
            "its other settings, or more noise"
        )


class VIPaintRestore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintRestore",
            display_name="VIPaint Restore",
            category=sockets.CATEGORY,
            description="Deblurs, enlarges or fills pictures with any image model: draws pictures that, degraded in the "
            "same way, are the given one. Pixels are compared through the VAE's decoder: slower than VIPaint Inpaint, "
            "and exact where a mask cuts through latent cells.",
            search_aliases=[
                "vipaint",
                "deblur",
                "sharpen",
                "upscale",
                "super-resolution",
                "denoise",
                "restoration",
                "inverse problem",
                "pixel inpainting",
                "去模糊",
                "超分辨率",
                "放大",
                "修复",
                "ブレ補正",
                "超解像",
                "復元",
                "netteté",
            ],
            inputs=[
                *sockets.model_inputs(),
                sockets.seed_input(),
                sockets.cfg_input(),
                sockets.fills_input(default=1),
                io.Int.Input(
                    "steps",
                    default=RestorationConfig().steps,
                    min=4,
                    max=200,
                    tooltip="Noise levels from noise to picture: more takes longer and follows the given picture more "
                    "surely.",
                ),
                io.Int.Input(
                    "attempts",
                    default=RestorationConfig().attempts,
                    min=1,
                    max=20,
                    tooltip="How often a fill is drawn at most: again while it does not explain the given picture up "
                    "to its noise, and the best one counts. More takes longer and fails less often.",
                ),
                degradation_input(),
                io.Float.Input(
                    "noise",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    round=0.0001,
                    tooltip="Noise in the given picture, standard deviation of colours from 0 to 1. Higher follows the "
                    "picture less closely; too low paints its noise.",
                ),
                io.Image.Input("image", tooltip="The degraded picture, of any size."),
                io.Vae.Input("vae", lazy=True, tooltip="The model's VAE: pixels are compared through its decoder."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Pixels of the degraded picture not to be believed: white is ignored and painted anew, grey "
                    "is kept loosely.",
                ),
                sockets.gradients_input(),
            ],
            outputs=[
                sockets.latent_output(),
                io.Image.Output("image", tooltip="The latent decoded and cut to size: as the picture, or enlarged."),
            ],
            # For messages about prompts of scripts.
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, degradation: dict[str, Any], noise: float, mask: Any = NOT_CONNECTED) -> bool | str:
        """What is not connected is not given, what is connected is None."""
        try:
            check_something_is_missing(degradation, noise, mask is not NOT_CONNECTED)
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def check_lazy_status(cls, **inputs: Any) -> list[str]:
        return preflight.check_pictures(cls, inputs)

    @classmethod
    @names_node
    def execute(
        cls,
        model: ModelPatcher,
        positive: Conditioning,
        negative: Conditioning,
        seed: int,
        cfg: float,
        fills: int,
        steps: int,
        attempts: int,
        degradation: dict[str, Any],
        noise: float,
        image: torch.Tensor,
        vae: VAE,
        mask: torch.Tensor | None = None,
        gradients: str = AUTO,
    ) -> io.NodeOutput:
        validation.check_widgets(
            cls,
            seed=seed,
            cfg=cfg,
            fills=fills,
            steps=steps,
            attempts=attempts,
            degradation=degradation,
            noise=noise,
            gradients=gradients,
        )
        check_something_is_missing(degradation, noise, mask is not None)
        inputs = sampling_inputs(model, positive, negative, cfg, seed, gradients)
        validation.check_decoder(inputs.info, vae)
        pixels = validation.check_image("image", image)
        hole = None
        if mask is not None:
            pixels, hole = validation.check_masked_pictures("mask", mask, pixels)
        height, width = pixels.shape[1:3]
        operator, factor = operator_of(degradation, (height, width))
        height, width = factor * height, factor * width
        decoder = HostDecoder(inputs.info, vae, (height, width))
        method = restoration_method(RestorationConfig(steps=steps, attempts=attempts), inputs.info.largest_level)
        observation = observed(pixels, hole, operator, decoder, noise)
        latents = run_method(inputs, Draws(observation, method, fills, batch=BATCH, decoder=decoder))
        latent = to_latent(inputs.info, latents)
        decoded = vae.decode(latent["samples"])
        # Autoencoders of films return an axis of frames.
        restored = decoded.reshape(-1, *decoded.shape[-3:])[:, :height, :width]
        judge(observation, restored)
        return io.NodeOutput(latent, restored)
