"""Sharp, large or whole pictures from blurred, small or damaged ones, compared pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import torch
from comfy_api.latest import io

from ..vipaint_core import PixelObservation, Restoration, SampleState, restore
from ..vipaint_core.denoiser import Denoiser
from ..vipaint_core.operators import Blur, Compose, Downsample, Operator, gaussian_kernel, motion_kernel
from . import bridge, memory, painting, validation
from .decoder import HostDecoder

NODE = "VIPaintRestore"
# Rows that are restored together: each holds the decoder's graph.
BATCH = 4
# What autoencoders cannot show of a picture, standard deviation of colours from 0 to 1.
DECODER_ERROR = 0.015
FACTORS = ("2", "4", "8")


def degradation_input() -> io.Input:
    """A choice of what was done to the picture that shows that degradation's knobs only."""
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


def operator_of(degradation: dict[str, Any], size: tuple[int, int]) -> tuple[Operator, int]:
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
    reach = len(kernel) // 2
    if reach >= min(size):
        raise validation.problem(
            NODE,
            "degradation",
            f"a blur that reaches less than {min(size)} pixels, the picture's smaller side",
            f"one that reaches {reach}",
            "Choose a smaller blur or a larger picture.",
        )
    return Blur(kernel), 1


def observed(
    pixels: torch.Tensor, hole: torch.Tensor | None, operator: Operator, decoder: HostDecoder, noise: float
) -> PixelObservation:
    """Pictures (B, H, W, 3) as an observation; hole (B, 1, H, W), 1 is not to be believed. noise: see the node."""
    # Nodes run in inference mode, whose tensors autograd refuses: leave it and copy.
    with torch.inference_mode(False), torch.no_grad():
        y = pixels.movedim(-1, 1).detach().cpu().clone()
        seen = torch.ones_like(y[:, :1]) if hole is None else 1 - hole.detach().cpu().clone()
        return PixelObservation(y, seen, operator, decoder, decoder.shape, math.hypot(noise, DECODER_ERROR))


class VIPaintRestore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=NODE,
            display_name="VIPaint Restore",
            category=painting.CATEGORY,
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
            ],
            inputs=[
                *painting.model_inputs(),
                painting.seed_input(),
                painting.cfg_input(),
                painting.fills_input(default=1),
                io.Int.Input(
                    "steps",
                    default=Restoration().steps,
                    min=4,
                    max=200,
                    tooltip="Noise levels from noise to picture: more takes longer and follows the given picture more "
                    "surely.",
                ),
                io.Int.Input(
                    "attempts",
                    default=Restoration().attempts,
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
                io.Vae.Input("vae", tooltip="The model's VAE: pixels are compared through its decoder."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Pixels of the degraded picture not to be believed: white is ignored and painted anew, grey "
                    "is kept loosely.",
                ),
                memory.gradients_input(),
            ],
            outputs=[
                painting.latent_output(),
                io.Image.Output("image", tooltip="The latent decoded and cut to size: as the picture, or enlarged."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        seed: int,
        cfg: float,
        fills: int,
        steps: int,
        attempts: int,
        degradation: dict[str, Any],
        noise: float,
        image: torch.Tensor,
        vae: Any,
        mask: torch.Tensor | None = None,
        gradients: str = memory.AUTO,
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
        painting.check_inputs(NODE, model, positive, negative)
        validation.check_decoder(NODE, model, vae)
        pixels = validation.check_image(NODE, "image", image)
        hole = None
        if mask is not None:
            hole = validation.check_mask(NODE, "mask", mask, len(pixels))
            validation.check_same_size(NODE, "mask", hole, pixels)
        operator, factor = operator_of(degradation, tuple(pixels.shape[1:3]))
        height, width = (factor * size for size in pixels.shape[1:3])
        decoder = HostDecoder(model, vae, (height, width))
        observation = observed(pixels, hole, operator, decoder, noise)
        settings, rows = Restoration(steps=steps, attempts=attempts), len(pixels) * fills
        demand = memory.Demand(decoder.shape, min(rows, BATCH), 0, True, beside=decoder)
        report = bridge.reporter(model, -(-rows // BATCH) * attempts * steps, 0)
        drawing = SampleState()

        def work(denoiser: Denoiser, device: torch.device, batch: int) -> torch.Tensor:
            return restore(
                denoiser,
                observation.to(device),
                seed,
                fills,
                settings=settings,
                s_max=bridge.largest_level(model),
                batch=batch,
                state=drawing,
                callback=report,
            ).latents

        latents = memory.run(
            NODE, model, positive, negative, demand, work, drawing, cfg=cfg, seed=seed, wanted=gradients
        )
        latent = painting.latent_of(NODE, model, latents)
        decoded = vae.decode(latent["samples"])
        # Autoencoders of films return an axis of frames.
        return io.NodeOutput(latent, decoded.reshape(-1, *decoded.shape[-3:])[:, :height, :width])
