"""Pictures side by side."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.harness.sheets import sheet


def test_pictures_stand_in_rows() -> None:
    red, blue = (torch.zeros(3, 4, 4) for _ in range(2))
    red[0], blue[2] = 1, 1
    out = np.array(sheet([[red, blue], [blue]], tile=2))
    assert out.shape == (4, 4, 3)
    assert (out[:2, :2] == (255, 0, 0)).all() and (out[:2, 2:] == (0, 0, 255)).all()
    assert (out[2:, :2] == (0, 0, 255)).all() and (out[2:, 2:] == 255).all()
