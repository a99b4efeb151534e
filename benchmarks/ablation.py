"""What each part of the default preset is worth: it is changed alone, on mixtures and on the toy prior.

    python3 run.py benchmark ablation [--problems 8] [--samples 500] [--pictures 5] [--fills 16] [--quick]

`mask`, `linear`, `apart`: mean sliced Wasserstein distance to the exact posterior over the mixtures of
`benchmark gmm` with 8 and 80 dimensions; lower is better. Then per hole of `benchmark toy`: fills that
are valid and consistent, and the hidden attributes' total variation above an exact sampler's.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from functools import lru_cache
from typing import Any

from benchmarks import gmm, toy
from benchmarks.mixture import MEASUREMENTS, Cell
from benchmarks.mixture_tables import EXACT
from benchmarks.report import QUICK, RESULTS, markdown, provenance, write_csv
from benchmarks.samplers import PACK
from toy_prior import model as toy
from vipaint_core import PRESETS, Preset

DEFAULT = PRESETS["balanced"]
DEEP = PRESETS["fast"].levels
HOLES = ("top", "border")


def change(name: str, **changes: Any) -> Preset:
    return replace(DEFAULT, name=name, **changes)


def fitted(name: str, **changes: Any) -> Preset:
    """Fifty Adam steps on keypoints that reach down to where the refinement has little left to do."""
    return change(name, **{"levels": DEEP, "steps": 50, "upper_evidence": 1.0, **changes})


PARTS: dict[str, tuple[Preset, ...]] = {
    "": (DEFAULT,),
    "keypoints": (
        change("at 10", levels=(10.0,)),
        change("at 3", levels=(3.0,)),
        change("at 1 and 3, as published", levels=(1.0, 3.0)),
        change("at 1, 1.5, 2.2 and 3", levels=(1.0, 1.5, 2.2, 3.0)),
        change("five from 30 to 0.7", levels=DEEP),
    ),
    "fit": (
        fitted("five keypoints, 50 steps"),
        fitted("evidence at the lowest only", upper_evidence=0.0),
        fitted("no prior term", beta_prior=0.0),
        fitted("no hierarchy term", beta_hierarchy=0.0),
        fitted("likelihood without the estimate's variance", calibrated=False),
        fitted("top term by the diffusion loss", v_range=(0.01, 100.0)),
        fitted("at 1 and 3, as published, 50 steps", levels=(1.0, 3.0)),
    ),
    "refiner": (
        change("closed form only", refiner="closed_form"),
        change("diagonal, as PiGDM", refiner="pigdm"),
        change("moment matching to 0", guided_above=0.0),
        change("moment matching to 1", guided_above=1.0),
        change("half the solver steps", solver_steps=3),
        change("every level's solver from nothing", warm_start=False),
        change("one round", rounds=1),
        change("three rounds", rounds=3),
        change("rounds from 3 on", late=3.0),
        change("rounds from 20 on", late=20.0),
        change("first order", second_order=False),
        change("noise to the end", final_eta=1.0),
        change("twice the levels", refine_steps=22),
        change("levels at the top farther apart", rho=7.0),
        change("down to 0.03", s_min=0.03),
        PRESETS["thorough"],
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--pictures", type=int, default=5)
    parser.add_argument("--fills", type=int, default=16)
    parser.add_argument("--quick", action="store_true", help="the default and one change, into output/")
    options = parser.parse_args()
    parts, out, dimensions, holes = PARTS, RESULTS, (8, 80), HOLES
    if options.quick:
        parts, out, dimensions, holes = {"": PARTS[""], "refiner": PARTS["refiner"][:1]}, QUICK, (8,), HOLES[:1]
        options.problems, options.samples, options.pictures, options.fills = 1, 200, 1, 2
    presets = {preset.name: preset for group in parts.values() for preset in group}
    if clash := presets.keys() & inpainting.samplers().keys() - PRESETS.keys():
        raise ValueError(f"ablation: the toy benchmark has other samplers named {sorted(clash)}")
    # The node takes presets by name; the changed ones exist in this process only.
    PACK.core.PRESETS.update(
        {name: PACK.core.Preset(**vars(preset)) for name, preset in presets.items() if name != DEFAULT.name}
    )
    methods = {name: gmm.preset_method(preset) for name, preset in presets.items()}
    cells = [Cell(v, d, m) for v in ("mask", "linear", "apart") for d in dimensions for m in MEASUREMENTS]
    exact = gmm.run({EXACT: gmm.exact, **methods}, cells, options.problems, options.samples, known={})
    load = lru_cache(maxsize=None)(toy.load)

    def distances(name: str) -> dict[str, float]:
        found = {}
        for variant in dict.fromkeys(cell.variant for cell in cells):
            found[variant] = statistics.mean(exact[name, cell].distance for cell in cells if cell.variant == variant)
        return found

    rows: list[dict[str, Any]] = [{"part": "", "change": "exact sampler", **distances(EXACT)}]
    for part, group in parts.items():
        for preset in group:
            row: dict[str, Any] = {"part": part, "change": preset.name, **distances(preset.name)}
            for hole in holes:
                score = inpainting.run(preset.name, hole, options.pictures, options.fills, load, fresh=False)
                row |= {f"{hole} both": score.both, f"{hole} TV": (score.tv or 0) - (score.floor or 0)}
                row |= {"forward": score.forward, "backward": score.backward}
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
    columns = list(rows[-1])
    rows = [dict.fromkeys(columns) | row for row in rows]
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "ablation.csv", rows)
    about = (__doc__ or "").split("\n\n")
    (out / "ablation.md").write_text(
        f"# {about[0]}\n\n`python3 run.py benchmark ablation`: {options.problems} problems, {options.samples} samples; "
        f"{options.pictures} pictures, {options.fills} fills; {provenance()}.\n\n{about[2]}\n"
        f"{markdown(columns, [[show(name, row[name]) for name in columns] for row in rows])}",
        "utf-8",
    )


def show(column: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if column.endswith(" both"):
        return f"{100 * value:.1f} %"
    if column.endswith(" TV"):
        return f"{value:+.3f}"
    return f"{value:.0f}" if column in ("forward", "backward") else f"{value:.2f}"


if __name__ == "__main__":
    main()
