"""Pages that show all results in a browser, from files alone."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from batch.results import STRIP

PER_PAGE = 100
PAGES = "_index"

_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 14px/1.5 sans-serif; margin: 2em; color: #222; background: #fff }}
nav a, nav b {{ margin-right: .6em }} figure {{ margin: 1.5em 0 }} img {{ max-width: 100% }}
.failed {{ color: #b00020 }} small {{ color: #666 }}
</style></head><body><h1>{title}</h1><p>{counts}</p>
"""


def write(out: Path, lines: Iterable[Mapping[str, Any]], count: int, counts: str) -> Path:
    """Writes index.html and, for more than a page of pictures, the pages below _index/; returns the first.

    lines: of the list of results, count of them. counts: the sentence above the pictures.
    """
    pages = max(1, math.ceil(count / PER_PAGE))
    folder = out / PAGES
    if pages > 1:
        folder.mkdir(exist_ok=True)
    rows = iter(lines)
    for page in range(1, pages + 1):
        up = "" if page == 1 else "../"
        text = [
            _HEAD.format(title=f"Fills, page {page} of {pages}" if pages > 1 else "Fills", counts=html.escape(counts))
        ]
        links = _links(page, pages, up)
        text += [links, *(_figure(line, up) for line in islice(rows, PER_PAGE)), links, "</body></html>\n"]
        _replace(_page(out, page), "".join(text))
    for old in folder.glob("*.html") if folder.is_dir() else ():
        if not old.stem.isdecimal() or int(old.stem) > pages:
            old.unlink()
    return out / "index.html"


def _page(out: Path, page: int) -> Path:
    return out / "index.html" if page == 1 else out / PAGES / f"{page}.html"


def _links(page: int, pages: int, up: str) -> str:
    if pages == 1:
        return ""

    def link(other: int) -> str:
        if other == page:
            return f"<b>{other}</b>"
        return f'<a href="{up}index.html">1</a>' if other == 1 else f'<a href="{up}{PAGES}/{other}.html">{other}</a>'

    near = sorted({1, pages, *range(max(1, page - 4), min(pages, page + 4) + 1)})
    return "<nav>" + "".join(link(other) for other in near) + "</nav>\n"


def _figure(line: Mapping[str, Any], up: str) -> str:
    name = html.escape(str(line["name"]))
    if line.get("status") != "done":
        reason = html.escape(str(line.get("reason", "not painted")))
        return f'<figure class="failed"><b>{name}</b>: {html.escape(str(line["status"]))}: {reason}</figure>\n'
    folder = up + quote(str(line["name"]))
    files = [str(file["name"]) for file in line["files"] if file["name"] != STRIP]
    links = " ".join(f'<a href="{folder}/{quote(file)}">{html.escape(file)}</a>' for file in files)
    facts = ", ".join(_facts(line))
    return (
        f"<figure><b>{name}</b> <small>{html.escape(facts)}</small><br>"
        f'<img loading="lazy" src="{folder}/{STRIP}" alt="input, fills and uncertainty of {name}"><br>{links}</figure>\n'
    )


def _facts(line: Mapping[str, Any]) -> Iterator[str]:
    yield f"{line['width']} x {line['height']}"
    yield f"seed {line['seed']}"
    if line.get("seconds") is not None:
        yield f"{line['seconds']:.1f} s"
    if line.get("passes") is not None:
        yield f"{line['passes']} passes"
    if line.get("prompt"):
        yield f"“{line['prompt']}”"


def _replace(file: Path, text: str) -> None:
    part = file.with_suffix(".part")
    part.write_text(text, "utf-8")
    part.replace(file)
