"""The host's progress bar follows the core's calls, and never goes beyond its end."""

from __future__ import annotations

import pytest
import torch


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


def test_fitting_and_drawing_share_one_bar(pack, tiny, tiny_info, shown):
    report, progress = pack.host.progress.reporter(tiny.model, tiny_info, 3, 4), pack.core.Progress
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


def test_previews_are_of_the_first_row(pack, tiny, tiny_info, shown, monkeypatch):
    import latent_preview

    given = []

    class Previewer:
        def decode_latent_to_preview_image(self, kind, x0):
            given.append((kind, x0))
            return "preview"

    monkeypatch.setattr(latent_preview, "get_previewer", lambda *_: Previewer())
    report = pack.host.progress.reporter(tiny.model, tiny_info, 0, 2)
    x0 = torch.randn(2, 16, 4, 3)
    report(pack.core.Progress("sample", 1, 2, x0))
    ((kind, first),) = given
    assert kind == "JPEG" and torch.equal(first, x0[:1])
    assert shown == [(1, 2, "preview")]
    # The next one comes too early for another.
    report(pack.core.Progress("sample", 2, 2, x0))
    assert len(given) == 1 and shown[-1] == (2, 2, None)
