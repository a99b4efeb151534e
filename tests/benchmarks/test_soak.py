from __future__ import annotations

import random

import pytest

from benchmarks.soak import Sample, growth, report, soak
from tools.comfy_server import ComfyServer


def course(per_prompt: float = 0.0, steps: tuple[int, ...] = ()) -> list[Sample]:
    """Memory of 200 prompts with noise, growth and single steps of 50 MB."""
    draw = random.Random(0)
    return [
        Sample("any", 1.0, 1000 + draw.gauss(0, 3) + per_prompt * n + 50 * sum(n > step for step in steps))
        for n in range(200)
    ]


def test_what_counts_as_growth() -> None:
    assert growth(course()).is_none
    assert growth(course(steps=(10, 90, 180))).is_none
    for leak in (0.2, 1.0, 5.0):
        found = growth(course(leak))
        assert not found.is_none and found.low < leak < found.high


@pytest.mark.host
def test_every_kind_of_prompt_ends_as_it_should(server: ComfyServer, tmp_path) -> None:
    samples = soak(server, tmp_path, 10)
    assert len({sample.kind for sample in samples}) == 10
    stock = soak(server, tmp_path, 10, stock=True)
    assert all(sample.memory > 100 for sample in samples + stock)
    assert "none, since growth" in report(course(), course()) and "too much, since" in report(course(1.0), course())
