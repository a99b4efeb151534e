"""VIPaint Fit Posterior and VIPaint Sample Posterior: one after the other they are VIPaint Inpaint."""

from __future__ import annotations

from dataclasses import replace

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


def test_further_fills_do_not_depend_on_what_was_drawn_before(pack, tiny, conditioning, paint):
    """A posterior of one fill lacks the chains that further ones need: they are drawn, and are those of many fills."""
    latent, whole = paint(preset="balanced", fills=5)
    _, single = paint(preset="balanced", fills=1)
    assert (whole.gains.chains, single.gains.chains) == (3, 1)
    node = pack.sample.VIPaintSample
    with torch.inference_mode():
        for posterior in (whole, single):
            out = node.execute(tiny.model, *conditioning, posterior, 0, 1.0, 2, 3).result[0]
            torch.testing.assert_close(out["samples"], latent["samples"][3:], rtol=1e-3, atol=1e-3)
    assert single.gains.chains == 1


def test_further_fills_ask_for_no_gradients(pack, tiny, tiny_info, conditioning, paint):
    """Whatever the widget says; the first fill of a picture does."""
    _, whole = paint(preset="balanced", fills=4)
    _, single = paint(preset="balanced", fills=1)
    bare = replace(single, gains=None)
    draws = [pack.sampling.DrawMore(fitted, 0, 2, 3) for fitted in (whole, single, bare)]
    assert [draw.demand.gradient for draw in draws] == [False, False, True]
    assert [(draw.calls.chains, draw.calls.sample) for draw in draws] == [(0, 23), (2 * 28, 23), (16 + 2 * 28, 23)]
    # Two fills are drawn at once, of which one at a time could be differentiated.
    assert (draws[2].demand.batch, draws[2].demand.differentiated) == (2, 1)
    # The fit's own first fills are there.
    assert sum(pack.sampling.DrawMore(whole, 0, 3).calls) == 0


def test_a_fit_tells_its_bound(pack, tiny, conditioning, picture):
    image, mask = picture
    with torch.inference_mode():
        out = pack.fit.VIPaintFit.execute(
            tiny.model, *conditioning, 0, 1.0, "balanced", image=image, mask=mask, vae=tiny.vae
        )
    (posterior,) = out.result
    assert posterior.gains.chains == 3 and posterior.bound is not None
    assert f"at least {-posterior.bound.total:.0f} nats" in out.ui["text"][-1]


@pytest.fixture
def start(pack, tiny, conditioning, picture):
    """`start(given, mask, ...)`: VIPaint Fit Posterior of a darker picture, from another posterior."""
    image, own = picture

    def run(given, mask=own, preset="balanced", picture=0.5 * image, **inputs):
        with torch.inference_mode():
            return pack.fit.VIPaintFit.execute(
                tiny.model,
                *conditioning,
                0,
                1.0,
                preset,
                image=picture,
                mask=mask,
                vae=tiny.vae,
                start_from=given,
                **inputs,
            )

    return run


def test_a_fit_that_starts_from_another_takes_no_passes(pack, tiny, conditioning, paint, start):
    """Neither do its first fills take gradients; they fit their own picture."""
    _, given = paint(preset="balanced", fills=3)
    out = start(given)
    (posterior,) = out.result
    assert posterior.evaluations.forward == posterior.evaluations.backward == 0
    assert "starts from 8 gains a level of another picture" in out.ui["text"][-1] and "vipaint_cost" not in out.ui
    more = pack.sampling.DrawMore(posterior, 0, 2)
    assert not more.demand.gradient and (more.calls.chains, more.calls.sample) == (0, 23)
    with torch.inference_mode():
        node = pack.sample.VIPaintSample
        out = node.execute(tiny.model, *conditioning, posterior, 0, 1.0, 2).result[0]["samples"]
    assert out.shape[0] == 2 and out.isfinite().all()


def test_a_black_mask_starts_from_nothing(start, paint, picture):
    _, given = paint(preset="balanced", fills=3)
    (posterior,) = start(given, torch.zeros_like(picture[1])).result
    assert posterior.gains is None


def test_what_cannot_be_started_from_is_said(pack, start, paint, picture):
    image, mask = picture
    _, given = paint(preset="balanced", fills=3)
    elsewhere = mask.flip(-1) if not torch.equal(mask.flip(-1), mask) else mask.roll(mask.shape[-1] // 2, -1)
    smaller = image[:, : image.shape[1] // 2], mask[:, : mask.shape[1] // 2]
    cases = [
        ("a posterior that has gains", lambda: start(replace(given, gains=None))),
        ("a VIPaint posterior", lambda: start("none")),
        ("cells, as the picture", lambda: start(given, smaller[1], picture=smaller[0])),
        ("for the noise levels of `thorough`", lambda: start(given, preset="thorough")),
        ("for the noise levels of `balanced`", lambda: start(given, strength=0.5)),
        ("shows at least 80 % of what this mask shows", lambda: start(given, elsewhere)),
    ]
    for words, run in cases:
        with pytest.raises(ValueError, match="input `start_from`: expected .*" + words):
            run()
