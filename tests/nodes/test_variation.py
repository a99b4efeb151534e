"""VIPaint Sample Posterior around a chosen fill, and with a part of it kept."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def chosen(paint, short_presets):
    """Fills of the right half and the posterior that they come from: the picture has 8 x 6 latent cells."""
    return paint(preset="balanced", fills=2)


@pytest.fixture
def vary(pack, tiny, conditioning, chosen):
    """What VIPaint Sample Posterior makes of the first fill, with what a test wants different."""
    latent, posterior = chosen
    first = {name: value[:1] for name, value in latent.items()}

    def run(**changes):
        inputs = {"posterior": posterior, "seed": 0, "cfg": 1.0, "fills": 2, "around": first, **changes}
        with torch.inference_mode():
            return pack.sample.VIPaintSample.execute(tiny.model, *conditioning, **inputs).result[0]

    return run


def painted(*box: int) -> torch.Tensor:
    """A mask of the picture's 64 x 48 pixels that is white from line and column to line and column."""
    top, left, bottom, right = box
    mask = torch.zeros(1, 64, 48)
    mask[:, top:bottom, left:right] = 1
    return mask


def off(latent, chosen, columns=slice(3, None), lines=slice(None)):
    """How far fills are from the chosen one in these cells."""
    return float((latent["samples"] - chosen[0]["samples"][:1])[..., lines, columns].abs().mean())


def test_lower_variation_is_more_like_the_chosen_fill(vary, chosen):
    found = [vary(variation=variation) for variation in (0.02, 0.4, 1.0)]
    near, middle, far = (off(latent, chosen) for latent in found)
    assert near < 0.2 * far and near < middle < far
    assert not torch.equal(found[0]["samples"][0], found[0]["samples"][1])
    assert torch.equal(found[0]["noise_mask"], chosen[0]["noise_mask"])


def test_without_a_fill_nothing_changes(vary, chosen, pack, tiny, conditioning):
    """As before there was `around`: the fills of VIPaint Inpaint, whatever variation says."""
    torch.testing.assert_close(vary(around=None, variation=0.1)["samples"], chosen[0]["samples"])


def test_a_kept_part_stays_and_the_rest_is_drawn_anew(vary, chosen):
    latent = vary(keep=painted(0, 24, 32, 48), variation=1.0)
    upper, lower = (off(latent, chosen, lines=lines) for lines in (slice(0, 4), slice(4, None)))
    assert upper < 0.1 and lower > 3 * upper
    # A sampler that goes on from here leaves it alone as well.
    mask = latent["noise_mask"][0, 0]
    assert not mask[:, :3].any() and not mask[:4].any() and mask[4:, 3:].all()


def test_a_kept_part_and_the_rest_much_like_the_fill(vary, chosen):
    kept = {"keep": painted(0, 24, 32, 48)}
    near, far = (off(vary(**kept, variation=variation), chosen, lines=slice(4, None)) for variation in (0.02, 1.0))
    assert near < 0.3 * far


def test_cells_are_kept_whole_or_not(vary, chosen):
    """Half a cell is not kept; grey is kept loosely; a mask may have the latent's own size, or the picture's."""
    whole = vary(keep=painted(0, 24, 32, 48), variation=1.0)
    uneven = vary(keep=painted(0, 24, 36, 48), variation=1.0)
    assert torch.equal(whole["samples"], uneven["samples"])
    cells = torch.zeros(1, 8, 6)
    cells[:, :4, 3:] = 1
    assert torch.equal(vary(keep=cells, variation=1.0)["samples"], whole["samples"])
    loose = vary(keep=0.5 * painted(0, 24, 32, 48), variation=1.0)
    assert (loose["noise_mask"][0, 0, :4, 3:] == 0.5).all()


def test_a_picture_that_fills_no_cells(pack, tiny, conditioning, paint, picture, short_presets):
    """61 x 43 pixels in 8 x 6 cells: the mask is that of VIPaint Composite's pictures or of VAE Decode's."""
    image, mask = (part[:, :61, :43] for part in picture)
    latent, posterior = paint(image=image, mask=mask, preset="balanced", fills=1)
    found = []
    for keep in (painted(0, 24, 64, 40)[:, :61, :43], painted(0, 24, 64, 40)):
        with torch.inference_mode():
            inputs = {"posterior": posterior, "seed": 0, "cfg": 1.0, "fills": 1, "around": latent, "keep": keep}
            found.append(pack.sample.VIPaintSample.execute(tiny.model, *conditioning, **inputs).result[0])
    assert torch.equal(found[0]["samples"], found[1]["samples"])
    assert not found[0]["noise_mask"][..., :5].any() and found[0]["noise_mask"][..., 5].all()


def test_several_fills_each_get_their_own(vary, chosen):
    """All variations of the first chosen fill first."""
    latent = vary(around=chosen[0], fills=3, variation=0.02)
    assert len(latent["samples"]) == 6 and len(latent["noise_mask"]) == 6
    for row, samples in enumerate(latent["samples"]):
        apart = [float((samples - own)[..., 3:].abs().mean()) for own in chosen[0]["samples"]]
        assert apart.index(min(apart)) == row // 3
    # A mask for each of them.
    both = torch.cat([painted(0, 24, 32, 48), painted(32, 24, 64, 48)])
    mask = vary(around=chosen[0], fills=1, keep=both)["noise_mask"][:, 0, :, 4] == 0
    assert mask[0].tolist() == [True] * 4 + [False] * 4 and mask[1].tolist() == [False] * 4 + [True] * 4


def test_pictures_of_a_batch_are_varied_by_themselves(pack, tiny, conditioning, paint, picture, short_presets):
    image, mask = picture
    latent, posterior = paint(image=torch.cat([image, 1 - image]), mask=mask, preset="balanced", fills=1)
    with torch.inference_mode():
        run = pack.sample.VIPaintSample.execute
        inputs = {"seed": 0, "cfg": 1.0, "fills": 2, "around": latent, "variation": 0.02}
        samples = run(tiny.model, *conditioning, posterior, **inputs).result[0]["samples"]
    for row, own in enumerate(samples):
        apart = [float((own - fill).abs().mean()) for fill in latent["samples"]]
        assert apart.index(min(apart)) == row // 2
    with pytest.raises(ValueError, match=r"input `around`: expected one fill of each of 2 pictures.*found 1\."):
        run(tiny.model, *conditioning, posterior, 0, 1.0, 1, around={"samples": latent["samples"][:1]})


@pytest.mark.parametrize("variation", [0.4, 1.0])
def test_draws_around_a_fill_have_noise_of_their_own(pack, vary, chosen, monkeypatch, variation):
    """The noise that it was drawn with would lead back to it."""
    seeds = []
    inner = pack.sample.sampling_inputs

    def note(model, positive, negative, cfg, seed, gradients):
        seeds.append(seed)
        return inner(model, positive, negative, cfg, seed, gradients)

    monkeypatch.setattr(pack.sample, "sampling_inputs", note)
    vary(variation=variation, fills=1)
    vary(around=None, fills=1)
    assert seeds[1] == 0 != seeds[0] and 0 <= seeds[0] < 2**64


def test_nothing_to_draw_is_said_and_gives_the_fill(vary, chosen, caplog):
    latent = vary(variation=0.0)
    assert off(latent, chosen) < 1e-4 and "variation 0 keeps the whole fill" in caplog.text
    # A sampler that goes on from here has the hole to work on.
    assert torch.equal(latent["noise_mask"], chosen[0]["noise_mask"])
    caplog.clear()
    latent = vary(keep=painted(0, 0, 64, 48), variation=1.0)
    assert off(latent, chosen) < 1e-4 and "keep covers the whole hole" in caplog.text


def test_a_loaded_posterior_is_varied_too(pack, vary, chosen, tmp_path):
    """Also one that was fitted by gradient steps with lower keypoints."""
    pack.core.save_posterior(chosen[1], tmp_path / "a.safetensors")
    loaded = pack.core.load_posterior(tmp_path / "a.safetensors")
    kept = {"keep": painted(0, 24, 32, 48)}
    assert torch.equal(vary(posterior=loaded, **kept)["samples"], vary(**kept)["samples"])


@pytest.mark.parametrize("preset", ["fast", "paper-2"])
def test_other_presets_vary_too(pack, tiny, conditioning, paint, short_presets, preset):
    chosen = paint(preset=preset, fills=1)
    found = []
    for inputs in ({"variation": 0.02}, {"variation": 0.98}, {"variation": 1.0, "keep": painted(0, 24, 32, 48)}):
        with torch.inference_mode():
            run = pack.sample.VIPaintSample.execute
            found.append(run(tiny.model, *conditioning, chosen[1], 0, 1.0, 2, around=chosen[0], **inputs).result[0])
    near, far = (off(latent, chosen) for latent in found[:2])
    assert near < 0.3 * far
    upper, lower = (off(found[2], chosen, lines=lines) for lines in (slice(0, 4), slice(4, None)))
    # The published step binds loosely in so few of them.
    assert upper < (0.3 if preset == "fast" else 0.7) * lower


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"around": None, "keep": painted(0, 24, 32, 48)}, "`keep`: expected a fill in `around`.*VIPaint Choose Fill"),
        ({"around": {"samples": torch.zeros(1, 16, 8, 8)}}, "`around`: expected a fill of 6 x 8 latent cells.*8 x 8"),
        ({"around": {"samples": torch.zeros(1, 4, 8, 6)}}, "`around`: expected 16 channels"),
        ({"around": {}}, "`around`: expected the latent"),
        (
            {"keep": torch.ones(1, 50, 40)},
            "`keep`: expected a mask of the fill's size, 6 x 8 latent cells .48 x 64.*40 x 50",
        ),
        ({"keep": torch.ones(3, 64, 48), "around": {"samples": torch.zeros(2, 16, 8, 6)}}, "`keep`: .*found 3 masks"),
        ({"keep": torch.zeros(1, 64, 48)}, "`keep`: expected white over at least one.*found a black mask"),
        ({"keep": painted(2, 26, 7, 31)}, "`keep`: expected white.*found white that covers none"),
        ({"keep": painted(0, 0, 64, 24)}, "`keep`: expected white.*found white that covers none"),
        ({"variation": 1.5}, r"`variation`: expected a number from 0\.0 to 1\.0"),
    ],
)
def test_what_does_not_fit_is_refused(vary, changes, message):
    with pytest.raises(ValueError, match=f"VIPaint Sample Posterior, input {message}"):
        vary(**changes)


def test_what_is_connected_is_looked_at_first(pack):
    check = pack.sample.VIPaintSample.validate_inputs
    assert check(input_types={"model": "MODEL", "around": "LATENT", "keep": "MASK"}) is True
    assert check(input_types={"model": "MODEL"}) is True
    assert "expected a fill in `around`" in check(input_types={"keep": "MASK"})
    assert "a link of type MASK" in check(input_types={"around": "LATENT", "keep": "IMAGE"})
