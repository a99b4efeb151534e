"""Reports of acceptance."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("comfy.sd")

from toy_prior import accept


def test_reports_are_read_as_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        accept.Requirement.at_least(accept.VALID_SAMPLES, 95, 86.75, "{:.1f} %"),
        accept.Requirement.at_most("file size", 10, 7.7, "{:.1f} MB"),
    ]
    monkeypatch.setattr(accept, "CHECKPOINT", tmp_path / "any.safetensors")
    assert accept.valid_samples("portraits") is None
    accept.report("portraits").write_text(f"# Title\n\n{accept.table(found)}", "utf-8")
    assert accept.valid_samples("portraits") == pytest.approx(0.868, abs=1e-3)
    assert accept.valid_samples("scenes") is None


@pytest.mark.parametrize("prior", accept.PRIORS)
def test_every_prior_has_a_report(prior: str) -> None:
    share = accept.valid_samples(prior)
    assert share is not None and 0 < share <= 1
