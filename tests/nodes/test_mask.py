"""VIPaint Mask as the host calls it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def load(comfyui, tmp_path):
    """IMAGE and MASK of the host's Load Image, of a Pillow picture saved under a name."""
    import folder_paths

    import nodes

    before = folder_paths.get_input_directory()
    folder_paths.set_input_directory(str(tmp_path))

    def run(picture, name, **options):
        picture.save(tmp_path / name, **options)
        return nodes.LoadImage().load_image(name)

    yield run
    folder_paths.set_input_directory(before)


def colours(height=37, width=31, channels=3):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(noise, "RGB" if channels == 3 else "RGBA")


def hole(height=37, width=31):
    mask = np.zeros((height, width), np.uint8)
    mask[10:26, 8:24] = 255
    return mask


def test_the_mask_of_load_image_s_transparency(pack, load):
    """What was erased is painted."""
    picture = colours(channels=4)
    picture.putalpha(Image.fromarray(255 - hole()))
    image, mask = load(picture, "painted.png")
    assert image.shape[-1] == 3
    (found,) = pack.mask.VIPaintMask.execute(mask).result
    assert torch.equal(found[0], torch.from_numpy(hole() / np.float32(255)))


def test_alpha_serves_as_the_mask(pack, load):
    from comfy_extras.nodes_compositing import JoinImageWithAlpha

    picture = colours(channels=4)
    picture.putalpha(Image.fromarray(255 - hole()))
    image, mask = load(picture, "painted.png")
    (joined,) = JoinImageWithAlpha.execute(image, mask).result
    assert joined.shape[-1] == 4
    run = pack.mask.VIPaintMask.execute
    assert torch.equal(run(image=joined).result[0], run(mask).result[0])
    # With a mask beside it both are painted; one mask serves all pictures.
    other = torch.zeros(1, 37, 31)
    other[:, :5] = 1
    (both,) = run(other, joined.expand(2, -1, -1, -1)).result
    assert torch.equal(both, torch.maximum(other, mask).expand(2, -1, -1))


@pytest.mark.parametrize("node", ["inpaint", "crop", "composite", "restore"])
def test_a_picture_without_a_painted_mask_is_named(pack, tiny, conditioning, load, node):
    """Load Image gives 1 x 64 x 64 zeros where a file has no transparency."""
    image, mask = load(colours(), "photograph.jpg")
    assert mask.shape == (1, 64, 64)
    positive, negative = conditioning
    model = {"model": tiny.model, "positive": positive, "negative": negative, "seed": 0, "cfg": 1.0, "fills": 1}
    picture = {"image": image, "mask": mask}
    inputs = {
        "inpaint": {**model, **picture, "preset": "fast", "vae": tiny.vae},
        "crop": {**picture, "width": 64, "height": 64, "context": 2.0, "enlarge": 1.0},
        "composite": {"fills": image, "original": image, "mask": mask},
        "restore": {
            **{**model, **picture, "vae": tiny.vae, "steps": 4, "attempts": 1, "noise": 0.0},
            "degradation": {"degradation": "none"},
        },
    }
    (execute,) = (n.execute for n in pack.NODES if n.__name__.lower() == f"vipaint{node}")
    words = r"`mask`: expected a painted mask, found the black mask .* none was painted\. .*Open in Mask Editor"
    with torch.inference_mode(), pytest.raises(ValueError, match=words):
        execute(**inputs[node])


def test_a_mask_saved_as_jpeg_keeps_visible_pixels(pack, load):
    """Composite: bit for bit; Crop: not the whole picture for the sake of a pixel that is not quite black."""
    size = 300
    original, _ = load(colours(size, size), "picture.png")
    (stored, _) = load(Image.fromarray(hole(size, size)).convert("RGB"), "mask.jpg", quality=90)
    mask = stored[..., 0].clone()
    mask[0, 290, 295] = 23 / 255
    assert (mask[0][torch.from_numpy(hole(size, size) == 0)] > 0).sum() > 10
    fills = torch.rand(2, size, size, 3)
    (out,) = pack.composite.VIPaintComposite.execute(fills, original, mask).result
    visible = torch.from_numpy(hole(size, size) == 0)
    assert torch.equal(out[:, visible], original[:, visible].expand(2, -1, -1))
    (region,) = pack.crop.VIPaintCrop.execute(original, mask, 32, 32, 2.0, 1.0).result[2].regions
    assert region.width == region.height == 32
