"""What the pack takes from the host is listed, is there, and is missed with one clear message."""

from __future__ import annotations

import ast
import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import run

ROOT = Path(__file__).resolve().parents[3]
# The host's modules beside its public interface.
INTERNAL = "comfy", "latent_preview", "execution", "server", "comfy_execution", "comfy_extras", "node_helpers"
# Modules themselves, and what is looked up by computed names.
UNLISTED = {"comfy.model_base", "comfy.model_sampling", "comfy.sd.VAE"}


def uses(source: str) -> Iterator[str]:
    """Dotted names that a file takes from the host's modules."""
    names: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0]: alias.name.split(".")[0] for alias in node.names if not alias.asname}
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    internal = {name: full for name, full in names.items() if full.split(".")[0] in INTERNAL}
    yield from (full for full in internal.values() if "." in full)
    for node in ast.walk(ast.parse(source)):
        parts, inner = [], node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if parts and isinstance(inner, ast.Name) and inner.id in internal:
            yield ".".join([internal[inner.id], *reversed(parts)])


def test_the_list_is_what_the_source_uses(pack):
    """Nothing unlisted, nothing listed that has gone out of use."""
    symbols = pack.host.symbols
    found = {name for file in (ROOT / "nodes").rglob("*.py") for name in uses(file.read_text(encoding="utf-8"))}
    modules = {
        ".".join(symbol.split(".")[:length]) for symbol in symbols.NEEDED for length in range(1, symbol.count(".") + 1)
    }
    unlisted = found - set(symbols.NEEDED) - modules - UNLISTED
    assert unlisted == set()
    # Methods of classes and names as text are not found by their full names.
    text = "\n".join(
        file.read_text(encoding="utf-8") for file in (ROOT / "nodes").rglob("*.py") if file.stem != "symbols"
    )
    unused = [name for name in symbols.NEEDED + symbols.OPTIONAL if not re.search(rf"\b{name.split('.')[-1]}\b", text)]
    assert unused == []


def test_this_host_has_them(pack):
    symbols = pack.host.symbols
    symbols.check()
    assert symbols.host_version() != "unknown"
    assert not symbols.is_there("comfy.samplers.NoSuchThing") and not symbols.is_there("no_such_module.thing")


def test_versions_are_those_stated_elsewhere(pack):
    symbols, project = pack.host.symbols, (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires-comfyui = ">={symbols.OLDEST}"' in project
    assert run.COMFYUI_VERSION == symbols.NEWEST
    assert f"ComfyUI ({symbols.OLDEST} or newer)" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("version", "fix"),
    [
        ("0.3.64", "Update ComfyUI to 0.16.3 or newer"),
        ("0.46.0", "Update VIPaint; until it has a version for this ComfyUI, ComfyUI 0.30.0 "),
        ("unknown", "Update VIPaint"),
    ],
)
def test_what_is_missing_is_named_with_the_versions_that_have_it(pack, monkeypatch, version, fix):
    symbols = pack.host.symbols
    monkeypatch.setattr(symbols, "host_version", lambda: version)
    with pytest.raises(symbols.MissingSymbolError) as caught:
        symbols.check([*symbols.NEEDED, "comfy.samplers.CFGGuider.no_more", "comfy.gone.thing"])
    message = str(caught.value)
    assert (
        f"this ComfyUI ({version}) has no comfy.samplers.CFGGuider.no_more, comfy.gone.thing; versions 0.16.3"
        in message
    )
    assert fix in message


def test_the_host_logs_the_message_and_no_traceback(comfyui, monkeypatch, tmp_path, caplog):
    """A ComfyUI that lacks something starts, without the nodes."""
    import comfy.samplers

    import nodes

    folder = tmp_path / "vipaint_on_another_host"
    folder.symlink_to(ROOT, target_is_directory=True)
    monkeypatch.delattr(comfy.samplers.CFGGuider, "set_cfg")
    try:
        assert not asyncio.run(nodes.load_custom_node(str(folder)))
    finally:
        for name in [name for name in sys.modules if "vipaint_on_another_host" in name]:
            del sys.modules[name]
    (found,) = [record.getMessage() for record in caplog.records if "VIPaint" in record.getMessage()]
    assert "has no comfy.samplers.CFGGuider.set_cfg; versions 0.16.3 to 0.30.0 have" in found
    assert "Traceback" not in caplog.text
