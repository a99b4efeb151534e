"""Inputs and outputs that several nodes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from comfy_api.v0_0_2 import io

from ..vipaint_core import PRESETS, Preset
from ..vipaint_core.refiners import REFINERS
from ..vipaint_core.refiners.common import LevelStep
from .host.denoiser import GRADIENT_MODES
from .host.memory import AUTO
from .observation import ORIGINAL, SURROUNDINGS

CATEGORY = "VIPaint"
PosteriorType = io.Custom("VIPAINT_POSTERIOR")
CropType = io.Custom("VIPAINT_CROP")


def model_inputs() -> list[io.Input]:
    """Lazy: nothing is loaded for a picture that cannot be painted in, see `preflight`."""
    return [
        io.Model.Input(
            "model",
            lazy=True,
            tooltip="Any diffusion or rectified-flow image model; no inpainting model is needed.",
        ),
        io.Conditioning.Input(
            "positive", lazy=True, tooltip="What the picture should show. One prompt for all pictures."
        ),
        io.Conditioning.Input("negative", lazy=True, tooltip="What to move away from. Unused where cfg is 1."),
    ]


def seed_input() -> io.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        # A new seed at every run would paint everything anew, also where only another fill is chosen.
        control_after_generate="fixed",
        tooltip="The same seed and settings give the same result; another seed gives other fills.",
    )


def cfg_input() -> io.Input:
    return io.Float.Input(
        "cfg",
        default=4.0,
        min=0.0,
        max=100.0,
        step=0.1,
        round=0.01,
        tooltip="Guidance by the prompt: higher follows it more closely with less variety. 1 ignores the negative "
        "prompt and takes half the time.",
    )


def fills_input(default: int = 4) -> io.Input:
    return io.Int.Input(
        "fills",
        default=default,
        min=1,
        max=64,
        tooltip="How many different fills to draw for each picture; time grows with it.",
    )


# What a preset is for, in the user's words; others have their description.
PRESET_WORDS = {
    "balanced": "right for most holes",
    "thorough": "fewer wrong details in difficult holes",
    "fast": "a first look",
    "paper-2": "the method as published, slow",
    "paper-4": "the same with more noise levels",
}


class Passes(NamedTuple):
    """Passes through the network, forward and backward.

    each: of a fill that is drawn alone.
    chain: of a later chain, as many as `each` where there are no gains.
    further: of a further fill, as many as `each` where there are no gains.
    fit: of the gradient steps before the first one, for one picture.
    """

    each: int
    chain: int
    further: int
    fit: int


def passes(preset: Preset) -> Passes:
    lowest = preset.fit.keypoints[0]

    def total(steps: Sequence[LevelStep]) -> int:
        refiners = [(REFINERS[step.refiner], step) for step in steps]
        descent = sum(refiner.forward_passes(step) + refiner.backward_passes(step) for refiner, step in refiners)
        return len(preset.fit.keypoints) - 1 + descent

    each = total(preset.descent(lowest))
    chain, further = each, each
    if preset.chains:
        chain, further = total(preset.chain_descent(lowest, 1)), total(preset.further_descent(lowest))
    return Passes(each, chain, further, 2 * preset.fit.calls * preset.fit.draws)


def price(preset: Preset) -> str:
    """What a preset costs, in passes through the network: KSampler takes one for each of its steps."""
    each, chain, further, fit = passes(preset)
    words = f"{each} passes a fill" + (f" after {fit} for the picture" if fit else "")
    if chain < each:
        words += f", {chain} from fill 2 on"
    if further < chain:
        words += f", {further} from fill {preset.chains + 1} on"
    return words


def preset_input(presets: Mapping[str, Preset] = PRESETS) -> io.Input:
    words = [
        f"{name}: {PRESET_WORDS.get(name, preset.description)}; {price(preset)}." for name, preset in presets.items()
    ]
    return io.Combo.Input(
        "preset",
        options=list(presets),
        default="balanced",
        tooltip="Quality against time; KSampler takes 1 pass a step. " + " ".join(words),
    )


def sigmas_preset_input() -> io.Input:
    """Presets that any levels can be sampled by: those without gradient steps. Every fill is drawn for itself."""
    alone = {name: preset.with_changes(fit={"chains": 0}) for name, preset in PRESETS.items() if not preset.fit.steps}
    return preset_input(alone)


def picture_inputs() -> list[io.Input]:
    return [
        io.Latent.Input(
            "latent_image",
            optional=True,
            tooltip="An encoded picture with a noise mask (Set Latent Noise Mask). Use this or image, mask and vae.",
        ),
        io.Image.Input(
            "image",
            optional=True,
            tooltip="The picture to paint in, of any size; needs mask and vae. The hole is covered before encoding, so "
            "that nothing hidden leaks into the result.",
        ),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="White is painted, black is kept, grey is kept loosely. Replaces a noise mask.",
        ),
        io.Vae.Input(
            "vae",
            optional=True,
            lazy=True,
            tooltip="The model's VAE, to encode image. Not needed with latent_image.",
        ),
    ]


def gradients_input() -> io.Input:
    return io.Combo.Input(
        "gradients",
        options=[AUTO, *GRADIENT_MODES],
        default=AUTO,
        optional=True,
        advanced=True,
        tooltip="How presets with gradients get them. full: exact, most memory. checkpointed: the same result in a part "
        "of the memory, in up to two and a half times the time. jacobian_free: nearly the same without a backward pass, "
        "in the memory of KSampler; also for quantised and streamed weights. auto: the first that fits. The next takes "
        "over where memory ends.",
    )


def strength_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "strength",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            optional=True,
            tooltip="How much of what is in the hole is replaced, as KSampler's denoise. 1: all of it, nothing hidden is "
            "looked at. Lower keeps its shapes and colours more closely, with less variety.",
        ),
        io.Combo.Input(
            "content",
            options=[ORIGINAL, SURROUNDINGS],
            default=ORIGINAL,
            optional=True,
            advanced=True,
            tooltip="What strength below 1 keeps. original: what is in the hole. surroundings: the nearest visible "
            "colours, e.g. where a picture is painted beyond its border.",
        ),
    ]


def posterior_output() -> io.Output:
    return PosteriorType.Output(
        "posterior",
        tooltip="The fitted posterior: draw more fills from it with VIPaint Sample Posterior, or save it.",
    )


def latent_output() -> io.Output:
    return io.Latent.Output(
        "latent",
        tooltip="The fills, all of the first picture first. Decoded, a picture whose size is no multiple of the VAE's "
        "cell (8 pixels for most) is larger at the right and the bottom: VIPaint Composite cuts it to its size.",
    )
