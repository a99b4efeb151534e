"""The mixture benchmark's own mathematics, and a smoke run of the command."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import pytest
import torch

from benchmarks import gmm
from benchmarks.mixture import VARIANTS, Cell, Mixture, problem
from benchmarks.mixture_tables import Summary, difference, standings
from vipaint_core import PRESETS, Observation, Preset
from vipaint_core.metrics import sliced_wasserstein


def mixture() -> Mixture:
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    return Mixture(torch.tensor([0.3, -0.2, 0.5]).double(), means, torch.tensor([0.2, 0.5, 0.1, 0.3]).double())


def log_density(given: Mixture, x: torch.Tensor, s: float) -> torch.Tensor:
    """log p(u) at level s, (N, D) -> (N,), by torch.distributions."""
    scale = (given.variance + s**2).sqrt()
    parts = torch.distributions.Independent(torch.distributions.Normal(given.means, scale.expand_as(given.means)), 1)
    mixed = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=given.logits), parts)
    return mixed.log_prob(x)


@pytest.mark.parametrize("s", [0.1, 1.0, 20.0])
def test_denoiser_is_tweedie_s(s: float) -> None:
    """E[x0 | u] = u + s^2 grad log p(u)."""
    given = mixture()
    u = (1 + s) * torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    (score,) = torch.autograd.grad(log_density(given, u, s).sum(), u)
    found = given(u.detach().reshape(5, 1, 1, 4), torch.full((5,), s, dtype=torch.float64)).reshape(5, 4)
    assert torch.allclose(found, (u + s**2 * score).detach(), atol=1e-9)


def test_posterior_is_prior_times_likelihood() -> None:
    given = mixture()
    seen = torch.tensor([1.0, 0.25, 0.0, 0.0], dtype=torch.float64)
    observation = Observation(torch.randn(1, 1, 1, 4, dtype=torch.float64), seen.reshape(1, 1, 1, 4), 0.4)
    x = torch.randn(6, 4, dtype=torch.float64)
    likelihood = -observation.nll(x.reshape(6, 1, 1, 4), 0.0, calibrated=False)
    exact = log_density(given, x, 0.0) + likelihood
    found = log_density(given.given(observation), x, 0.0)
    assert torch.allclose(found - found[0], exact - exact[0], atol=1e-9)


def test_draws_have_the_mixture_s_moments() -> None:
    given = mixture()
    drawn = given.draw(200_000, torch.Generator().manual_seed(0))
    weights = given.logits.softmax(0)[:, None]
    mean = (weights * given.means).sum(0)
    variance = given.variance + (weights * (given.means - mean).square()).sum(0)
    assert torch.allclose(drawn.mean(0), mean, atol=0.01)
    assert torch.allclose(drawn.var(0), variance, rtol=0.02)


def test_sliced_wasserstein_of_a_shift_and_of_unequal_sets() -> None:
    x = torch.randn(500, 3, dtype=torch.float64)
    shift = torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64)
    # The mean absolute coordinate of a direction on the sphere is 1/2 in three dimensions.
    assert sliced_wasserstein(x, x + shift, directions=20_000) == pytest.approx(1.0, rel=0.02)
    assert sliced_wasserstein(x, x.flip(0)) == 0
    with pytest.raises(ValueError, match=r"\(500, 3\) and \(499, 3\)"):
        sliced_wasserstein(x, x[1:])


@pytest.mark.parametrize("variant", VARIANTS)
def test_problems_are_fixed_and_their_scale_is_the_prior_s(variant: str) -> None:
    cell = Cell(variant, 8, 2)
    given, again = problem(cell, 3), problem(cell, 3)
    assert torch.equal(given.observation.latent, again.observation.latent)
    assert int((given.observation.seen > 0).sum()) == 2
    assert math.isclose(float(given.prior.variance[0]) * given.scale**2, 1.0)
    distances = torch.cdist(given.prior.means, given.prior.means) * given.scale
    nearest = distances.fill_diagonal_(math.inf).min()
    # Neighbours differ by 8 in every other coordinate; `apart` by 24 in all.
    assert float(nearest) == pytest.approx(24 * math.sqrt(8) if variant == "apart" else 8 * 2, rel=1e-6)


def test_quick_run_writes_a_table_and_is_resumed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gmm, "QUICK", tmp_path / "output")
    monkeypatch.setattr(gmm, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(gmm, "code", lambda: "same")
    monkeypatch.setattr("sys.argv", ["gmm", "--quick", "--methods", "exact", "fast", "--variants", "apart"])
    gmm.main()
    assert (tmp_path / "output" / "gmm.svg").is_file()
    with open(tmp_path / "output" / "gmm.csv", encoding="utf-8", newline="") as file:
        assert {row["method"] for row in csv.DictReader(file)} == {"exact", "fast"}
    table = (tmp_path / "output" / "gmm.md").read_text("utf-8")
    assert "| fast " in table and "## apart" in table and "commit " in table
    monkeypatch.setitem(gmm.METHODS, "fast", None)
    gmm.main()
    assert (tmp_path / "output" / "gmm.md").read_text("utf-8") == table


def test_fresh_keeps_what_is_not_asked_for(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gmm, "QUICK", tmp_path)
    monkeypatch.setattr(gmm, "CACHE", tmp_path / "cache")
    for variant in ("apart", "mask"):
        monkeypatch.setattr("sys.argv", ["gmm", "--quick", "--fresh", "--methods", "exact", "--variants", variant])
        gmm.main()
    with open(tmp_path / "gmm.csv", encoding="utf-8", newline="") as file:
        assert {row["variant"] for row in csv.DictReader(file)} == {"apart", "mask"}


def test_more_problems_are_computed_and_fewer_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gmm, "CACHE", tmp_path / "cache")
    common = ["gmm", "--samples", "50", "--methods", "exact", "--variants", "mask", "--dimensions", "8"]

    def problems(count: int) -> set[str]:
        monkeypatch.setattr("sys.argv", [*common, "--out", str(tmp_path), "--problems", str(count)])
        gmm.main()
        with open(tmp_path / "gmm.csv", encoding="utf-8", newline="") as file:
            return {row["problems"] for row in csv.DictReader(file)}

    assert [problems(count) for count in (2, 3, 1)] == [{"2"}, {"3"}, {"3"}]
    assert "problems in d 8 |" in (tmp_path / "gmm.md").read_text("utf-8")


def summary(method: str, distances: list[float], kept: bool = True) -> Summary:
    words = " ".join(map(str, distances)) if kept else ""
    mean = sum(distances) / len(distances)
    return Summary(method, "mask", 8, 1, len(distances), 50, mean, None, 3.0, 4.0, 0.1, "abc", words)


def test_differences_are_paired_where_problems_are_known() -> None:
    ours, theirs = summary("balanced", [1.0, 2.0, 6.0]), summary("dps", [2.0, 3.0, 3.0])
    # -1, -1 and 3: standard deviation 4 / sqrt(3); half width 4.303 (Student's t, two degrees of freedom) * 4 / 3.
    assert str(difference(ours, theirs)) == "+0.333 ± 5.737, 2 of 3"
    assert str(difference(ours, summary("dps", [2.0, 3.0, 3.0], kept=False))) == "+0.333"
    assert str(difference(ours, summary("dps", [2.0, 3.5]))) == "-1.250 ± 3.177, 2 of 2"
    assert str(difference(ours, summary("dps", [2.0, 3.0, math.inf]))) == "-inf"
    assert not difference(ours, theirs).clear and difference(ours, summary("dps", [2.0, 3.1, 7.0])).clear


def test_standings_name_the_nearest_baseline_and_count_cells() -> None:
    cell = Cell("mask", 8, 1)
    found = {"exact": [1.0], "balanced": [2.0], "blended": [2.5], "dps": [1.8], "tds": [1.4], "particles": [1.2]}
    results = {(name, cell): summary(name, distances) for name, distances in found.items()}
    results["dps", cell] = replace(results["dps", cell], forward=100.0)
    text = standings(results, ["balanced"], {"blended", "dps"}, "particles", "tds")
    assert "Of 1 cells" in text
    for words in (
        "`balanced` is nearer than every baseline without particles in 0, by more than the interval of the difference in 0;",
        " and than every one that takes no more passes in 1.",
        "`particles` are nearer than `tds` in 1, and within 1.5 times the distance of exact sets in 1.",
    ):
        assert words in text
    row = [word.strip() for word in text.rstrip().splitlines()[-1].strip("|").split("|")]
    assert row == ["mask-8-1", "dps, 104", "1.800", "+0.200", "1.20", "1.40"]
    del results["tds", cell]
    assert standings(results, ["balanced"], {"blended", "dps"}, "particles", "tds") == ""


def test_who_has_fewer_problems_is_compared_on_those() -> None:
    """Ahead of the nearest baseline, and behind another on the problems that it has."""
    found = {"exact": [1.0], "balanced": [3.0, 3.0, 0.0, 0.0], "dps": [2.0] * 4, "tds": [1.0], "particles": [1.0]}
    results = {(name, Cell("mask", 8, 1)): summary(name, distances) for name, distances in found.items()}
    for rival, count in ([], 1), ([2.5, 2.5], 0):
        if rival:
            results["blended", Cell("mask", 8, 1)] = summary("blended", rival)
        text = standings(results, ["balanced"], {"blended", "dps"}, "particles", "tds")
        assert f"`balanced` is nearer than every baseline without particles in {count}," in text
        assert f"takes no more passes in {count}." in text


def test_rounds_undo_what_higher_levels_got_wrong() -> None:
    """One unseen mode or another: decided at high noise by an approximation, decided anew by every round."""
    cell, thorough = Cell("mask", 80, 1), PRESETS["thorough"]

    def distance(preset: Preset) -> float:
        draw = gmm.preset_method(preset)
        return sum(gmm.evaluate(draw, cell, index, 500).distance for index in range(4))

    assert distance(thorough) < 0.7 * distance(replace(thorough, rounds=1))
