"""Draws the same fills in two checkouts of this repository and compares them bit by bit.

    python3 run.py benchmark compare [REVISION | FOLDER] [--only WORD]

Shows that a change of structure has not changed results: every preset, baseline, gradient mode, degradation and picture
node on the toy prior with fixed seeds (float32, CPU, one thread), and the distances of one mixture cell. The other
checkout is a commit (default HEAD~1), checked out in a temporary folder, or an existing folder. What a clean commit
draws is kept in .cache/compare. Exit code 1 where anything differs or fails; the largest differences are listed.

This file stands on its own: it draws with the nodes of checkouts that have other modules than this one.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import importlib
import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tools.comfy_server import ROOT, locate_host

log = logging.getLogger(__name__)

CACHE = ROOT / ".cache" / "compare"
SEED = 11
# Pixels of the pictures' sides: enough for every code path, and fast.
SIDE = 64
# Settings of baselines that would take minutes at their defaults.
FEW_STEPS: dict[str, dict[str, Any]] = {
    "blended": {"steps": 12},
    "repaint": {"steps": 12, "jump": 3, "resamplings": 2},
    "dps": {"steps": 12},
    "psld": {"steps": 12},
    "pigdm": {"steps": 12},
    "red_diff": {"steps": 12},
    "copaint": {"steps": 8},
    "resample": {"steps": 40},
    "daps": {"steps": 6},
    "ding": {"steps": 12},
    "tds": {"steps": 12},
    "langevin": {"steps": 6},
    "flair": {"steps": 12},
}
DEGRADATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "gaussian blur": {"sigma": 1.5},
    "motion blur": {"length": 9.0, "angle": 30.0},
    "super-resolution": {"factor": "2", "kind": "bicubic"},
}

Case = Callable[[], dict[str, torch.Tensor]]


# --- drawing, in a process of its own for each checkout ---


def load_pack(root: Path) -> dict[str, Any]:
    """The node classes of a checkout by their ids."""
    spec = importlib.util.spec_from_file_location(
        "vipaint_pack", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["vipaint_pack"] = module
    spec.loader.exec_module(module)
    nodes = importlib.import_module("vipaint_pack.nodes").NODES
    return {node.define_schema().node_id: node for node in nodes}


def activate_host() -> None:
    """Makes the host importable, in float32 on the CPU with one thread."""
    sys.path[:] = [str(locate_host()[0]), *(entry for entry in sys.path if entry not in ("", str(ROOT)))]
    from comfy.cli_args import args

    args.cpu = args.force_fp32 = args.fp32_vae = args.use_pytorch_cross_attention = True
    torch.set_num_threads(1)


def cases(nodes: dict[str, Any], checkpoint: Path, picture: torch.Tensor, folder: Path) -> Iterator[tuple[str, Case]]:
    """Named draws; picture: (1, SIDE, SIDE, 3)."""
    import folder_paths

    # The host's module: its folder comes first on sys.path.
    stock: Any = importlib.import_module("nodes")
    folder_paths.add_model_folder_path("checkpoints", str(checkpoint.parent))
    folder_paths.folder_names_and_paths["vipaint"] = ([str(folder)], {".safetensors"})
    model, _, vae = stock.CheckpointLoaderSimple().load_checkpoint(checkpoint.name)
    (conditioning,) = nodes["VIPaintUnconditional"].execute(model).result
    hard = torch.zeros(1, SIDE, SIDE)
    hard[:, SIDE // 3 :, SIDE // 2 - 3 :] = 1
    soft = hard.clone()
    soft[:, :, SIDE // 2 - 3 : SIDE // 2 + 2] *= 0.4
    common = {"model": model, "positive": conditioning, "negative": conditioning, "seed": SEED, "cfg": 1.0}
    by_image = {"image": picture, "mask": hard, "vae": vae}
    latent = {"samples": vae.encode(picture), "noise_mask": hard[:, None]}

    def run(node: str, **inputs: Any) -> dict[str, torch.Tensor]:
        found = {}
        for place, value in enumerate(nodes[node].execute(**inputs).result or ()):
            value = value["samples"] if isinstance(value, dict) else value
            if isinstance(value, torch.Tensor):
                found[str(place)] = value.float().contiguous().clone()
        return found

    def inpaint(**inputs: Any) -> Case:
        return partial(run, "VIPaintInpaint", **{**common, "fills": 2, **by_image, **inputs})

    for preset in ("fast", "balanced", "thorough"):
        yield f"preset {preset}", inpaint(preset=preset)
    for preset in ("paper-2", "paper-4"):
        yield f"preset {preset}", inpaint(preset=preset, fills=1)
    for gradients in ("checkpointed", "jacobian_free"):
        yield f"balanced {gradients}", inpaint(preset="balanced", gradients=gradients)
    yield "balanced, soft mask", inpaint(preset="balanced", mask=soft)
    yield "balanced, guidance", inpaint(preset="balanced", cfg=2.5)
    for preset in ("fast", "balanced"):
        yield f"{preset}, latent", inpaint(preset=preset, latent_image=latent, **dict.fromkeys(by_image))
    yield "fast, odd size", inpaint(preset="fast", image=picture[:, :61, :53], mask=hard[:, :61, :53])

    def posterior_file() -> dict[str, torch.Tensor]:
        (fitted,) = nodes["VIPaintFit"].execute(**common, preset="balanced", **by_image).result
        nodes["VIPaintSavePosterior"].execute(fitted, "posterior")
        (file,) = folder.glob("posterior*.safetensors")
        (loaded,) = nodes["VIPaintLoadPosterior"].execute(file.name).result
        return run("VIPaintSample", **common, posterior=loaded, fills=2, first_fill=1)

    yield "posterior file", posterior_file
    for method, settings in FEW_STEPS.items():
        # Qualified as the host hands a choice of inputs to a node.
        chosen = {"method": method, **settings}
        yield f"baseline {method}", partial(run, "VIPaintBaseline", **common, fills=2, method=chosen, **by_image)
    for degradation, settings in DEGRADATIONS.items():
        inputs = {"steps": 6, "attempts": 2, "noise": 0.01, "fills": 1, "image": picture, "vae": vae, "mask": hard}
        inputs["degradation"] = {"degradation": degradation, **settings}
        yield f"restore {degradation}", partial(run, "VIPaintRestore", **common, **inputs)
    generator = torch.Generator().manual_seed(SEED)
    large = torch.rand(2, 150, 170, 3, generator=generator)
    holes = torch.zeros(2, 150, 170)
    holes[0, 20:70, 30:61] = 1
    holes[1, 90:150, 100:170] = 0.7
    sizes = {"width": 96, "height": 64, "context": 1.7, "enlarge": 2.0}

    def crop_and_composite() -> dict[str, torch.Tensor]:
        parts, covers, crop = nodes["VIPaintCrop"].execute(large, holes, **sizes).result
        fills = (0.8 * parts + 0.1).repeat_interleave(2, 0)
        found = run("VIPaintComposite", fills=fills, original=large, mask=holes, feather=3, colour_match=0.8, crop=crop)
        return {"cut": parts.contiguous(), "mask": covers.float().contiguous(), "whole": found["0"]}

    yield "crop and composite", crop_and_composite
    whole = {"fills": 1 - large, "original": large, "mask": holes, "feather": 0, "colour_match": 1.0}
    yield "composite", partial(run, "VIPaintComposite", **whole)
    yield "uncertainty", partial(run, "VIPaintUncertainty", images=large, fills=2)


def draw(only: str, root: Path, checkpoint: Path, picture: Path, out: Path) -> None:
    """Draws all cases of a checkout whose name contains `only` and saves them, with the names of those that failed."""
    activate_host()
    nodes, drawn, failed = load_pack(root), dict[str, torch.Tensor](), []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        shown = load_file(picture)["picture"]
        for name, case in cases(nodes, checkpoint, shown, Path(folder)):
            if only not in name:
                continue
            torch.manual_seed(0)
            try:
                drawn |= {f"{name}, output {place}": tensor for place, tensor in case().items()}
            except Exception:
                failed.append(name)
                log.exception("%s failed in %s", name, root)
            print(f"{root.name:24.24} {name}", flush=True)
    save_file(drawn, out, {"checkout": root.name, **dict.fromkeys(failed, "failed")})


def mixture(root: Path, folder: Path) -> dict[str, torch.Tensor]:
    """Distances and passes of all methods on the smallest mixtures, by the checkout's own benchmark."""
    options = ["--problems", "1", "--samples", "100", "--dimensions", "8", "--variants", "mask", "--out"]
    comfyui, python = locate_host()
    environment = {**os.environ, "COMFYUI_PATH": str(comfyui), "COMFYUI_PYTHON": python, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(root / "run.py"), "benchmark", "gmm", *options, str(folder)]
    subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)
    with open(folder / "gmm.csv", encoding="utf-8", newline="") as lines:
        return {
            f"mixture {row['measurements']}, {row['method']}": torch.tensor(
                [float(row[column]) for column in ("distance", "forward", "backward")], dtype=torch.float64
            )
            for row in csv.DictReader(lines)
        }


# --- comparing ---


def start(only: str, *files: Path) -> subprocess.Popen[bytes]:
    """`draw` of a checkout by this file, whatever that checkout has of it."""
    _, python = locate_host()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    code = (
        "import sys, pathlib; from benchmarks.compare import draw; draw(sys.argv[1], *map(pathlib.Path, sys.argv[2:]))"
    )
    return subprocess.Popen([python, "-c", code, only, *map(str, files)], env=environment)


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def checkout(other: str) -> Iterator[tuple[Path, str | None]]:
    """A folder with the other checkout and, of a commit, its digest."""
    if Path(other).is_dir():
        yield Path(other).resolve(), None
        return
    commit = git("rev-parse", "--verify", f"{other}^{{commit}}")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / commit[:12]
        git("worktree", "add", "--detach", str(tree), commit)
        try:
            yield tree, commit
        finally:
            git("worktree", "remove", "--force", str(tree))


def differences(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> list[str]:
    """What is not equal to the last bit, in words."""
    found = []
    for name in sorted({*before, *after}):
        if name not in before or name not in after:
            found.append(f"{name}: only in the {'present' if name in after else 'other'} checkout")
        elif before[name].shape != after[name].shape:
            found.append(f"{name}: shape {tuple(before[name].shape)} became {tuple(after[name].shape)}")
        elif not torch.equal(before[name], after[name]):
            change = (before[name].double() - after[name].double()).abs()
            found.append(f"{name}: differs by {float(change.max()):.3g} at most, {float(change.mean()):.3g} on average")
    return found


def result(root: Path, file: Path, only: str) -> dict[str, torch.Tensor]:
    """What `draw` has saved, and the mixtures."""
    found = load_file(file)
    if only in "mixture":
        with tempfile.TemporaryDirectory() as folder:
            found |= mixture(root, Path(folder))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", nargs="?", default="HEAD~1", help="a commit, or a folder with another checkout")
    parser.add_argument(
        "--only", default="", help="draw what has this in its name: `preset`, `baseline`, `mixture`, ..."
    )
    options = parser.parse_args()
    # Where earlier checkouts have it, too.
    toy = next(file.parent for file in ROOT.rglob("vipaint_toy.safetensors") if ".host" not in file.parts)
    pictures = importlib.import_module(".".join([*toy.relative_to(ROOT).parts, "pictures"]))
    portrait = pictures.render(pictures.sample_attributes(1, torch.Generator().manual_seed(SEED)))
    shown = portrait[:, :, 32 : 32 + SIDE, 32 : 32 + SIDE].movedim(1, -1).contiguous()
    with tempfile.TemporaryDirectory() as folder, checkout(options.other) as (tree, commit):
        picture, checkpoint = Path(folder) / "picture.safetensors", toy / "vipaint_toy.safetensors"
        save_file({"picture": shown}, picture)
        own = hashlib.sha256(Path(__file__).read_bytes() + options.only.encode()).hexdigest()[:12]
        kept = CACHE / f"{commit}-{own}.safetensors"
        files = {tree: Path(folder) / "before.safetensors", ROOT: Path(folder) / "after.safetensors"}
        known = commit is not None and kept.is_file()
        running = [
            start(options.only, root, checkpoint, picture, file)
            for root, file in files.items()
            if not (known and root == tree)
        ]
        # All of them end, whichever fails.
        codes = [process.wait() for process in running]
        if any(codes):
            return 1
        before = load_file(kept) if known else result(tree, files[tree], options.only)
        if commit is not None and not known:
            CACHE.mkdir(parents=True, exist_ok=True)
            save_file(before, kept)
        after = result(ROOT, files[ROOT], options.only)
        with safe_open(files[ROOT], "pt") as stored:
            failed = [f"{name}: fails" for name, word in stored.metadata().items() if word == "failed"]
    found = [*failed, *differences(before, after)]
    print("\n".join([*found, f"{len(before)} results, {len(found)} differ or fail"]))
    return 1 if found or not before else 0


if __name__ == "__main__":
    sys.exit(main())
