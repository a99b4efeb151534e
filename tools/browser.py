"""One Chromium under control, for tests of the editor and for pictures of it.

    with Browser() as browser:
        browser.open(server.url)
        browser.page("await page.screenshot({path: args.file})", file="shot.png")
        nodes = browser.evaluate("app.graph._nodes.length")

Needs Debian's Chromium, node and npm, from whose registry playwright-core comes once, into .cache/browser: `missing`
says what is not there.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tools.comfy_server import ROOT

CACHE = ROOT / ".cache" / "browser"
PLAYWRIGHT = "1.65.1"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DRIVER = Path(__file__).with_name("browser_driver.mjs")


class BrowserError(RuntimeError):
    """What was run in the browser failed."""


def chromium() -> str | None:
    """The browser's path: `CHROMIUM`, or the first that is installed."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in CHROMIUMS if (path := shutil.which(name))), None)


def missing() -> str | None:
    """Why no browser can be driven here, None where it can; installs playwright-core where it is not there yet."""
    if chromium() is None:
        return "no Chromium: apt-get install chromium, or set CHROMIUM"
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "no node and npm"
    package = CACHE / "node_modules" / "playwright-core" / "package.json"
    if package.is_file() and json.loads(package.read_text("utf-8"))["version"] == PLAYWRIGHT:
        return None
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "package.json").write_text('{"private": true}', "utf-8")
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", f"playwright-core@{PLAYWRIGHT}"]
    try:
        done = subprocess.run(command, cwd=CACHE, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"npm could not install playwright-core: {error}"
    return None if done.returncode == 0 else f"npm could not install playwright-core: {done.stderr.strip()[-300:]}"


class Browser:
    """Context manager: a headless Chromium with one page and a profile of its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._profile = ""

    def __enter__(self) -> Browser:
        reason = missing()
        if reason is not None:
            raise BrowserError(reason)
        self._profile = tempfile.mkdtemp(prefix="vipaint-chromium-")
        command = ["node", str(DRIVER), str(CACHE), str(chromium()), self._profile]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer(60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        shutil.rmtree(self._profile, ignore_errors=True)

    def _answer(self, timeout: float) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise BrowserError(f"no answer within {timeout:.0f} s" if not ready else "the browser has ended")
        return dict(json.loads(line))

    def page(self, code: str, timeout: float = 60.0, **args: Any) -> Any:
        """Runs JavaScript beside the browser with `page`, `context`, `messages` and `args`; what it returns."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps({"code": code, "args": args}) + "\n")
        self._process.stdin.flush()
        answer = self._answer(timeout)
        if "error" in answer:
            raise BrowserError(answer["error"])
        return answer["value"]

    def evaluate(self, expression: str, timeout: float = 60.0, **args: Any) -> Any:
        """The value of an expression in the page, in which `app` and `args` are known."""
        body = f"async (args) => {{ const app = window.app; return ({expression}); }}"
        return self.page(f"return await page.evaluate({body}, args)", timeout, **args)

    def wait(self, expression: str, timeout: float = 30.0, **args: Any) -> None:
        """Until an expression in the page is true. Raises BrowserError."""
        body = f"(args) => {{ const app = window.app; return ({expression}); }}"
        milliseconds = round(1000 * timeout)
        self.page(f"await page.waitForFunction({body}, args, {{timeout: {milliseconds}}})", timeout + 10, **args)

    def open(self, url: str, settings: Mapping[str, Any] | None = None) -> None:
        """Opens the editor of a server with an empty graph. settings: of the editor, by their ids."""
        # As for a user who has been here before: the first visit opens the templates.
        usual = {"Comfy.TutorialCompleted": True, "Comfy.Workflow.Persist": False}
        body = json.dumps({**usual, **(settings or {})}).encode()
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{url}/api/settings", body, headers), timeout=30).close()
        self.page("await page.goto('about:blank'); messages.length = 0; await page.goto(args.url)", url=url)
        # Before that the editor loads the graph that it begins with.
        self.wait(
            "app?.vueAppReady && !app.extensionManager.spinner && app.extensionManager.workflow.activeWorkflow", 60
        )

    def set(self, name: str, value: Any) -> None:
        """Changes a setting of the editor while it is open."""
        self.evaluate("await app.extensionManager.setting.set(args.name, args.value)", name=name, value=value)

    def screenshot(self, file: Path) -> Path:
        self.page("await page.screenshot({path: args.file})", file=str(file))
        return file

    def messages(self) -> list[dict[str, str]]:
        """What the page has written to its console since it was opened."""
        found: list[dict[str, str]] = self.page("return messages")
        return found
