"""RePaint's schedule of jumps."""

from __future__ import annotations

from itertools import pairwise

from vipaint_core.baselines.repaint import RePaint


def test_repaint_takes_every_stretch_again() -> None:
    visits = RePaint(steps=30, jump=10, resamplings=3).visits()
    assert visits[0] == 0 and visits[-1] == 30
    moves = [there - here for here, there in pairwise(visits)]
    assert set(moves) == {1, -10}
    assert [here for here, there in pairwise(visits) if there < here] == [19, 19, 29, 29]
