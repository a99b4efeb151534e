from __future__ import annotations

import random

import pytest

from benchmarks.soak import Sample, failure, growth, soak, tables
from tools.comfy_server import ComfyServer


def course(per_prompt: float = 0.0, filled: int = 0, spikes: tuple[int, ...] = ()) -> list[Sample]:
    """Memory of 200 prompts: noise, growth, 50 MB for good after the prompt `filled`, 50 MB for a moment at spikes."""
    draw = random.Random(0)
    return [
        Sample(n + 1, "any", 1.0, 1000 + draw.gauss(0, 0.5) + per_prompt * n + 50 * (n > filled) + 50 * (n in spikes))
        for n in range(200)
    ]


def test_what_counts_as_growth() -> None:
    assert growth(course()).is_none
    # Caches fill in the first half; a prompt's own memory goes with it.
    assert growth(course(filled=90)).is_none
    assert growth(course(spikes=(120, 150, 151, 190))).is_none
    for leak in (0.05, 0.2, 1.0, 5.0):
        found = growth(course(leak))
        assert not found.is_none and found.low < leak < found.high
    assert not growth(course(filled=170)).is_none


@pytest.mark.host
def test_every_kind_of_prompt_ends_as_it_should(server: ComfyServer, tmp_path) -> None:
    samples = list(soak(server, tmp_path, 10))
    assert len({sample.kind for sample in samples}) == 10
    assert all(sample.memory > 100 for sample in samples)
    assert [sample.prompt for sample in samples] == list(range(1, 11))


def test_growth_fails_the_command() -> None:
    assert "none, since growth" in tables(course()) and failure(course()) is None
    assert "too much, since" in tables(course(1.0)) and failure(course(1.0)) == "the server's memory grows"
