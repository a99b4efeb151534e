"""Makes locales/LANGUAGE/, from which the host gives the editor its words, of tools/translations.txt, and the nodes' help
pages in these languages, web/docs/NODE/LANGUAGE.md.

    python -m tools.locales

Where a text has no translation the editor shows the English one.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tools.in_process import ROOT

SOURCE, FOLDER, HELP = ROOT / "tools" / "translations.txt", ROOT / "locales", ROOT / "web" / "docs"
# In the order of the lines of `SOURCE`, by the host's codes.
LANGUAGES = ("zh", "ja", "fr")
# Words of the pack's own parts of the editor.
TEXTS = ROOT / "web" / "texts.js"
# How blocks begin whose English text is a part of an error's message.
ERROR = "error: "
# The line of a preset: its name, what it is for, what it takes.
PRESET = re.compile(
    r"([\w-]+): ([^;.]+); (\d+) passes a fill(?: after (\d+) for the picture)?((?:, \d+ from fill \d+ on)*)\."
)


def tables() -> dict[str, dict[str, str]]:
    """Translations by language and English text. Raises ValueError for a block without its lines."""
    found: dict[str, dict[str, str]] = {language: {} for language in LANGUAGES}
    lines = "\n".join(line for line in SOURCE.read_text("utf-8").split("\n") if not line.startswith("#"))
    for block in re.split(r"\n\n+", lines.strip()):
        english, *others = block.split("\n")
        if len(others) != len(LANGUAGES):
            raise ValueError(
                f"translations.txt: expected {len(LANGUAGES)} translations, found {len(others)}: {english}"
            )
        for language, words in zip(LANGUAGES, others, strict=True):
            if set(re.findall(r"\{\w+\}", words)) != set(re.findall(r"\{\w+\}", english)):
                raise ValueError(f"translations.txt: expected the words in braces of {english!r} in {words!r}")
            found[language][english] = words
    return found


def translator(table: dict[str, str]) -> Callable[[str], str | None]:
    """The translation of a text, None where there is none."""

    def translate(text: str) -> str | None:
        presets = PRESET.findall(text)
        if not presets:
            return table.get(text)
        # The prices are computed.
        parts = [table[text[: text.index(presets[0][0] + ": ")].strip()]]
        for name, words, each, fit, later in presets:
            price = "{each} passes a fill" + (" after {fit} for the picture" if fit else "")
            numbers = table[price].format(each=each, fit=fit)
            for further, number in re.findall(r"(\d+) from fill (\d+)", later):
                numbers += table[", {further} from fill {number} on"].format(further=further, number=number)
            parts.append(f"{name}: {table[words]}; {numbers}.")
        return " ".join(parts)

    return translate


def english_texts() -> dict[str, str]:
    """Keys and English words of web/texts.js."""
    return dict(re.findall(r'^  (\w+): "(.*)",$', TEXTS.read_text("utf-8"), re.MULTILINE))


def inputs_of(schema: Any) -> Iterator[tuple[str, str, str]]:
    """Key, id and tooltip of a node's inputs, those of choices among them."""
    for entry in schema.inputs:
        yield entry.id, entry.id, entry.tooltip
        for option in getattr(entry, "options", None) or ():
            for inner in getattr(option, "inputs", ()):
                yield f"{entry.id}_{inner.id}", inner.id, inner.tooltip


def words(name: str | None, tooltip: str | None) -> dict[str, str]:
    return {key: text for key, text in (("name", name), ("tooltip", tooltip)) if text}


def node_words(schema: Any, translate: Callable[[str], str | None]) -> dict[str, Any]:
    outputs = [(entry.display_name or entry.id, entry.tooltip) for entry in schema.outputs]
    found: dict[str, Any] = {
        "display_name": translate(schema.display_name),
        "description": translate(schema.description),
        "inputs": {
            # A name means something else on some nodes.
            key: words(translate(f"{schema.display_name}: {name}") or translate(name), translate(tooltip))
            for key, name, tooltip in inputs_of(schema)
        },
        "outputs": {
            str(index): words(translate(name), translate(tooltip)) for index, (name, tooltip) in enumerate(outputs)
        },
    }
    for part in ("inputs", "outputs"):
        found[part] = {key: entry for key, entry in found[part].items() if entry}
    return {key: value for key, value in found.items() if value}


# Headings of help pages: inputs, outputs, and where more is told.
HEADINGS = {
    "zh": ("输入", "输出", "用法与常见问题见英文帮助页（将编辑器语言设为 English）。"),
    "ja": ("入力", "出力", "使い方とよくある問題は英語のヘルプにあります（エディターの言語を English に）。"),
    "fr": ("Entrées", "Sorties", "Mode d'emploi et erreurs courantes : page d'aide en anglais (langue English)."),
}


def help_page(schema: Any, language: str, translate: Callable[[str], str | None]) -> str:
    """What the node is for, and each input and output."""
    inputs, outputs, more = HEADINGS[language]

    def line(name: str, tooltip: str) -> str:
        shown = translate(name)
        return f"- **{name}**{f' ({shown})' if shown else ''}: {translate(tooltip) or tooltip}\n"

    parts = [
        f"# {translate(schema.display_name) or schema.display_name}\n",
        f"{translate(schema.description) or schema.description}\n",
        # As the editor resolves it, from the folder of the English pages.
        f"![{schema.node_id}](images/{schema.node_id}.webp)\n",
        f"## {inputs}\n",
        "".join(line(entry.id, entry.tooltip) for entry in schema.inputs),
    ]
    if schema.outputs:
        parts += [
            f"## {outputs}\n",
            "".join(line(entry.display_name or entry.id, entry.tooltip) for entry in schema.outputs),
        ]
    return "\n".join([*parts, f"{more}\n"])


def files(nodes: list[Any]) -> Iterator[tuple[Path, str]]:
    """Every file that is made, and its text. nodes: the pack's classes."""
    for language, table in tables().items():
        translate = translator(table)
        schemas = [node.GET_SCHEMA() for node in nodes]
        definitions = {schema.node_id: node_words(schema, translate) for schema in schemas}
        texts: dict[str, Any] = {
            key: translated for key, text in english_texts().items() if (translated := translate(text))
        }
        # Sentences of errors, with {1}, {2} for their numbers.
        texts["errors"] = {text[len(ERROR) :]: words for text, words in table.items() if text.startswith(ERROR)}
        for schema in schemas:
            yield HELP / schema.node_id / f"{language}.md", help_page(schema, language, translate)
        for name, content in (("nodeDefs", definitions), ("main", {"vipaint": texts})):
            yield (
                FOLDER / language / f"{name}.json",
                json.dumps(content, indent=1, ensure_ascii=False) + "\n",
            )


def main() -> int:
    from tools import in_process

    in_process.activate()
    for file, text in files(list(in_process.load_pack().NODES)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
