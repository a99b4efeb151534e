"""The editor under control: templates, nodes, and the chooser."""

from __future__ import annotations

import json
from typing import Any

from tools.browser import Browser
from tools.comfy_server import ROOT, ComfyServer


def node(kind: str) -> str:
    """An expression for the node of a class."""
    return f"app.graph._nodes.find((one) => one.type === '{kind}')"


def widget(kind: str, name: str) -> str:
    return f"{node(kind)}.widgets.find((one) => one.name === '{name}')"


CHOOSER = f"{node('VIPaintChoose')}.vipaintChooser"


class Editor:
    """expected: regular expressions of console messages that a test provokes."""

    def __init__(self, browser: Browser, server: ComfyServer) -> None:
        self.browser, self.server = browser, server
        self.expected: list[str] = []

    def open(self, **settings: Any) -> None:
        """settings: by their ids with `_` for `.`."""
        usual = {"Comfy.VueNodes.Enabled": False, "Comfy.Locale": "en"}
        changed = {name.replace("_", "."): value for name, value in settings.items()}
        self.browser.open(self.server.url, {**usual, **changed})

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

    def look_at(self, kind: str) -> None:
        """Brings a node to the middle."""
        self.browser.evaluate(f"(app.canvas.centerOnNode({node(kind)}), app.canvas.setDirty(true, true), 1)")
