"""run.py's set-up steps and the server under control, both without a network."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image, ImageStat

from tools import comfy_server
from tools.comfy_server import ComfyServer, InvalidPrompt, PromptError
from toy_prior.demo import CANVAS, INNER, contact_sheet, draw_input, draw_scene, hidden, load_workflow

ROOT = Path(__file__).resolve().parent.parent

# The host's HTTP interface in miniature; the class of the only node decides how a prompt ends.
FAKE_HOST = """
import json, os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
print("fake host at work", sys.argv[1:], flush=True)
history = {}
TRACE = {"node_id": "n", "node_type": "Bad", "exception_message": "no such thing", "exception_type": "ValueError",
         "traceback": ["line one\\n", "line two\\n"]}
class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass
    def answer(self, code, body):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    def do_GET(self):
        if self.path.startswith("/history/"):
            key = self.path.split("/")[-1]
            if key == "Dies":
                print("about to die", flush=True)
                os._exit(7)
            self.answer(200, {key: history[key]} if key in history else {})
        else:
            self.answer(200, {})
    def do_POST(self):
        prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]
        kind = prompt["n"]["class_type"]
        if kind == "Refused":
            error = {"type": "t", "message": "Value not in list", "details": "fills: 99", "extra_info": {}}
            self.answer(400, {"error": {"message": "Prompt has no valid output", "details": ""},
                              "node_errors": {"n": {"errors": [error], "class_type": kind}}})
            return
        if kind == "Bad":
            history[kind] = {"outputs": {}, "status": {"status_str": "error", "messages": [["execution_error", TRACE]]}}
        elif kind == "Stopped":
            message = ["execution_interrupted", {"node_id": "n", "node_type": kind}]
            history[kind] = {"outputs": {}, "status": {"status_str": "error", "messages": [message]}}
        elif kind == "Good":
            history[kind] = {"outputs": {"n": {}}, "status": {"status_str": "success", "messages": []}}
        self.answer(200, {"prompt_id": kind})
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def run() -> ModuleType:
    """run.py as a module; its name is not importable for certain."""
    spec = importlib.util.spec_from_file_location("vipaint_run", ROOT / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def fake_host(folder: Path, source: str = FAKE_HOST) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text(source, "utf-8")
    (folder / "comfy").mkdir(exist_ok=True)
    return folder


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[ComfyServer]:
    host = fake_host(tmp_path / "host")
    with ComfyServer(comfyui=host, python=sys.executable, cpu=True, pack=None) as server:
        yield server


def node(kind: str) -> dict[str, object]:
    return {"n": {"class_type": kind, "inputs": {}}}


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


# --- the server ---


def test_a_host_that_dies_at_its_start_is_reported_with_its_log(tmp_path: Path) -> None:
    host = fake_host(tmp_path / "host", "import sys\nprint('cannot import torch')\nsys.exit(3)\n")
    server = ComfyServer(comfyui=host, python=sys.executable, cpu=True, pack=None)
    with pytest.raises(RuntimeError, match=r"exit code 3(.|\n)*cannot import torch"), server:
        pass
    assert server.base is None and server.pid is None
    assert "cannot import torch" in server.log()


def test_a_host_that_never_answers_is_ended(tmp_path: Path) -> None:
    host = fake_host(tmp_path / "host", "import os, time\nprint('pid', os.getpid())\ntime.sleep(600)\n")
    server = ComfyServer(comfyui=host, python=sys.executable, cpu=True, pack=None, startup_timeout=1)
    with pytest.raises(RuntimeError, match="no answer within 1 s"), server:
        pass
    assert not alive(int(server.log().split()[1]))


def test_missing_host_and_checkpoint_are_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="COMFYUI_PATH"), ComfyServer(comfyui=tmp_path, cpu=True):
        pass
    host = fake_host(tmp_path / "host")
    with pytest.raises(FileNotFoundError, match="absent"), ComfyServer([tmp_path / "absent"], comfyui=host, cpu=True):
        pass


def test_base_directory_holds_links_and_is_deleted(tmp_path: Path) -> None:
    checkpoint, pack, shared = tmp_path / "toy.safetensors", tmp_path / "pack", tmp_path / "shared"
    checkpoint.write_bytes(b"weights")
    pack.mkdir()
    (pack / "__init__.py").write_text("x = 1\n")
    server = ComfyServer(
        [checkpoint], shared, comfyui=fake_host(tmp_path / "host"), python=sys.executable, cpu=True, pack=pack
    )
    with server:
        base = server.base
        assert base is not None
        assert (base / "models" / "checkpoints" / "toy.safetensors").read_bytes() == b"weights"
        assert (base / "custom_nodes" / "vipaint" / "__init__.py").is_file()
        (base / "models" / "vipaint" / "fit.safetensors").write_bytes(b"fit")
        assert "'--cpu'" in server.log()
    assert not base.exists()
    assert checkpoint.exists() and (pack / "__init__.py").exists()
    assert (shared / "fit.safetensors").read_bytes() == b"fit"


def test_a_refused_prompt_names_node_and_input(fake: ComfyServer) -> None:
    with pytest.raises(InvalidPrompt, match=r"node 'n' \(Refused\): Value not in list: fills: 99") as caught:
        fake.queue(node("Refused"))
    assert caught.value.node_errors["n"]["class_type"] == "Refused"


def test_a_failed_node_is_raised_with_its_parts(fake: ComfyServer) -> None:
    with pytest.raises(PromptError) as caught:
        fake.run(node("Bad"), timeout=20)
    error = caught.value
    assert (error.node_id, error.node_type, error.exception_type) == ("n", "Bad", "ValueError")
    assert error.exception_message == "no such thing"
    assert error.traceback == "line one\nline two\n"
    assert not error.interrupted


def test_an_interrupted_prompt_is_told_apart(fake: ComfyServer) -> None:
    with pytest.raises(PromptError, match="interrupted") as caught:
        fake.run(node("Stopped"), timeout=20)
    assert caught.value.interrupted


def test_success_timeout_and_death_while_waiting(fake: ComfyServer) -> None:
    assert fake.run(node("Good"), timeout=20)["outputs"] == {"n": {}}
    waited: list[float] = []
    with pytest.raises(TimeoutError, match="not done within 0 s"):
        fake.wait("unknown", timeout=0.2, on_poll=waited.append)
    assert waited
    with pytest.raises(RuntimeError, match=r"exit code 7(.|\n)*about to die"):
        fake.run(node("Dies"), timeout=20)


def test_a_stopped_server_says_so(tmp_path: Path) -> None:
    with ComfyServer(comfyui=fake_host(tmp_path / "host"), python=sys.executable, cpu=True, pack=None) as server:
        pid = server.pid
    assert pid is not None and not alive(pid)
    with pytest.raises(RuntimeError, match="not running"):
        server.wait("any")


def alive(pid: int, patience: float = 10.0) -> bool:
    """Whether a process is still there after a while; zombies count as gone."""
    for _ in range(int(patience / 0.1)):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return False
        except (ProcessLookupError, FileNotFoundError):
            return False
        time.sleep(0.1)
    return True


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_no_server_outlives_its_parent(tmp_path: Path, name: str) -> None:
    host = fake_host(tmp_path / "host")
    code = (
        f"import sys, time; sys.path.append({str(ROOT)!r})\n"
        "from pathlib import Path; from tools.comfy_server import ComfyServer\n"
        f"with ComfyServer(comfyui=Path({str(host)!r}), python=sys.executable, cpu=True, pack=None) as s:\n"
        "    print(s.pid, s.base, flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None
    pid, base = parent.stdout.readline().split()
    parent.send_signal(getattr(signal, name))
    parent.wait(30)
    parent.stdout.close()
    assert not alive(int(pid))
    # A killed parent cannot clean up its files.
    assert name == "SIGKILL" or not Path(base).exists()


SLOW_PACK = """
import time
import comfy.model_management
class Slow:
    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "test", "go", (), True
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "seconds": ("FLOAT", {"default": 1.0, "max": 100.0})}}
    def go(self, image, seconds):
        if seconds < 0.5:
            raise ValueError("too fast")
        for _ in range(int(seconds * 20)):
            time.sleep(0.05)
            comfy.model_management.throw_exception_if_processing_interrupted()
        return ()
NODE_CLASS_MAPPINGS = {"TestSlow": Slow}
"""


@pytest.mark.host
def test_a_real_server_runs_refuses_fails_and_is_interrupted(comfyui: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "__init__.py").write_text(SLOW_PACK, "utf-8")
    picture = tmp_path / "picture.png"
    Image.new("RGB", (24, 16), (200, 100, 50)).save(picture)
    before = {entry.name for entry in comfyui.iterdir()}
    with ComfyServer(comfyui=comfyui, pack=pack) as server:
        base, pid = server.base, server.pid
        name = server.upload_image(picture, "uploaded.png")
        load = {"class_type": "LoadImage", "inputs": {"image": name}}
        save = {"class_type": "SaveImage", "inputs": {"images": ["load", 0], "filename_prefix": "t"}}
        entry = server.run({"load": load, "save": save}, timeout=120)
        (data,) = server.images(entry)["save"]
        saved = Image.open(io.BytesIO(data))
        assert saved.size == (24, 16) and saved.getpixel((3, 3)) == (200, 100, 50)

        assert "seconds" in server.object_info("TestSlow")["input"]["required"]
        with pytest.raises(ValueError, match="NoSuchNode"):
            server.object_info("NoSuchNode")
        with pytest.raises(InvalidPrompt, match="seconds"):
            server.queue({"load": load, "n": slow(1000.0)})

        with pytest.raises(PromptError, match="too fast") as caught:
            server.run({"load": load, "n": slow(0.1)}, timeout=120)
        assert (caught.value.node_id, caught.value.node_type) == ("n", "TestSlow")
        assert caught.value.exception_type == "ValueError" and "in go" in caught.value.traceback

        prompt_id = server.queue({"load": load, "n": slow(90.0)})
        while prompt_id not in server.running():
            time.sleep(0.05)
        time.sleep(0.3)
        server.interrupt(prompt_id)
        with pytest.raises(PromptError) as caught:
            server.wait(prompt_id, timeout=60)
        assert caught.value.interrupted
    assert base is not None and not base.exists()
    assert pid is not None and not alive(pid)
    assert {entry.name for entry in comfyui.iterdir()} - before <= {"__pycache__"}


def slow(seconds: float) -> dict[str, object]:
    return {"class_type": "TestSlow", "inputs": {"image": ["load", 0], "seconds": seconds}}


# --- the demo's pictures ---


def test_demo_input_hides_what_the_mask_shows() -> None:
    picture, mask = draw_input(3, "right")
    shown = hidden(picture, mask)
    assert picture.size == mask.size == (128, 128)
    assert shown.getpixel((100, 60)) == (128, 128, 128)
    assert shown.getpixel((20, 60)) == picture.getpixel((20, 60))
    assert mask.getpixel((100, 60)) == (255, 255, 255) and mask.getpixel((20, 60)) == (0, 0, 0)


def test_demo_scenes_hold_the_portrait() -> None:
    """Outside the hole, what a scene shows is the portrait that it was made of."""
    portrait, _ = draw_input(3, "right")
    for scene, (size, place) in {"outpaint": ((96, 101), INNER[:2]), "crop_and_stitch": (CANVAS, (-107, -55))}.items():
        inputs, shown = draw_scene(scene, 3, "right")
        assert inputs["picture"].size == size and set(inputs) <= {"picture", "mask"}
        assert shown.getpixel((0, 0)) == (
            (128, 128, 128) if scene == "outpaint" else inputs["picture"].getpixel((0, 0))
        )
        at = max(0, place[0]), max(0, place[1])
        assert portrait.getpixel((at[0] + 10, at[1] + 20)) == inputs["picture"].getpixel(
            (at[0] + 10 - place[0], at[1] + 20 - place[1])
        )
    assert draw_scene("inpaint", 3, "right")[0]["picture"].tobytes() == portrait.tobytes()


@pytest.mark.parametrize(("scene", "size"), [("deblur", 128), ("super_resolution", 16)])
def test_demo_scenes_degrade_the_portrait(scene: str, size: int) -> None:
    portrait, _ = draw_input(3, "right")
    inputs, shown = draw_scene(scene, 3, "right")
    assert shown.tobytes() == portrait.tobytes() and inputs["picture"].size == (size, size)
    # In the mean it is the portrait.
    means = [ImageStat.Stat(picture).mean for picture in (portrait, inputs["picture"])]
    assert means[0] == pytest.approx(means[1], abs=2)


def test_contact_sheet_holds_every_tile() -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    sheet = contact_sheet([(str(i), Image.new("RGB", (32, 16), colour)) for i, colour in enumerate(colours)], 4)
    counted = sheet.getcolors(sheet.width * sheet.height)
    assert counted is not None
    found = {colour: count for count, colour in counted}
    assert all(found[colour] == 256 * 128 for colour in colours)


def test_workflow_must_have_the_agreed_nodes(tmp_path: Path) -> None:
    file = tmp_path / "w.json"
    with pytest.raises(FileNotFoundError, match=r"w\.json"):
        load_workflow(file)
    file.write_text('{"checkpoint": {}, "picture": {}}')
    with pytest.raises(ValueError, match="found no save, uncertainty, inpaint or restore"):
        load_workflow(file)


def test_host_location_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    monkeypatch.setenv("COMFYUI_PYTHON", "mine")
    assert comfy_server.locate_host() == (tmp_path.resolve(), "mine")
    monkeypatch.delenv("COMFYUI_PATH")
    monkeypatch.delenv("COMFYUI_PYTHON")
    path, python = comfy_server.locate_host()
    assert path == ROOT / ".host" / "ComfyUI" and ".host" in python
