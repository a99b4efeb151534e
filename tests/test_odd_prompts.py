"""Bad and odd prompts by HTTP: a picture, or an error that says why; the same server then paints as before."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toy_prior import CHECKPOINT
from tools.comfy_server import ROOT, ComfyServer, InvalidPrompt, PromptError, has_cuda
from toy_prior.demo import draw_input

pytestmark = pytest.mark.host

Prompt = dict[str, Any]
SIDE = 64


@pytest.fixture(scope="module")
def work(server: ComfyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The shipped workflow on a small picture, and the pixels of two seeds."""
    folder = tmp_path_factory.mktemp("odd")
    prompt: Prompt = json.loads((ROOT / "workflows" / "inpaint_api.json").read_text("utf-8"))
    picture, mask = (
        np.asarray(drawn.resize((SIDE, SIDE), Image.Resampling.NEAREST)) for drawn in draw_input(7, "right")
    )
    dot = np.zeros((SIDE, SIDE, 3), np.uint8)
    dot[20, 30] = 255
    files = {
        "picture": picture,
        "mask": mask,
        "dot": dot,
        "black": 0 * dot,
        "white": 255 + 0 * dot,
        "half": mask[: SIDE // 2],
        "pixel": picture[:1, :1],
        "white-pixel": mask[:1, -1:],
        "grey": picture[..., 0],
        "alpha": np.concatenate([picture, mask[..., :1]], -1),
    }
    names = {}
    for name, pixels in files.items():
        Image.fromarray(pixels).save(folder / f"odd-{name}.png")
        names[name] = server.upload_image(folder / f"odd-{name}.png")
    prompt["checkpoint"]["inputs"]["ckpt_name"] = CHECKPOINT.name
    prompt["picture"]["inputs"]["image"], prompt["mask"]["inputs"]["image"] = names["picture"], names["mask"]
    prompt["inpaint"]["inputs"].update(preset="fast", fills=2)
    found = SimpleNamespace(server=server, prompt=prompt, names=names, files=files, turn=0)
    if has_cuda(server.python):
        # There the first attention of a process is rounded in another way than all others.
        paint(found, changed(found, inpaint={"seed": 2}))
    found.before = [paint(found, changed(found, inpaint={"seed": seed})) for seed in (0, 1)]
    yield found


def changed(work: SimpleNamespace, **inputs: dict[str, Any]) -> Prompt:
    """The workflow with other inputs of the named nodes; a node of another class where `class_type` is among them."""
    prompt = copy.deepcopy(work.prompt)
    for name, values in inputs.items():
        node = prompt.setdefault(name, {"inputs": {}})
        node["class_type"] = values.pop("class_type", node.get("class_type"))
        node["inputs"].update(values)
        node["inputs"] = {key: value for key, value in node["inputs"].items() if value is not None}
    return prompt


def paint(work: SimpleNamespace, prompt: Prompt) -> np.ndarray:
    """Pixels of all fills."""
    files = work.server.images(work.server.run(prompt))["save"]
    return np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in files])


@pytest.fixture(autouse=True)
def paints_as_before(work: SimpleNamespace) -> Iterator[None]:
    """After each test. Seeds take turns, so that no result comes from the server's cache."""
    yield
    work.turn += 1
    seed = work.turn % 2
    assert np.array_equal(paint(work, changed(work, inpaint={"seed": seed})), work.before[seed])


def link(value: int | float) -> dict[str, Any]:
    """A node that gives a number: the host checks numbers that are typed in, not those that come by a link."""
    return {"class_type": "PrimitiveInt" if isinstance(value, int) else "PrimitiveFloat", "value": value}


KEEP = {"class_type": "VIPaintSavePosterior", "posterior": ["inpaint", 1]}
LOAD = {"class_type": "VIPaintLoadPosterior"}
LATENT = {"class_type": "EmptyLatentImage", "width": SIDE, "height": SIDE, "batch_size": 1}
BY_LATENT = {"latent_image": ["latent", 0], "image": None, "vae": None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inpaint": {"cfg": float("nan")}}, "VIPaintInpaint, input `cfg`: expected a number.*found nan"),
        ({"inpaint": {"seed": ["n", 0]}, "n": link(-1)}, "VIPaintInpaint, input `seed`.*found -1"),
        ({"inpaint": {"fills": ["n", 0]}, "n": link(10**6)}, "VIPaintInpaint, input `fills`.*found 1000000"),
        ({"inpaint": {"cfg": ["n", 0]}, "n": link(-4.0)}, "VIPaintInpaint, input `cfg`.*found -4.0"),
        ({"mask": {"image": "half"}}, "VIPaintInpaint, input `mask`.*64 x 64 pixels.*64 x 32 pixels.*Resize"),
        ({"inpaint": {"mask": None}}, "VIPaintInpaint, input `mask`.*no mask"),
        ({"inpaint": {"vae": None}}, "VIPaintInpaint, input `vae`.*no vae"),
        ({"inpaint": {"latent_image": ["latent", 0]}, "latent": LATENT}, "VIPaintInpaint, input `image`.*both"),
        ({"inpaint": BY_LATENT, "latent": LATENT}, "VIPaintInpaint, input `latent_image`.*channels.*4 channels"),
        ({"keep": {**KEEP, "filename_prefix": "../odd"}}, r"VIPaintSavePosterior, input `filename_prefix`.*\.\./odd"),
        ({"keep": {**KEEP, "filename_prefix": ""}}, "VIPaintSavePosterior, input `filename_prefix`.*''"),
        ({"spread": {"fills": 1}}, "VIPaintUncertainty, input `images`.*at least 2"),
        (
            {"composite": {"original": ["other", 0]}, "other": {"class_type": "LoadImage", "image": "half"}},
            "`original`|`fills`|`mask`",
        ),
    ],
)
def test_what_a_node_refuses(work: SimpleNamespace, changes: dict[str, Any], words: str) -> None:
    changes = copy.deepcopy(changes)
    for values in changes.values():
        if "image" in values and values["image"] in work.names:
            values["image"] = work.names[values["image"]]
    with pytest.raises(PromptError, match=f"(?s)ValueError: .*{words}") as caught:
        work.server.run(changed(work, **changes))
    assert caught.value.node_type.startswith("VIPaint")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inpaint": {"fills": 0}}, "smaller than min"),
        ({"inpaint": {"seed": -1}}, "smaller than min"),
        ({"inpaint": {"seed": 2**64}}, "bigger than max"),
        ({"inpaint": {"preset": ""}}, "preset"),
        ({"inpaint": {"model": ["checkpoint", 2]}}, "model"),
        (
            {
                "load": {**LOAD, "file": "missing.safetensors"},
                "keep": {**KEEP, "posterior": ["load", 0], "filename_prefix": "odd"},
            },
            "missing",
        ),
    ],
)
def test_what_the_server_refuses(work: SimpleNamespace, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidPrompt, match=words):
        work.server.queue(changed(work, **copy.deepcopy(changes)))


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", (2**60).to_bytes(8, "little") + b"{}", bytes(4096)])
def test_files_that_are_no_posteriors(work: SimpleNamespace, content: bytes) -> None:
    name = f"odd-{len(content)}.safetensors"
    (work.server.base / "models" / "vipaint" / name).write_bytes(content)
    keep = {**KEEP, "posterior": ["load", 0], "filename_prefix": "odd"}
    with pytest.raises(PromptError, match=rf"VIPaintLoadPosterior, input `file`.*{name}"):
        work.server.run(changed(work, load={**LOAD, "file": name}, keep=keep))


@pytest.mark.parametrize(
    ("picture", "mask", "hidden"),
    [
        ("picture", "black", 0),
        ("picture", "white", SIDE**2),
        ("picture", "dot", 1),
        ("pixel", "white-pixel", 1),
        ("grey", "mask", SIDE**2 // 2),
        ("alpha", "mask", SIDE**2 // 2),
    ],
)
def test_odd_pictures_are_painted_where_the_mask_is_white(
    work: SimpleNamespace, picture: str, mask: str, hidden: int
) -> None:
    found = paint(work, changed(work, picture={"image": work.names[picture]}, mask={"image": work.names[mask]}))
    # What the host makes of the file, which may differ from its bytes.
    read = {"class_type": "LoadImage", "inputs": {"image": work.names[picture]}}
    saver = {"class_type": "SaveImage", "inputs": {"images": ["read", 0], "filename_prefix": "read"}}
    (original,) = paint(work, {"read": read, "save": saver})
    hole = work.files[mask][..., 0] > 0
    assert hole.sum() == hidden and found.shape == (2, *original.shape)
    assert np.array_equal(found[:, ~hole], np.stack([original[~hole]] * 2))
