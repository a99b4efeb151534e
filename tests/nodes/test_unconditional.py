"""VIPaint Unconditional as the host calls it."""

from __future__ import annotations

import pytest
import torch


def test_its_conditioning_paints(pack, tiny, paint):
    (empty,) = pack.unconditional.VIPaintUnconditional.execute(tiny.model).result
    assert empty[0][0].shape == (1, 1, 64) and empty[0][1]["pooled_output"].shape == (1, 64)
    latent, _ = paint(positive=empty, negative=empty)
    assert torch.isfinite(latent["samples"]).all()


def test_a_family_whose_text_input_is_unknown(pack, tiny, monkeypatch):
    monkeypatch.setattr(pack.unconditional, "zero_conditioning", lambda _model: None)
    with pytest.raises(ValueError, match=r"^VIPaint Unconditional, input `model`.*found SD3 \(FLOW\).*empty prompt"):
        pack.unconditional.VIPaintUnconditional.execute(tiny.model)
