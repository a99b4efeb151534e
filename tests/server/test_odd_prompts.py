"""Bad and odd prompts by HTTP: a picture, or an error that says why; the same server then paints as before.

What nodes refuse is tested without a server: here are the ways by which it reaches them, and the answers come back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prompts import changed, node, paint, renamed, upload

from tools.comfy_server import ComfyServer, InvalidPrompt, PromptError

pytestmark = pytest.mark.host

WIDTH, HEIGHT = 48, 32


@pytest.fixture(scope="module")
def usual(server: ComfyServer, small: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The small workflow and the pixels of two seeds; names of odd pictures on the server and their pixels."""
    folder, picture, mask = tmp_path_factory.mktemp("odd"), small.picture, small.mask
    dot = np.zeros_like(picture)
    dot[10, 15] = 255
    files = {
        "picture": picture,
        "mask": mask,
        "dot": dot,
        "black": 0 * dot,
        "white": 255 + 0 * dot,
        "half": mask[: HEIGHT // 2],
        "pixel": picture[:1, :1],
        "white-pixel": mask[:1, -1:],
        "grey": picture[..., 0],
        "alpha": np.concatenate([picture, mask[..., :1]], -1),
    }
    names = {name: upload(server, folder, f"odd-{name}", Image.fromarray(array)) for name, array in files.items()}
    before = [paint(server, changed(small.prompt, inpaint={"seed": seed})) for seed in (0, 1)]
    return SimpleNamespace(server=server, prompt=small.prompt, names=names, files=files, before=before, turn=0)


@pytest.fixture(autouse=True)
def paints_as_before(usual: SimpleNamespace) -> Iterator[None]:
    """After each test. Seeds take turns, so that no result comes from the server's cache."""
    yield
    usual.turn += 1
    seed = usual.turn % 2
    found = paint(usual.server, changed(usual.prompt, inpaint={"seed": seed}))
    assert np.array_equal(found, usual.before[seed])


def link_of(value: int | float) -> dict[str, Any]:
    """A node that gives a number: the host checks numbers that are typed in, not those that come by a link."""
    return {"class_type": "PrimitiveInt" if isinstance(value, int) else "PrimitiveFloat", "value": value}


KEEP = {"class_type": "VIPaintSavePosterior", "posterior": ["inpaint", 1]}
LOAD = {"class_type": "VIPaintLoadPosterior"}
LATENT = {"class_type": "EmptyLatentImage", "width": WIDTH, "height": HEIGHT, "batch_size": 1}
BY_LATENT = {"latent_image": ["latent", 0], "image": None, "vae": None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inpaint": {"cfg": float("nan")}}, "VIPaint Inpaint, input `cfg`: expected a number.*found nan"),
        ({"inpaint": {"seed": ["n", 0]}, "n": link_of(-1)}, "VIPaint Inpaint, input `seed`.*found -1"),
        ({"inpaint": {"fills": ["n", 0]}, "n": link_of(10**6)}, "VIPaint Inpaint, input `fills`.*found 1000000"),
        ({"inpaint": {"cfg": ["n", 0]}, "n": link_of(-4.0)}, "VIPaint Inpaint, input `cfg`.*found -4.0"),
        ({"mask": {"image": "half"}}, "VIPaint Inpaint, input `mask`.*48 x 32 pixels.*48 x 16 pixels.*Resize"),
        ({"inpaint": {"mask": None}}, "VIPaint Inpaint, input `mask`.*no mask"),
        ({"inpaint": {"vae": None}}, "VIPaint Inpaint, input `vae`.*no vae"),
        ({"inpaint": {"latent_image": ["latent", 0]}, "latent": LATENT}, "VIPaint Inpaint, input `image`.*both"),
        ({"inpaint": BY_LATENT, "latent": LATENT}, "VIPaint Inpaint, input `latent_image`.*channels.*4 channels"),
        (
            {"keep": {**KEEP, "filename_prefix": "../odd"}},
            r"VIPaint Save Posterior, input `filename_prefix`.*\.\./odd",
        ),
        ({"keep": {**KEEP, "filename_prefix": ""}}, "VIPaint Save Posterior, input `filename_prefix`.*''"),
        ({"spread": {"fills": 1}}, "VIPaint Uncertainty, input `images`.*at least 2"),
        (
            {"composite": {"original": ["other", 0]}, "other": {"class_type": "LoadImage", "image": "half"}},
            "VIPaint Composite, input `(original|fills|mask)`",
        ),
    ],
)
def test_what_a_node_refuses(usual: SimpleNamespace, changes: dict[str, Any], words: str) -> None:
    def named(values: dict[str, Any]) -> dict[str, Any]:
        """Pictures by their names on the server."""
        return {
            key: usual.names.get(value, value) if key == "image" and value is not None else value
            for key, value in values.items()
        }

    with pytest.raises(PromptError, match=f"(?s)ValueError: {words}") as caught:
        usual.server.run(changed(usual.prompt, **{name: named(values) for name, values in changes.items()}))
    assert caught.value.node_type.startswith("VIPaint")


BASELINE = {"class_type": "VIPaintBaseline", "preset": None}
WRITE = r'In a prompt for scripts write "method": "blended", and each of its settings beside it, as "method\.'


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "none"),
        ({"method": "best"}, "'best'"),
        ({"method": 7}, "7"),
        ({"method": {"method": "ding", "steps": 2}}, "{'method': 'ding', 'steps': 2}"),
        ({"method.steps": 2}, "none"),
    ],
    ids=["missing", "unknown", "number", "nested", "settings-alone"],
)
@pytest.mark.parametrize("number", ["inpaint", "7:3"])
def test_choices_with_settings_that_the_host_drops(
    usual: SimpleNamespace, number: str, given: dict[str, Any], found: str
) -> None:
    """It knows them by exact names only, and runs the node without them."""
    prompt = renamed(changed(usual.prompt, inpaint={**BASELINE, **given}), {"inpaint": number})
    words = rf"VIPaint Baseline, input `method`: expected one of blended, .*, found {re.escape(found)}\. {WRITE}"
    with pytest.raises(PromptError, match=rf"(?s)ValueError: {words}"):
        usual.server.run(prompt)


def test_settings_of_a_choice(usual: SimpleNamespace) -> None:
    """By their names; those of other choices are not looked at, missing ones are named by the host."""
    inputs = usual.server.object_info("VIPaintBaseline")["input"]["required"]
    (option,) = (option for option in inputs["method"][1]["options"] if option["key"] == "ding")
    names = {name: value[1]["default"] for kind in option["inputs"].values() for name, value in kind.items()}
    given = {"method": "ding", **{f"method.{name}": value for name, value in names.items()}, "method.steps": 2}
    expected = paint(usual.server, changed(usual.prompt, inpaint={**BASELINE, **given}))
    more = {**given, "method.jumps": 3, "steps": 9}
    assert np.array_equal(paint(usual.server, changed(usual.prompt, inpaint={**BASELINE, **more})), expected)
    del given["method.steps"]
    with pytest.raises(InvalidPrompt, match="steps"):
        usual.server.queue(changed(usual.prompt, inpaint={**BASELINE, **given}))


def test_prompts_through_subgraphs(usual: SimpleNamespace) -> None:
    """The editor writes nodes of subgraphs with the numbers of all graphs around them: the same pixels."""
    names = {name: f"{7 + number}:{number}" for number, name in enumerate(usual.prompt)}
    names["inpaint"] = "7:3:12"
    save = names["save"]
    found = paint(usual.server, renamed(changed(usual.prompt, inpaint={"seed": 1}), names), save)
    assert np.array_equal(found, usual.before[1])


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
def test_what_the_server_refuses(usual: SimpleNamespace, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidPrompt, match=words):
        usual.server.queue(changed(usual.prompt, **changes))


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", (2**60).to_bytes(8, "little") + b"{}", bytes(4096)])
def test_files_that_are_no_posteriors(usual: SimpleNamespace, content: bytes) -> None:
    name = f"odd-{len(content)}.safetensors"
    (usual.server.base / "models" / "vipaint" / name).write_bytes(content)
    keep = {**KEEP, "posterior": ["load", 0], "filename_prefix": "odd"}
    with pytest.raises(PromptError, match=rf"VIPaint Load Posterior, input `file`.*{name}"):
        usual.server.run(changed(usual.prompt, load={**LOAD, "file": name}, keep=keep))


@pytest.mark.parametrize(
    ("picture", "mask", "hidden"),
    [
        ("picture", "black", 0),
        ("picture", "white", WIDTH * HEIGHT),
        ("picture", "dot", 1),
        ("pixel", "white-pixel", 1),
        ("grey", "mask", WIDTH * HEIGHT // 2),
        ("alpha", "mask", WIDTH * HEIGHT // 2),
    ],
)
def test_odd_pictures_are_painted_where_the_mask_is_white(
    usual: SimpleNamespace, picture: str, mask: str, hidden: int
) -> None:
    inputs = {"picture": {"image": usual.names[picture]}, "mask": {"image": usual.names[mask]}}
    found = paint(usual.server, changed(usual.prompt, **inputs))
    # What the host makes of the file, which may differ from its bytes.
    read = node("LoadImage", image=usual.names[picture])
    saver = node("SaveImage", images=["read", 0], filename_prefix="read")
    (original,) = paint(usual.server, {"read": read, "save": saver})
    hole = usual.files[mask][..., 0] > 0
    assert hole.sum() == hidden and found.shape == (2, *original.shape)
    assert np.array_equal(found[:, ~hole], np.stack([original[~hole]] * 2))
