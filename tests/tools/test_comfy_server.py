"""A server under control: a miniature of the host, and the host itself."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tools import comfy_server
from tools.comfy_server import ROOT, ComfyServer, InvalidPrompt, PromptError

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


def test_host_location_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    monkeypatch.setenv("COMFYUI_PYTHON", "mine")
    assert comfy_server.locate_host() == (tmp_path.resolve(), "mine")
    monkeypatch.delenv("COMFYUI_PATH")
    monkeypatch.delenv("COMFYUI_PYTHON")
    path, python = comfy_server.locate_host()
    assert path == ROOT / ".host" / "ComfyUI" and ".host" in python


# --- the host itself ---


@pytest.mark.host
def test_the_host_takes_pictures_and_gives_them_back(server: ComfyServer, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (24, 16), (200, 100, 50)).save(picture)
    load = {"class_type": "LoadImage", "inputs": {"image": server.upload_image(picture, "uploaded.png")}}
    save = {"class_type": "SaveImage", "inputs": {"images": ["load", 0], "filename_prefix": "t"}}
    entry = server.run({"load": load, "save": save}, timeout=120)
    (data,) = server.images(entry)["save"]
    saved = Image.open(io.BytesIO(data))
    assert saved.size == (24, 16) and saved.getpixel((3, 3)) == (200, 100, 50)


@pytest.mark.host
def test_the_host_describes_its_nodes(server: ComfyServer) -> None:
    assert "fills" in server.object_info("VIPaintInpaint")["input"]["required"]
    with pytest.raises(ValueError, match="NoSuchNode"):
        server.object_info("NoSuchNode")


@pytest.mark.host
def test_the_host_s_refusals_and_failures_are_raised_with_their_parts(server: ComfyServer) -> None:
    """What a failing node raised comes with its traceback. Interrupts are tested with the workflows."""
    picture = {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}}

    def prompt(fills: int) -> dict[str, object]:
        inputs = {"images": ["picture", 0], "fills": fills, "full_scale": 0.0}
        return {
            "picture": picture,
            "n": {"class_type": "VIPaintUncertainty", "inputs": inputs},
            "save": {"class_type": "PreviewImage", "inputs": {"images": ["n", 0]}},
        }

    with pytest.raises(InvalidPrompt, match="fills"):
        server.queue(prompt(-1))
    with pytest.raises(PromptError, match="a multiple of 2") as caught:
        server.run(prompt(2), timeout=120)
    assert (caught.value.node_id, caught.value.node_type) == ("n", "VIPaintUncertainty")
    assert caught.value.exception_type == "ValueError" and "in execute" in caught.value.traceback
    assert not caught.value.interrupted
