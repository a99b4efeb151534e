"""The host's progress bar follows the core's calls, and never goes beyond its end."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
from PIL import Image


@pytest.fixture
def shown(monkeypatch):
    """(value, total, preview) of every update of a progress bar."""
    import comfy.utils

    updates = []

    class Bar:
        def __init__(self, total):
            self.total = total

        def update_absolute(self, value, total=None, preview=None):
            updates.append((value, self.total if total is None else total, preview))

    monkeypatch.setattr(comfy.utils, "ProgressBar", Bar)
    return updates


def planned(pack, fit, sample):
    return pack.host.progress.PlannedCalls(fit=fit, sample=sample)


def test_fitting_and_drawing_share_one_bar(pack, tiny, tiny_info, shown):
    report, progress = (
        pack.host.progress.reporter(tiny.model, tiny_info, planned(pack, 3, 4), pack.core.SampleState()),
        pack.core.Progress,
    )
    x0 = torch.zeros(2, 16, 4, 3)
    for call in (1, 3):
        report(progress("fit", call, 3, x0))
    for call in (1, 4):
        report(progress("sample", call, 4, x0))
    assert [update[:2] for update in shown] == [(1, 7), (3, 7), (4, 7), (7, 7)]
    # Smaller batches than planned take more calls.
    report(progress("sample", 5, 8, x0))
    assert shown[-1][:2] == (8, 11)


@pytest.mark.usefixtures("short_presets")
@pytest.mark.parametrize("preset", ["fast", "paper-2"])
def test_a_run_ends_at_the_end_of_the_bar(paint, shown, preset):
    paint(preset=preset, fills=3)
    values = [value for value, _, _ in shown]
    assert values == sorted(values) and shown[-1][0] == shown[-1][1] == len(shown)
    assert len({total for _, total, _ in shown}) == 1


@pytest.fixture
def previewed(monkeypatch):
    """The estimates that the host's previewer was given; each gives a picture of its own grey."""
    import latent_preview

    given = []

    class Previewer:
        def decode_latent_to_preview_image(self, kind, x0):
            given.append(x0)
            return kind, Image.new("RGB", (12, 8), (int(x0.flatten()[0]),) * 3), 512

    monkeypatch.setattr(latent_preview, "get_previewer", lambda *_: Previewer())
    return given


def greys(grid):
    """The grey in the middle of every tile of a grid of two columns, row by row."""
    return [grid.getpixel((x, y))[0] for y in (4, 13) for x in (6, 19)]


def test_previews_are_a_grid_of_all_fills(pack, tiny, tiny_info, shown, previewed):
    drawing = pack.core.SampleState(drawing=((0, 0), (0, 1)))
    report = pack.host.progress.reporter(tiny.model, tiny_info, planned(pack, 0, 4), drawing)
    x0 = torch.tensor([10.0, 20.0])[:, None, None, None].expand(2, 16, 4, 3)
    report(pack.core.Progress("sample", 1, 4, x0))
    assert [int(estimate.flatten()[0]) for estimate in previewed] == [10, 20]
    kind, grid, _ = shown[-1][2]
    assert kind == "JPEG" and grid.size == (12 + 1 + 12, 8)
    # The next one comes too early for another.
    report(pack.core.Progress("sample", 2, 4, x0))
    assert len(previewed) == 2 and shown[-1] == (2, 4, None)
    # Those of the next batch come beside those that are done.
    drawing.drawing = ((0, 2), (0, 3))
    time.sleep(0.15)
    report(pack.core.Progress("sample", 3, 4, x0 + 100))
    grid = shown[-1][2][1]
    assert grid.size == (25, 17) and greys(grid) == [10, 20, 110, 120]


def test_a_fit_shows_one_picture(pack, tiny, tiny_info, shown, previewed):
    report = pack.host.progress.reporter(tiny.model, tiny_info, planned(pack, 2, 2), pack.core.SampleState())
    report(pack.core.Progress("fit", 1, 2, torch.full((4, 16, 4, 3), 30.0)))
    assert len(previewed) == 1 and shown[-1][2][1].size == (12, 8)


def test_slow_previews_take_a_small_share_of_the_time(pack, tiny, tiny_info, shown, monkeypatch):
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(pack.host.progress, "time", clock)
    taken = []

    def decode(kind, x0):
        """Takes a second."""
        taken.append(x0)
        now[0] += 1.0
        return kind, Image.new("RGB", (4, 4)), 512

    drawing = pack.core.SampleState(drawing=((0, 0),))
    previewer = SimpleNamespace(decode_latent_to_preview_image=decode)
    monkeypatch.setattr(pack.host.progress, "find_previewer", lambda *_: previewer)
    report = pack.host.progress.reporter(tiny.model, tiny_info, planned(pack, 0, 90), drawing)
    for call in range(60):
        report(pack.core.Progress("sample", call, 90, torch.zeros(1, 16, 4, 3)))
        now[0] += 1.0
    assert 1 <= len(taken) <= 4


def test_previews_do_not_need_the_host_s_setting(pack, tiny, tiny_info):
    """The host's default is none; a quick one is made then."""
    found = pack.host.progress.find_previewer(tiny.model, tiny_info)
    kind, picture, _ = found.decode_latent_to_preview_image("JPEG", torch.zeros(1, 16, 4, 3))
    assert kind == "JPEG" and picture.size == (3, 4)
