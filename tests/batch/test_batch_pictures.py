"""Files of every kind, read as a viewer shows them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from batch import pictures
from batch.errors import PictureError


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def png_16(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write in colour."""
    height, width = values.shape[:2]
    kind = 2 if values.ndim == 3 else 0
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def ramp(height: int = 9, width: int = 13) -> np.ndarray:
    return np.linspace(0, 65535, height * width).round().astype(np.uint16).reshape(height, width)


def test_16_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    grey, file = ramp(), tmp_path / "grey.tif"
    Image.fromarray(grey).save(file)
    expected = np.round(grey / 257)
    for image in (pictures.read(png_16(grey)), pictures.read(file)):
        assert np.abs(pixels(pictures.colours(image)) - expected[..., None]).max() <= 0
        assert np.abs(pixels(pictures.hole_of_mask(image)) - expected).max() <= 0
    colour = np.stack([grey, grey[::-1], grey[:, ::-1]], -1)
    # Pillow drops the lower byte of colours: a step of 255 at most.
    assert np.abs(pixels(pictures.colours(pictures.read(png_16(colour)))) - colour / 257).max() <= 1


def test_floating_point_is_from_0_to_1(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 117, dtype=np.float32).reshape(9, 13)
    Image.fromarray(values).save(tmp_path / "f.tif")
    assert np.array_equal(
        pixels(pictures.hole_of_mask(pictures.read(tmp_path / "f.tif"))), np.floor(values * 255 + 0.5)
    )
    Image.fromarray(values * 255).save(tmp_path / "f.tif")
    with pytest.raises(PictureError, match="from 0 to 1, found 0 to 255"):
        pictures.hole_of_mask(pictures.read(tmp_path / "f.tif"))
    assert "from 0 to 1" in pictures.examine(tmp_path / "f.tif", "mask")["problem"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_pictures_stand_upright(tmp_path: Path, picture: Callable[..., Image.Image], orientation: int) -> None:
    upright = picture(3, 13, 9)
    # What a camera stores so that this turn shows it upright.
    turns = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for turn in turns.get(orientation, []):
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "p.png", exif=exif)
    found = pictures.read(tmp_path / "p.png")
    assert found.size == (13, 9) and np.array_equal(pixels(found), pixels(upright))
    facts = pictures.examine(tmp_path / "p.png", "picture")
    assert (facts["width"], facts["height"]) == (13, 9)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "gif", "tga", "ppm", "jp2", "avif"])
def test_every_format_gives_the_colours(tmp_path: Path, suffix: str) -> None:
    flat = Image.new("RGB", (37, 31), (200, 100, 50))
    flat.save(tmp_path / f"p.{suffix}")
    found = pixels(pictures.colours(pictures.read(tmp_path / f"p.{suffix}")))
    assert found.shape == (31, 37, 3) and np.abs(found - (200, 100, 50)).max() <= 6
    assert f".{suffix}" in pictures.SUFFIXES


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("RGB", (5, 4), (255, 255, 255))
    image = Image.new(mode, (5, 4), 65535) if mode in ("I", "I;16") else image.convert(mode)
    found = pictures.colours(image)
    assert found.mode == "RGB" and pixels(found).min() >= 253


def test_transparency_is_a_hole_and_its_colours_stay(tmp_path: Path, picture: Callable[..., Image.Image]) -> None:
    image = picture(1)
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, 5, 5))
    alpha.paste(100, (5, 5, 8, 8))
    image.putalpha(alpha)
    image.save(tmp_path / "p.png")
    found = pictures.read(tmp_path / "p.png")
    assert np.array_equal(pixels(pictures.colours(found)), pixels(picture(1)))
    assert np.array_equal(pixels(pictures.hole_of_alpha(found)), 255 - pixels(alpha))
    assert pictures.examine(tmp_path / "p.png", "picture")["hole"] == 255
    assert pictures.hole_of_alpha(picture(1)) is None
    # One colour of a palette may be transparent, too.
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 250, 10, 10])
    palette.putpixel((2, 1), 0)
    palette.save(tmp_path / "q.png", transparency=0)
    hole = pixels(pictures.hole_of_alpha(pictures.read(tmp_path / "q.png")))
    assert hole[1, 2] == 255 and hole.sum() == 255


def test_a_mask_s_own_transparency_counts_as_black() -> None:
    strokes = Image.new("RGBA", (6, 4), (255, 255, 255, 0))
    strokes.paste((255, 255, 255, 255), (1, 1, 3, 3))
    hole = pixels(pictures.hole_of_mask(strokes))
    assert hole[1:3, 1:3].min() == 255 and hole.sum() == 4 * 255


def test_another_colour_space_is_converted_and_srgb_is_left_alone(
    tmp_path: Path, picture: Callable[..., Image.Image]
) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture(2).save(tmp_path / "s.png", icc_profile=srgb)
    assert np.array_equal(pixels(pictures.colours(pictures.read(tmp_path / "s.png"))), pixels(picture(2)))
    # A profile that means green by red and red by green.
    swapped = srgb.replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))
    picture(2).save(tmp_path / "x.png", icc_profile=swapped)
    converted = pixels(pictures.colours(pictures.read(tmp_path / "x.png")))
    assert np.abs(converted - pixels(picture(2))[..., [1, 0, 2]]).mean() < 2
    picture(2).save(tmp_path / "b.png", icc_profile=b"broken")
    assert np.array_equal(pixels(pictures.colours(pictures.read(tmp_path / "b.png"))), pixels(picture(2)))


def whole_files(picture: Callable[..., Image.Image]) -> dict[str, bytes]:
    found = {}
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF"):
        buffer = io.BytesIO()
        picture(4, 60, 50).save(buffer, kind)
        found[kind] = buffer.getvalue()
    return found


def test_damaged_files_are_told(tmp_path: Path, picture: Callable[..., Image.Image]) -> None:
    files = {kind: data[: len(data) // 2] for kind, data in whole_files(picture).items()}
    files |= {"nothing": b"", "text": b"no picture", "header": b"\x89PNG\r\n\x1a\n"}
    data = bytearray(whole_files(picture)["PNG"])
    data[len(data) // 2] ^= 0xFF
    files["bit flipped"] = bytes(data)
    # Ghostscript would run what is in it.
    files["EPS"] = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    for name, data in files.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(data)
        problem = pictures.examine(path, "picture").get("problem", "")
        assert "cannot be read" in problem, name


def test_files_for_the_nodes_hold_picture_and_hole(
    picture: Callable[..., Image.Image], right_half: Callable[..., Image.Image]
) -> None:
    image, hole = picture(1), right_half()
    first, second = pictures.for_nodes(image, hole, in_alpha=False)
    assert second is not None
    assert np.array_equal(pixels(Image.open(io.BytesIO(first))), pixels(image))
    file = pixels(Image.open(io.BytesIO(second)))
    assert all(np.array_equal(file[..., channel], pixels(hole)) for channel in range(3))
    assert np.array_equal(255 - file[..., 3], pixels(hole))
    both, none = pictures.for_nodes(image, hole, in_alpha=True)
    assert none is None
    merged = pixels(Image.open(io.BytesIO(both)))
    assert np.array_equal(merged[..., :3], pixels(image)) and np.array_equal(255 - merged[..., 3], pixels(hole))
    alone, none = pictures.for_nodes(image, None, in_alpha=True)
    assert none is None and Image.open(io.BytesIO(alone)).mode == "RGB"
