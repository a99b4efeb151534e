"""Translations: files are what the script makes, complete, and of texts that exist."""

from __future__ import annotations

import json
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
    assert kept.keys() == texts.keys()


def test_nothing_is_translated_that_is_said_nowhere(schemas: list) -> None:
    said = set(locales.english_texts().values())
    for schema in schemas:
        said |= {schema.display_name, schema.description}
        said |= {text for _, name, tooltip in locales.inputs_of(schema) for text in (name, tooltip)}
        said |= {text for entry in schema.outputs for text in (entry.display_name or entry.id, entry.tooltip)}
    everything = "\n".join(said)
    for text in locales.tables()["zh"]:
        assert text in everything or "{" in text, f"tools/translations.txt: nobody says {text!r}"


def test_a_preset_s_price_is_translated_with_its_numbers(schemas: list) -> None:
    (schema,) = (schema for schema in schemas if schema.node_id == "VIPaintInpaint")
    (tooltip,) = (entry.tooltip for entry in schema.inputs if entry.id == "preset")
    for language, table in locales.tables().items():
        words = locales.translator(table)(tooltip)
        assert words is not None and "58" in words and "1500" in words and "passes a fill" not in words, language
