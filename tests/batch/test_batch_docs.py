"""The page about the command names its options as they are."""

from __future__ import annotations

import re
from pathlib import Path

from batch import pairing, workflow
from batch.options import parse
from tools.comfy_server import ROOT

PAGE = (ROOT / "docs" / "batch.md").read_text("utf-8")


def test_every_option_of_the_page_exists_and_every_option_is_on_it(tmp_path: Path) -> None:
    options = {f"--{name.replace('_', '-')}" for name in vars(parse([str(tmp_path), "--out", "x"]))}
    hidden = {"--pictures", "--parts", "--part", "--engine"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    # Of ComfyUI, Snakemake and sbatch.
    others = {"--listen", "--cuda-device", "--port", "--default-resources", "--array", "--gres", "--requeue"}
    others |= {name for name in named if name.startswith("--slurm-")}
    assert named - others <= options and options - hidden <= named


def test_roles_outputs_and_columns_are_on_it() -> None:
    for word in (*workflow.ROLES, *workflow.OUTPUTS, *pairing.TABLE_COLUMNS):
        assert re.search(rf"`[^`]*\b{word}\b[^`]*`", PAGE), word
