"""run.py's set-up steps, without a network."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def run() -> ModuleType:
    """run.py as a module; its name is not importable for certain."""
    spec = importlib.util.spec_from_file_location("vipaint_run", ROOT / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def fake_host(folder: Path) -> Path:
    """A folder that looks like ComfyUI."""
    folder.mkdir(exist_ok=True)
    (folder / "main.py").touch()
    (folder / "comfy").mkdir(exist_ok=True)
    return folder


# --- stamps ---


def test_digest_depends_on_content_order_and_boundaries(run: ModuleType) -> None:
    variants = [["ab", "c"], ["a", "bc"], ["c", "ab"], ["abc"], ["ab", "c", ""]]
    assert len({run.digest(parts) for parts in variants}) == len(variants)
    assert run.digest(["ab", "c"]) == run.digest(iter(["ab", "c"]))


def test_a_stamp_is_fresh_only_for_its_inputs_and_while_the_product_exists(run: ModuleType, tmp_path: Path) -> None:
    stamp, product = tmp_path / "x.stamp", tmp_path / "product"
    assert not run.is_fresh(stamp, ["1"], product)
    product.mkdir()
    assert not run.is_fresh(stamp, ["1"], product)
    run.write_stamp(stamp, ["1"])
    assert run.is_fresh(stamp, ["1"], product)
    assert not run.is_fresh(stamp, ["2"], product)
    product.rmdir()
    assert not run.is_fresh(stamp, ["1"], product)


def test_pins_cover_torch_and_every_development_tool(run: ModuleType) -> None:
    pins = run.pins()
    tools = {"pytest", "ruff", "mypy", "hypothesis", "matplotlib", "lpips"}
    assert {"torch", "torchvision", "torchaudio", *tools} == set(pins)
    assert all(version[0].isdigit() for version in pins.values())


def test_requirement_names(run: ModuleType) -> None:
    text = "# comment\ntorch\nav>=16.0.0\ncomfy-kitchen==0.2.26  # why\npydantic~=2.0\n\n-r other.txt\nx[extra]>1\n"
    assert run.distributions(text) == ["torch", "av", "comfy-kitchen", "pydantic", "x"]


def test_an_interrupted_installation_is_done_again(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = fake_host(tmp_path / "ComfyUI")
    (host / "requirements.txt").write_text("torch\n")
    commands: list[list[str]] = []
    complete = False
    monkeypatch.setattr(run, "HOST", tmp_path)
    monkeypatch.setattr(run, "has_packages", lambda *_: complete)
    monkeypatch.setattr(run, "call", lambda command: commands.append(command) or 1)
    for count in (1, 2):
        with pytest.raises(run.Failure, match="pip could not install"):
            run.setup_packages(host, sys.executable)
        assert len(commands) == count and not (tmp_path / "packages.stamp").exists()
    complete = True
    run.setup_packages(host, sys.executable)
    complete = False
    run.setup_packages(host, sys.executable)  # the stamp is fresh
    assert len(commands) == 2
    (host / "requirements.txt").write_text("torch\nnew\n")
    with pytest.raises(run.Failure):
        run.setup_packages(host, sys.executable)


# --- unpacking ---


def archive(path: Path, members: dict[str, str | None]) -> Path:
    """A .tar.gz of name -> text; None makes a symbolic link to /etc."""
    with tarfile.open(path, "w:gz") as tar:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            if text is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc"
                tar.addfile(info)
            else:
                info.size = len(text.encode())
                tar.addfile(info, io.BytesIO(text.encode()))
    return path


def test_extract_takes_the_host_and_nothing_else(run: ModuleType, tmp_path: Path) -> None:
    source = archive(
        tmp_path / "s.tar.gz",
        {"p-1/vendor/ComfyUI/main.py": "m", "p-1/vendor/ComfyUI/a/b.py": "b", "p-1/setup.py": "s", "p-1/other": None},
    )
    assert run.extract(source, tmp_path / "out") == 2
    files = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert files == {"main.py", os.path.join("a", "b.py")}


@pytest.mark.parametrize("name, text", [("../evil.py", "x"), ("a/../../evil.py", "x"), ("C:/evil", "x"), ("ln", None)])
def test_extract_refuses_what_leads_out_of_the_folder(
    run: ModuleType, tmp_path: Path, name: str, text: str | None
) -> None:
    source = archive(tmp_path / "s.tar.gz", {"p/vendor/ComfyUI/main.py": "m", f"p/vendor/ComfyUI/{name}": text})
    with pytest.raises(run.Failure, match="not unpacked"):
        run.extract(source, tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("evil*"))


def test_extract_refuses_an_archive_without_the_host(run: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(run.Failure, match=r"vendor/ComfyUI/main\.py"):
        run.extract(archive(tmp_path / "s.tar.gz", {"p/setup.py": "s"}), tmp_path / "out")


def test_verify_names_both_digests(run: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"content")
    found = hashlib.sha256(b"content").hexdigest()
    run.verify(file, found)
    with pytest.raises(run.Failure, match=f"{run.SOURCE_SHA256}.*{found}"):
        run.verify(file)


# --- which interpreter, which host ---


def test_pick_python_passes_over_what_does_not_run(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.sys, "version_info", (3, 14, 0))
    monkeypatch.setattr(run.shutil, "which", lambda name: f"bin/{name}")
    versions = {"bin/python3.11": None, "bin/python3.12": (3, 12), "bin/python3.10": (3, 10)}
    assert run.pick_python(versions.get) == "bin/python3.12"
    with pytest.raises(run.Failure, match=r"this is Python 3\.14"):
        run.pick_python(lambda python: None)


def test_pick_python_prefers_the_running_one(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.sys, "version_info", (3, 10, 4))
    assert run.pick_python(lambda python: None) == sys.executable


def test_existing_host_prefers_its_own_environment(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = fake_host(tmp_path / "host")
    monkeypatch.setattr(run, "require_modules", lambda *_: None)
    assert run.existing_host({"COMFYUI_PATH": str(host)}).python == sys.executable
    own = run.interpreter(host / ".venv")
    own.parent.mkdir(parents=True)
    own.touch()
    assert run.existing_host({"COMFYUI_PATH": str(host)}).python == str(own)
    assert run.existing_host({"COMFYUI_PATH": str(host), "COMFYUI_PYTHON": "mine"}).python == "mine"


def test_missing_modules_and_interpreters_are_named(run: ModuleType) -> None:
    with pytest.raises(run.Failure, match=r"found no no_such_module\. Install .* requirements-dev\.txt"):
        run.require_modules(sys.executable, ["json", "no_such_module"], "requirements-dev.txt")
    with pytest.raises(run.Failure, match="does not run"):
        run.require_modules("no-such-python", ["json"], "requirements-dev.txt")
    run.require_modules(sys.executable, ["json"], "requirements-dev.txt")


def test_main_reports_a_wrong_comfyui_path(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert run.main(["setup"]) == 1
    said = capsys.readouterr().err
    assert str(tmp_path) in said and "COMFYUI_PATH" in said and "Traceback" not in said
    assert run.main([]) == 1
    assert run.main(["no-such-command"]) == 1
