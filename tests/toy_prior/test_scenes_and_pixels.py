"""Trainings of two steps, and their checkpoints through the host."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("comfy.sd")

from benchmarks.worlds.scenes import tolerance
from tools import in_process
from toy_prior import model as toy
from toy_prior import pictures, pixels, scenes, train_pixels, train_scenes, transformer
from toy_prior.scenes.reader import PARTS


def run(monkeypatch: pytest.MonkeyPatch, script: object, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    script.main()  # type: ignore[attr-defined]


def test_scenes_train_into_a_checkpoint_of_the_stock_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"POOL": 4, "CROPS": 4, "TOGETHER": 4, "BATCH": 2, "HELD_OUT": 1}
    for name, value in small.items():
        monkeypatch.setattr(train_scenes, name, value)
    file = tmp_path / "scenes_of_a_test.safetensors"
    counts = ("--coder-steps", "2", "--steps", "2", "--latents", "4")
    run(monkeypatch, train_scenes, "--work", str(tmp_path), "--out", str(file), *counts)
    assert file.stat().st_size <= 28e6
    told = tolerance(file)
    assert set(told) == set(PARTS) and all(value > 0 for value in told.values())
    model, vae = toy.load(file)
    truth = scenes.sample_attributes(1, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        latents = toy.encode(vae, scenes.render(truth))
        conditioning = in_process.load_pack().host.text_inputs.zero_conditioning(model)
        drawn = toy.decode(vae, toy.ksampler(model, conditioning, torch.zeros_like(latents), 0, steps=2))
    assert latents.shape == (1, 16, 32, 32) and drawn.shape == (1, 3, 256, 256)
    # What the prior learnt from has unit variance in model scale.
    raw = torch.load(tmp_path / "latents.pt", weights_only=True)["latents"]
    assert float(raw.std()) == pytest.approx(1, abs=1e-3)
    first = next(train_scenes.picture_batches(4, train_scenes.SEED + 10**7))
    with torch.inference_mode():
        found = model.model.process_latent_in(toy.encode(vae, first.cpu()))
    assert float((found - raw).square().mean()) < 1e-3


def test_crops_are_of_the_pool_and_some_have_another_inside() -> None:
    pool = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 256, 256) * 60
    crops = train_scenes.random_crops(pool, torch.Generator().manual_seed(0))
    assert crops.shape == (train_scenes.CROPS, 3, train_scenes.CROP, train_scenes.CROP)
    values = [len(crop.unique()) for crop in crops]
    assert max(values) == 2 and {place % 4 for place, count in enumerate(values) if count == 2} == {0}


def test_weights_make_small_things_count() -> None:
    weights = train_scenes.weights()
    assert weights.shape == (32, 32) and 0.9 < float(weights.mean()) < 1.1
    assert weights[22:26, 14:18].mean() > 2 * weights[:8].mean()


def test_pixels_train_into_a_checkpoint_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_pixels, "PICTURES", 8)
    monkeypatch.setattr(train_pixels, "BATCH", 4)
    file = tmp_path / "pixels.safetensors"
    run(monkeypatch, train_pixels, "--work", str(tmp_path), "--out", str(file), "--steps", "2")
    model, vae = pixels.load(file)
    info = in_process.load_pack().host.model_info.model_info(model)
    assert (info.family, info.channels, info.largest_level, info.coordinate.flow) == ("SD3 (EDM)", 3, 80.0, False)
    shown = pictures.render(pictures.sample_attributes(2, torch.Generator().manual_seed(0)), pixels.SIDE)
    with torch.inference_mode():
        latents = toy.encode(vae, shown)
        assert torch.allclose(latents, 2 * shown - 1, atol=1e-6)
        assert torch.allclose(toy.decode(vae, latents), shown, atol=1e-6)
    with pytest.raises(FileNotFoundError, match=r"toy_prior\.train_pixels"):
        pixels.load(tmp_path / "none.safetensors")


def test_the_host_denoises_as_the_network_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """c_skip, c_out, c_in and c_noise of the host's sampling are those of the training."""
    sampling = pixels.model_base.model_sampling(
        pixels.PixelPortraits(transformer.layout(pixels.CHANNELS, pixels.DEPTH)), pixels.model_base.ModelType.EDM
    )
    numbers = torch.Generator().manual_seed(1)
    data, noise = 0.5 * torch.randn(6, 3, 8, 8, generator=numbers), torch.randn(6, 3, 8, 8, generator=numbers)
    asked = transformer.edm(0.5, 0.3, 1.4)(data, noise, torch.linspace(0.02, 0.98, 6))
    sigma = (4 * asked.times).exp()
    noisy = data + sigma[:, None, None, None] * noise
    assert torch.allclose(sampling.timestep(sigma), asked.times, atol=1e-5)
    assert torch.allclose(sampling.calculate_input(sigma, noisy), asked.inputs, atol=1e-5)
    # The answer that the loss asks for denoises perfectly.
    assert torch.allclose(sampling.calculate_denoised(sigma, asked.target, noisy), data, atol=1e-4)
    # Targets have unit variance at every level.
    many = transformer.edm(0.5, 0.0, 1.7)(0.5 * torch.randn(64, 3, 32, 32), torch.randn(64, 3, 32, 32), torch.rand(64))
    assert many.target.std((1, 2, 3)).sub(1).abs().max() < 0.1 and many.inputs.std((1, 2, 3)).sub(1).abs().max() < 0.1


def test_flow_asks_for_the_velocity() -> None:
    data, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    asked = transformer.flow(3.0)(data, noise, torch.tensor([0.0, 0.5, 1.0]))
    assert torch.allclose(asked.times, torch.tensor([0.0, 750.0, 1000.0]))
    mix = (asked.times / 1000)[:, None, None, None]
    assert torch.allclose(asked.inputs - mix * asked.target, data, atol=1e-6)


@pytest.mark.parametrize("side", pictures.SIDES)
def test_portraits_are_read_at_every_size(side: int) -> None:
    truth = pictures.sample_attributes(64, torch.Generator().manual_seed(2))
    shown = pictures.render(truth, side)
    noisy = (shown + 0.02 * torch.randn(shown.shape, generator=torch.Generator().manual_seed(3))).clamp(0, 1)
    found = pictures.read(noisy)
    assert found.valid.all()
    for name, values in truth.groups.items():
        assert torch.equal(found.attributes.groups[name], values), name
    for name in pictures.MASKS:
        hole = pictures.hole(name, side)
        assert hole.shape == (side, side)
        assert pictures.hidden_attributes(hole) == pictures.hidden_attributes(pictures.hole(name))
        assert float(hole.float().mean()) == pytest.approx(float(pictures.hole(name).float().mean()))
    with pytest.raises(ValueError, match="side 128 or 32"):
        pictures.read(shown[..., :-1])
