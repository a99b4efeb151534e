"""The demo's pictures and contact sheet."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageStat

from toy_prior.demo import CANVAS, INNER, contact_sheet, draw_input, draw_scene, hidden, load_workflow


def test_demo_input_hides_what_the_mask_shows() -> None:
    picture, mask = draw_input(3, "right")
    shown = hidden(picture, mask)
    assert picture.size == mask.size == (128, 128)
    assert shown.getpixel((100, 60)) == (128, 128, 128)
    assert shown.getpixel((20, 60)) == picture.getpixel((20, 60))
    assert mask.getpixel((100, 60)) == (255, 255, 255) and mask.getpixel((20, 60)) == (0, 0, 0)


def test_demo_scenes_hold_the_portrait() -> None:
    """Outside the hole, what a scene shows is the portrait that it was made of."""
    portrait, _ = draw_input(3, "right")
    for scene, (size, place) in {"outpaint": ((96, 101), INNER[:2]), "crop_and_stitch": (CANVAS, (-107, -55))}.items():
        inputs, shown = draw_scene(scene, 3, "right")
        assert inputs["picture"].size == size and set(inputs) <= {"picture", "mask"}
        assert shown.getpixel((0, 0)) == (
            (128, 128, 128) if scene == "outpaint" else inputs["picture"].getpixel((0, 0))
        )
        at = max(0, place[0]), max(0, place[1])
        assert portrait.getpixel((at[0] + 10, at[1] + 20)) == inputs["picture"].getpixel(
            (at[0] + 10 - place[0], at[1] + 20 - place[1])
        )
    assert draw_scene("inpaint", 3, "right")[0]["picture"].tobytes() == portrait.tobytes()


@pytest.mark.parametrize(("scene", "size"), [("deblur", 128), ("super_resolution", 16)])
def test_demo_scenes_degrade_the_portrait(scene: str, size: int) -> None:
    portrait, _ = draw_input(3, "right")
    inputs, shown = draw_scene(scene, 3, "right")
    assert shown.tobytes() == portrait.tobytes() and inputs["picture"].size == (size, size)
    # In the mean it is the portrait.
    means = [ImageStat.Stat(picture).mean for picture in (portrait, inputs["picture"])]
    assert means[0] == pytest.approx(means[1], abs=2)


def test_contact_sheet_holds_every_tile() -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    sheet = contact_sheet([(str(i), Image.new("RGB", (32, 16), colour)) for i, colour in enumerate(colours)], 4)
    counted = sheet.getcolors(sheet.width * sheet.height)
    assert counted is not None
    found = {colour: count for count, colour in counted}
    assert all(found[colour] == 256 * 128 for colour in colours)


def test_workflow_must_have_the_agreed_nodes(tmp_path: Path) -> None:
    file = tmp_path / "w.json"
    with pytest.raises(FileNotFoundError, match=r"w\.json"):
        load_workflow(file)
    file.write_text('{"checkpoint": {}, "picture": {}}')
    with pytest.raises(ValueError, match="found no save, uncertainty, inpaint or restore"):
        load_workflow(file)
