"""What visible latent cells owe to hidden pixels, and how much of it is known: autoencoders in the layouts of real models.

    python3 run.py benchmark crosstalk [--pictures 2] [--autoencoders NAME ...] [--holes NAME ...] [--quick]

SD1.5's and Flux's autoencoders at their true width, and so with their true receptive field, have weights drawn at random;
that of the toy prior is trained.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import nn

from benchmarks.harness.benchmark import Axis, Benchmark, Count, IsNeeded, Options
from benchmarks.harness.host import PACK
from benchmarks.harness.results import commit
from benchmarks.harness.tables import Column, legend, sections
from benchmarks.portraits.prior import HELD_OUT, held_out, prior
from toy_prior import pictures

core: Any = PACK.core
SEED = 0
# Layout of the encoder that SD1.5, SDXL, SD3.5 and Flux share.
_KL = {
    "double_z": True,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
# Visible cells by their distance from the nearest hidden or cut one; then the cut cells themselves.
CUT = "cut"
PLACES = ("1", "2", "3", "4 and more", CUT)


def _random_kl(channels: int, quantised: bool) -> Any:
    """An AutoencoderKL of the host with random weights. quantised: with the 1 x 1 convolutions of SD1.5's."""
    import comfy.ldm.models.autoencoder as autoencoder
    import comfy.sd

    torch.manual_seed(SEED)
    model = autoencoder.AutoencoderKL(ddconfig={**_KL, "z_channels": channels}, embed_dim=channels)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.Conv2d.reset_parameters(layer)
        elif isinstance(layer, nn.GroupNorm):
            nn.GroupNorm.reset_parameters(layer)
    weights = {name: value for name, value in model.state_dict().items() if quantised or "quant_conv" not in name}
    return comfy.sd.VAE(sd=weights)


AUTOENCODERS: dict[str, Callable[[], Any]] = {
    "toy prior, trained": lambda: prior().vae,
    "SD1.5, random": lambda: _random_kl(4, quantised=True),
    "Flux, random": lambda: _random_kl(16, quantised=False),
}
DISC = "disc"
HOLES = ("right", "centre", "strip", "cut", DISC)


@dataclass(frozen=True)
class Row:
    """Cells of one place; deviations in units of the latents' own. See `COLUMNS`."""

    autoencoder: str
    hole: str
    place: str
    pictures: int
    cells: int
    moved: float
    left: float | None
    calibration: float | None
    commit: str


def hole_of(name: str) -> torch.Tensor:
    """(H, W) bool."""
    if name != DISC:
        return pictures.hole(name)
    axis = torch.arange(pictures.SIZE) - (pictures.SIZE - 1) / 2
    return axis[:, None] ** 2 + axis**2 < 36**2


def measure_hole(autoencoder: str, vae: Any, name: str, count: int) -> Iterator[Row]:
    """Rows of one hole in the first `count` held-out portraits."""
    originals = rearrange(pictures.render(held_out(count)), "n c h w -> n h w c")
    hole = repeat(hole_of(name).float(), "h w -> n 1 h w", n=count)
    with torch.inference_mode():
        filled = PACK.observation.fill_from_nearest(originals, hole)
        others = PACK.observation.fill_with_noise(filled, hole, PACK.observation.cell_of(vae))
        true, own, *rest = (PACK.observation.encode(vae, batch).float() for batch in (originals, filled, *others))
        # Model scale is that of unit variance.
        mean, deviation = true.mean(), true.std()
        true, own, *rest = ((latents - mean) / deviation for latents in (true, own, *rest))
        moved = torch.stack(rest) - own
        weight = 1 - PACK.observation.latent_hole(hole, own.shape[-2:])
        kernel, variance = core.measure_crosstalk(moved, weight > 0)
        cut = core.measure_cut_cells(moved, own, hole > 0)
        observation = core.LatentObservation.masked(
            own, weight, crosstalk=kernel, crosstalk_variance=variance, cut=cut
        ).with_crosstalk_as_noise()
        residual = observation.residual(true)
        expected = observation.sigma_y**2 / observation.weight.clamp_min(1e-30)
    visible, is_cut = weight > 0, (observation.weight > 0) & (weight == 0)
    distances = [1 - F.max_pool2d(1 - weight, 2 * cells + 1, 1, cells) for cells in (1, 2, 3)]
    away = visible + sum(distances)
    # Of cut cells the directions of which more is told than any latent's own variance does.
    precision = F.pad(cut.maps.square().sum(-1), (0, 0, 1, 0))
    told = torch.stack([rows[kind.long()] for rows, kind in zip(precision, cut.kind[:, 0], strict=True)])
    told = (rearrange(told, "b h w c -> b c h w") > 1) | ~is_cut
    places = [visible & (away == number) for number in (1, 2, 3, 4)] + [is_cut]
    for place, cells in zip(PLACES, places, strict=True):
        if not bool(cells.any()):
            continue
        chosen = cells.expand_as(true)
        squares = (residual.square() / expected)[chosen & told]
        yield Row(
            autoencoder,
            name,
            place,
            count,
            int(cells.sum()),
            moved=float((true - own)[chosen].square().mean().sqrt()),
            # In cut cells the residual is in units of its noise.
            left=None if place == CUT else float(residual[chosen].square().mean().sqrt()),
            calibration=float(squares.mean()) if len(squares) else None,
            commit=commit(),
        )


def measure(options: Options, is_needed: IsNeeded) -> Iterator[Row]:
    for autoencoder in options.autoencoders:
        vae = AUTOENCODERS[autoencoder]()
        for name in options.holes:
            yield from measure_hole(autoencoder, vae, name, options.pictures)


COLUMNS: tuple[Column[Row], ...] = (
    Column("hole", lambda row: row.hole),
    Column("cells from the hole", lambda row: row.place, meaning="`cut`: cells with visible and hidden pixels"),
    Column("cells", lambda row: row.cells),
    Column(
        "owed",
        lambda row: row.moved,
        "{:.3f}",
        "root mean square change of the latents from the filled picture to the true one, in units of the latents' "
        "standard deviation",
    ),
    Column("left", lambda row: row.left, "{:.3f}", "the same, less what the crosstalk kernel explains by hidden cells"),
    Column(
        "calibration",
        lambda row: row.calibration,
        "{:.2f}",
        "mean of what is left, squared, over the variance that the posterior counts with: above 1 it trusts too much; in cut "
        "cells over the combinations of channels that their visible pixels tell more of than the latents' own variance",
    ),
)


def tables(rows: list[Row]) -> str:
    return sections(rows, lambda row: row.autoencoder, COLUMNS)


BENCHMARK = Benchmark(
    name="crosstalk",
    title="What visible latent cells owe to hidden pixels",
    row=Row,
    measure=measure,
    tables=tables,
    axes=(
        Axis("autoencoder", list(AUTOENCODERS), "autoencoders", quick=("toy prior, trained",)),
        Axis("hole", HOLES, "holes", quick=("cut",)),
        Axis("place", PLACES),
    ),
    counts=(Count("pictures", usual=4, quick=1, most=HELD_OUT),),
    explanation=f"""\
Portraits whose hole is filled from its nearest visible pixels, as the nodes encode them, against the true portraits, which
no node sees.

{legend(COLUMNS)}
""",
    facts=lambda options: f"{options.pictures} pictures",
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
