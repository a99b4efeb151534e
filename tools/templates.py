"""Makes the workflow templates, what scripts run of them, and the subgraph blueprint.

    python -m tools.templates

Writes workflows/NAME.json, which the editor's template browser lists, workflows/api/NAME.json, the same for scripts, and
subgraphs/. What nodes look like is asked of a ComfyUI server. Thumbnails are made by toy_prior/thumbnails.py.

For scripts the mask is a file of its own, and all fills are saved.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.comfy_server import ROOT, ComfyServer

FOLDER, BLUEPRINTS = ROOT / "workflows", ROOT / "subgraphs"
GAP, TITLE, SLOT, WIDGET = 40, 34, 22, 28
# Kinds of inputs that are widgets.
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")
# Heights of what nodes show beside sockets and widgets, and widths other than the usual.
EXTRA = {"LoadImage": 260, "PreviewImage": 300, "SaveImage": 300, "CLIPTextEncode": 80, "VIPaintChoose": 420}
# Those that say what they did, and those that also show a preview.
EXTRA |= dict.fromkeys(("VIPaintUncertainty", "VIPaintSavePosterior"), 80)
EXTRA |= dict.fromkeys(("VIPaintInpaint", "VIPaintFit", "VIPaintSample", "VIPaintRestore", "KSampler"), 320)
WIDTHS = {"VIPaintChoose": 520, "CheckpointLoaderSimple": 340, "SaveImage": 360, "PreviewImage": 360}
HUGGING_FACE = "https://huggingface.co"


@dataclass(frozen=True)
class Node:
    """A node of a template: its class, its title, its inputs (values, or [id, output]), and models to download."""

    kind: str
    title: str
    inputs: dict[str, Any] = field(default_factory=dict)
    models: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Column:
    """Nodes below each other, in a group of this title."""

    title: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Template:
    name: str
    note: str
    nodes: dict[str, Node]
    columns: Sequence[Column]


# Model files: name, folder of models/, address.
SD15 = (
    "v1-5-pruned-emaonly-fp16.safetensors",
    "checkpoints",
    f"{HUGGING_FACE}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors",
)
SDXL = (
    "sd_xl_base_1.0.safetensors",
    "checkpoints",
    f"{HUGGING_FACE}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors",
)
FLUX = (
    "flux1-dev-fp8.safetensors",
    "checkpoints",
    f"{HUGGING_FACE}/Comfy-Org/flux1-dev/resolve/main/flux1-dev-fp8.safetensors",
)
CANNY = (
    "control_v11p_sd15_canny_fp16.safetensors",
    "controlnet",
    f"{HUGGING_FACE}/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/"
    "control_v11p_sd15_canny_fp16.safetensors",
)
KONTEXT = (
    "flux1-dev-kontext_fp8_scaled.safetensors",
    "diffusion_models",
    f"{HUGGING_FACE}/Comfy-Org/flux1-kontext-dev_ComfyUI/resolve/main/split_files/diffusion_models/"
    "flux1-dev-kontext_fp8_scaled.safetensors",
)
CLIP_L = (
    "clip_l.safetensors",
    "text_encoders",
    f"{HUGGING_FACE}/comfyanonymous/flux_text_encoders/resolve/main/clip_l.safetensors",
)
T5 = (
    "t5xxl_fp8_e4m3fn_scaled.safetensors",
    "text_encoders",
    f"{HUGGING_FACE}/comfyanonymous/flux_text_encoders/resolve/main/t5xxl_fp8_e4m3fn_scaled.safetensors",
)
FLUX_VAE = (
    "ae.safetensors",
    "vae",
    f"{HUGGING_FACE}/Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae/ae.safetensors",
)
TOY = "vipaint_toy.safetensors"
OWN_MODEL = (
    "Comes with the pack and paints cartoon portraits only, so that this runs at once. For pictures of your own choose "
    "**your checkpoint** in *Load Checkpoint*, and put two *CLIP Text Encode* in the place of *No prompt*, with cfg 4."
)


def toy() -> dict[str, Node]:
    return {
        "checkpoint": Node("CheckpointLoaderSimple", "Load Checkpoint: choose your own here", {"ckpt_name": TOY}),
        "conditioning": Node("VIPaintUnconditional", "No prompt", {"model": ["checkpoint", 0]}),
    }


def prompts(positive: str, negative: str, clip: list[Any] | None = None) -> dict[str, Node]:
    clip = clip or ["checkpoint", 1]
    return {
        "positive": Node("CLIPTextEncode", "What the hole should show", {"clip": clip, "text": positive}),
        "negative": Node("CLIPTextEncode", "What it should not show", {"clip": clip, "text": negative}),
    }


def checkpoint(model: tuple[str, str, str]) -> dict[str, Node]:
    title = "Load Checkpoint: choose your own here"
    return {"checkpoint": Node("CheckpointLoaderSimple", title, {"ckpt_name": model[0]}, (model,))}


def picture(name: str, title: str = "Picture: paint the hole with MaskEditor") -> dict[str, Node]:
    return {"picture": Node("LoadImage", title, {"image": f"vipaint_{name}.png"})}


def inpaint(
    positive: str = "conditioning",
    negative: str = "conditioning",
    *,
    model: list[Any] | None = None,
    vae: list[Any] | None = None,
    image: list[Any] | None = None,
    mask: list[Any] | None = None,
    cfg: float = 1.0,
    fills: int = 4,
) -> dict[str, Node]:
    vae = vae or ["checkpoint", 2]
    outputs = {"positive": 0, "negative": 1} if positive == negative == "control" else {}
    return {
        "inpaint": Node(
            "VIPaintInpaint",
            "VIPaint Inpaint",
            {
                "model": model or ["checkpoint", 0],
                "positive": [positive, outputs.get("positive", 0)],
                "negative": [negative, outputs.get("negative", 0)],
                "seed": 0,
                "cfg": cfg,
                "fills": fills,
                "preset": "balanced",
                "image": image or ["picture", 0],
                "mask": mask or ["picture", 1],
                "vae": vae,
            },
        ),
        "decode": Node("VAEDecode", "VAE Decode", {"samples": ["inpaint", 0], "vae": vae}),
    }


def sampler_custom(title: str) -> Node:
    """The host's sampler with VIPaint Sampler and VIPaint Sigmas, in latents of which one for each fill is there."""
    inputs = {
        "model": ["checkpoint", 0],
        "add_noise": True,
        "noise_seed": 0,
        "cfg": 1.0,
        "positive": ["conditioning", 0],
        "negative": ["conditioning", 0],
        "sampler": ["sampler", 0],
        "sigmas": ["levels", 0],
        "latent_image": ["repeat", 0],
    }
    return Node("SamplerCustom", title, inputs)


def composite(**inputs: Any) -> dict[str, Node]:
    given = {"fills": ["decode", 0], "original": ["picture", 0], "mask": ["picture", 1]}
    widgets = {"feather": 0, "colour_match": 1.0}
    return {"composite": Node("VIPaintComposite", "Back into the picture", {**given, **widgets, **inputs})}


def choose(
    images: list[Any],
    prefix: str,
    original: str = "picture",
    mask: list[Any] | None = None,
    latent: list[Any] | None = None,
) -> dict[str, Node]:
    """Fills side by side, the chosen one saved, and where they differ. original: of the size of the fills."""
    shown: dict[str, Any] = {"images": images, "chosen": "1", "original": [original, 0]}
    if latent is not None:
        shown["latent"] = latent
    if mask is not None:
        shown["mask"] = mask
    return {
        "choose": Node("VIPaintChoose", "VIPaint Choose Fill", shown),
        "save": Node("SaveImage", "Save the chosen fill", {"images": ["choose", 1], "filename_prefix": prefix}),
        "spread": Node(
            "VIPaintUncertainty",
            "Where the fills differ",
            {
                "images": images,
                "fills": 0,
                "full_scale": 0.25,
                "original": [original, 0],
                "opacity": 0.7,
                "outline": 0.2,
            },
        ),
        "uncertainty": Node("PreviewImage", "Uncertainty", {"images": ["spread", 2]}),
    }


def more(name: str, title: str, **inputs: Any) -> dict[str, Node]:
    """Fills around the chosen one, back in the picture and side by side."""
    prompts = {"positive": ["conditioning", 0], "negative": ["conditioning", 0]}
    numbers = {"seed": 0, "cfg": 1.0, "fills": 4, "first_fill": 0}
    links = {"model": ["checkpoint", 0], **prompts, "posterior": ["inpaint", 1], "around": ["choose", 0]}
    back = composite(fills=[f"decode_{name}", 0])["composite"]
    shown = {"images": [f"composite_{name}", 0], "chosen": "1", "original": ["picture", 0], "mask": ["picture", 1]}
    return {
        name: Node("VIPaintSample", title, {**links, **numbers, **inputs}),
        f"decode_{name}": Node("VAEDecode", "VAE Decode", {"samples": [name, 0], "vae": ["checkpoint", 2]}),
        f"composite_{name}": back,
        f"choose_{name}": Node("VIPaintChoose", "VIPaint Choose Fill", shown),
    }


def note(title: str, steps: Sequence[str], more: str = "") -> str:
    numbered = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
    return f"## {title}\n\n{numbered}\n" + (f"\n{more}\n" if more else "")


PAINT = (
    "Choose your picture in *Load Image*; right-click it, *Open in MaskEditor*, paint what is to be filled, and save."
)
CHOOSE = "Press *Run*, click a fill in *VIPaint Choose Fill* to see it large, double-click to choose it, and run again."
PROMPT = "Say in the upper prompt what the hole should show."

TEMPLATES = (
    Template(
        "inpaint_with_prompt",
        note(
            "Fill a hole in several ways", [PAINT, PROMPT, CHOOSE], "Other checkpoints: *Load Checkpoint* at the left."
        ),
        {
            **checkpoint(SD15),
            **prompts("a cup of green tea with a slice of lemon, photograph", "blurry, watermark, text"),
            **picture("espresso"),
            **inpaint("positive", "negative", cfg=4.0),
            **composite(),
            **choose(["composite", 0], "VIPaint", mask=["picture", 1]),
        },
        (
            Column("1 · Picture and mask", ("picture",)),
            Column("2 · Your model and what to paint", ("checkpoint", "positive", "negative")),
            Column("Paint", ("inpaint", "decode", "composite")),
            Column("3 · Choose", ("choose",)),
            Column("Result", ("save", "spread", "uncertainty")),
        ),
    ),
    Template(
        "inpaint",
        note("A first try, without any download", [PAINT, "Press *Run*.", CHOOSE], OWN_MODEL),
        {
            **toy(),
            **picture("portrait"),
            **inpaint(),
            **composite(),
            **choose(["composite", 0], "VIPaint", mask=["picture", 1]),
        },
        (
            Column("1 · Picture and mask", ("picture",)),
            Column("Your model", ("checkpoint", "conditioning")),
            Column("2 · Paint", ("inpaint", "decode", "composite")),
            Column("3 · Choose", ("choose",)),
            Column("Result", ("save", "spread", "uncertainty")),
        ),
    ),
    Template(
        "outpaint",
        note(
            "Paint beyond the border",
            ["Choose your picture.", "Say in *Pad Image for Outpainting* how many pixels each side grows.", CHOOSE],
            OWN_MODEL,
        ),
        {
            **toy(),
            **picture("part", "Picture"),
            "pad": Node(
                "ImagePadForOutpaint",
                "Larger canvas, with its mask",
                {"image": ["picture", 0], "left": 5, "top": 8, "right": 27, "bottom": 19, "feathering": 12},
            ),
            **inpaint(image=["pad", 0], mask=["pad", 1]),
            **composite(original=["pad", 0], mask=["pad", 1]),
            **choose(["composite", 0], "VIPaint_outpaint", "pad", mask=["pad", 1]),
        },
        (
            Column("1 · Picture", ("picture",)),
            Column("2 · Your model and the new border", ("checkpoint", "conditioning", "pad")),
            Column("Paint", ("inpaint", "decode", "composite")),
            Column("3 · Choose", ("choose",)),
            Column("Result", ("save", "spread", "uncertainty")),
        ),
    ),
    Template(
        "crop_and_stitch",
        note(
            "A hole in a large picture",
            [
                PAINT,
                "Give *VIPaint Crop* the size that your model was trained for: 512 for SD1.5, 1024 for SDXL.",
                CHOOSE,
            ],
            OWN_MODEL,
        ),
        {
            **toy(),
            **picture("large"),
            "crop": Node(
                "VIPaintCrop",
                "The hole at the model's size",
                {
                    "image": ["picture", 0],
                    "mask": ["picture", 1],
                    "width": 128,
                    "height": 128,
                    "context": 1.5,
                    "enlarge": 1.0,
                },
            ),
            **inpaint(image=["crop", 0], mask=["crop", 1]),
            **composite(crop=["crop", 2]),
            **choose(["composite", 0], "VIPaint_crop", mask=["picture", 1]),
        },
        (
            Column("1 · Picture and mask", ("picture",)),
            Column("2 · Your model and its size", ("checkpoint", "conditioning", "crop")),
            Column("Paint", ("inpaint", "decode", "composite")),
            Column("3 · Choose", ("choose",)),
            Column("Result", ("save", "spread", "uncertainty")),
        ),
    ),
    *(
        Template(
            name,
            note(
                title,
                ["Choose your picture.", step, "Press *Run*, and compare the results with what was given."],
                OWN_MODEL,
            ),
            {
                **toy(),
                **picture(source, "Picture"),
                "restore": Node(
                    "VIPaintRestore",
                    "VIPaint Restore",
                    {
                        "model": ["checkpoint", 0],
                        "positive": ["conditioning", 0],
                        "negative": ["conditioning", 0],
                        "seed": 0,
                        "cfg": 1.0,
                        "fills": 2,
                        "steps": 15,
                        "attempts": 8,
                        **degradation,
                        "noise": 0.02,
                        "image": ["picture", 0],
                        "vae": ["checkpoint", 2],
                    },
                ),
                **choose(["restore", 1], f"VIPaint_{name}"),
            },
            (
                Column("1 · Picture", ("picture",)),
                Column("Your model", ("checkpoint", "conditioning")),
                Column("2 · What was done to it", ("restore",)),
                Column("3 · Choose", ("choose",)),
                Column("Result", ("save", "spread", "uncertainty")),
            ),
        )
        for name, title, source, degradation, step in (
            (
                "deblur",
                "Sharp pictures from a blurred one",
                "blurred",
                {"degradation": "gaussian blur", "degradation.sigma": 3.0},
                "Say in *VIPaint Restore* how it was blurred: try a few values of sigma.",
            ),
            (
                "super_resolution",
                "Large pictures from a small one",
                "small",
                {"degradation": "super-resolution", "degradation.factor": "8", "degradation.kind": "bicubic"},
                "Say in *VIPaint Restore* how many times as large it should be.",
            ),
        )
    ),
    Template(
        "fit_once_draw_more",
        note(
            "Fit once, draw more",
            [
                PAINT,
                "Press *Run*: three fills fit the posterior, and five more are drawn from it. It is also saved in models/vipaint.",
                "Raise *first_fill* by 8 and run again: eight new fills of the same posterior, without fitting. Another day, "
                "begin with *VIPaint Load Posterior*.",
            ],
            OWN_MODEL,
        ),
        {
            **toy(),
            **picture("portrait"),
            "fit": Node(
                "VIPaintFit",
                "Fit once",
                {
                    "model": ["checkpoint", 0],
                    "positive": ["conditioning", 0],
                    "negative": ["conditioning", 0],
                    "seed": 0,
                    "cfg": 1.0,
                    "preset": "balanced",
                    "image": ["picture", 0],
                    "mask": ["picture", 1],
                    "vae": ["checkpoint", 2],
                },
            ),
            "keep": Node(
                "VIPaintSavePosterior", "Keep it for later", {"posterior": ["fit", 0], "filename_prefix": "portrait"}
            ),
            "sample": Node(
                "VIPaintSample",
                "Draw as many as you like",
                {
                    "model": ["checkpoint", 0],
                    "positive": ["conditioning", 0],
                    "negative": ["conditioning", 0],
                    "posterior": ["fit", 0],
                    "seed": 0,
                    "cfg": 1.0,
                    "fills": 8,
                    "first_fill": 0,
                },
            ),
            "decode": Node("VAEDecode", "VAE Decode", {"samples": ["sample", 0], "vae": ["checkpoint", 2]}),
            **composite(),
            **choose(["composite", 0], "VIPaint_more", mask=["picture", 1]),
        },
        (
            Column("1 · Picture and mask", ("picture",)),
            Column("Your model", ("checkpoint", "conditioning")),
            Column("2 · Fit once", ("fit", "keep")),
            Column("3 · Draw more", ("sample", "decode", "composite")),
            Column("Choose", ("choose",)),
            Column("Result", ("save", "spread", "uncertainty")),
        ),
    ),
    Template(
        "custom_sampler",
        note(
            "VIPaint in Sampler Custom",
            [
                PAINT,
                "Set *amount* of *Repeat Latent Batch* to the number of fills.",
                "Press *Run*. For another guider use *SamplerCustomAdvanced*; with *stop_at* below 1 give *rest* to a sampler "
                "behind this one.",
            ],
            OWN_MODEL,
        ),
        {
            **toy(),
            **picture("portrait"),
            # It covers the hole and sets the noise mask; grown by a latent cell, so that none is hidden in part.
            "encode": Node(
                "VAEEncodeForInpaint",
                "VAE Encode (for Inpainting)",
                {"pixels": ["picture", 0], "vae": ["checkpoint", 2], "mask": ["picture", 1], "grow_mask_by": 8},
            ),
            "repeat": Node("RepeatLatentBatch", "How many fills", {"samples": ["encode", 0], "amount": 4}),
            "levels": Node(
                "VIPaintSigmas",
                "VIPaint Sigmas",
                {
                    "model": ["checkpoint", 0],
                    "latent_image": ["repeat", 0],
                    "preset": "balanced",
                    "strength": 1.0,
                    "stop_at": 1.0,
                },
            ),
            "sampler": Node("VIPaintSampler", "VIPaint Sampler", {"preset": "balanced"}),
            "paint": sampler_custom("Sampler Custom"),
            "decode": Node("VAEDecode", "VAE Decode", {"samples": ["paint", 0], "vae": ["checkpoint", 2]}),
            **composite(),
            **choose(["composite", 0], "VIPaint_custom", mask=["picture", 1]),
        },
        (
            Column("1 · Picture and mask", ("picture", "encode")),
            Column("Your model", ("checkpoint", "conditioning")),
            Column("2 · Fills and levels", ("repeat", "levels", "sampler")),
            Column("3 · Paint", ("paint", "decode", "composite")),
            Column("Choose", ("choose",)),
            Column("Result", ("save", "spread", "uncertainty")),
        ),
    ),
    Template(
        "choose_and_refine",
        note(
            "Choose, refine, enlarge",
            [
                PAINT,
                CHOOSE,
                "*KSampler* works over the chosen fill, in the hole alone: raise *denoise* for more change. "
                "The result is enlarged and put back into the enlarged picture.",
            ],
            OWN_MODEL,
        ),
        {
            **toy(),
            **picture("portrait"),
            **inpaint(),
            **composite(),
            **choose(["composite", 0], "VIPaint_chosen", mask=["picture", 1], latent=["inpaint", 0]),
            "refine": Node(
                "KSampler",
                "Refine the chosen fill",
                {
                    "model": ["checkpoint", 0],
                    "positive": ["conditioning", 0],
                    "negative": ["conditioning", 0],
                    "latent_image": ["choose", 0],
                    "seed": 0,
                    "steps": 20,
                    "cfg": 1.0,
                    "sampler_name": "euler",
                    "scheduler": "normal",
                    "denoise": 0.3,
                },
            ),
            "refined": Node("VAEDecode", "VAE Decode", {"samples": ["refine", 0], "vae": ["checkpoint", 2]}),
            "enlarge": Node(
                "ImageScaleBy",
                "Enlarge: or an upscale model",
                {"image": ["refined", 0], "upscale_method": "lanczos", "scale_by": 2.0},
            ),
            "back": Node(
                "VIPaintComposite",
                "Back into the enlarged picture",
                {
                    "fills": ["enlarge", 0],
                    "original": ["picture", 0],
                    "mask": ["picture", 1],
                    "feather": 0,
                    "colour_match": 1.0,
                },
            ),
            "save_refined": Node(
                "SaveImage", "Save the refined picture", {"images": ["back", 0], "filename_prefix": "VIPaint_refined"}
            ),
        },
        (
            Column("1 · Picture and mask", ("picture",)),
            Column("Your model", ("checkpoint", "conditioning")),
            Column("Paint", ("inpaint", "decode", "composite")),
            Column("2 · Choose", ("choose", "save")),
            Column("3 · Refine", ("refine", "refined", "enlarge", "back", "save_refined")),
            Column("Where the fills differ", ("spread", "uncertainty")),
        ),
    ),
    Template(
        "more_like_this",
        note(
            "More like this, keep this part",
            [
                PAINT,
                "Press *Run*, double-click the fill that you like in *VIPaint Choose Fill*, and run again: *More like it* "
                "draws four around it. Lower its *variation* for closer ones.",
                "*Keep a part of it* draws the rest anew. To say which part, save the chosen fill, open it in *What to keep*, "
                "right-click, *Open in MaskEditor*, and paint over it.",
            ],
            OWN_MODEL,
        ),
        {
            **toy(),
            **picture("faceless"),
            **inpaint(),
            **composite(),
            **choose(["composite", 0], "VIPaint_chosen", mask=["picture", 1], latent=["inpaint", 0]),
            **more("like", "More like it", variation=0.5),
            "keep": Node("LoadImage", "What to keep: paint it with MaskEditor", {"image": "vipaint_keep.png"}),
            **more("part", "Keep a part of it", variation=1.0, keep=["keep", 1]),
        },
        (
            Column("1 · Picture and mask", ("picture",)),
            Column("Your model", ("checkpoint", "conditioning")),
            Column("Paint", ("inpaint", "decode", "composite")),
            Column("2 · Choose", ("choose", "save")),
            Column("3 · More like it", ("like", "decode_like", "composite_like")),
            Column("Fills like it", ("choose_like",)),
            Column("Or keep a part of it", ("keep", "part", "decode_part", "composite_part")),
            Column("Fills with that part", ("choose_part",)),
            Column("Where the fills differ", ("spread", "uncertainty")),
        ),
    ),
    Template(
        "controlnet",
        note(
            "Edges of your own in the hole",
            [
                PAINT,
                "Choose a picture whose edges the fills should follow: here the espresso's own.",
                PROMPT + " " + CHOOSE,
            ],
        ),
        {
            **checkpoint(SD15),
            **prompts("a bowl of tomato soup, photograph", "blurry, watermark, text"),
            **picture("espresso"),
            "edges": Node(
                "Canny", "Edges to follow", {"image": ["picture", 0], "low_threshold": 0.2, "high_threshold": 0.5}
            ),
            "network": Node("ControlNetLoader", "ControlNet", {"control_net_name": CANNY[0]}, (CANNY,)),
            "control": Node(
                "ControlNetApplyAdvanced",
                "Apply ControlNet",
                {
                    "positive": ["positive", 0],
                    "negative": ["negative", 0],
                    "control_net": ["network", 0],
                    "image": ["edges", 0],
                    "strength": 0.8,
                    "start_percent": 0.0,
                    "end_percent": 1.0,
                    "vae": ["checkpoint", 2],
                },
            ),
            **inpaint("control", "control", cfg=4.0),
            **composite(),
            **choose(["composite", 0], "VIPaint_controlnet", mask=["picture", 1]),
        },
        (
            Column("1 · Picture and mask", ("picture", "edges")),
            Column("2 · Your model and what to paint", ("checkpoint", "positive", "negative")),
            Column("Edges", ("network", "control")),
            Column("Paint", ("inpaint", "decode", "composite")),
            Column("3 · Choose", ("choose",)),
            Column("Result", ("save", "spread", "uncertainty")),
        ),
    ),
    *(
        Template(
            name,
            note(
                title, [PAINT, PROMPT, CHOOSE], "*VIPaint Crop* cuts the hole out at the size that the model works at."
            ),
            {
                **checkpoint(model),
                **prompts("a sunny kitchen window with herbs in pots, out of focus, photograph", negative),
                **extra,
                **picture("cat"),
                "crop": Node(
                    "VIPaintCrop",
                    "The hole at the model's size",
                    {
                        "image": ["picture", 0],
                        "mask": ["picture", 1],
                        "width": 1024,
                        "height": 1024,
                        "context": 2.0,
                        "enlarge": 4.0,
                    },
                ),
                **inpaint(positive, "negative", image=["crop", 0], mask=["crop", 1], cfg=cfg),
                **composite(crop=["crop", 2]),
                **choose(["composite", 0], f"VIPaint_{name}", mask=["picture", 1]),
            },
            (
                Column("1 · Picture and mask", ("picture", "crop")),
                Column("2 · Your model and what to paint", ("checkpoint", "positive", "negative", *extra)),
                Column("Paint", ("inpaint", "decode", "composite")),
                Column("3 · Choose", ("choose",)),
                Column("Result", ("save", "spread", "uncertainty")),
            ),
        )
        for name, title, model, positive, negative, cfg, extra in (
            ("sdxl", "SDXL with prompts", SDXL, "positive", "blurry, watermark, text", 5.0, {}),
            (
                "flux",
                "Flux",
                FLUX,
                "guidance",
                "",
                1.0,
                {"guidance": Node("FluxGuidance", "Guidance", {"conditioning": ["positive", 0], "guidance": 3.5})},
            ),
        )
    ),
    Template(
        "edit_model",
        note(
            "With a model that edits pictures",
            [PAINT, "Say in the upper prompt what should change: the model sees the whole picture beside it.", CHOOSE],
            "Flux Kontext reads the picture as a reference; the hole is filled to fit both.",
        ),
        {
            "checkpoint": Node(
                "UNETLoader",
                "Load Diffusion Model: choose your own here",
                {"unet_name": KONTEXT[0], "weight_dtype": "default"},
                (KONTEXT,),
            ),
            "encoders": Node(
                "DualCLIPLoader",
                "Text encoders",
                {"clip_name1": CLIP_L[0], "clip_name2": T5[0], "type": "flux", "device": "default"},
                (CLIP_L, T5),
            ),
            "autoencoder": Node("VAELoader", "VAE", {"vae_name": FLUX_VAE[0]}, (FLUX_VAE,)),
            **prompts("fill the cup with green tea and a slice of lemon", "", ["encoders", 0]),
            **picture("espresso"),
            "encode": Node(
                "VAEEncode", "The picture as a reference", {"pixels": ["picture", 0], "vae": ["autoencoder", 0]}
            ),
            "reference": Node(
                "ReferenceLatent", "Reference", {"conditioning": ["positive", 0], "latent": ["encode", 0]}
            ),
            "guidance": Node("FluxGuidance", "Guidance", {"conditioning": ["reference", 0], "guidance": 2.5}),
            **inpaint("guidance", "negative", vae=["autoencoder", 0]),
            **composite(),
            **choose(["composite", 0], "VIPaint_edit", mask=["picture", 1]),
        },
        (
            Column("1 · Picture and mask", ("picture",)),
            Column("Your model", ("checkpoint", "encoders", "autoencoder")),
            Column("2 · What to change", ("positive", "negative", "encode", "reference", "guidance")),
            Column("Paint", ("inpaint", "decode", "composite")),
            Column("3 · Choose", ("choose",)),
            Column("Result", ("save", "spread", "uncertainty")),
        ),
    ),
)


# --- what nodes look like, and where they are put ---


@dataclass(frozen=True)
class Shape:
    """Sockets (name, type, optional) and widgets (name) of a node class, in the editor's order, and its outputs."""

    sockets: list[tuple[str, str, bool]]
    widgets: list[str]
    outputs: list[tuple[str, str]]
    values: list[Any]


def shape_of(info: dict[str, Any], node: Node) -> Shape:
    """How the editor shows a node, whose description is /object_info's."""
    sockets: list[tuple[str, str, bool]] = []
    widgets: list[str] = []
    values: list[Any] = []

    def add(name: str, kind: Any, settings: dict[str, Any], optional: bool) -> None:
        is_list = isinstance(kind, list)
        if (not is_list and kind not in WIDGETS) or settings.get("forceInput"):
            sockets.append((name, str(kind), optional))
            return
        options = settings.get("options", kind if is_list else None)
        default = settings.get("default", options[0] if options and kind != "COMFY_DYNAMICCOMBO_V3" else None)
        value = node.inputs.get(name, default)
        widgets.append(name)
        values.append(value)
        if settings.get("control_after_generate"):
            widgets.append("control_after_generate")
            values.append("fixed")
        if settings.get("image_upload"):
            widgets.append("upload")
            values.append("image")
        if kind == "COMFY_DYNAMICCOMBO_V3":
            (chosen,) = (option for option in settings["options"] if option["key"] == value)
            for group in ("required", "optional"):
                for inner, (inner_kind, *rest) in chosen["inputs"].get(group, {}).items():
                    add(f"{name}.{inner}", inner_kind, rest[0] if rest else {}, group == "optional")

    for group in ("required", "optional"):
        for name in info["input_order"].get(group, ()):
            kind, *rest = info["input"][group][name]
            add(name, kind, rest[0] if rest else {}, group == "optional")
    unknown = {name for name in node.inputs if name not in widgets and name not in {socket[0] for socket in sockets}}
    if unknown:
        raise ValueError(f"{node.kind}: expected inputs of the node, found {', '.join(sorted(unknown))}")
    outputs = list(zip(info["output_name"], info["output"], strict=True))
    return Shape(sockets, widgets, outputs, values)


def api_form(template: Template) -> dict[str, Any]:
    """The template for scripts: mask in a file of its own, all fills saved, nothing to click."""
    nodes = {name: node for name, node in template.nodes.items() if name != "choose"}
    masked = any(node.inputs.get("mask") == ["picture", 1] for node in nodes.values())
    every = template.nodes["choose"].inputs["images"]
    replaced = {("choose", 1): every, ("picture", 1): ["mask", 0]}
    if "latent" in template.nodes["choose"].inputs:
        replaced["choose", 0] = template.nodes["choose"].inputs["latent"]
    if any("around" in node.inputs for node in nodes.values()):
        first = {"samples": replaced["choose", 0], "batch_index": 0, "length": 1}
        nodes["first"] = Node("LatentFromBatch", "The first fill", first)
        replaced["choose", 0] = ["first", 0]
    for name, node in template.nodes.items():
        if node.kind == "VIPaintChoose" and name != "choose":
            images = {"images": node.inputs["images"], "filename_prefix": f"VIPaint_{name.removeprefix('choose_')}"}
            nodes[name] = Node("SaveImage", "Save all of them", images)
    prefix = f"{template.nodes['save'].inputs['filename_prefix']}_uncertainty"
    nodes["uncertainty"] = Node("SaveImage", "Save heat map", {"images": ["spread", 0], "filename_prefix": prefix})
    if masked:
        file = str(template.nodes["picture"].inputs["image"]).replace(".png", "_mask.png")
        nodes["mask"] = Node("LoadImageMask", "Mask: white is painted", {"image": file, "channel": "red"})

    def value(given: Any) -> Any:
        return replaced.get((given[0], given[1]), given) if isinstance(given, list) else given

    titles = {"save": "Save all fills", "picture": "Picture"}
    return {
        name: {
            "class_type": node.kind,
            "inputs": {key: given if name == "first" else value(given) for key, given in node.inputs.items()},
            "_meta": {"title": titles.get(name, node.title)},
        }
        for name, node in nodes.items()
    }


def graph_form(template: Template, shapes: dict[str, Shape]) -> dict[str, Any]:
    """The template as the editor saves workflows (version 0.4)."""
    names = list(template.nodes)
    ids = {name: number for number, name in enumerate(names, 1)}
    links: list[list[Any]] = []
    incoming: dict[tuple[str, str], int] = {}
    outgoing: dict[tuple[str, int], list[int]] = {}
    for name in names:
        for slot, (socket, kind, _) in enumerate(shapes[name].sockets):
            source = template.nodes[name].inputs.get(socket)
            if source is None:
                continue
            links.append([len(links) + 1, ids[source[0]], source[1], ids[name], slot, kind])
            incoming[name, socket] = len(links)
            outgoing.setdefault((source[0], source[1]), []).append(len(links))
    places, groups = placed(template, shapes)
    nodes = []
    for order, name in enumerate(names):
        node, shape = template.nodes[name], shapes[name]
        position, size = places[name]
        properties: dict[str, Any] = {"Node name for S&R": node.kind}
        if node.models:
            properties["models"] = [{"name": m[0], "directory": m[1], "url": m[2]} for m in node.models]
        nodes.append(
            {
                "id": ids[name],
                "type": node.kind,
                "title": node.title,
                "pos": position,
                "size": size,
                "flags": {},
                "order": order,
                "mode": 0,
                "inputs": [
                    {
                        "name": socket,
                        "type": kind,
                        "link": incoming.get((name, socket)),
                        **({"shape": 7} if optional else {}),
                    }
                    for socket, kind, optional in shape.sockets
                ],
                "outputs": [
                    {"name": output, "type": kind, "links": outgoing.get((name, slot), [])}
                    for slot, (output, kind) in enumerate(shape.outputs)
                ],
                "properties": properties,
                "widgets_values": shape.values,
            }
        )
    nodes.append(
        {
            "id": len(nodes) + 1,
            "type": "MarkdownNote",
            "title": "Three steps",
            "pos": [0, -420],
            "size": [700, 280],
            "flags": {},
            "order": len(nodes),
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "properties": {},
            "widgets_values": [template.note],
            "color": "#432",
            "bgcolor": "#653",
        }
    )
    return {
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": groups,
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def placed(
    template: Template, shapes: dict[str, Shape]
) -> tuple[dict[str, tuple[list[int], list[int]]], list[dict[str, Any]]]:
    """Position and size of every node, and the groups around the columns."""
    missing = set(template.nodes) ^ {name for column in template.columns for name in column.nodes}
    if missing:
        raise ValueError(f"{template.name}: expected every node in one column, found otherwise {', '.join(missing)}")
    places, groups, left = {}, [], 0
    for number, column in enumerate(template.columns):
        width = max(WIDTHS.get(template.nodes[name].kind, 300) for name in column.nodes)
        top = 0
        for name in column.nodes:
            shape, kind = shapes[name], template.nodes[name].kind
            height = (
                SLOT * max(len(shape.sockets), len(shape.outputs)) + WIDGET * len(shape.widgets) + EXTRA.get(kind, 10)
            )
            places[name] = ([left, top], [width, height])
            top += height + TITLE + GAP
        groups.append(
            {
                "id": number + 1,
                "title": column.title,
                "bounding": [left - 20, -70 - TITLE, width + 40, top + 60 + TITLE - GAP + 10],
                "color": "#3f789e",
                "font_size": 22,
                "flags": {},
            }
        )
        left += width + 80
    return places, groups


# --- the subgraph blueprint ---

BLUEPRINT_NAME = "Inpaint with VIPaint"
BLUEPRINT_ID = "5b1c6f0e-7d0e-4d39-9a44-7a6d3f1f8a10"
# Sockets of the blueprint: name, type, and the sockets inside that they lead to.
BLUEPRINT_INPUTS = (
    ("image", "IMAGE", (("inpaint", "image"), ("composite", "original"))),
    ("mask", "MASK", (("inpaint", "mask"), ("composite", "mask"))),
    ("model", "MODEL", (("inpaint", "model"),)),
    ("clip", "CLIP", (("positive", "clip"), ("negative", "clip"))),
    ("vae", "VAE", (("inpaint", "vae"), ("decode", "vae"))),
)
# Widgets of inner nodes that the blueprint shows.
BLUEPRINT_WIDGETS = (
    ("positive", "text"),
    ("negative", "text"),
    ("inpaint", "fills"),
    ("inpaint", "seed"),
    ("inpaint", "preset"),
    ("inpaint", "cfg"),
)


def blueprint_nodes() -> dict[str, Node]:
    inner = {**prompts("", "blurry, watermark, text"), **inpaint("positive", "negative", cfg=4.0), **composite()}
    sockets = {pair for _, _, pairs in BLUEPRINT_INPUTS for pair in pairs}
    return {
        name: Node(
            node.kind, node.title, {key: value for key, value in node.inputs.items() if (name, key) not in sockets}
        )
        for name, node in inner.items()
    }


def blueprint(shapes: dict[str, Shape]) -> dict[str, Any]:
    """A subgraph of picture, mask, model and prompt to finished pictures, as the editor keeps blueprints."""
    nodes = blueprint_nodes()
    columns = (Column("", ("positive", "negative")), Column("", ("inpaint",)), Column("", ("decode", "composite")))
    inside = graph_form(Template(BLUEPRINT_NAME, "", nodes, columns), shapes)
    ids = {name: number for number, name in enumerate(nodes, 1)}
    inner = inside["nodes"][: len(nodes)]
    links = [
        dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link, strict=True))
        for link in inside["links"]
    ]

    def link(origin: tuple[int, int], target: tuple[int, int], kind: str) -> int:
        links.append(
            {
                "id": len(links) + 1,
                "origin_id": origin[0],
                "origin_slot": origin[1],
                "target_id": target[0],
                "target_slot": target[1],
                "type": kind,
            }
        )
        return len(links)

    inputs = []
    for slot, (name, kind, pairs) in enumerate(BLUEPRINT_INPUTS):
        found = []
        for node, socket in pairs:
            index = [one[0] for one in shapes[node].sockets].index(socket)
            number = link((-10, slot), (ids[node], index), kind)
            inner[ids[node] - 1]["inputs"][index]["link"] = number
            found.append(number)
        identity = f"5b1c6f0e-7d0e-4d39-9a44-7a6d3f1f8b{slot:02d}"
        inputs.append({"id": identity, "name": name, "type": kind, "linkIds": found, "pos": [-140, 20 * slot]})
    last = link((ids["composite"], 0), (-20, 0), "IMAGE")
    inner[ids["composite"] - 1]["outputs"][0]["links"] = [last]
    output = {
        "id": "5b1c6f0e-7d0e-4d39-9a44-7a6d3f1f8c00",
        "name": "pictures",
        "type": "IMAGE",
        "linkIds": [last],
        "pos": [1200, 0],
    }
    subgraph = {
        "id": BLUEPRINT_ID,
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": len(nodes), "lastLinkId": len(links), "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": BLUEPRINT_NAME,
        "inputNode": {"id": -10, "bounding": [-260, -20, 120, 140]},
        "outputNode": {"id": -20, "bounding": [1180, -20, 120, 60]},
        "inputs": inputs,
        "outputs": [output],
        "widgets": [],
        "nodes": inner,
        "groups": [],
        "links": links,
        "extra": {},
        "category": "VIPaint",
        "description": "Fills the white of a mask in several ways: picture, mask and prompt in, finished pictures out.",
    }
    outer = {
        "id": 1,
        "type": BLUEPRINT_ID,
        "pos": [0, 0],
        "size": [400, 420],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [{"name": name, "type": kind, "link": None} for name, kind, _ in BLUEPRINT_INPUTS],
        "outputs": [{"name": "pictures", "type": "IMAGE", "links": []}],
        "properties": {"proxyWidgets": [[str(ids[node]), widget] for node, widget in BLUEPRINT_WIDGETS]},
        "widgets_values": [],
        "title": BLUEPRINT_NAME,
    }
    return {
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [outer],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": [subgraph]},
        "extra": {},
    }


def files(server: ComfyServer) -> Iterator[tuple[Path, str]]:
    """Every file that is made, and its text."""

    def shapes(nodes: dict[str, Node]) -> dict[str, Shape]:
        return {name: shape_of(server.object_info(node.kind), node) for name, node in nodes.items()}

    def text(value: Any) -> str:
        return json.dumps(value, indent=1, ensure_ascii=False) + "\n"

    for template in TEMPLATES:
        yield FOLDER / f"{template.name}.json", text(graph_form(template, shapes(template.nodes)))
        yield FOLDER / "api" / f"{template.name}.json", text(api_form(template))
    yield BLUEPRINTS / f"{BLUEPRINT_NAME}.json", text(blueprint(shapes(blueprint_nodes())))


def main() -> int:
    with ComfyServer() as server:
        for file, words in files(server):
            file.parent.mkdir(exist_ok=True)
            file.write_text(words, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
