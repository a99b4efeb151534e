"""What the trainings of the small models share: rates, optimisers, and a loop that goes on where it stopped."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

log = logging.getLogger("train")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def schedule(step: int, steps: int, warmup: int = 100) -> float:
    """Share of the full rate: linear warm-up, then a cosine to one hundredth."""
    return min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def ema_share(step: int, limit: float) -> float:
    """What an average of weights keeps of itself at a step: little at first, `limit` in the end."""
    return min(limit, (step + 1) / (step + 10))


def generator(seed: int, device: str = "cpu") -> torch.Generator:
    """One for every step: a run that goes on sees the batches of an uninterrupted one."""
    return torch.Generator(device).manual_seed(seed)


def autocast() -> torch.autocast:
    """bfloat16 where it is exact enough."""
    return torch.autocast(DEVICE, torch.bfloat16)


def save(state: dict, file: Path) -> None:
    """Writes a training checkpoint; an interrupted write leaves the old one."""
    torch.save(state, file.with_suffix(".part"))
    file.with_suffix(".part").replace(file)


def half(value: torch.Tensor) -> torch.Tensor:
    """A tensor as checkpoints keep it."""
    return value.detach().half().cpu().contiguous()


def write_checkpoint(tensors: dict[str, torch.Tensor], metadata: dict[str, str], out: Path) -> None:
    """Writes a safetensors file."""
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out, metadata)
    log.info("wrote %s, %.1f MB", out.name, out.stat().st_size / 1e6)


def adamw(parameters: Iterable[nn.Parameter], rate: float, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """AdamW with the short memory that all trainings here have."""
    # One kernel for all parameters of a GPU.
    fused = {"fused": True} if DEVICE == "cuda" else {}
    return torch.optim.AdamW(parameters, rate, betas=(0.9, 0.98), weight_decay=weight_decay, **fused)


def muon_and_adamw(
    model: nn.Module, is_matrix: Callable[[str], bool], rate: float, weight_decay: float = 0.01
) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the matrices whose names are chosen, AdamW for the rest, at one rate."""
    named = dict(model.named_parameters())
    matrices = [name for name, value in named.items() if value.ndim == 2 and is_matrix(name)]
    rest = [value for name, value in named.items() if name not in matrices]
    return [
        torch.optim.Muon([named[name] for name in matrices], rate, weight_decay, adjust_lr_fn="match_rms_adamw"),
        adamw(rest, rate, weight_decay),
    ]


def train(
    model: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    loss_of: Callable[[int], torch.Tensor],
    steps: int,
    file: Path,
    *,
    rate: Callable[[int], float],
    ema: Callable[[int], float] | None = None,
    every: int = 250,
    note: Callable[[], str] = str,
) -> nn.Module:
    """Trains a model in place, from where `file` has stopped, and returns the average of its weights.

    loss_of(step): the loss of the batch that the step's number decides, with its graph.
    file: the state of the training, after every `every` steps and the last one; its stem names it in the log.
    rate(step): of all optimisers.
    ema(step): what the average keeps of itself, see `ema_share`; None: no average, the model itself is returned.
    note(): what the log says beside the loss.

    Raises FloatingPointError where the loss is not finite; the file then has the state before.
    """
    # What is left of float32 as fast as the GPU has it, and of its convolutions the fastest: shapes stay the same.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    average = model if ema is None else copy.deepcopy(model).requires_grad_(False)
    start = 0
    if file.exists():
        state = torch.load(file, map_location=DEVICE, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        start = state["step"]
    parameters: list[torch.Tensor] = list(model.parameters())
    averaged: list[torch.Tensor] = list(average.parameters())
    losses: list[torch.Tensor] = []
    clock = time.time()
    for step in range(start, steps):
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate(step)
        loss = loss_of(step)
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser in optimisers:
            optimiser.step()
        if ema is not None:
            with torch.no_grad():
                torch._foreach_lerp_(averaged, parameters, 1 - ema(step))
        # Nothing above waits for a GPU: losses are looked at together.
        losses.append(loss.detach())
        if (step + 1) % every == 0 or step + 1 == steps:
            mean = torch.stack(losses).mean().item()
            if not math.isfinite(mean):
                raise FloatingPointError(f"{file.stem}: the loss is {mean} before step {step + 1}; lower the rate")
            pace = (time.time() - clock) / len(losses)
            log.info("%s %d/%d: loss %.4f (%.3f s a step) %s", file.stem, step + 1, steps, mean, pace, note())
            state = {"model": model.state_dict(), "average": average.state_dict()}
            save({**state, "optimisers": [one.state_dict() for one in optimisers], "step": step + 1}, file)
            clock, losses = time.time(), []
    return average
