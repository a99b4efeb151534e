"""The editor under control: templates, nodes, and the chooser."""

from __future__ import annotations

import json
from typing import Any

from tools.browser import Browser
from tools.comfy_server import ROOT, ComfyServer
from tools.templates import BLUEPRINT_NAME, TOY


def node(kind: str) -> str:
    """An expression for the node of a class."""
    return f"app.graph._nodes.find((one) => one.type === '{kind}')"


def widget(kind: str, name: str) -> str:
    return f"{node(kind)}.widgets.find((one) => one.name === '{name}')"


CHOOSER = f"{node('VIPaintChoose')}.vipaintChooser"


class Editor:
    """expected: regular expressions of console messages that a test provokes. usual: settings at every opening."""

    def __init__(self, browser: Browser, server: ComfyServer) -> None:
        self.browser, self.server = browser, server
        self.expected: list[str] = []
        self.usual: dict[str, Any] = {"Comfy.VueNodes.Enabled": False, "Comfy.Locale": "en"}

    def open(self, **settings: Any) -> None:
        """settings: by their ids with `_` for `.`."""
        changed = {name.replace("_", "."): value for name, value in settings.items()}
        self.browser.open(self.server.url, {**self.usual, **changed})

    def load(self, name: str, **widgets: Any) -> None:
        """Opens a template, with other values of its painting node."""
        graph = json.loads((ROOT / "workflows" / f"{name}.json").read_text("utf-8"))
        self.browser.evaluate("await app.loadGraphData(args.graph, true, true, args.name)", graph=graph, name=name)
        for key, value in widgets.items():
            self.browser.evaluate(f"({widget('VIPaintInpaint', key)}.value = args.value, 1)", value=value)

    def press_run(self) -> None:
        self.browser.page("await page.getByTestId('queue-button').click()")

    def run_to_fills(self, count: int) -> None:
        """Presses Run and waits until the chooser shows new fills, and until the last node is done."""
        self.press_run()
        self.browser.wait(f"{CHOOSER}.fills.length === args.count && !{CHOOSER}.isStale", 120, count=count)
        self.browser.wait("!app.runningNodeId && app.ui.lastQueueSize === 0", 60)

    def key(self, name: str) -> None:
        self.browser.page("await page.keyboard.press(args.name)", name=name)

    def value(self, expression: str) -> Any:
        return self.browser.evaluate(expression)

    def cell(self, number: int, action: str = "click") -> None:
        """Clicks the picture of a fill, counted from 1."""
        code = f"await page.locator('.vipaint-chooser .cell[data-fill=\"{number}\"]').{action}()"
        self.browser.page(code)

    def insert_blueprint(self) -> None:
        """Adds the subgraph blueprint as a user does: by the search box."""
        self.browser.evaluate("await app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
        self.browser.page("await page.keyboard.type(args.words)", words=BLUEPRINT_NAME)
        option = "page.locator('[role=option]').filter({hasText: args.words}).first()"
        self.browser.page(f"await {option}.waitFor({{timeout: 15000}})", words=BLUEPRINT_NAME)
        self.browser.page(f"await {option}.click()", words=BLUEPRINT_NAME)
        self.browser.wait("app.graph._nodes.some((one) => one.subgraph)", 15)
        # It hangs on the pointer until it is put down.
        self.browser.page("await page.mouse.move(800, 400); await page.mouse.click(800, 400)")

    def look_at(self, kind: str) -> None:
        """Brings a node to the middle."""
        self.browser.evaluate(f"(app.canvas.centerOnNode({node(kind)}), app.canvas.setDirty(true, true), 1)")


def blueprint_with_toy() -> dict[str, Any]:
    """The subgraph blueprint in a graph that runs: with a picture and the small model, which has no text encoder, so that
    VIPaint Unconditional takes the place of the prompts.
    """
    graph: dict[str, Any] = json.loads((ROOT / "subgraphs" / f"{BLUEPRINT_NAME}.json").read_text("utf-8"))
    (inner,) = graph["definitions"]["subgraphs"]
    (outer,) = graph["nodes"]
    prompts = [one for one in inner["nodes"] if one["type"] == "CLIPTextEncode"]
    names = [entry["name"] for entry in inner["inputs"]]
    model, clip = inner["inputs"][names.index("model")], inner["inputs"][names.index("clip")]
    for link in inner["links"]:
        if link["id"] in clip["linkIds"]:
            link |= {"origin_slot": names.index("model"), "type": "MODEL"}
    model["linkIds"] += clip["linkIds"]
    clip["linkIds"] = []
    for one in prompts:
        one |= {"type": "VIPaintUnconditional", "widgets_values": []}
        one["inputs"] = [{"name": "model", "type": "MODEL", "link": one["inputs"][0]["link"]}]
    ids = {str(one["id"]) for one in prompts}
    outer["properties"]["proxyWidgets"] = [pair for pair in outer["properties"]["proxyWidgets"] if pair[0] not in ids]
    kinds = (("LoadImage", ["vipaint_portrait.png", "image"], 2), ("CheckpointLoaderSimple", [TOY], 3))
    for number, (kind, values, outputs) in enumerate(kinds, 2):
        types = ("IMAGE", "MASK") if kind == "LoadImage" else ("MODEL", "CLIP", "VAE")
        graph["nodes"].append(
            {
                "id": number,
                "type": kind,
                "pos": [-420, 420 * (number - 2)],
                "size": [320, 320 if outputs == 2 else 120],
                "flags": {},
                "order": 0,
                "mode": 0,
                "inputs": [],
                "outputs": [{"name": name, "type": name, "links": []} for name in types],
                "properties": {},
                "widgets_values": values,
            }
        )
    preview = {"id": 4, "type": "PreviewImage", "pos": [480, 0], "size": [360, 360], "flags": {}, "order": 2, "mode": 0}
    graph["nodes"].append({**preview, "inputs": [{"name": "images", "type": "IMAGE", "link": None}], "outputs": []})
    ends = [(2, 0, 1, 0), (2, 1, 1, 1), (3, 0, 1, 2), (3, 2, 1, 4), (1, 0, 4, 0)]
    by_id = {one["id"]: one for one in graph["nodes"]}
    for link, (source, out, target, slot) in enumerate(ends, 1):
        kind = by_id[source]["outputs"][out]["type"]
        graph["links"].append([link, source, out, target, slot, kind])
        by_id[source]["outputs"][out]["links"].append(link)
        by_id[target]["inputs"][slot]["link"] = link
    return {**graph, "last_node_id": 4, "last_link_id": len(ends)}
