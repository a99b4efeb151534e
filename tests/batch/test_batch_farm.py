"""Parts of a batch as jobs of Snakemake, on stub servers; and parts of an array of jobs."""

from __future__ import annotations

import importlib.util
import io
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from batch import catalogue, farm
from batch.catalogue import Catalogue
from batch.errors import BatchError
from batch.options import parse
from tools.comfy_stub import ERROR, Stub

ROOT = Path(__file__).resolve().parent.parent.parent
Call = Callable[..., SimpleNamespace]
Start = Callable[..., Stub]


@pytest.fixture(scope="module")
def run() -> ModuleType:
    """run.py as a module."""
    spec = importlib.util.spec_from_file_location("vipaint_run_batch", ROOT / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def engine(run: ModuleType) -> str:
    """The interpreter with Snakemake, as `run.py` installs it on first use."""
    if sys.version_info < (3, 11):
        pytest.skip("Snakemake 9 needs Python 3.11")
    return str(run.batch_python())


def command(folder: SimpleNamespace, python: str, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = [str(folder.pictures), "--masks", str(folder.masks), "--out", str(folder.out), "--set", "fills=1"]
    return subprocess.run(
        [python, "-m", "batch", *arguments, *more], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_engine_s_jobs_paint_all_and_repeat_what_dies(
    folder: SimpleNamespace, call: Call, stubs: Start, engine: str
) -> None:
    folder.fill(9)
    folder.add("it's $(odd) {x} & 100%.png", 50)
    folder.add("bad.png", 9, width=20)
    server = stubs(verdict=lambda data: ERROR if Image.open(io.BytesIO(data)).size[0] == 20 else None)
    farmed = ["--farm", "local", "--jobs", "2", "--part-size", "6", "--attempts", "2", "--server", server.url]
    done = command(folder, engine, *farmed)
    lines = {
        line["name"]: line for line in map(json.loads, (folder.out / "batch.jsonl").read_text("utf-8").splitlines())
    }
    assert done.returncode == 1 and len(lines) == 11, done.stderr
    assert {name for name, line in lines.items() if line["status"] != "done"} == {"bad"}
    assert "attempt 2 of 2" in lines["bad"]["reason"]
    assert server.painted == 10 and "2 of 3 steps" in done.stdout + done.stderr
    assert not list((folder.out / ".batch" / "farm").iterdir()), "nothing of the engine is left"
    # The same command goes on; so does the command without the engine, which knows the same results.
    server.verdict = lambda data: None
    (folder.out / "p3" / "record.json").unlink()
    assert command(folder, engine, *farmed).returncode == 0 and server.painted == 12
    assert call("--server", server.url).code == 0 and server.painted == 12
    # A job that cannot work is repeated, and then told.
    (folder.out / "p3" / "record.json").unlink()
    server.die()
    done = command(folder, engine, *farmed, "--patience", "0.2")
    assert done.returncode == 2 and "Snakemake ended with exit code 1" in done.stderr
    assert done.stderr.count("found none. Start a") == 1, "the job's last words"
    assert not (folder.out / "p3" / "record.json").exists()


def test_a_job_gets_all_options_quoted(folder: SimpleNamespace, tmp_path: Path) -> None:
    text = "fills=2 'preset=a b' --seed 5 --attempts 4 --node 'save=Save; rm -rf' --farm slurm --jobs 3 -- --slurm-partition gpu"
    options = parse([str(folder.pictures), "--out", str(folder.out), "--set", *shlex.split(text)])
    assert options.engine == ["--slurm-partition", "gpu"] and options.jobs == 3
    place, words = farm.job_command(options, ["http://h:1"], tmp_path / "run's").split(" && ")
    assert shlex.split(place) == ["cd", str(ROOT)]
    again = parse([*shlex.split(words)[3:], "--part", "part-00000"])
    for name in ("pictures", "out", "set", "seed", "attempts", "node", "timeout"):
        assert getattr(again, name) == getattr(options, name), name
    assert again.server == ["http://h:1"] and again.parts == tmp_path / "run's" and again.farm is None


def test_a_part_s_list_is_read_as_it_was_written(folder: SimpleNamespace, tmp_path: Path) -> None:
    with Catalogue(tmp_path / "a") as base:
        base.add("x/ä\n", Path("/p/x.png"), None, {"prompt": "a, b"})
        base.add("y", Path("/p/y.png"), Path("/m/y.png"), {})
        farm.write_part(tmp_path / "part.jsonl", list(base.items()))
    with Catalogue(tmp_path / "b") as base:
        farm.read_part(tmp_path / "part.jsonl", base)
        found = [(item.name, item.picture, item.mask, dict(item.options), item.state) for item in base.items()]
    assert found == [
        ("x/ä\n", Path("/p/x.png"), None, {"prompt": "a, b"}, catalogue.NEW),
        ("y", Path("/p/y.png"), Path("/m/y.png"), {}, catalogue.NEW),
    ]
    (tmp_path / "part.jsonl").write_text('{"name": 1}\n')
    with Catalogue(tmp_path / "c") as base, pytest.raises(BatchError, match="expected a part's list"):
        farm.read_part(tmp_path / "part.jsonl", base)


def test_without_the_engine_the_message_says_how_to_get_it(
    folder: SimpleNamespace, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.fill(1)
    monkeypatch.setattr(farm.importlib.util, "find_spec", lambda name: None)
    found = call("--farm", "local")
    assert found.code == 2 and "expected Snakemake in this environment" in found.said


def test_an_array_of_jobs_paints_all_and_a_summary_ends_it(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    folder.fill(20)
    server = stubs()
    for index in range(3):
        found = call("--server", server.url, "--shard", f"{index}/3")
        assert found.code == 0
    assert server.painted == 20 and not (folder.out / "index.html").exists()
    rows = [len((folder.out / f"batch-{index}-of-3.jsonl").read_text("utf-8").splitlines()) for index in range(3)]
    assert sum(rows) == 20 and all(rows)
    found = call("--summary")
    assert found.code == 0 and len(found.rows) == 20 and (folder.out / "index.html").is_file()
    (folder.out / "p7" / "record.json").unlink()
    found = call("--summary")
    assert found.code == 1 and found.lines["p7"]["status"] == "waiting" and server.painted == 20


def test_run_py_chooses_the_environment(run: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[list[str]] = []
    host = run.Host(tmp_path, "host-python")
    monkeypatch.setattr(run, "HOST", tmp_path)
    monkeypatch.setattr(run, "find_host", lambda: host)
    monkeypatch.setattr(run, "batch_python", lambda: "own-python")
    monkeypatch.setattr(run, "call", lambda command, env=None: calls.append([command[0], str(env is not None)]) or 0)
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    for arguments in (["p"], ["p", "--server", "h"], ["p", "--farm", "slurm"], ["p", "--farm=slurm", "--server=h"]):
        assert run.main(["batch", *arguments]) == 0
    # Named servers need no ComfyUI here: none is set up for them.
    assert calls == [["host-python", "True"], ["own-python", "False"], ["own-python", "True"], ["own-python", "False"]]
    calls.clear()
    (tmp_path / "packages.stamp").touch()
    assert run.main(["batch", "p", "--server", "h"]) == 0 and calls == [["host-python", "True"]]


def test_run_py_installs_once_and_again_for_other_requirements(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []
    code = 0

    def call(command: list[str]) -> int:
        commands.append(command)
        if command[1:3] == ["-m", "venv"]:
            run.interpreter(Path(command[3])).parent.mkdir(parents=True)
            run.interpreter(Path(command[3])).touch()
        return code

    monkeypatch.setattr(run, "HOST", tmp_path / "host")
    monkeypatch.setattr(run, "call", call)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("a\n")
    monkeypatch.setattr(run, "BATCH_REQUIREMENTS", requirements)
    assert run.batch_python() == run.batch_python() == str(run.interpreter(tmp_path / "host" / "batch"))
    assert len(commands) == 2
    requirements.write_text("b\n")
    code = 1
    for _ in range(2):
        with pytest.raises(run.Failure, match="Check the network"):
            run.batch_python()
    code = 0
    run.batch_python()
    assert len(commands) == 6
