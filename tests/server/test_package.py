"""What the registry ships, installed into a host of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prompts import saved

from tools import package, templates
from tools.comfy_server import ROOT, ComfyServer

pytestmark = pytest.mark.host

# Decimal megabytes: the small model has 23.3, all else less than 2.
LARGEST = 26.0
# Seconds that the pack adds to the host's start.
LONGEST_IMPORT = 0.3


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry")
    archive = package.pack(folder / "node.zip")
    assert archive.stat().st_size < LARGEST * 1e6
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder / "vipaint")
    return folder / "vipaint"


@pytest.fixture(scope="module")
def fresh(comfyui: Path, installed: Path) -> Iterator[ComfyServer]:
    """A server with the archive's pack, and with no checkpoint."""
    with ComfyServer(pack=installed) as server:
        yield server


def test_holds_what_runs_in_the_host_and_nothing_else(installed: Path) -> None:
    found = {path.name for path in installed.iterdir()}
    assert {"__init__.py", "nodes", "vipaint_core", "web", "workflows", "locales", "pyproject.toml", "LICENSE"} <= found
    assert not found & {"tests", "benchmarks", "tools", "batch", "docs", "run.py", ".comfyignore"}
    assert [path.name for path in (installed / "toy_prior").iterdir()] == [templates.TOY]


def test_a_template_of_it_runs(fresh: ComfyServer, installed: Path) -> None:
    """As the editor sends it: the small model is found, though no checkpoint is installed."""
    (template,) = (template for template in templates.TEMPLATES if template.name == "inpaint")
    prompt = {name: {"class_type": node.kind, "inputs": dict(node.inputs)} for name, node in template.nodes.items()}
    prompt["inpaint"]["inputs"].update(preset="fast", fills=2)
    example = installed / "web" / "examples" / prompt["picture"]["inputs"]["image"]
    fresh.upload_image(example, example.name)
    (fill,) = saved(fresh, fresh.run(prompt))
    original = np.asarray(Image.open(example))
    visible = original[..., 3] > 0
    assert np.array_equal(fill[visible], original[visible][:, :3])


def test_starts_quietly(fresh: ComfyServer) -> None:
    log = fresh.log()
    assert re.search(r"seconds: .*vipaint$", log, re.MULTILINE)
    ours = [line for line in log.splitlines() if re.search("warn|error|traceback|failed", line, re.I)]
    assert not [line for line in ours if "vipaint" in line.lower()]


MEASURED = """
import time
from tools import in_process
in_process.activate()
import nodes, server, execution, comfy.samplers, comfy_api.v0_0_2
begin = time.process_time()
in_process.load_pack()
print(time.process_time() - begin)
"""


def test_adds_little_to_the_host_s_start(comfyui: Path) -> None:
    """In time of the processor, so that a busy machine changes nothing; the host's own modules are there already."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({str(ROOT)!r})\n{MEASURED}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert float(done.stdout.split()[-1]) < LONGEST_IMPORT


def test_the_editor_is_served_what_it_needs(fresh: ComfyServer) -> None:
    assert set(fresh.get("/workflow_templates")["vipaint"]) == {template.name for template in templates.TEMPLATES}
    assert {"zh", "ja", "fr"} <= fresh.get("/i18n").keys()
    assert {"choose.js", "chooser.js", "texts.js", "vipaint.js"} <= {
        name.rsplit("/", 1)[1] for name in fresh.get("/extensions") if "/vipaint/" in name
    }


def test_the_registry_s_entries() -> None:
    """Dependencies are what the code imports, without PyTorch; pictures exist; all are true of the host's versions."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (listed,) = re.findall(r"^dependencies = \[(.*)\]$", project, re.MULTILINE)
    imported: set[str] = set()
    for folder in ("nodes", "vipaint_core"):
        for file in (ROOT / folder).rglob("*.py"):
            imported |= set(re.findall(r"^\s*(?:import|from) (\w+)", file.read_text("utf-8"), re.MULTILINE))
    names = {"PIL": "Pillow"}
    known = {"safetensors", "numpy", "einops", "scipy", "PIL"}
    assert set(re.findall(r'"(\w+)"', listed)) == {names.get(name, name) for name in known & imported}
    third_party = imported - set(sys.stdlib_module_names) - known
    hosts = {"torch", "torchvision", "comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "server"}
    assert third_party <= hosts | {
        "latent_preview",
        "aiohttp",
        "typing_extensions",
        "node_helpers",
        "psutil",
        "tqdm",
        "nodes",
    }
    for picture in re.findall(r"/main/(docs/\w+\.\w+)\"", project):
        with Image.open(ROOT / picture) as shown:
            assert shown.width == shown.height == 400 or abs(shown.width / shown.height - 21 / 9) < 0.01
