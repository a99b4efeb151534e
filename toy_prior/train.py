"""Trains the toy prior from scratch and writes it as one safetensors checkpoint.

    python -m toy_prior.train [--work FOLDER] [--out FILE]

Three stages, each resumable from its last checkpoint in the work folder: a TAESD-layout
autoencoder (16 latent channels), its latents of seeded pictures, and an SD3-layout MMDiT of
depth 4 trained by flow matching (Esser et al. 2024, arXiv 2403.03206: linear path, shift 3).
Together about two hours on two CPU cores with bfloat16; minutes on a GPU.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from tools import in_process

in_process.activate()

import comfy.ldm.modules.diffusionmodules.mmdit as mmdit  # noqa: E402  (needs the host on sys.path)
import comfy.taesd.taesd as taesd  # noqa: E402

from toy_prior import CHECKPOINT, pictures  # noqa: E402

log = logging.getLogger("train")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SEED = 2411

# Two cycles of the rate (warm restarts, Loshchilov and Hutter 2017): the second gains more than a longer first.
AE_CYCLES, AE_BATCH, AE_CROP, AE_RATE = (900, 1200), 32, 64, 1.5e-3
LATENT_NOISE = 0.1
LATENTS = 12_288
PRIOR_STEPS, PRIOR_BATCH, PRIOR_RATE, PRIOR_EMA = 5000, 64, 1e-3, 0.999
DEPTH, TOKENS, CONTEXT, POOLED, SHIFT = 4, 24, 64, 64, 3.0
# The host's SD3 latent format maps (raw - SHIFT_FACTOR) * SCALE_FACTOR into the model.
SCALE_FACTOR, SHIFT_FACTOR = 1.5305, 0.0609


def schedule(step: int, steps: int, warmup: int = 100) -> float:
    return min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def save(state: dict, file: Path) -> None:
    """Writes a training checkpoint; an interrupted write leaves the old one."""
    torch.save(state, file.with_suffix(".part"))
    file.with_suffix(".part").replace(file)


def autoencoder() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(SEED)
    coders = taesd.Encoder(16), taesd.Decoder(16)
    for module in coders:
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.Conv2d.reset_parameters(layer)
        module.to(DEVICE, memory_format=torch.channels_last)
    return coders


def training_crops(generator: torch.Generator) -> torch.Tensor:
    """Crops in [0, 1] of pictures of which a quarter carry a rectangle of another, shifted one.

    Inpainting encodes pictures with filled holes: the autoencoder must not know portraits only.
    """
    batch = pictures.render(pictures.sample_attributes(AE_BATCH, generator))
    for row in range(0, AE_BATCH, 4):
        top, left, shift_y, shift_x = torch.randint(0, pictures.SIZE, (4,), generator=generator).tolist()
        height, width = torch.randint(16, 96, (2,), generator=generator).tolist()
        other = batch[row + 1].roll((shift_y, shift_x), (1, 2))
        batch[row, :, top : top + height, left : left + width] = other[:, top : top + height, left : left + width]
    # Offsets beyond the picture are clamped, or a border would almost never be seen.
    ends = pictures.SIZE - AE_CROP
    offsets = torch.randint(-16, ends + 17, (AE_BATCH, 2), generator=generator).clamp(0, ends).tolist()
    return torch.stack([row[:, y : y + AE_CROP, x : x + AE_CROP] for row, (y, x) in zip(batch, offsets, strict=True)])


def train_autoencoder(work: Path) -> tuple[nn.Module, nn.Module]:
    file = work / "autoencoder.pt"
    encoder, decoder = autoencoder()
    modules = nn.ModuleList([encoder, decoder])
    optimiser = torch.optim.AdamW(modules.parameters(), AE_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    start = 0
    if file.exists():
        state = torch.load(file, map_location=DEVICE, weights_only=True)
        modules.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    first, steps = AE_CYCLES[0], sum(AE_CYCLES)
    clock = time.time()
    for step in range(start, steps):
        # One generator per step: a resumed run sees the batches of an uninterrupted one.
        generator = torch.Generator().manual_seed(SEED + step)
        batch = training_crops(generator)
        noise = LATENT_NOISE * torch.randn(AE_BATCH, 16, AE_CROP // 8, AE_CROP // 8, generator=generator)
        batch = batch.to(DEVICE, memory_format=torch.channels_last)
        for group in optimiser.param_groups:
            group["lr"] = AE_RATE * (schedule(step, first) if step < first else schedule(step - first, steps - first))
        with torch.autocast(DEVICE, torch.bfloat16):
            latent = encoder(batch)
            out = decoder(latent + noise.to(DEVICE, memory_format=torch.channels_last))
        error = out.float() - batch
        scale = latent.float()
        loss = error.abs().mean() + 4 * error.square().mean()
        loss = loss + 1e-3 * (scale.mean().square() + (scale.std() - 1).square())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimiser.step()
        if step % 50 == 49:
            psnr = -10 * math.log10(error.square().mean().item())
            log.info("autoencoder %d/%d: %.2f dB (%.2f s a step)", step + 1, steps, psnr, (time.time() - clock) / 50)
            clock = time.time()
            save({"model": modules.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}, file)
    return encoder, decoder


@torch.no_grad()
def encode_pictures(encoder: nn.Module, work: Path) -> dict[str, torch.Tensor]:
    """Latents (N, 16, 16, 16) standardised by one mean and one deviation, which are returned with them."""
    file = work / "latents.pt"
    if file.exists():
        return torch.load(file, weights_only=True)
    rows = []
    for first in range(0, LATENTS, 64):
        generator = torch.Generator().manual_seed(10**6 + first)
        batch = pictures.render(pictures.sample_attributes(64, generator))
        with torch.autocast(DEVICE, torch.bfloat16):
            rows.append(encoder(batch.to(DEVICE, memory_format=torch.channels_last)).float().cpu())
        if first % 6400 == 0:
            log.info("latents %d/%d", first, LATENTS)
    raw = torch.cat(rows)
    mean, deviation = raw.mean(), raw.std()
    data = {"latents": ((raw - mean) / deviation).contiguous(), "mean": mean, "deviation": deviation}
    save(data, file)
    return data


def build_prior() -> nn.Module:
    torch.manual_seed(SEED + 1)
    hidden = 64 * DEPTH
    model = mmdit.OpenAISignatureMMDITWrapper(
        input_size=None,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        depth=DEPTH,
        adm_in_channels=POOLED,
        context_embedder_config={
            "target": "torch.nn.Linear",
            "params": {"in_features": CONTEXT, "out_features": hidden},
        },
        num_patches=TOKENS**2,
        pos_embed_max_size=TOKENS,
        qk_norm="rms",
        operations=nn,
    )
    model.pos_embed.copy_(torch.from_numpy(mmdit.get_2d_sincos_pos_embed(hidden, TOKENS)).float()[None])
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for name, weight in model.named_parameters():
        if ".ln_" in name:  # the host's RMSNorm leaves its weight uninitialised
            nn.init.ones_(weight)
    # Blocks start as the identity and the output at zero (adaLN-zero, Peebles and Xie 2023).
    blocks = [part for block in model.joint_blocks for part in (block.x_block, block.context_block)]
    for part in [*blocks, model.final_layer]:
        nn.init.zeros_(part.adaLN_modulation[-1].weight)
        nn.init.zeros_(part.adaLN_modulation[-1].bias)
    nn.init.zeros_(model.final_layer.linear.weight)
    return model.to(DEVICE)


def prior_optimisers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the picture's matrices of attention and MLPs, AdamW for the rest, at one rate."""
    named = dict(model.named_parameters())
    matrices = [
        name
        for name, value in named.items()
        if value.ndim == 2 and ".x_block." in name and (".attn." in name or ".mlp." in name)
    ]
    rest = [value for name, value in named.items() if name not in matrices]
    return [
        torch.optim.Muon([named[name] for name in matrices], PRIOR_RATE, 0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, PRIOR_RATE, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def cell_weights() -> torch.Tensor:
    """Weight of every latent cell in the loss, (16, 16), mean 1: each part of a portrait counts alike.

    The best denoiser is the same for all positive weights; eyes are learnt sooner than by their area.
    """
    parts = torch.stack([pictures.support(group) for group in pictures.GROUPS]).float()
    parts = torch.cat([parts, 1 - parts.amax(0, keepdim=True)])
    shares = nn.functional.avg_pool2d(parts / parts.sum((1, 2), keepdim=True), 8).sum(0)
    return (shares / shares.mean()).clamp_min(0.25)


def train_prior(latents: torch.Tensor, work: Path) -> nn.Module:
    file = work / "prior.pt"
    model = build_prior()
    average = copy.deepcopy(model).requires_grad_(False)
    optimisers = prior_optimisers(model)
    start = 0
    if file.exists():
        state = torch.load(file, map_location=DEVICE, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        start = state["step"]
    context = torch.zeros(PRIOR_BATCH, 1, CONTEXT, device=DEVICE)
    pooled = torch.zeros(PRIOR_BATCH, POOLED, device=DEVICE)
    weights = cell_weights().to(DEVICE)
    clock, losses = time.time(), []
    for step in range(start, PRIOR_STEPS):
        generator = torch.Generator().manual_seed(2 * 10**6 + step)
        rows = torch.randint(len(latents), (PRIOR_BATCH,), generator=generator)
        noise = torch.randn(PRIOR_BATCH, 16, 16, 16, generator=generator)
        # Stratified times: one per row, evenly spread over (0, 1), then shifted towards noise.
        uniform = (torch.arange(PRIOR_BATCH) + torch.rand(PRIOR_BATCH, generator=generator)) / PRIOR_BATCH
        sigma = (SHIFT * uniform / (1 + (SHIFT - 1) * uniform)).to(DEVICE)
        data, noise = latents[rows].to(DEVICE), noise.to(DEVICE)
        mix = sigma[:, None, None, None]
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = PRIOR_RATE * schedule(step, PRIOR_STEPS)
        with torch.autocast(DEVICE, torch.bfloat16):
            out = model((1 - mix) * data + mix * noise, sigma * 1000, context=context, y=pooled)
        loss = (weights * (out.float() - (noise - data)).square()).mean()
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        keep = min(PRIOR_EMA, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
        losses.append(loss.detach())
        if step % 250 == 249:
            mean = torch.stack(losses).mean().item()
            if not math.isfinite(mean):
                raise FloatingPointError(f"prior: the loss is {mean} before step {step + 1}; lower PRIOR_RATE")
            pace = (time.time() - clock) / len(losses)
            log.info("prior %d/%d: loss %.4f (%.2f s a step)", step + 1, PRIOR_STEPS, mean, pace)
            clock, losses = time.time(), []
            state = {"model": model.state_dict(), "average": average.state_dict()}
            save({**state, "optimisers": [one.state_dict() for one in optimisers], "step": step + 1}, file)
    return average


def export(encoder: nn.Module, decoder: nn.Module, data: dict[str, torch.Tensor], prior: nn.Module, out: Path) -> None:
    """Writes one half-precision checkpoint in the layout that the host's stock loader detects as SD3."""
    tensors = {f"model.diffusion_model.{name}": value for name, value in prior.state_dict().items()}
    for prefix, module in (("taesd_encoder", encoder), ("taesd_decoder", decoder)):
        tensors.update({f"first_stage_model.{prefix}.{name}": value for name, value in module.state_dict().items()})
    mean, deviation = float(data["mean"]), float(data["deviation"])
    tensors["first_stage_model.vae_scale"] = torch.tensor(SCALE_FACTOR * deviation)
    tensors["first_stage_model.vae_shift"] = torch.tensor(SHIFT_FACTOR - mean / (SCALE_FACTOR * deviation))
    metadata = {
        "modelspec.architecture": "stable-diffusion-v3",
        "modelspec.title": "VIPaint toy portraits",
        "modelspec.license": "CC0-1.0",
        "modelspec.description": "Small latent diffusion prior of procedural 128 x 128 portraits, for tests and demos.",
    }
    halves = {name: value.detach().half().cpu().contiguous() for name, value in tensors.items()}
    for scalar in ("first_stage_model.vae_scale", "first_stage_model.vae_shift"):
        halves[scalar] = tensors[scalar].float().reshape(())
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(halves, out, metadata)
    log.info("wrote %s, %.1f MB", out.name, out.stat().st_size / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=in_process.ROOT / ".cache" / "toy_prior")
    parser.add_argument("--out", type=Path, default=CHECKPOINT)
    options = parser.parse_args()
    logging.basicConfig(force=True, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options.work.mkdir(parents=True, exist_ok=True)
    encoder, decoder = train_autoencoder(options.work)
    data = encode_pictures(encoder, options.work)
    prior = train_prior(data["latents"], options.work)
    export(encoder, decoder, data, prior, options.out)


if __name__ == "__main__":
    main()
