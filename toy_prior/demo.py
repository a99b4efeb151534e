"""Paints a picture on a real ComfyUI server and shows the fills on one contact sheet.

    python3 run.py demo [--scene inpaint|outpaint|crop_and_stitch|deblur|super_resolution] [--seed N]
                        [--hole right|top|bottom|centre] [--picture FILE --mask FILE] ...

A scene is one of the workflows in workflows/api/, on a picture of the toy model's. The mask file is white where the
picture is to be filled.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw

from tools.comfy_server import ROOT, ComfyServer
from toy_prior import CHECKPOINT, pictures
from vipaint_core.problem.operators import Blur, Downsample, LinearOperator, gaussian_kernel

# What the second tile of a scene shows.
SCENES = {
    **dict.fromkeys(("inpaint", "outpaint", "crop_and_stitch"), "grey is painted"),
    "deblur": "before it was blurred",
    "super_resolution": "before it was reduced",
}
NODES = ("checkpoint", "picture", "save", "uncertainty")
# The node that paints, one of these.
PAINTERS = ("inpaint", "restore")
# The part of a portrait that is outpainted to the portrait's size: left, top, right, bottom.
INNER = (5, 8, 101, 109)
# Size of the large picture, where the portrait lies in it, and the part of the portrait that is hidden there. It is
# in the middle: the cut at the model's size is the portrait.
CANVAS, PLACE, FACE = (300, 260), (107, 55), (32, 28, 96, 100)
# What scenes are degraded with, as their workflows say.
BLUR, FACTOR, NOISE = 3.0, 8, 0.02
GREY, CANVAS_COLOUR = (128, 128, 128), (214, 208, 196)
TILE, MARGIN, CAPTION = 256, 8, 16


def draw_input(seed: int, hole: str) -> tuple[Image.Image, Image.Image]:
    """A picture of the toy prior and a mask, white where it is hidden."""
    attributes = pictures.sample_attributes(1, torch.Generator().manual_seed(seed))
    picture = rearrange(pictures.render(attributes)[0], "c h w -> h w c").mul(255).round().clamp(0, 255).to(torch.uint8)
    mask = pictures.hole(hole).to(torch.uint8).mul(255)
    return Image.fromarray(picture.numpy(), "RGB"), Image.fromarray(mask.numpy(), "L").convert("RGB")


def degraded(picture: Image.Image, operator: LinearOperator, seed: int) -> Image.Image:
    """What the operator makes of a picture, with noise."""
    (colours,) = operator.A(rearrange(torch.from_numpy(np.array(picture)), "h w c -> 1 c h w") / 255)
    noisy = colours + NOISE * torch.randn(colours.shape, generator=torch.Generator().manual_seed(seed))
    pixels = rearrange(noisy.clamp(0, 1).mul(255).round().byte(), "c h w -> h w c")
    return Image.fromarray(pixels.numpy(), "RGB")


def draw_scene(scene: str, seed: int, hole: str) -> tuple[dict[str, Image.Image], Image.Image]:
    """What the nodes of a workflow load, by their ids, and what the scene's second tile shows, see `SCENES`.

    hole: one of `pictures.MASKS`, for the scene inpaint.
    """
    picture, mask = draw_input(seed, hole)
    if scene in ("deblur", "super_resolution"):
        operator = Blur(gaussian_kernel(BLUR)) if scene == "deblur" else Downsample(FACTOR)
        return {"picture": degraded(picture, operator, seed)}, picture
    if scene == "outpaint":
        shown = Image.new("RGB", picture.size, GREY)
        picture = picture.crop(INNER)
        shown.paste(picture, INNER[:2])
        return {"picture": picture}, shown
    if scene == "crop_and_stitch":
        face = Image.new("RGB", picture.size)
        face.paste((255, 255, 255), FACE)
        large, mask = Image.new("RGB", CANVAS, CANVAS_COLOUR), Image.new("RGB", CANVAS)
        large.paste(picture, PLACE)
        mask.paste(face, PLACE)
        picture = large
    return {"picture": picture, "mask": mask}, hidden(picture, mask)


def load_workflow(file: Path, nodes: Sequence[str] = NODES) -> dict[str, Any]:
    """Reads a workflow in API format and checks the node ids that the demo relies on."""
    if not file.is_file():
        raise FileNotFoundError(f"demo: expected a workflow in API format, found no file {file}")
    prompt: dict[str, Any] = json.loads(file.read_text("utf-8"))
    missing = [name for name in nodes if name not in prompt]
    missing += [" or ".join(PAINTERS)] if not set(PAINTERS) & set(prompt) else []
    if missing:
        raise ValueError(f"demo: expected in {file.name} the nodes that the demo sets, found no {', '.join(missing)}")
    return prompt


def contact_sheet(tiles: list[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """Captioned tiles in rows, left to right."""
    rows = math.ceil(len(tiles) / columns)
    cell, line = TILE + MARGIN, TILE + CAPTION + MARGIN
    sheet = Image.new("RGB", (columns * cell + MARGIN, rows * line + MARGIN), (245, 245, 245))
    pen = ImageDraw.Draw(sheet)
    for index, (caption, tile) in enumerate(tiles):
        left, top = MARGIN + index % columns * cell, MARGIN + index // columns * line
        pen.text((left, top), caption, fill=(30, 30, 30))
        scale = TILE / max(tile.size)
        # Enlarged pixels stay visible as pixels; photographs are reduced smoothly.
        method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
        shown = tile.convert("RGB").resize((round(tile.width * scale), round(tile.height * scale)), method)
        sheet.paste(shown, (left, top + CAPTION))
    return sheet


def hidden(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture with its hidden part in grey: what the model is given."""
    grey = Image.new("RGB", picture.size, GREY)
    return Image.composite(grey, picture, mask.getchannel("R").resize(picture.size))


class Progress:
    """Prints the time waited and the server's last words every few seconds."""

    def __init__(self, server: ComfyServer, every: float = 5.0) -> None:
        self.server, self.every, self.next = server, every, 0.0

    def __call__(self, waited: float) -> None:
        if waited >= self.next:
            self.next = waited + self.every
            # Without colours, and of a progress bar its last state.
            last = re.sub(r"\x1b\[[0-9;]*m", "", self.server.tail(1)).strip("\r\n ").split("\r")[-1]
            print(f"  {waited:4.0f} s  {last[:100]}", flush=True)


def run(options: argparse.Namespace) -> Path:
    """Runs the demo; returns the path of the contact sheet."""
    if not CHECKPOINT.is_file():
        raise FileNotFoundError(
            f"demo: expected the toy checkpoint {CHECKPOINT.relative_to(ROOT)}, found none. "
            "Train it with `python -m toy_prior.train` in the host's environment."
        )
    if options.picture:
        files = {"picture": options.picture, "mask": options.mask}
        inputs = {name: Image.open(file).convert("RGB") for name, file in files.items()}
        shown = hidden(inputs["picture"], inputs["mask"])
    else:
        inputs, shown = draw_scene(options.scene, options.seed, options.hole)
    workflow = options.workflow or ROOT / "workflows" / "api" / f"{options.scene}.json"
    prompt = load_workflow(workflow, [*NODES, *inputs])
    folder: Path = options.output
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in inputs.items():
        picture.save(folder / f"demo_{name}.png")

    print("starting ComfyUI ...", flush=True)
    with ComfyServer([CHECKPOINT]) as server:
        print(f"ComfyUI answers at {server.url}", flush=True)
        prompt["checkpoint"]["inputs"]["ckpt_name"] = CHECKPOINT.name
        for name in inputs:
            prompt[name]["inputs"]["image"] = server.upload_image(folder / f"demo_{name}.png")
        (painter,) = (prompt[name]["inputs"] for name in PAINTERS if name in prompt)
        painter["seed"] = options.seed
        if options.fills:
            painter["fills"] = options.fills
        entry = server.wait(server.queue(prompt), options.timeout, Progress(server))
        found = server.images(entry)

    absent = [name for name in ("save", "uncertainty") if not found.get(name)]
    if absent:
        raise ValueError(f"demo: expected pictures of the nodes save and uncertainty, found none of {absent}")
    tiles = [("input", inputs["picture"]), (SCENES[options.scene], shown)]
    for index, data in enumerate(found["save"], 1):
        file = folder / f"demo_fill_{index}.png"
        file.write_bytes(data)
        tiles.append((f"fill {index}", Image.open(io.BytesIO(data))))
    (folder / "demo_uncertainty.png").write_bytes(found["uncertainty"][0])
    tiles.append(("uncertainty", Image.open(io.BytesIO(found["uncertainty"][0]))))
    sheet: Path = options.sheet or folder / "demo.png"
    contact_sheet(tiles, min(len(tiles), 4)).save(sheet, quality=90)
    return sheet


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py demo", description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--scene", choices=SCENES, default="inpaint", help="workflow to run")
    parser.add_argument("--seed", type=int, default=7, help="seed of the picture and of the fills")
    parser.add_argument(
        "--hole", choices=pictures.MASKS, default="right", help="part of the picture that scene inpaint hides"
    )
    parser.add_argument("--picture", type=Path, help="a picture of your own, with --mask")
    parser.add_argument("--mask", type=Path, help="its mask, white where the picture is filled")
    parser.add_argument("--fills", type=int, help="number of fills; default: the workflow's")
    parser.add_argument("--workflow", type=Path, help="another workflow in API format")
    parser.add_argument("--output", type=Path, default=ROOT / "output", help="folder for the PNGs")
    parser.add_argument("--sheet", type=Path, help="file of the contact sheet; default: demo.png in the output folder")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds to wait for the fills")
    options = parser.parse_args(argv)
    if (options.picture is None) != (options.mask is None):
        parser.error("--picture and --mask go together")
    if options.picture and options.scene not in ("inpaint", "crop_and_stitch"):
        parser.error(f"--picture: scene {options.scene} has a picture of its own")
    return options


def main() -> int:
    options = parse()
    try:
        sheet = run(options)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"contact sheet: {sheet}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
