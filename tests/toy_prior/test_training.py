"""The loop that all trainings share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from toy_prior import training


def run(file: Path, steps: int, ema: float | None = 0.9) -> tuple[nn.Module, nn.Module]:
    """A linear regression, and the average of its weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).to(training.DEVICE)

    def loss_of(step: int) -> torch.Tensor:
        x = torch.randn(16, 3, generator=training.generator(step)).to(training.DEVICE)
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    average = training.train(
        model,
        training.muon_and_adamw(model, lambda name: name.startswith("0."), 0.01),
        loss_of,
        steps,
        file,
        rate=lambda step: 0.01 * training.schedule(step, 20, warmup=2),
        ema=None if ema is None else lambda step: training.ema_share(step, ema),
        every=4,
    )
    return model, average


def test_a_run_that_goes_on_ends_like_one_without_a_stop(tmp_path: Path) -> None:
    whole, whole_average = run(tmp_path / "whole.pt", 20)
    run(tmp_path / "parts.pt", 7)
    model, average = run(tmp_path / "parts.pt", 20)
    for found, expected in ((model, whole), (average, whole_average)):
        for one, other in zip(found.parameters(), expected.parameters(), strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(next(model.parameters()), next(average.parameters()))


def test_the_average_is_that_of_the_formula(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(1, 1, bias=False)
    seen = [model.weight.item()]

    def loss_of(step: int) -> torch.Tensor:
        seen[step:] = [model.weight.item()]
        return model.weight.square().sum()

    optimiser = training.adamw(model.parameters(), 0.1)
    average = training.train(
        model,
        [optimiser],
        loss_of,
        5,
        tmp_path / "one.pt",
        rate=lambda _: 0.1,
        ema=lambda step: (step + 1) / (step + 10),
    )
    expected = seen[0]
    for step, weight in enumerate([*seen[1:], model.weight.item()]):
        keep = (step + 1) / (step + 10)
        expected = keep * expected + (1 - keep) * weight
    assert next(average.parameters()).item() == pytest.approx(expected, rel=1e-5)


def test_without_an_average_the_model_itself_is_returned(tmp_path: Path) -> None:
    model, same = run(tmp_path / "model.pt", 2, ema=None)
    assert same is model


def test_a_loss_that_is_not_finite_stops_before_it_is_kept(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)

    def loss_of(step: int) -> torch.Tensor:
        return model.weight.sum() * (float("nan") if step == 5 else 1.0)

    file = tmp_path / "wild.pt"
    with pytest.raises(FloatingPointError, match="wild: the loss is nan before step 8; lower the rate"):
        optimisers = [training.adamw(model.parameters(), 1e-3)]
        training.train(model, optimisers, loss_of, 12, file, rate=lambda _: 1e-3, every=4)
    assert torch.load(file, weights_only=True)["step"] == 4


def test_the_rate_rises_and_falls() -> None:
    rates = [training.schedule(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01, rel=1e-3) and max(rates) == pytest.approx(1, abs=0.03)
    assert rates.index(max(rates)) == 99 and rates[-1] == pytest.approx(0.01, abs=1e-3)
