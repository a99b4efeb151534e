"""Translations: files are what the script makes, complete, and of texts that exist."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools import locales
from tools.in_process import ROOT


@pytest.fixture(scope="module")
def schemas(pack: SimpleNamespace) -> list:
    return [node.GET_SCHEMA() for node in pack.NODES]


def test_files_are_what_the_script_makes(pack: SimpleNamespace) -> None:
    made = dict(locales.files(list(pack.NODES)))
    kept = {*(ROOT / "locales").rglob("*.json"), *(ROOT / "web" / "docs").glob("*/*.md")}
    assert made.keys() == kept, "python -m tools.locales"
    for file, words in made.items():
        assert file.read_text("utf-8") == words, f"{file.relative_to(ROOT)}: python -m tools.locales"


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_every_node_is_translated(schemas: list, language: str) -> None:
    """Names, descriptions, and all inputs and outputs but the settings of published methods, which keep their own names."""
    translate = locales.translator(locales.tables()[language])
    missing = []
    for schema in schemas:
        texts = [schema.display_name, schema.description, *(entry.tooltip for entry in schema.outputs)]
        texts += [
            tooltip
            for key, _, tooltip in locales.inputs_of(schema)
            if schema.node_id != "VIPaintBaseline" or not key.startswith("method_")
        ]
        missing += [text for text in texts if translate(text) is None]
    assert not missing, f"tools/translations.txt lacks {missing}"


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_the_editor_s_own_words_are_translated(language: str) -> None:
    texts = locales.english_texts()
    assert len(texts) > 10
    kept = json.loads((ROOT / "locales" / language / "main.json").read_text("utf-8"))["vipaint"]
    assert kept.keys() == {*texts, "errors"}


def test_nothing_is_translated_that_is_said_nowhere(schemas: list) -> None:
    said = set(locales.english_texts().values())
    for schema in schemas:
        said |= {schema.display_name, schema.description}
        said |= {text for _, name, tooltip in locales.inputs_of(schema) for text in (name, tooltip)}
        said |= {text for entry in schema.outputs for text in (entry.display_name or entry.id, entry.tooltip)}
    everything = "\n".join(said)
    for text in locales.tables()["zh"]:
        if text.startswith(locales.ERROR):
            continue
        node, _, name = text.partition(": ")
        own = {schema.display_name: schema for schema in schemas}.get(node)
        if own is not None and name:
            assert name in [name for _, name, _ in locales.inputs_of(own)]
            continue
        assert text in everything or "{" in text, f"tools/translations.txt: nobody says {text!r}"


def sentences(file: Path) -> Iterator[re.Pattern[str]]:
    """What the strings of a file may become: any text in the place of values, a number in each {1} of a translation."""
    for entry in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(entry, ast.JoinedStr):
            parts = (re.escape(part.value) if isinstance(part, ast.Constant) else ".+" for part in entry.values)
            yield re.compile("".join(parts))
        elif isinstance(entry, ast.Constant) and isinstance(entry.value, str):
            yield re.compile(re.escape(entry.value))


def test_errors_that_are_translated_are_raised() -> None:
    """By some string of the nodes, whose numbers stand as {1}, {2} in the translation."""
    patterns = [pattern for file in (ROOT / "nodes").rglob("*.py") for pattern in sentences(file)]
    found = [text for text in locales.tables()["fr"] if text.startswith(locales.ERROR)]
    assert len(found) > 30
    for text in found:
        sentence = re.sub(r"\{\d\}", "8", text[len(locales.ERROR) :])
        known = any(
            pattern.fullmatch(sentence) or pattern.fullmatch(sentence.replace("8", "64")) for pattern in patterns
        )
        assert known or any(pattern.fullmatch(re.sub(r"\b8\b", "1", sentence, count=1)) for pattern in patterns), text


def test_a_preset_s_price_is_translated_with_its_numbers(schemas: list) -> None:
    (schema,) = (schema for schema in schemas if schema.node_id == "VIPaintInpaint")
    (tooltip,) = (entry.tooltip for entry in schema.inputs if entry.id == "preset")
    for language, table in locales.tables().items():
        words = locales.translator(table)(tooltip)
        assert words is not None and "42" in words and "1500" in words and "passes a fill" not in words, language
