"""Scores of fills against what is known of them."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.portraits.scores import effective_modes, exact_modes, psnr, seam, tv_floor


def test_a_seam_is_the_step_that_the_original_has_not() -> None:
    hole = torch.zeros(8, 8, dtype=torch.bool)
    hole[:, 4:] = True
    original = torch.full((2, 3, 8, 8), 0.5)
    assert seam(original, original, hole) == 0
    assert seam(original + 0.1, original, hole) == pytest.approx(25.5, rel=1e-4)
    # What is painted outside of the hole does not count.
    assert seam(torch.where(hole, original, 0.9), original, hole) == 0


def test_modes_are_counted_by_their_entropy() -> None:
    assert effective_modes(torch.tensor([[0, 0, 0, 0], [0, 1, 2, 3]]), 4).tolist() == pytest.approx([1, 4])


def test_exact_samplers_are_not_uniform_in_few_draws() -> None:
    """Of two draws of a fair coin half are equal: total variation 1/2, one mode; else 0 and two modes."""
    assert tv_floor(2, 2) == pytest.approx(0.25, abs=0.01)
    assert exact_modes(2, 2) == pytest.approx(1.5, abs=0.02)
    assert tv_floor(3, 10_000, trials=20) < 0.02 and exact_modes(3, 10_000, trials=20) == pytest.approx(3, rel=1e-3)


def test_psnr_is_averaged_in_decibels() -> None:
    differences = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    assert psnr(differences) == pytest.approx(30.0, rel=1e-5)
    assert psnr(torch.zeros(1, 3)) == math.inf
