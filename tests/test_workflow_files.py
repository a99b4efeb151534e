"""The shipped templates: what the editor opens, the same for scripts, their pictures, and the subgraph blueprint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tools import templates
from tools.comfy_server import ROOT, ComfyServer

TEMPLATES = {template.name: template for template in templates.TEMPLATES}
WORKFLOWS = ROOT / "workflows"
EXAMPLES = ROOT / "web" / "examples"


def graph(name: str) -> dict[str, Any]:
    return json.loads((WORKFLOWS / f"{name}.json").read_text("utf-8"))


def prompt(name: str) -> dict[str, Any]:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text("utf-8"))


@pytest.mark.host
def test_files_are_what_the_script_makes_with_this_host(server: ComfyServer) -> None:
    made = dict(templates.files(server))
    kept = {*WORKFLOWS.glob("*.json"), *WORKFLOWS.glob("api/*.json"), *(ROOT / "subgraphs").glob("*.json")}
    assert made.keys() == kept
    for file, words in made.items():
        assert file.read_text("utf-8") == words, f"{file.name}: python -m tools.templates"


@pytest.mark.host
def test_the_host_lists_templates_and_nothing_else(server: ComfyServer) -> None:
    listed = server.get("/workflow_templates")
    (names,) = (names for pack, names in listed.items() if "vipaint" in pack.lower() or set(names) & set(TEMPLATES))
    assert set(names) == TEMPLATES.keys()
    blueprints = [entry["name"] for entry in server.get("/global_subgraphs").values()]
    assert templates.BLUEPRINT_NAME in blueprints


@pytest.mark.parametrize("name", TEMPLATES)
def test_links_of_the_graph_and_its_twin_agree(name: str) -> None:
    opened = graph(name)
    by_id = {node["id"]: node for node in opened["nodes"]}
    for link, source, out, target, slot, kind in opened["links"]:
        assert link in by_id[source]["outputs"][out]["links"]
        assert by_id[target]["inputs"][slot]["link"] == link
        assert by_id[source]["outputs"][out]["type"] == by_id[target]["inputs"][slot]["type"] == kind
    for key, node in prompt(name).items():
        for value in node["inputs"].values():
            assert not isinstance(value, list) or value[0] in prompt(name), f"{name}: {key}"


def boxes(opened: dict[str, Any]) -> Iterator[tuple[str, float, float, float, float]]:
    for node in opened["nodes"]:
        (left, top), (width, height) = node["pos"], node["size"]
        yield node["title"], left, top - 30, left + width, top + height


@pytest.mark.parametrize("name", TEMPLATES)
def test_nodes_do_not_overlap_and_lie_in_titled_groups(name: str) -> None:
    opened = graph(name)
    placed = list(boxes(opened))
    for index, (title, left, top, right, bottom) in enumerate(placed):
        for other, *box in placed[:index]:
            apart = right <= box[0] or box[2] <= left or bottom <= box[1] or box[3] <= top
            assert apart, f"{name}: {title} over {other}"
        if title == "Three steps":
            assert all(bottom <= group["bounding"][1] for group in opened["groups"])
            continue
        around = [group["bounding"] for group in opened["groups"] if group["title"]]
        assert any(x <= left and y <= top and right <= x + w and bottom <= y + h for x, y, w, h in around), title


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_explains_itself_and_brings_what_it_opens(name: str) -> None:
    opened = graph(name)
    (note,) = (node for node in opened["nodes"] if node["type"] == "MarkdownNote")
    assert all(f"\n{step}. " in note["widgets_values"][0] for step in (1, 2, 3))
    for node in opened["nodes"]:
        if node["type"] == "LoadImage":
            shipped = EXAMPLES / node["widgets_values"][0]
            assert shipped.is_file() and shipped.stat().st_size < 500_000
            masked = any(link[1] == node["id"] and link[2] == 1 for link in opened["links"])
            with Image.open(shipped) as picture:
                # The hole as MaskEditor saves it.
                assert (picture.mode == "RGBA") == masked
                assert not masked or picture.getchannel("A").getextrema() == (0, 255)
        if "Loader" in node["type"] or node["type"] == "CheckpointLoaderSimple":
            files = {value for value in node["widgets_values"] if str(value).endswith(".safetensors")}
            linked = {model["name"] for model in node["properties"].get("models", ())}
            assert files - {templates.TOY} == linked
            assert all(model["url"].startswith("https://") for model in node["properties"].get("models", ()))
    thumbnail = WORKFLOWS / f"{name}.jpg"
    assert thumbnail.is_file() and thumbnail.stat().st_size < 80_000
    assert "seed" not in str(opened["nodes"]) or "randomize" not in str(opened["nodes"])


def test_the_blueprint_has_its_sockets_and_widgets() -> None:
    file: Path = ROOT / "subgraphs" / f"{templates.BLUEPRINT_NAME}.json"
    (outer,) = (opened := json.loads(file.read_text("utf-8")))["nodes"]
    (inner,) = opened["definitions"]["subgraphs"]
    assert outer["type"] == inner["id"]
    assert [entry["type"] for entry in outer["inputs"]] == ["IMAGE", "MASK", "MODEL", "CLIP", "VAE"]
    ids = {str(node["id"]) for node in inner["nodes"]}
    assert {owner for owner, _ in outer["properties"]["proxyWidgets"]} <= ids
    for link in inner["links"]:
        assert link["type"] in ("IMAGE", "MASK", "MODEL", "CLIP", "VAE", "CONDITIONING", "LATENT")
