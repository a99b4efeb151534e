"""Rendered scenes as a world: dependent attributes, and a lamp whose direction is continuous."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import torch
from einops import rearrange, repeat
from safetensors import safe_open

from benchmarks.harness.host import PACK
from benchmarks.portraits.methods import KSAMPLER
from benchmarks.worlds.distributions import crps, total_variation, tv_floor, wasserstein_uniform
from benchmarks.worlds.world import EXACT, NO_PROMPT, Judgement, Prior, Prompts, Wording
from toy_prior import SCENES, scenes
from toy_prior import model as toy
from toy_prior.scenes import holes as masks
from toy_prior.scenes.attributes import ATTRIBUTES, AZIMUTHS, Attributes, posterior
from toy_prior.scenes.reader import AZIMUTH_TOLERANCE, TOLERANCE, TOLERANCE_KEY, Reading, read
from toy_prior.training import DEVICE

SEED = 5 * 10**8 + 2
HELD_OUT = 1000


@cache
def _prior(file: Path) -> Prior:
    return Prior(*toy.load(file))


@cache
def tolerance(file: Path) -> dict[str, float]:
    """What the reader allows fills of a checkpoint, that of rendered pictures where it does not say."""
    if not file.is_file():
        return TOLERANCE
    with safe_open(file, "pt") as stored:
        told: dict[str, float] = json.loads((stored.metadata() or {}).get(TOLERANCE_KEY, "{}"))
    return {**TOLERANCE, **told}


@dataclass(frozen=True)
class Scenes:
    """See `World`."""

    name: str = "scenes"
    tuned: str = "nothing was tuned on it"
    file: Path = SCENES
    methods: Sequence[str] = (EXACT, "balanced", "fast", "thorough", KSAMPLER, "LanPaint", "pigdm", "ding")
    latent_shape: tuple[int, int, int] = (16, 32, 32)
    picture_bound: bool = False
    holes: Sequence[str] = ("right", "top", "bottom", "centre", "blocks", "border", "strip")
    every_hole: Sequence[str] = masks.HOLES
    held_out: int = HELD_OUT
    wordings: Sequence[Wording] = field(default=(NO_PROMPT,))

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.file,)

    @property
    def maker(self) -> str:
        return "python -m toy_prior.train_scenes"

    def load(self) -> Prior:
        return _prior(self.file)

    def truths(self, count: int) -> Attributes:
        return scenes.sample_attributes(HELD_OUT, torch.Generator().manual_seed(SEED))[:count]

    def render(self, truths: Attributes) -> torch.Tensor:
        return scenes.render(truths.to(DEVICE)).cpu()

    def hole(self, name: str) -> torch.Tensor:
        return masks.hole(name)

    def prompts(self, wording: Wording, truth: Attributes, picture: torch.Tensor, hole: torch.Tensor) -> Prompts:
        empty = PACK.host.text_inputs.zero_conditioning(self.load().model)
        return Prompts(empty, empty)

    def exact(self, truths: Attributes, hole: torch.Tensor, fills: int, generator: torch.Generator) -> torch.Tensor:
        """Attributes are drawn exactly; mottling and noise of what is hidden are drawn anew, whatever is beside it."""
        hidden = masks.evidence(truths.to(DEVICE), hole).hidden
        drawn = []
        for row in range(len(truths)):
            names = [name for name in ATTRIBUTES if bool(hidden[name][row])]
            values = {name: value[row].repeat(fills) for name, value in truths.values.items()}
            azimuth = truths.azimuth[row].repeat(fills)
            # One after the other, each given those before.
            for index, name in enumerate(names):
                values[name] = torch.multinomial(posterior(names[index:], values)[name], 1, generator=generator)[:, 0]
            if bool(hidden["azimuth"][row]):
                low, high = torch.tensor(AZIMUTHS)[values["time"]].T
                azimuth = low + (high - low) * torch.rand(fills, generator=generator)
            number = torch.randint(2**40, (fills,), generator=generator)
            painted = self.render(Attributes(azimuth, values, number))
            drawn.append(torch.where(hole, painted, self.render(truths[row : row + 1])))
        return torch.cat(drawn)

    def judge(
        self,
        painted: torch.Tensor,
        truths: Attributes,
        hole: torch.Tensor,
        fills: int,
        wording: Wording = NO_PROMPT,
    ) -> Judgement:
        told = masks.evidence(truths.to(DEVICE), hole)
        reading = read(painted.to(DEVICE), tolerance(self.file))
        right = torch.ones(len(painted), dtype=torch.bool, device=painted.device)
        for name, flags in told.determined.items():
            right &= _agrees(name, reading, truths, fills) | ~repeat(flags.cpu(), "n -> (n fills)", fills=fills)
        valid = reading.valid.cpu()
        found = Judgement(
            valid=float(valid.float().mean()),
            consistent=float(right.float().mean()),
            both=float((valid & right).float().mean()),
        )
        drawn = {
            name: rearrange(value.cpu(), "(n fills) -> n fills", fills=fills)
            for name, value in (*reading.attributes.values.items(), ("azimuth", reading.attributes.azimuth))
        }
        hidden = {name: flags.cpu() for name, flags in told.hidden.items()}
        distances, floors = [], []
        for row in range(len(truths)):
            names = [name for name in ATTRIBUTES if bool(hidden[name][row])]
            for name, exact in posterior(names, truths[row : row + 1].values).items():
                distances.append(float(total_variation(drawn[name][row], exact[0])))
                floors.append(tv_floor(tuple(exact[0].tolist()), fills))
        if distances:
            found = replace(found, tv=sum(distances) / len(distances), floor=sum(floors) / len(floors))
        unlit = hidden["azimuth"]
        if bool(unlit.any()):
            low, high = torch.tensor(AZIMUTHS)[truths.values["time"][unlit]].T
            found = replace(
                found,
                crps=float(crps(drawn["azimuth"][unlit], truths.azimuth[unlit]).mean()),
                wasserstein=float(wasserstein_uniform(drawn["azimuth"][unlit], low, high).mean()),
            )
        return found


def _agrees(name: str, reading: Reading, truths: Attributes, fills: int) -> torch.Tensor:
    """Fills that have the truth's value of an attribute, or whose solids are all lit from the truth's azimuth."""
    if name != "azimuth":
        return reading.attributes.values[name].cpu() == repeat(truths.values[name], "n -> (n fills)", fills=fills)
    away = torch.stack(list(reading.azimuths.values())).cpu() - repeat(truths.azimuth, "n -> (n fills)", fills=fills)
    return (away.nan_to_num().abs() <= AZIMUTH_TOLERANCE).all(0)


SCENES_WORLD = Scenes()
