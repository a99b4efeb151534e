"""Many prompts in one server: does its memory grow?

    python3 run.py benchmark soak [--prompts N] [--quick]

Small pictures, every node, several sizes and numbers of fills; between them prompts that fail inside a node, that the
server refuses, and that are interrupted. After each the memory of the server's process is read. A line is fitted to
the second half: the first one fills caches. The same prompt at the beginning and at the end gives the same pixels.

What the host itself keeps of every prompt would hide a small leak, and is left out: its history is deleted after each
prompt, and the server runs with the classic cache, since the default one keeps the keys of nodes that never finished,
about 0.1 MB for every failed prompt, whichever node fails.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from scipy import stats

from benchmarks.harness.benchmark import Benchmark, Count, IsNeeded, Options
from benchmarks.harness.tables import markdown
from tools.comfy_server import ROOT, ComfyServer, InvalidPrompt, PromptError
from toy_prior import CHECKPOINT
from toy_prior.demo import draw_input

Prompt = dict[str, Any]
Kind = tuple[str, Callable[[int], None]]

MEGABYTE = 1 << 20
# Growth per prompt, MB, that counts as none: one kept picture of 64 x 64 pixels, the smallest here, would be 0.05.
TOLERANCE = 0.02
# glibc: what is freed goes back to the system at once, so that the memory of a process is what it holds.
FRUGAL = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Sample:
    """After a prompt of this kind.

    seconds: that it took.
    memory: resident memory of the server's process, MB.
    """

    prompt: int
    kind: str
    seconds: float
    memory: float


@dataclass(frozen=True)
class Growth:
    """Of memory over the last half of the prompts, MB per prompt: slope and its 95 % interval.

    The slope is the median of those between all pairs (Sen 1968): what a few prompts hold for a moment does not count.
    """

    slope: float
    low: float
    high: float

    @property
    def is_none(self) -> bool:
        return self.low <= TOLERANCE


def growth(samples: list[Sample]) -> Growth:
    memory = [sample.memory for sample in samples]
    slope, _, low, high = stats.theilslopes(memory[len(memory) // 2 :], alpha=0.95)
    return Growth(float(slope), float(low), float(high))


# Width and height of the pictures, in pixels: some fill the VAE's cells, some do not.
SIZES = ((128, 128), (64, 64), (72, 40), (50, 61))


class Prompts:
    """Prompts of every kind for one server; the number of a prompt is its seed."""

    def __init__(self, server: ComfyServer, folder: Path) -> None:
        self.server = server
        self.base: Prompt = json.loads((ROOT / "workflows" / "api" / "inpaint.json").read_text("utf-8"))
        self.base["checkpoint"]["inputs"]["ckpt_name"] = CHECKPOINT.name
        for name, picture in zip(("picture", "mask"), draw_input(7, "centre"), strict=True):
            for size in SIZES:
                picture.resize(size).save(folder / "picture.png")
                server.upload_image(folder / "picture.png", f"{name}_{SIZES.index(size)}.png")
        self.kinds: list[Kind] = [
            ("fast", lambda seed: self.run(self.painted(seed, preset="fast", fills=2 + seed % 3))),
            ("balanced", lambda seed: self.run(self.painted(seed, 1, preset="balanced"))),
            ("small", lambda seed: self.run(self.painted(seed, 1 + seed // len(self.kinds) % (len(SIZES) - 1)))),
            ("wrong size", lambda seed: self.failed(self.painted(seed, 1, mask=2))),
            ("posterior", self.posterior),
            ("baseline", self.baseline),
            ("refused", self.refused),
            ("bad number", lambda seed: self.failed(self.painted(seed, cfg=float("nan")))),
            ("interrupted", lambda seed: self.interrupted(self.painted(seed, preset="paper-2"))),
            ("bad file", self.bad_file),
        ]

    def run(self, prompt: Prompt) -> None:
        self.server.run(prompt)

    def painted(self, seed: int, picture: int = 0, mask: int | None = None, **inputs: Any) -> Prompt:
        """The workflow on the pictures of a size, with other inputs of VIPaintInpaint."""
        prompt = copy.deepcopy(self.base)
        prompt["picture"]["inputs"]["image"] = f"picture_{picture}.png"
        prompt["mask"]["inputs"]["image"] = f"mask_{picture if mask is None else mask}.png"
        prompt["inpaint"]["inputs"].update({"seed": seed, "preset": "fast", "fills": 2, **inputs})
        return prompt

    def failed(self, prompt: Prompt) -> None:
        try:
            self.run(prompt)
        except PromptError:
            return
        raise RuntimeError("soak: expected an error, found a picture")

    def bad_file(self, seed: int) -> None:
        assert self.server.base is not None
        (self.server.base / "models" / "vipaint" / f"bad_{seed}.safetensors").write_bytes(bytes(range(seed % 256)))
        load = {"class_type": "VIPaintLoadPosterior", "inputs": {"file": f"bad_{seed}.safetensors"}}
        self.failed({"load": load, "keep": self.keep(["load", 0])})

    def refused(self, seed: int) -> None:
        try:
            self.server.queue(self.painted(seed, preset="best"))
        except InvalidPrompt:
            return
        raise RuntimeError("soak: expected that the server refuses an unknown preset")

    def interrupted(self, prompt: Prompt) -> None:
        prompt_id = self.server.queue(prompt)
        while prompt_id not in self.server.running():
            time.sleep(0.02)
        time.sleep(1)
        self.server.interrupt(prompt_id)
        try:
            self.server.wait(prompt_id, timeout=600)
        except PromptError as error:
            if error.interrupted:
                return
            raise
        raise RuntimeError("soak: expected an interrupted prompt, found a picture")

    def keep(self, posterior: list[Any]) -> Prompt:
        return {"class_type": "VIPaintSavePosterior", "inputs": {"posterior": posterior, "filename_prefix": "soak"}}

    def posterior(self, seed: int) -> None:
        """Paints, saves the posterior, loads one and draws from it."""
        self.run({**self.painted(seed), "keep": self.keep(["inpaint", 1])})
        inputs: dict[str, Any] = {
            "model": ["checkpoint", 0],
            "positive": ["conditioning", 0],
            "negative": ["conditioning", 0],
        }
        inputs |= {"posterior": ["load", 0], "seed": seed, "cfg": 1.0, "fills": 2, "first_fill": 1}
        prompt = self.painted(seed)
        prompt["load"] = {"class_type": "VIPaintLoadPosterior", "inputs": {"file": "soak_00001_.safetensors"}}
        prompt["inpaint"] = {"class_type": "VIPaintSample", "inputs": inputs}
        self.run(prompt)

    def baseline(self, seed: int) -> None:
        settings: dict[str, Any] = {"method": "ding", "method.steps": 8}
        prompt = self.painted(seed, **settings)
        del prompt["inpaint"]["inputs"]["preset"]
        self.run({**prompt, "inpaint": {**prompt["inpaint"], "class_type": "VIPaintBaseline"}})

    def pixels(self) -> dict[str, list[bytes]]:
        """What the prompt with the seed 0 gives."""
        return self.server.images(self.server.run(self.painted(0)))


def soak(server: ComfyServer, folder: Path, count: int) -> Iterator[Sample]:
    """Runs so many prompts, every kind in turn. Raises RuntimeError where one ends as it should not."""
    prompts = Prompts(server, folder)
    process = psutil.Process(server.pid)
    first_pixels = prompts.pixels()
    for number in range(1, count + 1):
        kind, run = prompts.kinds[number % len(prompts.kinds)]
        start = time.monotonic()
        run(number)
        server.clear_history()
        memory = process.memory_info().rss / MEGABYTE
        yield Sample(number, kind, time.monotonic() - start, memory)
    if prompts.pixels() != first_pixels:
        raise RuntimeError("soak: expected the pixels of the first prompt after all others, found others")


def measure(options: Options, _is_needed: IsNeeded) -> Iterator[Sample]:
    running = ComfyServer([CHECKPOINT], env=FRUGAL, args=["--cache-classic"])
    with tempfile.TemporaryDirectory() as folder, running as server:
        yield from soak(server, Path(folder), options.prompts)


def tables(samples: list[Sample]) -> str:
    """Growth, what was run, and the course of memory."""
    memory, found = [sample.memory for sample in samples], growth(samples)
    seconds: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        seconds[sample.kind].append(sample.seconds)
    kinds = [(kind, str(len(values)), f"{sum(values) / len(values):.2f}") for kind, values in seconds.items()]
    shown = sorted({1, *range(20, len(memory) + 1, 20), len(memory)})
    course = [(str(number), f"{memory[number - 1]:.1f}") for number in shown]
    return (
        f"Growth in the second half: {found.slope:+.4f} MB per prompt, 95 % interval {found.low:+.4f} to "
        f"{found.high:+.4f}: {'none' if found.is_none else 'too much'}, since growth counts where the whole interval lies "
        f"above {TOLERANCE} MB per prompt.\n\n{markdown(('prompts', 'count', 's'), kinds)}\n"
        f"{markdown(('after prompt', 'MB'), course)}"
    )


def failure(samples: list[Sample]) -> str | None:
    return None if growth(samples).is_none else "the server's memory grows"


BENCHMARK = Benchmark(
    name="soak",
    title="One server, many prompts",
    row=Sample,
    measure=measure,
    tables=tables,
    # A line needs some points.
    counts=(Count("prompts", usual=200, quick=20, least=6),),
    explanation="Classic cache, history deleted after each prompt: see `benchmarks/soak.py`.",
    facts=lambda options: (
        f"{options.prompts} prompts with the toy model, resident memory of the server's process after each"
    ),
    failure=failure,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
