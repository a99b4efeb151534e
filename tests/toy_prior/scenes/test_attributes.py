"""The joint distribution of scenes, and exact conditionals."""

from __future__ import annotations

import itertools

import pytest
import torch

from toy_prior.scenes.attributes import ATTRIBUTES, AZIMUTHS, PARENTS, TABLES, joint, posterior, sample_attributes

COUNT = 40_000


@pytest.fixture(scope="module")
def drawn() -> dict[str, torch.Tensor]:
    return sample_attributes(COUNT, torch.Generator().manual_seed(1)).values


@pytest.mark.parametrize("name", list(ATTRIBUTES))
def test_frequencies_are_those_of_the_tables(name: str, drawn: dict[str, torch.Tensor]) -> None:
    for row, expected in enumerate(TABLES[name]):
        chosen = drawn[name][drawn[PARENTS[name]] == row] if name in PARENTS else drawn[name]
        share = torch.bincount(chosen, minlength=ATTRIBUTES[name]) / len(chosen)
        # Four standard deviations.
        assert (share - torch.tensor(expected)).abs().max() < 4 * (0.25 / len(chosen)) ** 0.5


def test_azimuths_are_uniform_on_the_interval_of_the_time_of_day() -> None:
    found = sample_attributes(COUNT, torch.Generator().manual_seed(2))
    for time, (low, high) in enumerate(AZIMUTHS):
        azimuth = found.azimuth[found.values["time"] == time]
        assert low <= azimuth.min() and azimuth.max() <= high
        assert abs(float(azimuth.mean()) - (low + high) / 2) < 0.02 * (high - low)
        assert abs(float(azimuth.std()) - (high - low) / 12**0.5) < 0.02 * (high - low)


def test_conditionals_are_those_of_enumeration() -> None:
    """Of the ground with the wall hidden as well, of a parent given its child, and of both ends of a chain."""
    chain = ["time", "wall", "ground"]
    whole = joint(chain)
    assert whole.sum() == pytest.approx(1)
    values = {name: torch.zeros(27, dtype=torch.long) for name in ATTRIBUTES}
    for name, column in zip(chain, torch.tensor(list(itertools.product(range(3), repeat=3))).T, strict=True):
        values[name] = column
    time, wall, ground = (values[name] for name in chain)
    for hidden in (["ground"], ["wall"], ["time"], ["wall", "ground"], ["time", "ground"], chain):
        found = posterior([*hidden, "left_colour"], values)
        assert list(found) == [*hidden, "left_colour"]
        for name in hidden:
            for row in range(27):
                kept = [
                    i if other not in hidden else slice(None)
                    for other, i in zip(chain, (time[row], wall[row], ground[row]), strict=True)
                ]
                table = whole[tuple(kept)]
                axis = hidden.index(name)
                rest = [other for other in range(len(hidden)) if other != axis]
                table = table.sum(rest) if rest else table
                assert torch.allclose(found[name][row], table / table.sum())
    # Seen: the right solid is green, so the left one is red most of the time.
    values["right_colour"] = torch.full((27,), 1)
    assert torch.allclose(
        posterior(["left_colour"], values)["left_colour"][0], torch.tensor([0.7, 0.1, 0.1, 0.1]).double()
    )
