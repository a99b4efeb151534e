"""Distils the toy prior for four steps: what a turbo, lightning or schnell checkpoint is to its teacher.

    python -m toy_prior.distil [--work FOLDER] [--out FILE]

The student learns where the teacher's path from a noise ends (Luhmann and Luhmann 2021, arXiv 2101.02388), from its
states at the levels of a four-step schedule, which are all levels that it is trained for. Paths are drawn by the
teacher in 24 Euler steps. Half an hour on one CPU core; resumable. The result is as large as the toy prior, and stays
out of the repository.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tools.in_process import ROOT
from toy_prior import CHECKPOINT, DISTILLED
from toy_prior.train import SHIFT, build_prior, cell_weights
from toy_prior.training import DEVICE, adamw, ema_share, generator, log, schedule
from toy_prior.training import train as run_training
from toy_prior.transformer import CONTEXT, POOLED

SEED = 3 * 10**6
PATHS, PATH_BATCH, PATH_STEPS = 2048, 32, 24
STEPS, BATCH, RATE, EMA = 450, 32, 2e-4, 0.99
PREFIX = "model.diffusion_model."


def sigma_of(time: float) -> float:
    """Noise of a shifted flow at a time from 0 to 1, as the host's schedule `simple` has it."""
    return SHIFT * time / (1 + (SHIFT - 1) * time)


# Those of four steps of the schedule `simple`.
LEVELS = tuple(sigma_of(time) for time in (1.0, 0.75, 0.5, 0.25))


def load_prior() -> nn.Module:
    """The toy prior's network."""
    model = build_prior()
    tensors = load_file(CHECKPOINT)
    model.load_state_dict({name[len(PREFIX) :]: value for name, value in tensors.items() if name.startswith(PREFIX)})
    return model.requires_grad_(False)


def velocity(model: nn.Module, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The network's answer for states (N, 16, 16, 16) at noise (N,)."""
    rows = len(z)
    out: torch.Tensor = model(
        z, sigma * 1000, context=torch.zeros(rows, 1, CONTEXT).to(z), y=torch.zeros(rows, POOLED).to(z)
    )
    return out


@torch.no_grad()
def draw_paths(teacher: nn.Module, work: Path) -> torch.Tensor:
    """States (N, 5, 16, 16, 16) of the teacher's paths at `LEVELS`, and where they end."""
    file = work / "paths.pt"
    found = torch.load(file, weights_only=True) if file.exists() else torch.empty(0, len(LEVELS) + 1, 16, 16, 16)
    sigmas = [sigma_of(1 - step / PATH_STEPS) for step in range(PATH_STEPS + 1)]
    clock = time.time()
    for first in range(len(found), PATHS, PATH_BATCH):
        z = torch.randn(PATH_BATCH, 16, 16, 16, generator=torch.Generator().manual_seed(SEED + first)).to(DEVICE)
        states = []
        for sigma, lower in zip(sigmas, sigmas[1:], strict=False):
            if any(math.isclose(sigma, level) for level in LEVELS):
                states.append(z)
            z = z + (lower - sigma) * velocity(teacher, z, torch.full((PATH_BATCH,), sigma).to(z))
        found = torch.cat([found, torch.stack([*states, z], 1).cpu()])
        if first // PATH_BATCH % 8 == 7:
            log.info("paths %d/%d (%.2f s each)", len(found), PATHS, (time.time() - clock) / (8 * PATH_BATCH))
            clock = time.time()
            torch.save(found, file)
    torch.save(found, file)
    return found


def train(teacher: nn.Module, paths: torch.Tensor, work: Path) -> nn.Module:
    student = copy.deepcopy(teacher).requires_grad_(True)
    levels, weights = torch.tensor(LEVELS), cell_weights().to(DEVICE)

    def loss_of(step: int) -> torch.Tensor:
        rows = torch.randint(len(paths), (BATCH,), generator=generator(SEED + 10**6 + step))
        # As many of each level.
        at = torch.arange(BATCH) % len(LEVELS)
        z, end, sigma = (part.to(DEVICE) for part in (paths[rows, at], paths[rows, -1], levels[at]))
        x0 = z - sigma[:, None, None, None] * velocity(student, z, sigma)
        return (weights * (x0 - end).square()).mean()

    return run_training(
        student,
        [adamw(student.parameters(), RATE)],
        loss_of,
        STEPS,
        work / "student.pt",
        rate=lambda step: RATE * schedule(step, STEPS, 20),
        ema=lambda step: ema_share(step - 1, EMA),
        every=50,
    )


@torch.no_grad()
def spread(model: nn.Module, sigma: float = 1.0) -> float:
    """Variance of the network's pictures over noises: none at full noise for a mean, that of pictures for a sample."""
    z = torch.randn(64, 16, 16, 16, generator=torch.Generator().manual_seed(SEED - 1)).to(DEVICE)
    return float((z - sigma * velocity(model, z, torch.full((64,), sigma).to(z))).var(0).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "toy_prior")
    parser.add_argument("--out", type=Path, default=DISTILLED)
    options = parser.parse_args()
    logging.basicConfig(force=True, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options.work.mkdir(parents=True, exist_ok=True)
    teacher = load_prior()
    student = train(teacher, draw_paths(teacher, options.work), options.work)
    log.info("pictures from noise in one step vary by %.3f, the teacher's by %.3f", spread(student), spread(teacher))
    tensors = load_file(CHECKPOINT)
    tensors |= {f"{PREFIX}{name}": value.detach().half().contiguous() for name, value in student.state_dict().items()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, options.out)
    log.info("wrote %s", options.out.name)


if __name__ == "__main__":
    main()
