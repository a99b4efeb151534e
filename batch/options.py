"""The command line."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from yarl import URL

from batch import farm, workflow
from batch.errors import BatchError

ROOT = Path(__file__).resolve().parent.parent
DESCRIPTION = """Paints a folder of pictures on any number of ComfyUI servers, and goes on where it stopped.

    python3 run.py batch PICTURES --masks MASKS --out FILLS [--server http://HOST:8188 ...] [--set fills=4 ...]

Without --server it starts a ComfyUI of its own. The same command again paints what is missing or has changed. Exit
code 0: every picture is painted; 1: some are not; 2: nothing was begun; 130: interrupted. More: docs/batch.md.
"""


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run.py batch", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path, help="folder of pictures, with its subfolders")
    parser.add_argument(
        "--masks",
        type=Path,
        help="folder of masks, white where painted; default: cat_mask.png beside cat.png, or transparency",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the results, one subfolder for each picture"
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="CSV",
        help="table with the columns picture, mask, name, prompt, negative, seed and any setting",
    )
    parser.add_argument(
        "--workflow",
        type=Path,
        default=ROOT / "workflows" / "inpaint_api.json",
        help="in API format; default: workflows/inpaint_api.json",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="inputs of the painting node, as fills=4, or of another, as checkpoint.ckpt_name=FILE",
    )
    parser.add_argument(
        "--node",
        nargs="+",
        action="extend",
        default=[],
        metavar="ROLE=NODE",
        help=f"id or title of a node where it cannot be told: {', '.join(workflow.ROLES)}",
    )
    parser.add_argument(
        "--outputs", nargs="+", choices=workflow.OUTPUTS, help="what to keep; default: what the workflow saves"
    )
    parser.add_argument("--seed", type=int, help="from which each picture's own seed is made; default: the workflow's")
    parser.add_argument(
        "--server",
        nargs="+",
        action="extend",
        default=[],
        metavar="URL",
        help="ComfyUI servers; default: one is started here",
    )
    parser.add_argument("--models", type=Path, help="folder of models for the server that is started here")
    parser.add_argument("--attempts", type=int, default=3, help="for each picture (default 3)")
    parser.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        help="seconds without progress after which a picture is taken away from a server (default 600)",
    )
    parser.add_argument(
        "--patience", type=float, default=300.0, help="seconds to wait while no server answers (default 300)"
    )
    parser.add_argument("--skip", action="store_true", help="leave out pictures with problems and unsuitable servers")
    parser.add_argument("--reread", action="store_true", help="read files again whose size and times are as before")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done, and check the servers named")
    parser.add_argument(
        "--summary", action="store_true", help="write the list and the pages of what is there, paint nothing"
    )
    parser.add_argument("--shard", metavar="I/N", help="paint part I of N, counted from 0, for arrays of jobs")
    parser.add_argument(
        "--farm",
        metavar="EXECUTOR",
        help="paint by jobs of Snakemake: slurm, or another of its executors; arguments after -- are Snakemake's",
    )
    parser.add_argument("--jobs", type=int, default=4, help="jobs of the farm at once (default 4)")
    parser.add_argument(
        "--part-size", type=int, default=farm.PART_SIZE, help="pictures for a job of the farm (default 100)"
    )
    # A job of the farm gets its list by these.
    parser.add_argument("--parts", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = list(sys.argv[1:] if argv is None else argv)
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:cut])
    options.engine = arguments[cut + 1 :]
    if options.engine and not options.farm:
        parser.error("arguments after -- are for --farm")
    if options.farm and (options.shard or options.part):
        parser.error("--farm makes parts of its own: leave --shard out")
    if options.jobs < 1 or options.part_size < 1:
        parser.error("--jobs and --part-size: expected at least 1")
    if options.attempts < 1:
        parser.error("--attempts: expected at least 1")
    if options.timeout <= 0 or options.patience < 0:
        parser.error("--timeout and --patience: expected seconds")
    return options


def pairs(texts: Sequence[str], what: str) -> list[tuple[str, str]]:
    """NAME=VALUE arguments. Raises BatchError."""
    for text in texts:
        if "=" not in text:
            raise BatchError(f"expected {what} NAME=VALUE, found {text!r}")
    return [(text.split("=", 1)[0].strip(), text.split("=", 1)[1]) for text in texts]


def addresses(texts: Sequence[str]) -> list[str]:
    """Servers as URLs, each once. Raises BatchError."""
    found = []
    for text in texts:
        try:
            url = URL(text if "://" in text else f"http://{text}")
            valid = url.scheme in ("http", "https") and bool(url.host) and not url.query_string and bool(url.port)
        except ValueError:
            valid = False
        if not valid:
            raise BatchError(f"expected a server as http://HOST:8188, found {text!r}")
        found.append(str(url).rstrip("/"))
    return list(dict.fromkeys(found))


def shard_of(text: str | None) -> tuple[int, int] | None:
    """I/N as numbers. Raises BatchError."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not int(found[1]) < int(found[2]):
        raise BatchError(f"expected --shard I/N with I from 0 to N - 1, found {text!r}")
    return int(found[1]), int(found[2])
