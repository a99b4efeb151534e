"""The UNet of portraits: prompts, holes, a training of two steps, and its checkpoint through the stock loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("comfy.ops")

from toy_prior import autoencoder, model, pictures, prompts, unet
from toy_prior.random_holes import cells, random_holes

# Of one block with as few channels as its norms allow: the host would not know it.
TINY = {**unet.NETWORK, "model_channels": 32, "num_heads": 2}


def tiny_pool(channels: int = 0) -> unet.Pool:
    numbers = torch.Generator().manual_seed(0)
    values = prompts.values_of(pictures.sample_attributes(12, numbers))
    return unet.Pool(torch.randn(12, 4, 16, 16, generator=numbers), values, torch.randn(12, channels, 16, 16))


@pytest.mark.parametrize("channels", [0, 5])
def test_a_training_that_goes_on_ends_like_one_without_a_stop(
    channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny_pool(channels)

    def run(file: str, steps: int) -> unet.PromptedUNet:
        return unet.train_unet(data, tmp_path / file, steps, 4, TINY)

    # The rate follows the number of steps: one of a hundred at which both stop.
    monkeypatch.setattr(unet, "schedule", lambda *_, **__: 1.0)
    run("parts.pt", 1)
    whole, parts, start = run("whole.pt", 2), run("parts.pt", 2), unet.build(channels, TINY)
    for (name, found), expected, first in zip(
        parts.named_parameters(), whole.parameters(), start.parameters(), strict=True
    ):
        assert torch.equal(found, expected), name
        if name == "network.out.2.weight":
            assert not torch.equal(found, first)
    # What is not named has no value.
    assert not parts.tokens.weight[0].any() and parts.tokens.weight[1:].all(1).all()


def test_the_loss_is_that_of_the_best_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that knows the picture predicts the noise exactly: scales, signs and schedule agree."""
    data = tiny_pool()
    data = data._replace(latents=data.latents[:1].expand(12, -1, -1, -1))
    s = unet.levels()
    assert (len(s), round(float(s[-1]), 2), round(float(s[0]), 4)) == (1000, 14.61, 0.0292)
    seen = []

    class Knows(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1, 4))

        def forward(self, z: torch.Tensor, time: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
            at = s[time.long()][:, None, None, None]
            seen.append(values)
            return ((1 + at**2).sqrt() * z - data.latents[:1]) / at + self.weight.sum()

    def look(module: Any, optimisers: Any, loss_of: Any, *_: Any, **__: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            assert loss_of(3).item() < 1e-4
            assert torch.equal(loss_of(5), loss_of(5))
        raise KeyboardInterrupt

    monkeypatch.setattr(unet, "build", lambda *_: Knows())
    monkeypatch.setattr(unet, "muon_and_adamw", lambda *_: [])
    monkeypatch.setattr(unet, "train", look)
    with pytest.raises(KeyboardInterrupt):
        unet.train_unet(data, tmp_path / "none.pt", 2, 64, TINY)
    assert (seen[0] == prompts.UNNAMED).any() and (seen[0] != prompts.UNNAMED).any()


def test_prompts_name_what_they_say() -> None:
    table = prompts.new_table().weight.detach()
    truth = pictures.sample_attributes(200, torch.Generator().manual_seed(1))
    values = prompts.values_of(truth)
    assert values.shape == (200, 8) and (values >= 0).all()
    assert (values < torch.tensor(list(prompts.VOCABULARY.values()))).all()
    rows = prompts.table_rows(values)
    # Every value has a row of its own.
    assert set(rows.unique().tolist()) == set(range(1, prompts.ROWS))
    [[tokens, extras]] = prompts.conditioning(table, {"mouth": 2, "hue": 7})
    assert extras == {} and tokens.shape == (1, 8, prompts.WIDTH)
    named = tokens[0].abs().sum(1) > 0
    assert [name for name, is_named in zip(prompts.VOCABULARY, named, strict=True) if is_named] == ["mouth", "hue"]
    [[everything, _]] = prompts.conditioning(table, dict(zip(prompts.VOCABULARY, values[0].tolist(), strict=True)))
    assert torch.equal(everything[0], table[rows[0]])
    for wrong in ({"mouth": 4}, {"nose": 0}):
        with pytest.raises(ValueError, match="expected skin below 6"):
            prompts.conditioning(table, wrong)


def test_names_are_left_out_one_by_one_and_together() -> None:
    values = torch.zeros(20_000, 8, dtype=torch.long)
    left = prompts.without_some(values, 0.4, 0.15, torch.Generator().manual_seed(2)) == prompts.UNNAMED
    assert left.all(1).float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert left[~left.all(1)].float().mean().item() == pytest.approx(0.4, abs=0.01)


def test_random_holes_are_of_every_kind() -> None:
    holes = random_holes(400, pictures.SIZE, torch.Generator().manual_seed(3))
    shares = holes.float().mean((1, 2, 3))
    assert holes.shape == (400, 1, 128, 128) and holes.dtype == torch.bool
    assert 0.05 < (shares == 1).float().mean() < 0.2 and 0.005 < (shares == 0).float().mean() < 0.2
    assert 0.2 < shares.mean() < 0.6 and ((shares > 0.02) & (shares < 0.98)).float().mean() > 0.7
    seen = cells(holes, 16)
    assert seen.shape == (400, 1, 16, 16) and set(seen.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(seen[shares == 1], torch.ones_like(seen[shares == 1])) and not seen[shares == 0].any()


@pytest.fixture(scope="module")
def unet_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of untrained networks of full size, and of an untrained autoencoder."""
    folder = tmp_path_factory.mktemp("unet")
    coders = autoencoder.build(unet.CHANNELS, 0)
    data = autoencoder.Latents(torch.zeros(1), 0.25, 2.0)
    files = {name: folder / f"{name}.safetensors" for name in ("vae", "unet", "inpainting")}
    tensors = autoencoder.vae_tensors(coders, data, unet.LATENT_FORMAT, "")
    unet.write_checkpoint(tensors, unet.metadata("test"), files["vae"])
    for name, channels in (("unet", 0), ("inpainting", 5)):
        network = unet.build(channels)
        # Untrained, its last layer is zero.
        torch.nn.init.normal_(network.network.out[-1].weight, std=0.05)
        torch.nn.init.normal_(network.network.input_blocks[1][1].proj_out.weight, std=0.05)
        unet.export_unet(network, "test", files[name])
    return files


def test_the_stock_loader_takes_the_checkpoint(comfyui: Path, unet_files: dict[str, Path]) -> None:
    assert unet_files["unet"].stat().st_size < 30e6
    found, vae = model.load(unet_files["unet"], unet_files["vae"])
    network = found.model
    assert type(network.model_config).__name__ == "SD15" and network.model_type.name == "EPS"
    assert float(network.model_sampling.sigma_max) == pytest.approx(14.61, abs=0.01)
    # Latents that the host hands to the network are the standardised ones.
    shown = torch.rand(1, 3, 128, 128)
    latents = model.encode(vae, shown)
    encoder = autoencoder.build(unet.CHANNELS, 0).encoder
    with torch.no_grad():
        raw = encoder.half().float()(shown.to(unet.DEVICE)).cpu()
    torch.testing.assert_close(network.process_latent_in(latents), (raw - 0.25) / 2.0, atol=0.01, rtol=0.01)


def test_the_inpainting_form_begins_as_the_unet_that_it_goes_on_from(tmp_path: Path) -> None:
    first = unet.build(network=TINY)
    torch.nn.init.normal_(first.network.out[-1].weight, std=0.05)
    unet.export_unet(first, "test", tmp_path / "unet.safetensors")
    wide = unet.build(5, TINY, tmp_path / "unet.safetensors")
    numbers = torch.Generator().manual_seed(6)
    z, beside = torch.randn(2, 4, 16, 16, generator=numbers), torch.randn(2, 5, 16, 16, generator=numbers)
    values = prompts.values_of(pictures.sample_attributes(2, numbers))
    time = torch.tensor([10.0, 800.0])
    with torch.no_grad():
        inputs = torch.cat([z, beside], dim=1).to(unet.DEVICE)
        expected = first(z.to(unet.DEVICE), time.to(unet.DEVICE), values.to(unet.DEVICE))
        # Up to half precision, which checkpoints keep.
        torch.testing.assert_close(
            wide(inputs, *(each.to(unet.DEVICE) for each in (time, values))), expected, atol=0.01, rtol=0.01
        )
    assert expected.abs().mean() > 0.05


def test_prompts_change_what_the_network_says(comfyui: Path, unet_files: dict[str, Path]) -> None:
    from safetensors.torch import load_file

    from benchmarks.harness.host import PACK

    found, _ = model.load(unet_files["unet"], unet_files["vae"])
    table = load_file(unet_files["unet"])[prompts.KEY]
    empty, one = prompts.conditioning(table, {}), prompts.conditioning(table, {"skin": 1})
    none = PACK.host.text_inputs.zero_conditioning(found)
    zeros = torch.zeros(1, 4, 16, 16)
    drawn = [model.ksampler(found, text, zeros, 1, steps=2) for text in (empty, one, none)]
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-4)
    # The empty prompt and VIPaint Unconditional are the same.
    torch.testing.assert_close(drawn[0], drawn[2], atol=1e-4, rtol=1e-4)
    guided = model.ksampler(found, one, zeros, 1, steps=2, cfg=4.0, negative=empty)
    assert not torch.allclose(guided, drawn[1], atol=1e-4)


def test_the_inpainting_form_sees_the_hole_as_it_was_trained(comfyui: Path, unet_files: dict[str, Path]) -> None:
    """What the host hands to the network beside the latents is what `pool` does."""
    from benchmarks.worlds.portraits import picture_inputs, stock

    found, vae = model.load(unet_files["inpainting"], unet_files["vae"])
    assert found.model.model_config.unet_config["in_channels"] == 9
    picture = pictures.render(pictures.sample_attributes(1, torch.Generator().manual_seed(4)))
    hole = pictures.hole("cut")
    prompt = [[torch.zeros(1, 8, prompts.WIDTH), {}]]
    inputs = {"vae": vae, **picture_inputs(picture, hole)}
    ((_, given),) = stock.InpaintModelConditioning().encode(prompt, prompt, **inputs)[0]
    noise = torch.zeros(1, 4, 16, 16)
    beside = found.model.concat_cond(**given, noise=noise, device=noise.device)
    expected = cells(hole[None, None], 16)
    assert torch.equal(beside[:, :1].float(), expected)
    grey = model.encode(vae, torch.where(hole, 0.5, picture))
    torch.testing.assert_close(beside[:, 1:].float(), found.model.process_latent_in(grey).float(), atol=1e-4, rtol=1e-4)
