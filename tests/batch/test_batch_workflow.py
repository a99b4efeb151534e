"""Workflows in API format: their nodes, their settings, and what makes a result another one."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from batch import workflow
from batch.catalogue import Item
from batch.errors import BatchError

WORKFLOWS = Path(__file__).resolve().parent.parent.parent / "workflows" / "api"
JOB = "0123456789abcdef" * 2


@pytest.fixture
def graph() -> dict[str, Any]:
    return json.loads((WORKFLOWS / "inpaint.json").read_text("utf-8"))


@pytest.fixture
def prompted(graph: dict[str, Any]) -> dict[str, Any]:
    """With a text encoder for prompt and negative prompt, numbers as ids, and the mask from Load Image."""
    clip = ["checkpoint", 1]
    for name, title in (("prompt", "Positive"), ("negative", "Negative")):
        graph[name] = {
            "class_type": "CLIPTextEncode",
            "inputs": {"text": title, "clip": clip},
            "_meta": {"title": title},
        }
    graph["inpaint"]["inputs"] |= {"positive": ["guided", 0], "negative": ["negative", 0], "mask": ["picture", 1]}
    graph["guided"] = {"class_type": "FluxGuidance", "inputs": {"conditioning": ["prompt", 0], "guidance": 3.5}}
    graph["composite"]["inputs"]["mask"] = ["picture", 1]
    del graph["mask"], graph["conditioning"]
    numbers = {name: str(index) for index, name in enumerate(graph, 1)}

    def renamed(value: Any) -> Any:
        return [numbers[value[0]], value[1]] if workflow.is_link(value) else value

    return {
        numbers[name]: {**node, "inputs": {key: renamed(value) for key, value in node["inputs"].items()}}
        for name, node in graph.items()
    }


def load(tmp_path: Path, graph: Any, **options: Any) -> workflow.Workflow:
    (tmp_path / "w.json").write_text(json.dumps(graph), "utf-8")
    return workflow.load(tmp_path / "w.json", **options)


# Sampler Custom has neither `seed` nor `fills`; more_like_this paints three times.
NOT_UNDERSTOOD = {"custom_sampler", "more_like_this"}
UNDERSTOOD = [file for file in sorted(WORKFLOWS.glob("*.json")) if file.stem not in NOT_UNDERSTOOD]


def test_a_workflow_without_a_node_that_paints_is_refused() -> None:
    with pytest.raises(BatchError, match=r"expected one node that paints, with a seed and fills, found none"):
        workflow.load(WORKFLOWS / "custom_sampler.json")


def test_of_several_nodes_that_paint_one_is_to_be_named() -> None:
    with pytest.raises(BatchError, match=r"found inpaint, like, part\. Use --node painter=ID"):
        workflow.load(WORKFLOWS / "more_like_this.json")


@pytest.mark.parametrize("file", UNDERSTOOD, ids=lambda file: file.stem)
def test_the_shipped_workflows_are_understood(file: Path) -> None:
    flow = workflow.load(file)
    assert flow.mask_from == ("file" if "mask" in flow.prompt else "none")
    filled = flow.fill(JOB, 5, {})
    assert filled.prompt[flow.nodes["painter"]]["inputs"]["seed"] == 5
    assert filled.prompt[flow.nodes["picture"]]["inputs"]["image"] == f"vipaint_batch/{JOB}/picture.png"
    assert filled.savers == {"fills": "save", "uncertainty": "uncertainty"}
    for output, node in filled.savers.items():
        saver = filled.prompt[node]
        assert (
            saver["class_type"] == "SaveImage" and saver["inputs"]["filename_prefix"] == f"vipaint_batch/{JOB}/{output}"
        )


def test_masks_from_load_image_prompts_and_titles(tmp_path: Path, prompted: dict[str, Any]) -> None:
    flow = load(tmp_path, prompted, settings=[("Positive.text", "house"), ("ckpt_name", "x.safetensors"), ("cfg", "3")])
    assert flow.mask_from == "alpha"
    filled = flow.fill(JOB, 1, {"prompt": "a cat", "negative": "blurry", "fills": "2"}).prompt
    texts = {node["_meta"]["title"]: node["inputs"]["text"] for node in filled.values() if "text" in node["inputs"]}
    assert texts == {"Positive": "a cat", "Negative": "blurry"}
    (painter,) = (node for node in filled.values() if node["class_type"] == "VIPaintInpaint")
    assert painter["inputs"]["fills"] == 2 and painter["inputs"]["cfg"] == 3.0
    assert flow.fill(JOB, 1, {}).prompt != filled
    assert any(node["inputs"].get("ckpt_name") == "x.safetensors" for node in filled.values())


def test_prompts_need_a_node_for_them(tmp_path: Path, graph: dict[str, Any]) -> None:
    flow = load(tmp_path, graph)
    with pytest.raises(BatchError, match="expected a node that encodes the prompt, found none"):
        flow.check_options({"prompt": "a cat"})
    with pytest.raises(BatchError, match="expected a whole number in the column seed, found '-1'"):
        flow.check_options({"seed": "-1"})
    assert flow.check_options({"preset": "fast", "seed": "3"}) == {("inpaint", "preset")}


def test_settings_take_the_kind_of_what_they_replace(tmp_path: Path, graph: dict[str, Any]) -> None:
    graph["inpaint"]["inputs"]["tiled"] = False
    settings = [
        ("fills", "2"),
        ("cfg", "2.5"),
        ("tiled", "true"),
        ("preset", "3"),
        ("gradients", "auto"),
        ("composite.feather", "4"),
    ]
    flow = load(tmp_path, graph, settings=settings)
    inputs = flow.prompt["inpaint"]["inputs"]
    assert [inputs[name] for name in ("fills", "cfg", "tiled", "preset", "gradients")] == [2, 2.5, True, "3", "auto"]
    assert flow.settings["composite", "feather"] == 4
    for bad, words in [
        (("fills", "2.5"), "expected a number like 2"),
        (("tiled", "maybe"), "expected true or false"),
        (("image", "x"), "is connected to picture"),
        (("samples", "x"), "is connected to inpaint"),
        (("filename_prefix", "x"), "save.filename_prefix, uncertainty.filename_prefix could be"),
        (("nowhere.input", "x"), "found 'nowhere.input', which none could be"),
    ]:
        with pytest.raises(BatchError, match=words):
            load(tmp_path, flow.prompt, settings=[bad])


def test_dotted_inputs_of_a_node_are_reached() -> None:
    flow = workflow.load(WORKFLOWS / "deblur.json", settings=[("degradation.sigma", "2"), ("restore.steps", "7")])
    assert (
        flow.prompt["restore"]["inputs"]["degradation.sigma"] == 2.0 and flow.prompt["restore"]["inputs"]["steps"] == 7
    )


def test_one_fill_has_no_uncertainty(tmp_path: Path, graph: dict[str, Any]) -> None:
    assert load(tmp_path, graph, settings=[("fills", "1")]).fill(JOB, 0, {}).savers == {"fills": "save"}
    flow = load(tmp_path, graph)
    assert "uncertainty" not in flow.fill(JOB, 0, {"fills": "1"}).prompt
    assert "uncertainty" in flow.fill(JOB, 0, {"fills": "2"}).prompt


def test_outputs_that_the_workflow_lacks_are_added(tmp_path: Path, graph: dict[str, Any]) -> None:
    del graph["spread"], graph["uncertainty"]
    graph["save"]["class_type"] = "PreviewImage"
    flow = load(tmp_path, graph, outputs=("fills", "uncertainty", "posterior"))
    filled = flow.fill(JOB, 0, {})
    assert {"VIPaintUncertainty", "VIPaintSavePosterior", "SaveImage"} <= flow.classes and filled.posterior
    saver = filled.prompt[filled.savers["uncertainty"]]
    spread = filled.prompt[saver["inputs"]["images"][0]]
    assert spread["class_type"] == "VIPaintUncertainty" and spread["inputs"]["images"] == ["composite", 0]
    (posterior,) = (node for node in filled.prompt.values() if node["class_type"] == "VIPaintSavePosterior")
    assert posterior["inputs"] == {"posterior": ["inpaint", 1], "filename_prefix": f"batch/{JOB}/posterior"}
    with pytest.raises(BatchError, match="expected a node that gives a posterior"):
        workflow.load(WORKFLOWS / "deblur.json", outputs=("fills", "posterior"))


def test_what_makes_a_result_another_one(tmp_path: Path, graph: dict[str, Any]) -> None:
    same = load(tmp_path, graph).identity
    other = copy.deepcopy(graph)
    other["picture"]["inputs"]["image"] = "x.png"
    other["save"]["inputs"]["filename_prefix"] = "x"
    other["inpaint"]["_meta"] = {"title": "moved"}
    assert load(tmp_path, other).identity == same
    changed = [
        load(tmp_path, graph, settings=[("preset", "fast")]),
        load(tmp_path, graph, settings=[("seed", "0")]),
        load(tmp_path, graph, settings=[("checkpoint.ckpt_name", "x")]),
        load(tmp_path, graph, outputs=("fills",)),
    ]
    assert len({same, *(flow.identity for flow in changed)}) == 5
    # The seed is part of a picture's own key.
    graph["inpaint"]["inputs"]["seed"] = 9
    assert load(tmp_path, graph).identity == same and load(tmp_path, graph).base_seed() == 9


def test_seeds_differ_by_name_and_fit_the_editor(tmp_path: Path, graph: dict[str, Any]) -> None:
    flow = load(tmp_path, graph)
    items = [Item(number, f"p{number}", Path("p"), None) for number in range(1000)]
    seeds = {flow.seed_for(item, 0) for item in items}
    assert len(seeds) == 1000 and max(seeds) < 2**53
    assert flow.seed_for(Item(1, "x", Path("p"), None, {"seed": "5"}), 0) == 5
    assert load(tmp_path, graph, settings=[("seed", "4")]).seed_for(items[0], 0) == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda graph: {}, "found no nodes"),
        (lambda graph: [1], "found no nodes"),
        (lambda graph: {"nodes": [], "links": []}, "found the editor's format.*Export"),
        (lambda graph: {**graph, "x": {"inputs": {}}}, "found no class_type and inputs in 'x'"),
        (lambda graph: {**graph, "p2": graph["picture"]}, None),
        (lambda graph: {**graph, "second": {**graph["inpaint"]}}, "found inpaint, second. Use --node painter=ID"),
        (lambda graph: {name: node for name, node in graph.items() if name != "inpaint"}, "one node that paints"),
        (lambda graph: {name: node for name, node in graph.items() if name != "save"}, "one node that saves the fills"),
        (
            lambda graph: {name: node for name, node in graph.items() if name != "picture"},
            "one node that loads the picture",
        ),
    ],
)
def test_workflows_that_are_refused(tmp_path: Path, graph: dict[str, Any], change: Any, words: str | None) -> None:
    changed = change(graph)
    if words is None:
        # Of two the one with the role's name is taken.
        assert load(tmp_path, changed).nodes["picture"] == "picture"
        return
    with pytest.raises(BatchError, match=words):
        load(tmp_path, changed)


def test_two_nodes_for_one_role_must_be_told_apart(tmp_path: Path, graph: dict[str, Any]) -> None:
    graph["first"], graph["second"] = graph["picture"], graph.pop("picture")
    graph["first"]["_meta"] = graph["second"]["_meta"] = {"title": "Load Image"}
    for name in ("inpaint", "composite"):
        node = graph[name]["inputs"]
        node.update({key: ["first", 0] for key, value in node.items() if value == ["picture", 0]})
    with pytest.raises(BatchError, match=r"loads the picture, found first, second\. Use --node picture=ID"):
        load(tmp_path, graph)
    assert load(tmp_path, graph, nodes={"picture": "first"}).nodes["picture"] == "first"
    with pytest.raises(BatchError, match="expected one node with the title 'load image', found first, second"):
        load(tmp_path, graph, nodes={"picture": "load image"})
