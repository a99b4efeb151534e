"""What the documents name exists: links, files, nodes, presets, identifiers, commands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools.in_process import ROOT
from vipaint_core import PRESETS

PATTERNS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md", "web/docs/*.md", "toy_prior/README.md")
DOCUMENTS = sorted(file for pattern in PATTERNS for file in ROOT.glob(pattern))
NAMES = [file.relative_to(ROOT).as_posix() for file in DOCUMENTS]
# Where a path in a document may start.
BASES = ("", "vipaint_core", "nodes", "benchmarks", "toy_prior")
# Folders of a user and of ComfyUI, and what is made here and not committed.
ELSEWHERE = (
    "models/",
    "ComfyUI/",
    ".host/",
    ".cache/",
    "output/",
    "input/",
    "PICTURES/",
    "MASKS/",
    "FILLS/",
    "sub/",
    "main",
)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def text_of(document: Path) -> str:
    """Without blocks of code."""
    text = re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.DOTALL)
    return re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE)


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(text_of(document)):
        if target.startswith(("https://", "http://")):
            continue
        name, _, part = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        assert file.exists(), f"{document.name} links to {target}"
        if part:
            assert part in map(anchor, HEADING.findall(text_of(file))), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_files_that_are_named_exist(document: Path) -> None:
    for word in CODE.findall(text_of(document)):
        is_path = re.fullmatch(r"[\w./-]+", word) and ("/" in word or word.endswith((".py", ".md", ".json", ".toml")))
        if not is_path or word.startswith(ELSEWHERE):
            continue
        assert any((ROOT / base / word).exists() for base in (*BASES, document.parent)), f"{document.name}: {word}"


@pytest.fixture(scope="module")
def source() -> set[str]:
    """All words of the code."""
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    words: set[str] = set()
    for name in files.stdout.split("\n"):
        if name.endswith((".py", ".toml", ".txt")) and (ROOT / name).is_file():
            words |= set(re.findall(r"[\w-]+", (ROOT / name).read_text("utf-8")))
    assert "LatentObservation" in words
    return words


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_identifiers_that_are_named_exist(document: Path, source: set[str]) -> None:
    """Symbols of formulas are none: in the documents that have them, only what is written as a class or a constant is."""
    kind = r"[A-Z][A-Za-z]{3,}[\w.]*" if document.stem in ("method", "glossary") else r"[A-Za-z_][\w.]*"
    for word in CODE.findall(text_of(document)):
        for part in word.split(".") if re.fullmatch(kind, word) else ():
            assert part in source, f"{document.name} names `{word}`"


def test_nodes_have_pages_and_are_in_the_readme(pack: SimpleNamespace) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    schemas = [node.define_schema() for node in pack.NODES]
    pages = {file.stem for file in (ROOT / "web" / "docs").glob("*.md")}
    assert pages == {schema.node_id for schema in schemas}
    for schema in schemas:
        assert schema.display_name.removeprefix("VIPaint ") in readme
        page = (ROOT / "web" / "docs" / f"{schema.node_id}.md").read_text("utf-8")
        assert page.startswith(f"# {schema.display_name}\n")
        assert f"](images/{schema.node_id}.webp)" in page and "## What goes wrong" in page
        # Inputs in bold are the node's, or settings of one of its choices.
        choices = [
            setting.id
            for entry in schema.inputs
            for option in getattr(entry, "options", None) or []
            for setting in getattr(option, "inputs", ())
        ]
        known = {entry.id for entry in [*schema.inputs, *schema.outputs]} | set(choices)
        for name in re.findall(r"^- ((?:\*\*\w+\*\*(?:, )?)+)", page, flags=re.MULTILINE):
            assert set(re.findall(r"\w+", name)) <= known, f"{schema.node_id}.md names {name}"


def test_nodes_that_documents_name_exist(pack: SimpleNamespace) -> None:
    """By the menu's words: `VIPaint` and what begins with a capital letter behind it."""
    known = {node.define_schema().display_name for node in pack.NODES}
    for document in DOCUMENTS:
        words = " ".join(text_of(document).split())
        for name in re.findall(r"VIPaint (?:[A-Z][a-z]+ ?)+", words):
            # A sentence may go on with a capital letter.
            parts = name.split()
            assert any(" ".join(parts[:length]) in known for length in (2, 3)), f"{document.name}: {name}"


def test_presets_that_documents_name_exist(pack: SimpleNamespace) -> None:
    for name in PRESETS:
        assert f"`{name}`" in (ROOT / "README.md").read_text("utf-8")
    for document in DOCUMENTS:
        for name in re.findall(r"preset `([\w-]+)`|presets? (?:of|at) `([\w-]+)`", text_of(document)):
            assert "".join(name) in PRESETS


def test_commands_exist() -> None:
    run = (ROOT / "run.py").read_text("utf-8")
    for document in DOCUMENTS:
        for command, benchmark in re.findall(r"python3 run\.py (\w+)(?: (\w+))?", document.read_text("utf-8")):
            assert f'"{command}"' in run
            if command == "benchmark" and benchmark:
                assert f'"{benchmark}"' in run, f"{document.name}: {benchmark}"


def test_versions_agree() -> None:
    (version,) = re.findall(
        r'^version = "(\d+\.\d+\.\d+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE
    )
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
