"""Makes the pictures of the templates, workflows/NAME.jpg: what a template opens with, its hole, and what was painted.

    python -m toy_prior.thumbnails [NAME ...]

Templates of the toy model are run on a ComfyUI server and show their fills and where these differ. Those whose model is a
download show what is painted, and with what words. The template inpaint also gives the registry's pictures, docs/icon.png
and docs/banner.jpg.
"""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw

from tools.comfy_server import ROOT, ComfyServer
from tools.templates import TEMPLATES, Template

EXAMPLES, FOLDER = ROOT / "web" / "examples", ROOT / "workflows"
TILE, MARGIN, BACKGROUND, CHECKS = 192, 6, (36, 36, 40), ((150, 150, 150), (190, 190, 190))


def checked(size: tuple[int, int], step: int) -> Image.Image:
    """The pattern that stands for transparency."""
    ground = Image.new("RGB", size, CHECKS[0])
    pen = ImageDraw.Draw(ground)
    for top in range(0, size[1], step):
        for left in range(top // step % 2 * step, size[0], 2 * step):
            pen.rectangle([left, top, left + step - 1, top + step - 1], fill=CHECKS[1])
    return ground


def fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture as large as a box allows; its hole is checked."""
    scale = min(width / picture.width, height / picture.height)
    method = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    size = round(picture.width * scale), round(picture.height * scale)
    if picture.mode != "RGBA":
        return picture.convert("RGB").resize(size, method)
    shown = picture.convert("RGB").resize(size, method)
    hole = picture.getchannel("A").resize(size, Image.Resampling.BILINEAR)
    return Image.composite(shown, checked(size, 8), hole)


def sheet(first: Image.Image, others: Sequence[Image.Image]) -> Image.Image:
    """The given picture large, four others beside it."""
    out = Image.new("RGB", (4 * TILE + 4 * MARGIN + MARGIN, 2 * TILE + 3 * MARGIN), BACKGROUND)
    large = fitted(first, 2 * TILE + MARGIN, 2 * TILE + MARGIN)
    box = 2 * TILE + MARGIN
    out.paste(large, (MARGIN + (box - large.width) // 2, MARGIN + (box - large.height) // 2))
    for index, other in enumerate(others[:4]):
        tile = fitted(other, TILE, TILE)
        left = MARGIN + box + MARGIN + index % 2 * (TILE + MARGIN) + (TILE - tile.width) // 2
        top = MARGIN + index // 2 * (TILE + MARGIN) + (TILE - tile.height) // 2
        out.paste(tile, (left, top))
    return out


def described(picture: Image.Image, words: str) -> Image.Image:
    """The picture with its hole, and the prompt below."""
    shown = fitted(picture, 2 * TILE + MARGIN, 2 * TILE)
    lines = textwrap.wrap(words, 46)
    out = Image.new("RGB", (shown.width + 2 * MARGIN, shown.height + 3 * MARGIN + 20 * len(lines)), BACKGROUND)
    out.paste(shown, (MARGIN, MARGIN))
    for number, line in enumerate(lines):
        place = MARGIN, shown.height + 2 * MARGIN + 20 * number
        ImageDraw.Draw(out).text(place, line, fill=(230, 230, 230), font_size=15)
    return out


def registry_pictures(given: Image.Image, fills: Sequence[Image.Image]) -> None:
    """The pack's icon, half a portrait and its hole, and its banner, 21:9, with what was painted."""
    fitted(given, 400, 400).save(FOLDER.parent / "docs" / "icon.png", optimize=True)
    tile = 300
    banner = Image.new("RGB", (4 * tile + 5 * MARGIN, round((4 * tile + 5 * MARGIN) * 9 / 21)), BACKGROUND)
    for index, picture in enumerate([given, *fills][:4]):
        banner.paste(fitted(picture, tile, tile), (MARGIN + index * (tile + MARGIN), (banner.height - tile) // 2))
    banner.save(FOLDER.parent / "docs" / "banner.jpg", quality=85)


def painted(server: ComfyServer, template: Template) -> list[Image.Image]:
    """Three fills of a template as shipped and its map of where they differ, or a chosen one and what is drawn around it."""
    prompt: dict[str, Any] = {
        name: {"class_type": node.kind, "inputs": dict(node.inputs)} for name, node in template.nodes.items()
    }
    for name in ("inpaint", "restore", "sample"):
        if name in prompt:
            prompt[name]["inputs"]["fills"] = 3
    entry = server.run(prompt, timeout=1800)

    def fills(chooser: str) -> list[Image.Image]:
        shown = {"outputs": {chooser: {"images": entry["outputs"][chooser]["vipaint_fills"]}}}
        return [Image.open(io.BytesIO(data)) for data in server.images(shown)[chooser]]

    if "choose_like" in prompt:
        return [fills("choose")[0], *fills("choose_like")[:2], fills("choose_part")[0]]
    return [*fills("choose"), Image.open(io.BytesIO(server.images(entry)["uncertainty"][0]))]


def main() -> int:
    wanted = [template for template in TEMPLATES if not sys.argv[1:] or template.name in sys.argv[1:]]
    with ComfyServer() as server:
        for file in EXAMPLES.glob("*.png"):
            server.upload_image(file, file.name)
        for template in wanted:
            given = Image.open(EXAMPLES / template.nodes["picture"].inputs["image"])
            if any(node.models for node in template.nodes.values()):
                made = described(given, f'"{template.nodes["positive"].inputs["text"]}"')
            else:
                shown = painted(server, template)
                made = sheet(given, shown)
                if template.name == "inpaint":
                    registry_pictures(given, shown[:-1])
            made.save(FOLDER / f"{template.name}.jpg", quality=85)
            print(template.name, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
