"""VIPaint Uncertainty as the host calls it."""

from __future__ import annotations

import math

import pytest
import torch


def test_is_the_deviation_over_fills(pack):
    images = torch.zeros(4, 6, 5, 3)
    images[:2, 1, 1] = torch.tensor([0.0, 1.0])[:, None]
    images[2:, 2, 2] = torch.tensor([0.2, 0.6])[:, None]
    execute = pack.uncertainty.VIPaintUncertainty.execute
    heat, spread = execute(images, 2, 0.0).result
    assert heat.shape == (2, 6, 5, 3) and spread.shape == (2, 6, 5)
    assert spread[0, 1, 1] == 1 and spread[1, 2, 2] == 1
    assert spread.sum() == 2
    assert heat[0, 1, 1].sum() > 2.5 and heat[0, 0, 0].sum() < 0.1
    _, absolute = execute(images, 2, 0.5).result
    torch.testing.assert_close(absolute[:, [1, 2], [1, 2]].diagonal(), torch.tensor([1.0, 0.4]))
    _, together = execute(images, 0, 1.0).result
    assert together.shape == (1, 6, 5)


def test_of_equal_fills_is_dark(pack):
    image = torch.rand(1, 6, 5, 3).repeat(3, 1, 1, 1) + 1e-4 * torch.rand(3, 6, 5, 3)
    assert pack.uncertainty.VIPaintUncertainty.execute(image, 0).result[1].max() < 0.05


def test_heat_map_gets_lighter(pack):
    colours = pack.uncertainty.heat_map(torch.linspace(0, 1, 64)[None, None])
    luma = (colours * torch.tensor([0.2126, 0.7152, 0.0722])).sum(-1).flatten()
    assert (luma.diff() > 0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_pictures_that_are_not_finite(pack, bad):
    image = torch.rand(2, 8, 8, 3)
    image[0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"VIPaint Uncertainty, input `images`.*NaN or infinity"):
        pack.uncertainty.VIPaintUncertainty.execute(image)
