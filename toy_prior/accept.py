"""Checks the priors through the host and writes what it measured.

    python -m toy_prior.accept [portraits|unet|scenes|pixels] [--samples 1000] [--out FILE]

Exit code 1 where a requirement is missed.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from tools import in_process
from toy_prior import CHECKPOINT, PIXELS, SCENES, UNET, UNET_VAE, pictures, pixels, scenes
from toy_prior import model as toy
from toy_prior.scenes import attributes as of_scenes
from toy_prior.scenes.reader import TOLERANCE_KEY, Reading, read
from toy_prior.training import DEVICE

# Training draws its pictures from other seeds.
HELD_OUT_SEED = 5 * 10**8
HELD_OUT = 256
BATCH = 50


class Requirement(NamedTuple):
    """What is required of a quantity, and what was measured, in words."""

    quantity: str
    required: str
    measured: str
    is_met: bool

    @classmethod
    def at_least(cls, quantity: str, limit: float, value: float, form: str) -> Requirement:
        return cls(quantity, f">= {form.format(limit)}", form.format(value), value >= limit)

    @classmethod
    def at_most(cls, quantity: str, limit: float, value: float, form: str) -> Requirement:
        return cls(quantity, f"<= {form.format(limit)}", form.format(value), value <= limit)


def samples_of(model: Any, vae: Any, shape: tuple[int, ...], count: int) -> Iterator[torch.Tensor]:
    """So many unconditional pictures, a batch after the other."""
    conditioning = in_process.load_pack().host.text_inputs.zero_conditioning(model)
    for first in range(0, count, BATCH):
        zeros = torch.zeros(min(BATCH, count - first), *shape)
        yield toy.decode(vae, toy.ksampler(model, conditioning, zeros, first))
        print(f"{first + len(zeros)}/{count}", flush=True)


def psnr(found: torch.Tensor, originals: torch.Tensor) -> float:
    return -10 * math.log10(float((found - originals).square().mean()))


def file_size(file: Path, limit: float) -> Requirement:
    return Requirement.at_most("file size", limit, file.stat().st_size / 1e6, "{:.1f} MB")


def read_portraits(drawn: torch.Tensor) -> list[Requirement]:
    """What samples of portraits are, by the reader."""
    reading = pictures.read(drawn)
    valid, agree = (100 * float(flags.float().mean()) for flags in (reading.valid, reading.eyes_agree))
    found = [
        Requirement.at_least("samples read as valid pictures", 95, valid, "{:.1f} %"),
        Requirement.at_least("left and right eye agree", 98, agree, "{:.1f} %"),
    ]
    for name, values in reading.attributes.discrete().items():
        tv = float(pictures.total_variation(values, pictures.ATTRIBUTES[name]))
        found.append(Requirement.at_most(f"total variation of `{name}` from uniform", 0.08, tv, "{:.3f}"))
    return found


def portraits(samples: int) -> list[Requirement]:
    return _latent_portraits(CHECKPOINT, None, toy.LATENT_SHAPE, samples, psnr_limit=36, size_limit=25)


def portraits_of_unet(samples: int) -> list[Requirement]:
    """Of the empty prompt; four channels carry less of a picture than sixteen."""
    return _latent_portraits(UNET, UNET_VAE, (4, 16, 16), samples, psnr_limit=30, size_limit=30)


def _latent_portraits(
    file: Path, vae_file: Path | None, shape: tuple[int, ...], samples: int, *, psnr_limit: float, size_limit: float
) -> list[Requirement]:
    model, vae = toy.load(file, vae_file)
    generator = torch.Generator().manual_seed(HELD_OUT_SEED)
    originals = pictures.render(pictures.sample_attributes(HELD_OUT, generator))
    passed = toy.decode(vae, toy.encode(vae, originals))
    valid = 100 * float(pictures.read(passed).valid.float().mean())
    return [
        Requirement.at_least(
            f"autoencoder PSNR, {HELD_OUT} held-out pictures", psnr_limit, psnr(passed, originals), "{:.2f} dB"
        ),
        Requirement.at_least("these pictures, autoencoded, read as valid", 99, valid, "{:.1f} %"),
        *read_portraits(torch.cat(list(samples_of(model, vae, shape, samples)))),
        file_size(file, size_limit),
    ]


def small_portraits(samples: int) -> list[Requirement]:
    model, vae = pixels.load()
    drawn = torch.cat(list(samples_of(model, vae, (pixels.CHANNELS, pixels.SIDE, pixels.SIDE), samples)))
    return [*read_portraits(drawn), file_size(PIXELS, 10)]


def rendered_scenes(samples: int) -> list[Requirement]:
    model, vae = toy.load(SCENES)
    with safe_open(SCENES, "pt") as stored:
        tolerance = json.loads(stored.metadata()[TOLERANCE_KEY])
    truth = scenes.sample_attributes(HELD_OUT, torch.Generator().manual_seed(HELD_OUT_SEED))
    originals = scenes.render(truth.to(DEVICE)).cpu()
    passed = toy.decode(vae, toy.encode(vae, originals))
    quality = psnr(passed, originals)
    found = [Requirement.at_least(f"autoencoder PSNR, {HELD_OUT} held-out pictures", 32, quality, "{:.2f} dB")]
    for name, shown in (("rendered", originals), ("autoencoded", passed)):
        reading = read(shown.to(DEVICE), tolerance)
        right = [
            float((reading.attributes.values[key].cpu() == truth.values[key]).float().mean()) for key in truth.values
        ]
        away = (reading.attributes.azimuth.cpu() - truth.azimuth).abs()
        valid = 100 * float(reading.valid.float().mean())
        found += [
            Requirement.at_least(f"{name}: worst attribute read right", 99, 100 * min(right), "{:.1f} %"),
            Requirement.at_most(
                f"{name}: error of the lamp's azimuth, 95 %", 3, float(away.quantile(0.95)), "{:.2f} deg"
            ),
            Requirement.at_least(f"{name}: read as valid pictures", 95, valid, "{:.1f} %"),
        ]
    readings = [read(drawn.to(DEVICE), tolerance) for drawn in samples_of(model, vae, (16, 32, 32), samples)]
    return [*found, *_sampled_scenes(readings), file_size(SCENES, 28)]


def _sampled_scenes(readings: list[Reading]) -> list[Requirement]:
    """What samples of scenes are: valid, lit by one lamp, with the attributes' joint distribution."""
    valid, agree = (
        100 * float(torch.cat([getattr(reading, flags) for reading in readings]).float().mean())
        for flags in ("valid", "lamps_agree")
    )
    found = [
        Requirement.at_least("samples read as valid pictures", 90, valid, "{:.1f} %"),
        Requirement.at_least("samples lit by one lamp", 95, agree, "{:.1f} %"),
    ]
    values = {
        name: torch.cat([reading.attributes.values[name] for reading in readings]).cpu() for name in scenes.ATTRIBUTES
    }
    for name, size in scenes.ATTRIBUTES.items():
        # With the attribute that it depends on.
        pair = [name] if name not in of_scenes.PARENTS else [of_scenes.PARENTS[name], name]
        chain = next(chain for chain in of_scenes.chains() if name in chain)
        others = [axis for axis, other in enumerate(chain) if other not in pair]
        exact = of_scenes.joint(chain).sum(others) if others else of_scenes.joint(chain)
        index = sum(values[other] * scale for other, scale in zip(pair, (size, 1)[-len(pair) :], strict=True))
        share = torch.bincount(torch.as_tensor(index), minlength=exact.numel()).double() / len(values[name])
        tv = float(0.5 * (share - exact.flatten()).abs().sum())
        words = " and ".join(f"`{other}`" for other in pair)
        found.append(Requirement.at_most(f"total variation of {words} from the joint", 0.12, tv, "{:.3f}"))
    return found


PRIORS: dict[str, Callable[[int], list[Requirement]]] = {
    "portraits": portraits,
    "unet": portraits_of_unet,
    "scenes": rendered_scenes,
    "pixels": small_portraits,
}


def table(found: list[Requirement]) -> str:
    rows = [("quantity", "required", "measured", "met"), ("---", "--:", "--:", "--:")]
    rows += [(*one[:3], "yes" if one.is_met else "NO") for one in found]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", nargs="?", choices=list(PRIORS), default="portraits")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    is_first = options.prior == "portraits"
    out = options.out or CHECKPOINT.parent / ("acceptance.md" if is_first else f"acceptance_{options.prior}.md")
    with torch.inference_mode():
        found = PRIORS[options.prior](options.samples)
    title = "the toy prior" if is_first else f"the prior of {options.prior}"
    command = "python -m toy_prior.accept" if is_first else f"python -m toy_prior.accept {options.prior}"
    text = (
        f"# Acceptance of {title}\n\n"
        f"`{command}`: {options.samples} unconditional samples, "
        f"{toy.EULER_STEPS} Euler steps by the host's KSampler.\n\n{table(found)}"
    )
    out.write_text(text, "utf-8")
    print(text)
    return 0 if all(one.is_met for one in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
