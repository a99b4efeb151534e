"""The world of scenes judges exact draws as exact, and others as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.worlds.scenes import Scenes
from benchmarks.worlds.world import energy_score
from toy_prior import scenes

FILLS = 6
# Without a checkpoint: fills are read as rendered pictures are.
WORLD = Scenes(file=Path("none.safetensors"))


@pytest.mark.parametrize("name", ["right", "bottom"])
def test_exact_draws_are_exact(name: str) -> None:
    truths, hole = WORLD.truths(2), WORLD.hole(name)
    drawn = WORLD.exact(truths, hole, FILLS, torch.Generator().manual_seed(0))
    assert drawn.shape == (2 * FILLS, 3, scenes.SIZE, scenes.SIZE)
    originals = WORLD.render(truths)
    assert torch.equal(drawn[::FILLS][..., ~hole], originals[..., ~hole])
    exact = WORLD.judge(drawn, truths, hole, FILLS)
    assert (exact.valid, exact.consistent, exact.both) == (1, 1, 1)
    assert exact.tv is not None and exact.floor is not None and abs(exact.tv - exact.floor) < 0.25
    assert (exact.crps is None) == (exact.wasserstein is None) == (name == "right")
    # One answer for all is further from the posterior, and from the truth in energy.
    one = WORLD.judge(
        drawn.unflatten(0, (2, FILLS))[:, :1].expand(-1, FILLS, -1, -1, -1).flatten(0, 1), truths, hole, FILLS
    )
    assert one.tv is not None and one.tv > exact.tv
    # What is visible is another picture's.
    swapped = WORLD.judge(drawn.roll(FILLS, 0), truths, hole, FILLS)
    assert (swapped.valid, swapped.consistent) == (1, 0)
    assert energy_score(drawn.unflatten(0, (2, FILLS)), originals, hole).shape == (2,)
