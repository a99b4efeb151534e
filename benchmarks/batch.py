"""What `python3 run.py batch` costs beside the painting itself, on servers that only take time.

    python3 run.py benchmark batch [--pictures N] [--seconds S] [--quick]

Stubs with fixed service times stand for servers (tools/comfy_stub.py), so that two cores suffice for four of them. For
1, 2 and 4 servers: the painting's duration against the bare sum of the servers' own execution times, and the memory of
the command over the pictures. Then ten results are deleted, and the same command is timed again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks.harness.results import QUICK, RESULTS, provenance, write_rows
from benchmarks.harness.tables import markdown
from tools.comfy_server import ROOT

SERVERS = (1, 2, 4)
LEFT = 10  # pictures to paint when the command goes on
SIDE = 64
MEGABYTE = 1 << 20
# Less throughput, more seconds to go on, or more growth in MB per 1000 pictures is an error.
LEAST_THROUGHPUT, MOST_SECONDS, MOST_GROWTH = 0.95, 20.0, 1.0
# In runs of fewer pictures caches that are being filled look like growth.
SETTLED = 5000


@dataclass(frozen=True)
class Throughput:
    """All pictures painted on so many servers; memory is that of the command."""

    servers: int
    pictures: int
    bare_seconds: float
    painting_seconds: float
    overhead: float
    pictures_per_second: float
    times_one_server: float
    checking_seconds: float
    first_tenth_mb: float
    half_mb: float
    end_mb: float
    growth_mb_per_1000: float
    most_queued: int
    kept_on_servers: int


@dataclass(frozen=True)
class Resumed:
    """The command called again."""

    run: str
    pictures: int
    painted: int
    seconds: float


@dataclass(frozen=True)
class Run:
    """One call of the command. whole: its seconds in all. painting: from the first prompt's start to the last one's end.
    memory: (pictures painted, MB of the command) over time. servers: what the stubs tell."""

    whole: float
    painting: float
    memory: list[tuple[int, float]]
    servers: list[dict[str, Any]]

    @property
    def painted(self) -> int:
        return sum(server["painted"] for server in self.servers)


def make_inputs(folder: Path, count: int) -> None:
    """Pictures of noise, each with a mask of its right half."""
    for name in ("pictures", "masks"):
        (folder / name).mkdir()
    mask: np.ndarray = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, SIDE // 2 :] = 255
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"picture_{number:06}.png", compress_level=1)
        Image.fromarray(mask).save(folder / "masks" / f"picture_{number:06}.png")


def run(folder: Path, out: Path, servers: int, seconds: float, *more: str) -> Run:
    """Runs the command on fresh stubs. Raises RuntimeError where it does not paint all."""
    stub = [sys.executable, "-m", "tools.comfy_stub", "--seconds", str(seconds), "--count", str(servers)]
    with subprocess.Popen(stub, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stubs:
        assert stubs.stdin is not None and stubs.stdout is not None
        urls = json.loads(stubs.stdout.readline())
        command = [sys.executable, "-m", "batch", str(folder / "pictures"), "--masks", str(folder / "masks")]
        command += ["--out", str(out), "--set", "fills=1", "--server", *urls, *more]
        begin = time.monotonic()
        child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        memory = watch(child, out / "batch.jsonl")
        whole = time.monotonic() - begin
        assert child.stderr is not None
        if child.wait() != 0:
            raise RuntimeError(f"batch: exit code {child.returncode}:\n{child.stderr.read()[-2000:]}")
        child.stderr.close()
        stubs.stdin.close()
        found = json.loads(stubs.stdout.readline())
    painting = max(server["last"] for server in found) - min(server["first"] for server in found if server["first"])
    return Run(whole, painting, memory, found)


def watch(child: subprocess.Popen[str], lines: Path) -> list[tuple[int, float]]:
    """Pictures painted and memory of a process, until it ends."""
    process, found, count, place = psutil.Process(child.pid), [], 0, 0
    while child.poll() is None:
        try:
            memory = process.memory_info().rss / MEGABYTE
        except psutil.Error:
            break
        if lines.is_file():
            with open(lines, "rb") as file:
                file.seek(place)
                data = file.read()
            place, count = place + len(data), count + data.count(b"\n")
        if memory:  # a process that has just ended has none
            found.append((count, memory))
        time.sleep(0.25)
    child.wait()
    return found


def at(memory: Sequence[tuple[int, float]], pictures: int) -> float:
    """Memory when so many were painted."""
    return min(memory, key=lambda sample: abs(sample[0] - pictures))[1]


def growth(memory: Sequence[tuple[int, float]], pictures: int) -> float:
    """MB per 1000 pictures, a line through what was seen while the last three quarters were painted."""
    samples = [sample for sample in memory if pictures / 4 <= sample[0] < pictures]
    slope, _ = np.polyfit([count for count, _ in samples], [size for _, size in samples], 1)
    return float(1000 * slope)


def measure(pictures: int, seconds: float) -> tuple[list[Throughput], list[Resumed]]:
    """Rows for each number of servers, and for going on."""
    rows: list[Throughput] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_inputs(folder, pictures)
        for servers in SERVERS:
            out = folder / f"fills_{servers}"
            found = run(folder, out, servers, seconds)
            if found.painted != pictures:
                raise RuntimeError(f"batch: expected {pictures} pictures to be painted, found {found.painted}")
            rate, bare = pictures / found.painting, pictures * seconds / servers
            alone = rows[0].pictures_per_second if rows else rate
            rows.append(
                Throughput(
                    servers=servers,
                    pictures=pictures,
                    bare_seconds=bare,
                    painting_seconds=round(found.painting, 2),
                    overhead=round(found.painting / bare - 1, 4),
                    pictures_per_second=round(rate, 3),
                    times_one_server=round(rate / alone, 3),
                    checking_seconds=round(found.whole - found.painting, 2),
                    first_tenth_mb=round(at(found.memory, pictures // 10), 1),
                    half_mb=round(at(found.memory, pictures // 2), 1),
                    end_mb=round(at(found.memory, pictures - 1), 1),
                    growth_mb_per_1000=round(growth(found.memory, pictures), 3),
                    most_queued=max(server["most_queued"] for server in found.servers),
                    kept_on_servers=sum(server["kept"] for server in found.servers),
                )
            )
            print(rows[-1], file=sys.stderr, flush=True)
            if servers != SERVERS[-1]:
                shutil.rmtree(out)
        return rows, resume(folder, out, pictures, seconds)


def resume(folder: Path, out: Path, pictures: int, seconds: float) -> list[Resumed]:
    """Times of the same command, of which all but ten pictures are done, and all are."""
    rows = []
    for what, left, more in (
        ("all but 10 done", LEFT, ()),
        ("all done", 0, ()),
        ("all done, --reread", 0, ("--reread",)),
    ):
        for number in range(left):
            shutil.rmtree(out / f"picture_{number * (pictures // LEFT):06}")
        begin = time.monotonic()
        if left:
            painted = run(folder, out, 4, seconds, *more).painted
        else:
            command = [sys.executable, "-m", "batch", str(folder / "pictures"), "--masks", str(folder / "masks")]
            command += ["--out", str(out), "--set", "fills=1", "--server", "127.0.0.1:9", *more]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            painted = 0
        if painted != left:
            raise RuntimeError(f"batch: expected {left} pictures to be painted, found {painted}")
        rows.append(Resumed(what, pictures, painted, round(time.monotonic() - begin, 2)))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def report(rows: Sequence[Throughput], again: Sequence[Resumed]) -> str:
    """Tables, and whether they are as asked for."""
    header = ("servers", "bare sum / servers", "painting", "overhead", "times one server", "checking and pages")
    table = [
        (
            str(row.servers),
            f"{row.bare_seconds:.1f} s",
            f"{row.painting_seconds:.1f} s",
            f"{100 * row.overhead:.1f} %",
            f"{row.times_one_server:.3f}",
            f"{row.checking_seconds:.1f} s",
        )
        for row in rows
    ]
    memory = [
        (
            str(row.servers),
            *(f"{getattr(row, key):.1f} MB" for key in ("first_tenth_mb", "half_mb", "end_mb")),
            f"{row.growth_mb_per_1000:+.3f} MB",
            str(row.most_queued),
            str(row.kept_on_servers),
        )
        for row in rows
    ]
    columns = ("servers", "a tenth", "half", "the end", "growth per 1000", "most queued", "left on servers")
    times = [(row.run, str(row.painted), f"{row.seconds:.1f} s") for row in again]
    return (
        f"{markdown(header, table)}\nMemory of the command when so many were painted, prompts in a server's queue at most, and "
        f"files and records left there:\n\n{markdown(columns, memory)}\nThe same command again:\n\n"
        f"{markdown(('of the pictures', 'painted', 'whole command'), times)}"
    )


def complaints(rows: Sequence[Throughput], again: Sequence[Resumed]) -> list[str]:
    """What is not as asked for."""
    found = [
        f"{row.servers} servers: {row.times_one_server} times one server's throughput"
        for row in rows
        if row.times_one_server < LEAST_THROUGHPUT * row.servers or row.overhead > 1 / LEAST_THROUGHPUT - 1
    ]
    found += [
        f"{row.servers} servers: {row.growth_mb_per_1000} MB per 1000"
        for row in rows
        if row.growth_mb_per_1000 > MOST_GROWTH and row.pictures >= SETTLED
    ]
    return found + [f"{row.run}: {row.seconds} s" for row in again[:1] if row.seconds > MOST_SECONDS]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=0.1, help="service time of a prompt")
    parser.add_argument("--quick", action="store_true", help="400 pictures, into output/")
    options = parser.parse_args()
    pictures, out = (400, QUICK) if options.quick else (options.pictures, RESULTS)
    rows, again = measure(pictures, options.seconds)
    text = report(rows, again)
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    write_rows(out / "batch.csv", Throughput, rows)
    (out / "batch.md").write_text(
        f"# A folder of pictures through ComfyUI servers\n\n`python3 run.py benchmark batch`: {pictures} pictures of {SIDE} x "
        f"{SIDE} pixels, servers that only take {options.seconds} s for a prompt (`tools/comfy_stub.py`) on the same two cores "
        f"as the command, {provenance()}.\n\n{text}",
        "utf-8",
    )
    for complaint in complaints(rows, again):
        print(f"error: {complaint}", file=sys.stderr)
    return 1 if complaints(rows, again) else 0


if __name__ == "__main__":
    sys.exit(main())
