from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gaussian import GaussianPrior, half_seen
from safetensors.torch import save_file

from vipaint_core import PRESETS, Fit, fit, sample


@pytest.fixture
def fitted() -> Fit:
    prior = GaussianPrior.correlated((2, 3, 4))
    return fit(prior, half_seen(prior, 2), replace(PRESETS["paper-2"], steps=2), 0, family="gaussian")


@pytest.mark.parametrize("measured", [False, True])
def test_round_trip_is_bit_exact(fitted: Fit, measured: bool, tmp_path) -> None:
    more = {"leak": torch.rand(2, 1, 3, 4).double(), "spill": torch.rand(2, 2, 2, 3, 3).double()} if measured else {}
    fitted = replace(fitted, observation=replace(fitted.observation, **more))
    path = tmp_path / "a.safetensors"
    fitted.save(path, {"note": "kept"})
    loaded = Fit.load(path)
    for name in ("mu", "log_tau", "gamma"):
        assert torch.equal(getattr(loaded.posterior, name), getattr(fitted.posterior, name))
    assert torch.equal(loaded.observation.latent, fitted.observation.latent)
    assert torch.equal(loaded.observation.seen, fitted.observation.seen)
    for name in ("leak", "spill"):
        kept = getattr(loaded.observation, name)
        assert torch.equal(kept, more[name]) if measured else kept is None
    assert loaded.preset == fitted.preset and loaded.evaluations == fitted.evaluations
    assert loaded.history == fitted.history and loaded.family == "gaussian"
    prior = GaussianPrior.correlated((2, 3, 4))
    assert torch.equal(sample(prior, loaded, 1, 2).latents, sample(prior, fitted, 1, 2).latents)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_foreign_and_damaged_files_are_refused(fitted: Fit, tmp_path) -> None:
    path = tmp_path / "a.safetensors"
    fitted.save(path)
    whole = path.read_bytes()
    cases = {
        "short": whole[: len(whole) // 2],
        "empty": b"",
        "pickle": b"\x80\x04\x95cos\nsystem\n",
        # A header that promises far more bytes than the file holds.
        "huge": (1 << 62).to_bytes(8, "little") + whole[8:],
        "bits": whole[:8] + bytes(b ^ 255 for b in whole[8:64]) + whole[64:],
    }
    for name, content in cases.items():
        bad = tmp_path / f"{name}.safetensors"
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=name):
            Fit.load(bad)
    with pytest.raises(ValueError, match="missing"):
        Fit.load(tmp_path / "missing.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="another safetensors file"):
        Fit.load(tmp_path / "other.safetensors")
