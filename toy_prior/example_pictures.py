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
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw

from tools.comfy_server import ROOT
from toy_prior.demo import draw_scene

FOLDER = ROOT / "web" / "examples"
SEED = 7
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, help="the wheel of scikit-image 0.26.0")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for scene, name in SCENES.items():
        inputs, _ = draw_scene(scene, SEED, "right")
        with_hole(inputs["picture"], inputs.get("mask")).save(FOLDER / f"{name}.png", optimize=True)
    if options.photographs:
        with zipfile.ZipFile(options.photographs) as wheel:
            for name, source, make in (("espresso", "coffee", espresso), ("cat", "chelsea", cat)):
                photograph = Image.open(io.BytesIO(wheel.read(f"skimage/data/{source}.png"))).convert("RGB")
                make(photograph).save(FOLDER / f"vipaint_{name}.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
