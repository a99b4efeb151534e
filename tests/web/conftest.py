"""One Chromium for all tests of the editor; where there is none they are skipped, and say why."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tools import browser as tools_browser
from tools.comfy_server import ComfyServer
from tools.editor import Editor

# What the editor of this version says of itself on every visit.
HOST = re.compile(
    r"userdata|user\.css|deprecated|graph accessed before initialization|Autofocus|node-replacements|/assets/", re.I
)


@pytest.fixture(scope="session")
def browser() -> Iterator[tools_browser.Browser]:
    reason = tools_browser.missing()
    if reason is not None:
        pytest.skip(reason)
    with tools_browser.Browser() as running:
        yield running


@pytest.fixture
def editor(browser: tools_browser.Browser, server: ComfyServer) -> Iterator[Editor]:
    """The editor with an empty graph. Fails where the console has errors or warnings that are not the host's own."""
    editor = Editor(browser, server)
    editor.open()
    yield editor
    unexpected = [
        message
        for message in browser.messages()
        if message["type"] in ("error", "warning", "pageerror")
        and not HOST.search(f"{message['text']} {message['url']}")
        and not any(re.search(words, message["text"]) for words in editor.expected)
    ]
    assert not unexpected
