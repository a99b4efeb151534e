"""The node of the published samplers, called as the host calls it."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def compare(pack, tiny, conditioning, picture):
    """VIPaint Baseline on the picture with the given method."""
    image, mask = picture

    def run(**changes):
        arguments = {
            "model": tiny.model,
            "positive": conditioning[0],
            "negative": conditioning[1],
            "seed": 0,
            "cfg": 1.0,
            "fills": 2,
            "method": {"method": "blended", "steps": 4},
            "image": image,
            "mask": mask,
            "vae": tiny.vae,
        }
        with torch.inference_mode():
            return pack.baseline.VIPaintBaseline.execute(**{**arguments, **changes}).result[0]["samples"]

    return run


@pytest.mark.parametrize(
    "method", [{"method": "ding", "steps": 4}, {"method": "tds", "steps": 4, "ess_threshold": 0.5}]
)
def test_draws_fills(compare, method):
    """Without gradients and with them, through the host."""
    samples = compare(method=method)
    assert samples.shape == (2, 16, 8, 6) and torch.isfinite(samples).all()
    assert torch.equal(samples, compare(method=method))
    assert (samples - compare(method=method, seed=1))[..., 3:].abs().max() > 0.1


def test_visible_cells_are_kept(compare, picture):
    changed = torch.where(picture[1][..., None] > 0, 1 - picture[0], picture[0])
    samples = compare()
    assert torch.equal(samples, compare(image=changed))
    assert torch.equal(samples[0][:, :, :3], samples[1][:, :, :3])
    assert (samples[0] - samples[1])[:, :, 3:].abs().min() > 0


def test_every_setting_is_offered_and_explained(pack):
    """The host's own values, {method.setting: value}, make the published settings."""
    (method,) = [i for i in pack.baseline.VIPaintBaseline.GET_SCHEMA().inputs if i.id == "method"]
    for option in method.options:
        inputs = {one.id: one for one in option.inputs}
        assert all(one.tooltip for one in inputs.values())
        chosen = {"method": option.key, **{name: one.default for name, one in inputs.items()}}
        name, settings = pack.baseline.settings_of(chosen)
        assert settings == pack.baseline.BASELINES[name].settings()
    assert [option.key for option in method.options] == list(pack.baseline.BASELINES)


@pytest.mark.parametrize(
    ("method", "found"),
    [
        ({"method": "magic"}, "found 'magic'"),
        ({"method": "dps", "steps": 0}, "found steps: expected 1 to 1000, found 0"),
        ({"method": "dps", "jump": 3}, "found .*'jump'"),
    ],
)
def test_wrong_methods_are_explained(compare, method, found):
    with pytest.raises(ValueError, match=rf"VIPaint Baseline, input `method`: expected .*{found}"):
        compare(method=method)
