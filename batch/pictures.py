"""Pictures and masks: any file that Pillow reads, upright, in 8 bits, as the workflow's nodes expect them."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms, ImageOps

from batch.errors import PictureError

Image.init()
# EPS would start another program, Ghostscript; the others Pillow recognises and cannot read.
FORMATS = sorted(set(Image.OPEN) - {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"})
SUFFIXES = frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS)
# What Pillow's readers raise on files that are damaged or none of theirs.
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    NotImplementedError,
    struct.error,
    Image.DecompressionBombError,
)
# Masks stored as JPEG hold up to 5 where they are black.
BLACK = 5
THUMBNAIL, SHOWN = 160, 6


def read(source: Path | bytes) -> Image.Image:
    """The first frame, as a viewer shows it. Raises PictureError where the file cannot be read to its end."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            # Of several frames the first: a copy lets go of the file.
            return upright if upright is not image else image.copy()
    except UNREADABLE as error:
        what = "the server's answer" if isinstance(source, bytes) else source.name
        raise PictureError(f"expected a picture, found that {what} cannot be read ({_words(error)})") from error


def _words(error: BaseException) -> str:
    text = str(error).split("\n")[0]
    return text[:200] if text else type(error).__name__


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit and floating-point values in 8 bits: Pillow's own conversion would clip them."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = image if image.mode == "I" else image.convert("I")
        low, high = _extrema(values)
        if low < 0 or high > 65535:
            raise PictureError(f"expected 8 or 16 bits a channel, found values from {low} to {high}. Save it as PNG")
        return values.point(lambda value: value * (1 / 257) + 0.5).convert("L")
    if image.mode == "F":
        low, high = _extrema(image)
        if low < -0.01 or high > 1.01:
            raise PictureError(f"expected floating-point values from 0 to 1, found {low:.3g} to {high:.3g}")
        return image.point(lambda value: value * 255 + 0.5).convert("L")
    return image


def _extrema(image: Image.Image) -> tuple[float, float]:
    low, high = image.getextrema()
    assert isinstance(low, (int, float)) and isinstance(high, (int, float))
    return low, high


def colours(image: Image.Image) -> Image.Image:
    """RGB in sRGB, since the painted PNG carries no profile; what is below transparency stays."""
    image = _eight_bits(image)
    profile = image.info.get("icc_profile")
    if image.mode == "P" or image.has_transparency_data:
        image = image.convert("RGBA").convert("RGB")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            found = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            # A conversion from sRGB to itself would change last digits of what must stay as it is.
            if "srgb" not in ImageCms.getProfileDescription(found).lower():
                converted = ImageCms.profileToProfile(image, found, ImageCms.createProfile("sRGB"), outputMode="RGB")
                image = converted or image
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile is taken for none, as viewers do
    return image if image.mode == "RGB" else image.convert("RGB")


def hole_of_alpha(image: Image.Image) -> Image.Image | None:
    """White where the picture is transparent; None without transparency."""
    if not image.has_transparency_data:
        return None
    return ImageOps.invert(image.convert("RGBA").getchannel("A"))


def hole_of_mask(image: Image.Image) -> Image.Image:
    """A mask file's grey values: white is painted. Its transparent parts count as black."""
    image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("L")


def examine(path: Path, role: str) -> dict[str, Any]:
    """Facts of a file read to its end: `width`, `height`, and the brightest value of its hole.

    role: "picture", whose hole is its transparency, or "mask". `hole` is None for a picture without transparency;
    a file that cannot be used has `problem` alone.
    """
    try:
        image = read(path)
        colours(image) if role == "picture" else None
        hole = hole_of_alpha(image) if role == "picture" else hole_of_mask(image)
    except PictureError as error:
        return {"problem": str(error)}
    brightest = None if hole is None else _extrema(hole)[1]
    return {"width": image.width, "height": image.height, "hole": brightest}


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def for_nodes(picture: Image.Image, hole: Image.Image | None, in_alpha: bool) -> tuple[bytes, bytes | None]:
    """PNG files for the nodes that load picture and mask.

    in_alpha: the hole goes into the picture's transparency, for workflows that take the mask from Load Image. A mask
    file has it in all channels, so that it does not matter which its node reads.
    """
    if hole is None:
        return png(picture), None
    if in_alpha:
        return png(Image.merge("RGBA", (*picture.split(), ImageOps.invert(hole)))), None
    return png(picture), png(Image.merge("RGBA", (hole, hole, hole, ImageOps.invert(hole))))


def thumbnail(image: Image.Image) -> Image.Image:
    size = max(1, round(image.width * THUMBNAIL / image.height)), THUMBNAIL
    return image.convert("RGB").resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def shown(picture: Image.Image, hole: Image.Image | None) -> Image.Image:
    """A thumbnail of what the model sees: the picture with its hole in grey."""
    small = thumbnail(picture)
    if hole is None:
        return small
    return Image.composite(Image.new("RGB", small.size, (128, 128, 128)), small, hole.resize(small.size))


def strip(tiles: Sequence[Image.Image]) -> bytes:
    """A JPEG of thumbnails side by side."""
    gap = 4
    width = sum(tile.width + gap for tile in tiles) - gap
    sheet = Image.new("RGB", (width, THUMBNAIL), (255, 255, 255))
    left = 0
    for tile in tiles:
        sheet.paste(tile, (left, 0))
        left += tile.width + gap
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
