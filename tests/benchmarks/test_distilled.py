"""A smoke run of the benchmark of a distilled model, with the teacher alone: the student is made by a script."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import distilled
from benchmarks.harness import parts
from toy_prior import CHECKPOINT, distil


def test_quick_run_of_the_teacher(comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m toy_prior.train`")
    monkeypatch.setattr(parts, "CACHE", tmp_path / "cache")
    choice = ["--quick", "--models", distilled.TEACHER, "--out", str(tmp_path)]
    assert distilled.BENCHMARK.main("", choice) == 0
    with open(tmp_path / "distilled.csv", encoding="utf-8", newline="") as file:
        fast, sampler = csv.DictReader(file)
    assert (float(fast["forward"]), float(sampler["forward"])) == (28, 14)
    assert "| teacher |" in (tmp_path / "distilled.md").read_text("utf-8")


def test_a_student_is_a_checkpoint_like_its_teacher(
    comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a few paths and steps; a finished part is not done again."""
    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m toy_prior.train`")
    for name, value in {"PATHS": 2, "PATH_BATCH": 2, "PATH_STEPS": 4, "STEPS": 2, "BATCH": 4}.items():
        monkeypatch.setattr(distil, name, value)
    out = tmp_path / "student.safetensors"
    monkeypatch.setattr("sys.argv", ["distil", "--work", str(tmp_path), "--out", str(out)])
    distil.main()
    student, teacher = load_file(out), load_file(CHECKPOINT)
    assert student.keys() == teacher.keys()
    assert all(
        student[name].shape == value.shape and student[name].dtype == value.dtype for name, value in teacher.items()
    )
    moved = [name for name, value in teacher.items() if not torch.equal(student[name], value)]
    assert moved and all(name.startswith(distil.PREFIX) for name in moved)
    paths = torch.load(tmp_path / "paths.pt", weights_only=True)
    assert paths.shape == (2, len(distil.LEVELS) + 1, 16, 16, 16)
    monkeypatch.setattr(distil, "velocity", None)
    assert torch.equal(distil.draw_paths(None, tmp_path), paths)


def test_levels_are_those_of_the_host_s_schedule() -> None:
    import comfy.samplers

    from toy_prior.model import load

    sampling = load().model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", distilled.FEW)
    torch.testing.assert_close(sigmas[:-1], torch.tensor(distil.LEVELS), rtol=1e-3, atol=1e-3)
