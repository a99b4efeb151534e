"""Checks the shipped toy prior through the host and writes what it measured.

    python -m toy_prior.accept [--samples 1000] [--out FILE]

Exit code 1 where a requirement is missed.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import NamedTuple

import torch

from tools import in_process
from toy_prior import CHECKPOINT, pictures
from toy_prior import model as toy

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


@torch.inference_mode()
def measure(samples: int) -> list[Requirement]:
    """Quality of the autoencoder, and of so many samples of the prior."""
    model, vae = toy.load()
    conditioning = in_process.load_pack().host.text_inputs.zero_conditioning(model)
    generator = torch.Generator().manual_seed(HELD_OUT_SEED)
    originals = pictures.render(pictures.sample_attributes(HELD_OUT, generator))
    error = (toy.decode(vae, toy.encode(vae, originals)) - originals).square().mean((1, 2, 3))
    psnr = -10 * math.log10(float(error.mean()))
    drawn = []
    for first in range(0, samples, BATCH):
        zeros = torch.zeros(min(BATCH, samples - first), *toy.LATENT_SHAPE)
        drawn.append(toy.decode(vae, toy.ksampler(model, conditioning, zeros, first)))
        print(f"{first + len(zeros)}/{samples}", flush=True)
    reading = pictures.read(torch.cat(drawn))
    valid, agree = (float(flags.float().mean()) for flags in (reading.valid, reading.eyes_agree))
    megabytes = CHECKPOINT.stat().st_size / 1e6
    found = [
        Requirement(f"autoencoder PSNR, {HELD_OUT} held-out pictures", ">= 36 dB", f"{psnr:.2f} dB", psnr >= 36),
        Requirement("samples read as valid pictures", ">= 95 %", f"{100 * valid:.1f} %", valid >= 0.95),
        Requirement("left and right eye agree", ">= 98 %", f"{100 * agree:.1f} %", agree >= 0.98),
    ]
    for name, values in reading.attributes.discrete().items():
        tv = float(pictures.total_variation(values, pictures.ATTRIBUTES[name]))
        found.append(Requirement(f"total variation of `{name}` from uniform", "<= 0.08", f"{tv:.3f}", tv <= 0.08))
    found.append(Requirement("file size", "<= 25 MB", f"{megabytes:.1f} MB", megabytes <= 25))
    return found


def table(found: list[Requirement]) -> str:
    rows = [("quantity", "required", "measured", "met"), ("---", "--:", "--:", "--:")]
    rows += [(*one[:3], "yes" if one.is_met else "NO") for one in found]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=CHECKPOINT.parent / "acceptance.md")
    options = parser.parse_args()
    found = measure(options.samples)
    text = (
        "# Acceptance of the toy prior\n\n"
        f"`python -m toy_prior.accept`: {options.samples} unconditional samples, "
        f"{toy.EULER_STEPS} Euler steps by the host's KSampler.\n\n{table(found)}"
    )
    options.out.write_text(text, "utf-8")
    print(text)
    return 0 if all(one.is_met for one in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
