"""Parts of a batch as jobs of Snakemake, which gives them to SLURM, Kubernetes and others, and repeats what dies.

The command lists what is to be painted, in parts; each job paints one as the command on one machine does. What is done
is told by the results alone, so that the engine's own records can be lost at any time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from batch import catalogue
from batch.catalogue import Catalogue, Item
from batch.display import say
from batch.errors import BatchError
from batch.results import LINES, read_lines

ROOT = Path(__file__).resolve().parent.parent
PART_SIZE = 100
RETRIES = 2


def write_part(file: Path, items: Sequence[Item]) -> None:
    """One line for each picture, with its mask and options: a job need not look through the folders again."""
    with open(file, "w", encoding="utf-8") as out:
        for item in items:
            mask = str(item.mask) if item.mask else None
            line = {"name": item.name, "picture": str(item.picture), "mask": mask, "options": dict(item.options)}
            out.write(json.dumps(line) + "\n")


def read_part(file: Path, base: Catalogue) -> None:
    """Fills the catalogue from a part's list. Raises BatchError where it is none."""
    try:
        for line in read_lines(file):
            mask = Path(line["mask"]) if line["mask"] else None
            base.add(line["name"], Path(line["picture"]), mask, line["options"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BatchError(f"expected a part's list at {file}, found that it cannot be read: {error}") from error


def paint(options: argparse.Namespace, servers: Sequence[str], base: Catalogue, folder: Path) -> None:
    """Paints all that is waiting by jobs of the engine. Raises BatchError where some could not be worked through.

    folder: for the parts, on a disk that the jobs see. The catalogue learns which pictures have failed.
    """
    if importlib.util.find_spec("snakemake") is None:
        raise BatchError(
            "expected Snakemake in this environment, found none. Run `python3 run.py batch`, which installs it, with Python "
            "3.11 or newer"
        )
    run = folder / uuid.uuid4().hex[:12]
    run.mkdir(parents=True)
    try:
        items, parts = base.items(catalogue.WAITING), list[str]()
        while chunk := list(islice(items, options.part_size)):
            parts.append(f"part-{len(parts):05}")
            write_part(run / f"{parts[-1]}.jsonl", chunk)
        (run / "parts.json").write_text(json.dumps(parts), "utf-8")
        code = _snakemake(options, servers, run)
        _learn(base, run, parts)
    finally:
        shutil.rmtree(run, ignore_errors=True)
    if code != 0:
        raise BatchError(
            f"expected that every job ends well, found that Snakemake ended with exit code {code} (its messages are above). "
            "Run the same command again: it goes on where it stopped"
        )


def _snakemake(options: argparse.Namespace, servers: Sequence[str], run: Path) -> int:
    config = {"parts": str(run / "parts.json"), "command": job_command(options, servers, run)}
    (run / "config.json").write_text(json.dumps(config), "utf-8")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(Path(__file__).with_name("Snakefile"))]
    command += ["--directory", str(run), "--configfile", str(run / "config.json"), "--executor", options.farm]
    command += [
        "--jobs",
        str(options.jobs),
        "--retries",
        str(RETRIES),
        "--keep-going",
        "--quiet",
        "host",
        "reason",
        "rules",
    ]
    child = subprocess.Popen([*command, *options.engine])
    try:
        code = child.wait()
    except BaseException:
        # Ctrl-C has reached it too: it cancels its jobs.
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise
    if code != 0:
        for log in sorted(run.glob("part-*.log"))[:3]:
            if not log.with_suffix(".done").exists():
                say(f"{log.name}:\n" + "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-5:]))
    return code


def job_command(options: argparse.Namespace, servers: Sequence[str], run: Path) -> str:
    """The shell command of a job, up to the name of its part."""
    command = [sys.executable, "-m", "batch", str(options.pictures.resolve()), "--out", str(options.out.resolve())]
    command += ["--workflow", str(options.workflow.resolve()), "--parts", str(run)]
    for flag, values in (("--set", options.set), ("--node", options.node), ("--outputs", options.outputs)):
        command += [flag, *values] if values else []
    command += ["--server", *servers] if servers else []
    command += ["--seed", str(options.seed)] if options.seed is not None else []
    command += ["--models", str(options.models.resolve())] if options.models else []
    for name in ("attempts", "timeout", "patience"):
        command += [f"--{name}", str(getattr(options, name))]
    return f"cd {shlex.quote(str(ROOT))} && {shlex.join(command)}"


def _learn(base: Catalogue, run: Path, parts: Sequence[str]) -> None:
    """Takes over from the jobs' lists which pictures have failed, and why."""
    lines = {line["name"]: line for line in _lines(run, parts) if line["status"] == catalogue.FAILED}
    for item in base.items(catalogue.WAITING):
        if item.name in lines:
            base.remember_failure(base.update(item, state=catalogue.FAILED, reason=lines[item.name]["reason"]))


def _lines(run: Path, parts: Sequence[str]) -> Iterator[dict[str, str]]:
    for part in parts:
        file = run / part / LINES
        if file.is_file():
            yield from read_lines(file)
