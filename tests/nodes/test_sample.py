"""VIPaint Fit Posterior and VIPaint Sample Posterior: one after the other they are VIPaint Inpaint."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.parametrize("preset", ["balanced", "paper-2"])
def test_fit_then_sample_equals_inpaint(pack, tiny, conditioning, picture, paint, preset, monkeypatch):
    image, mask = picture
    positive, negative = conditioning
    # The paper's preset fits by gradient steps; fewer of them are the same path.
    short = pack.core.PRESETS["paper-2"].with_changes(fit={"steps": 3}, schedule={"steps": 4})
    monkeypatch.setitem(pack.core.PRESETS, "paper-2", short)
    latent, _ = paint(preset=preset, fills=2)
    with torch.inference_mode():
        (posterior,) = pack.fit.VIPaintFit.execute(
            tiny.model, positive, negative, 0, 1.0, preset, image=image, mask=mask, vae=tiny.vae
        ).result

        def draw(fills, first):
            node = pack.sample.VIPaintSample
            out = node.execute(tiny.model, positive, negative, posterior, 0, 1.0, fills, first).result[0]
            return out["samples"]

        torch.testing.assert_close(draw(2, 0), latent["samples"])
        torch.testing.assert_close(draw(1, 1), latent["samples"][1:], rtol=1e-3, atol=1e-3)
        assert (draw(1, 2) - latent["samples"][1:]).abs().max() > 0.1
