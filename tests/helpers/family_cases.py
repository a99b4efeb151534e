"""A model of a family with prompts, what other nodes do to it, and its predictions and gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tiny_checkpoints
import torch
from tiny_families import DEEP_UNET, FAMILIES, SMALL_UNET

ALL = tuple(FAMILIES)
PIXELS = "radiance", "z-image-pixel", "pixeldit"
# They round pixels to float32 whatever the precision of their weights is.
SINGLE = "radiance", "z-image-pixel"
# PixArt's positions divide by zero on smaller ones.
SIZES = {"pixart": (34, 32)}

OpenDenoiser = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """A model as the host loads it, and what a denoiser of it is opened with.

    vae: of its file; None where the family has no tiny file.
    size: (height, width) of latents.
    control: the network of the ControlNet in the prompts, if any.
    """

    name: str
    model: Any
    vae: Any
    positive: Any
    negative: Any
    size: tuple[int, int]
    cfg: float = 3.0
    control: Any = None

    def shape(self, rows: int = 1) -> tuple[int, int, int, int]:
        return rows, self.model.get_model_object("latent_format").latent_channels, *self.size

    @property
    def networks(self) -> list[torch.nn.Module]:
        return [self.model.model.diffusion_model, *([] if self.control is None else [self.control])]


def load_case(pack: SimpleNamespace, checkpoint: Callable[[str], Path], name: str) -> Case:
    """A case of a family; its weights are inference tensors, as the host's loader leaves them."""
    import comfy.sd

    family = {**FAMILIES, "unet": SMALL_UNET, "deep-unet": DEEP_UNET}[name]
    with torch.inference_mode():
        if family.loads:
            model, _, vae, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoint(name)), output_clip=False)
        else:
            model, vae = tiny_checkpoints.patcher(family), None
        positive, negative = prompt(pack, model, 3), prompt(pack, model, 4)
    return Case(name, model, vae, positive, negative, (8, 12) if name in PIXELS else SIZES.get(name, (4, 6)))


def prompt(pack: SimpleNamespace, model: Any, seed: int) -> list[list[Any]]:
    """A random prompt of the shapes that VIPaint Unconditional finds."""
    generator = torch.Generator().manual_seed(seed)
    ((tokens, options),) = pack.host.text_inputs.zero_conditioning(model)
    options = {key: torch.randn(value.shape, generator=generator) for key, value in options.items()}
    return [[torch.randn(1, 5, tokens.shape[-1], generator=generator), options]]


def autoencoder(case: Case) -> Any:
    """What goes with a family that has no file: pixels as they are, the films' autoencoder, or TAESD's layout."""
    import comfy.sd

    latents = case.model.get_model_object("latent_format")
    if case.name in PIXELS:
        return comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
    tensors = (
        tiny_checkpoints.wan_vae()
        if latents.latent_dimensions == 3
        else tiny_checkpoints.taesd(latents.latent_channels)
    )
    return comfy.sd.VAE(sd=tensors)


# --- what other nodes do to model and prompts ---


def guided(case: Case) -> Case:
    return case


def unguided(case: Case) -> Case:
    return replace(case, cfg=1.0)


def with_lora(case: Case) -> Case:
    """A LoRA on all attention layers, loaded by the host from the names that its files have."""
    import comfy.sd

    generator, tensors = torch.Generator().manual_seed(6), {}
    for name, weight in case.model.model.diffusion_model.named_parameters():
        if weight.ndim == 2 and name.endswith(".weight") and ("attn" in name or "attention" in name):
            stem = f"diffusion_model.{name.removesuffix('.weight')}"
            tensors[f"{stem}.lora_up.weight"] = torch.randn(len(weight), 2, generator=generator) / 8
            tensors[f"{stem}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=generator) / 8
    model, _ = comfy.sd.load_lora_for_models(case.model, None, tensors, 1.0, 0.0)
    return replace(case, model=model)


def with_area(case: Case) -> Case:
    """A second prompt for a third of the picture, strong in the middle of it."""
    import nodes

    # The node counts in pixels, at 8 a cell.
    height, third = 8 * case.size[0], 8 * case.size[1] // 3
    (other,) = nodes.ConditioningSetArea().append(case.negative, third, height, third, 0, 1.0)
    return replace(case, positive=[*case.positive, *other])


def with_rescaled_guidance(case: Case) -> Case:
    from comfy_extras.nodes_model_advanced import RescaleCFG

    (model,) = RescaleCFG().patch(case.model, 0.7)
    return replace(case, model=model)


def with_control(case: Case) -> Case:
    import nodes

    control = tiny_checkpoints.controlnet(FAMILIES[case.name])
    hint = torch.rand(1, 8 * case.size[0], 8 * case.size[1], 3, generator=torch.Generator().manual_seed(7))
    if case.name == "sd3":
        # Its ControlNets read latents.
        hint = case.vae.encode(hint).movedim(1, -1)
    apply = nodes.ControlNetApplyAdvanced().apply_controlnet
    positive, negative = apply(case.positive, case.negative, control, hint, 0.8, 0.0, 1.0)
    return replace(case, positive=positive, negative=negative, control=control.control_model)


def _picture(case: Case, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture of a case's size and a mask of its right half."""
    pixels = torch.rand(1, 8 * case.size[0], 8 * case.size[1], 3, generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(pixels.shape[:3])
    mask[..., mask.shape[-1] // 2 :] = 1
    return pixels, mask


def with_encoding_control(case: Case) -> Case:
    """A ControlNet for inpainting, which encodes its picture when it is first asked."""
    from comfy_extras.nodes_controlnet import ControlNetInpaintingAliMamaApply

    control = tiny_checkpoints.controlnet(FAMILIES[case.name], encodes=True)
    given = case.positive, case.negative, control, case.vae, *_picture(case, 7), 0.8, 0.0, 1.0
    positive, negative = ControlNetInpaintingAliMamaApply.execute(*given).result
    return replace(case, positive=positive, negative=negative, control=control.control_model)


def with_patch_network(case: Case) -> Case:
    """A network that the model's blocks call, and that encodes its picture where it has another size."""
    import comfy_extras.nodes_model_patch as patches

    control = tiny_checkpoints.model_patch(FAMILIES[case.name])
    made = patches.ZImageFunControlnet() if case.name == "z-image" else patches.QwenImageDiffsynthControlnet()
    picture = torch.nn.functional.pad(_picture(case, 7)[0], (0, 0, 0, 16))
    (model,) = made.diffsynth_controlnet(case.model, control, autoencoder(case), picture, 0.8)
    return replace(case, model=model, control=control.model)


def with_inpainting(case: Case) -> Case:
    """Mask and picture in the channels that inpainting networks have beside the latent."""
    import nodes

    pixels, mask = _picture(case, 8)
    encode = nodes.InpaintModelConditioning().encode
    positive, negative, _ = encode(case.positive, case.negative, pixels, case.vae, mask)
    return replace(case, positive=positive, negative=negative)


def with_reference(case: Case) -> Case:
    """Two pictures that an edit model follows, one of another size, as its graphs chain them."""
    from comfy_extras.nodes_edit_model import ReferenceLatent

    latents = case.model.get_model_object("latent_format")
    generator, positive = torch.Generator().manual_seed(10), case.positive
    for size in (case.size, (6, 4)):
        samples = torch.randn(1, latents.latent_channels, *size, generator=generator)
        samples = samples[:, :, None] if latents.latent_dimensions == 3 else samples
        (positive,) = ReferenceLatent.execute(positive, {"samples": samples}).result
    return replace(case, positive=positive)


def with_sizes(case: Case) -> Case:
    """The sizes that SDXL is told, as its text encoding node sets them."""
    import node_helpers

    sizes = {"width": 640, "height": 480, "crop_w": 8, "crop_h": 0, "target_width": 512, "target_height": 512}
    return replace(case, positive=node_helpers.conditioning_set_values(case.positive, sizes))


def with_guidance(case: Case) -> Case:
    from comfy_extras.nodes_flux import FluxGuidance

    return replace(case, positive=FluxGuidance.execute(case.positive, 9.0).result[0])


def with_freeu(case: Case) -> Case:
    from comfy_extras.nodes_freelunch import FreeU_V2

    return replace(case, model=FreeU_V2.execute(case.model, 1.3, 1.4, 0.9, 0.2).result[0])


def with_perturbed_attention(case: Case) -> Case:
    """A further pass in a function after guidance."""
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    return replace(case, model=PerturbedAttentionGuidance.execute(case.model, 3.0).result[0])


def with_skipped_layers(case: Case) -> Case:
    """A further pass, of which blocks are left out on purpose, in a function after guidance."""
    from comfy_extras.nodes_slg import SkipLayerGuidanceDiT

    given = {"scale": 2.0, "start_percent": 0.0, "end_percent": 1.0, "double_layers": "0", "single_layers": ""}
    return replace(case, model=SkipLayerGuidanceDiT.execute(case.model, **given).result[0])


def with_everything(case: Case) -> Case:
    return with_control(with_area(with_lora(case)))


def resampled(case: Case, node: str, arguments: tuple[Any, ...]) -> Case:
    """The model that one of the host's nodes for sampling makes of it."""
    import comfy_extras.nodes_model_advanced as advanced

    made = getattr(advanced, node)()
    (model,) = getattr(made, made.FUNCTION)(case.model, *arguments)
    return replace(case, model=model)


DISCRETE = ("eps", True), ("v_prediction", False), ("v_prediction", True), ("lcm", False), ("x0", False)
EDM = "v_prediction", "edm", "edm_playground_v2.5", "eps", "cosmos_rflow"
# Models that the host's nodes for sampling make of others: (family, node, arguments).
SAMPLING_NODES = [
    *(("unet", "ModelSamplingDiscrete", arguments) for arguments in DISCRETE),
    *(("unet", "ModelSamplingContinuousEDM", (kind, 120.0, 0.002)) for kind in EDM),
    ("unet", "ModelSamplingContinuousV", ("v_prediction", 500.0, 0.03)),
    ("sd3", "ModelSamplingSD3", (8.0,)),
    ("sd3", "ModelSamplingAuraFlow", (1.73,)),
    ("sd3", "ModelNoiseScale", (7.5,)),
    ("flux", "ModelSamplingFlux", (1.15, 0.5, 512, 768)),
]


# --- predictions ---


@contextlib.contextmanager
def float64(*networks: torch.nn.Module) -> Iterator[None]:
    """The host casts what it gives to a network to the network's precision; the result it rounds to float32."""
    import comfy.model_management

    def convert(dtype: torch.dtype) -> None:
        for network in networks:
            network.to(dtype).dtype = dtype
            comfy.model_management.archive_model_dtypes(network)

    # Weights that a LoRA has changed are put back first.
    comfy.model_management.unload_all_models()
    with torch.inference_mode():
        convert(torch.float64)
    try:
        yield
    finally:
        comfy.model_management.unload_all_models()
        with torch.inference_mode():
            convert(torch.float32)


def opened(
    open_denoiser: OpenDenoiser,
    case: Case,
    work: Callable[[Any], Any],
    gradient: bool,
    rows: int = 1,
    mode: str = "full",
) -> Any:
    prompts = case.positive, case.negative
    return open_denoiser(case.model, prompts, work, cfg=case.cfg, shape=case.shape(rows), gradient=gradient, mode=mode)


def predict(open_denoiser: OpenDenoiser, case: Case, gradient: bool, s: float = 1.5) -> torch.Tensor:
    """The first prediction of a denoiser that has just been opened."""
    u = torch.randn(case.shape(), generator=torch.Generator().manual_seed(2))

    def work(denoiser: Any) -> torch.Tensor:
        with denoiser.gradients() if gradient else contextlib.nullcontext(), torch.no_grad():
            return denoiser(u, torch.tensor([s])).clone()

    return opened(open_denoiser, case, work, gradient)
