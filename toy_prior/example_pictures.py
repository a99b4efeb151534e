"""Makes the pictures that the workflow templates open with, in web/examples/.

    python -m toy_prior.example_pictures [--photographs WHEEL]

Portraits are the toy prior's. The photographs are CC0, from the wheel of scikit-image 0.26.0 (`pip download --no-deps
scikit-image==0.26.0`): an espresso by Rachel Michetti and Chelsea the cat by Stefan van der Walt. Without the wheel they
stay as they are. What a template paints is transparent, as ComfyUI's MaskEditor saves it.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from tools.comfy_server import ROOT, ComfyServer
from tools.templates import TEMPLATES
from toy_prior import CHECKPOINT
from toy_prior.demo import draw_scene

FOLDER = ROOT / "web" / "examples"
SEED = 7
# Around both eyes, up to what is visible above them.
EYES = (32, 60, 95, 79)
# Names of the templates' pictures by the demo's scenes.
SCENES = {
    "inpaint": "vipaint_portrait",
    "outpaint": "vipaint_part",
    "crop_and_stitch": "vipaint_large",
    "deblur": "vipaint_blurred",
    "super_resolution": "vipaint_small",
}


def with_hole(picture: Image.Image, mask: Image.Image | None) -> Image.Image:
    """The picture with what is white in the mask transparent; its colours stay below."""
    if mask is None:
        return picture
    holed = picture.convert("RGBA")
    holed.putalpha(mask.getchannel("R").point(lambda level: 255 - level))
    return holed


def espresso(photograph: Image.Image) -> Image.Image:
    """What is in the cup is painted anew."""
    picture = photograph.resize((576, 384), Image.Resampling.LANCZOS).crop((32, 0, 544, 384))
    mask = Image.new("RGB", picture.size)
    ImageDraw.Draw(mask).ellipse([150, 70, 340, 196], fill="white")
    return with_hole(picture, mask)


def cat(photograph: Image.Image) -> Image.Image:
    """The background at the right is painted anew."""
    picture = photograph.crop((0, 0, 448, 296))
    mask = Image.new("RGB", picture.size)
    ImageDraw.Draw(mask).polygon([(372, 92), (448, 40), (448, 296), (330, 296), (352, 200)], fill="white")
    return with_hole(picture, mask)


def faceless(server: ComfyServer) -> tuple[Image.Image, Image.Image]:
    """A portrait without its lower half, and its first fill in the template more_like_this, whose eyes are to be kept."""
    inputs, _ = draw_scene("inpaint", SEED, "bottom")
    face = with_hole(inputs["picture"], inputs["mask"])
    with tempfile.TemporaryDirectory() as folder:
        face.save(Path(folder) / "vipaint_faceless.png")
        server.upload_image(Path(folder) / "vipaint_faceless.png", "vipaint_faceless.png")
    (template,) = (template for template in TEMPLATES if template.name == "more_like_this")
    painting = ("checkpoint", "conditioning", "picture", "inpaint", "decode", "composite")
    prompt: dict[str, Any] = {
        name: {"class_type": template.nodes[name].kind, "inputs": dict(template.nodes[name].inputs)}
        for name in painting
    }
    prompt["preview"] = {"class_type": "PreviewImage", "inputs": {"images": ["composite", 0]}}
    first = server.images(server.run(prompt, timeout=1800))["preview"][0]
    fill, eyes = Image.open(io.BytesIO(first)).convert("RGB"), Image.new("RGB", face.size)
    ImageDraw.Draw(eyes).rectangle(EYES, fill="white")
    return face, with_hole(fill, eyes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, help="the wheel of scikit-image 0.26.0")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for scene, name in SCENES.items():
        inputs, _ = draw_scene(scene, SEED, "right")
        with_hole(inputs["picture"], inputs.get("mask")).save(FOLDER / f"{name}.png", optimize=True)
    with ComfyServer([CHECKPOINT]) as server:
        face, fill = faceless(server)
    face.save(FOLDER / "vipaint_faceless.png", optimize=True)
    fill.save(FOLDER / "vipaint_keep.png", optimize=True)
    if options.photographs:
        with zipfile.ZipFile(options.photographs) as wheel:
            for name, source, make in (("espresso", "coffee", espresso), ("cat", "chelsea", cat)):
                photograph = Image.open(io.BytesIO(wheel.read(f"skimage/data/{source}.png"))).convert("RGB")
                make(photograph).save(FOLDER / f"vipaint_{name}.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
