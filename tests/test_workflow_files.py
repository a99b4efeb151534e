"""The shipped workflows: what the editor opens, and the same in API format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

WORKFLOWS = Path(__file__).resolve().parents[1] / "workflows"


@pytest.mark.parametrize("name", sorted(file.stem for file in WORKFLOWS.glob("*.json") if "_api" not in file.stem))
def test_workflows_fit_the_schemas_and_their_twins(pack, comfyui, name):
    prompt = json.loads((WORKFLOWS / f"{name}_api.json").read_text("utf-8"))
    graph = json.loads((WORKFLOWS / f"{name}.json").read_text("utf-8"))
    assert (WORKFLOWS / f"{name}.jpg").is_file()
    schemas = {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in pack.NODES}
    for entry in prompt.values():
        if entry["class_type"] in schemas:
            known = {i.id for i in schemas[entry["class_type"]].inputs}
            required = {i.id for i in schemas[entry["class_type"]].inputs if not i.optional}
            assert required <= {name.split(".")[0] for name in entry["inputs"]} <= known
    by_id = {node["id"]: node for node in graph["nodes"]}
    for link, source, out, target, slot, kind in graph["links"]:
        assert link in by_id[source]["outputs"][out]["links"]
        assert by_id[target]["inputs"][slot]["link"] == link
        assert by_id[source]["outputs"][out]["type"] == by_id[target]["inputs"][slot]["type"] == kind
    # The same nodes in the same order, the same connections, the same values.
    ids = dict(zip(prompt, by_id, strict=True))
    origin = {link: [source, out] for link, source, out, *_ in graph["links"]}
    for key, entry in prompt.items():
        node = by_id[ids[key]]
        assert node["type"] == entry["class_type"]
        wired = {i["name"]: origin[i["link"]] for i in node["inputs"] if i["link"] is not None}
        given = {i: [ids[v[0]], v[1]] for i, v in entry["inputs"].items() if isinstance(v, list)}
        # The editor's own values: what becomes of a seed after a run, and the button that uploads.
        values = [value for value in node["widgets_values"] if value not in ("fixed", "image")]
        assert wired == given and values == [v for v in entry["inputs"].values() if not isinstance(v, list)]
