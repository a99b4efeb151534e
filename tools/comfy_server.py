"""A ComfyUI server with its own base directory, and a client for its HTTP interface.

    with ComfyServer(checkpoints=[file]) as server:
        entry = server.run(prompt)
        pictures = server.images(entry)

Needs the standard library only. The server writes nothing into the host's folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACK_NAME = "vipaint"

# Runs main.py; ends when its standard input closes, so that no server outlives a killed parent.
_LAUNCH = """
import os, runpy, sys, threading
def follow_parent():
    while os.read(0, 1):
        pass
    os._exit(1)
threading.Thread(target=follow_parent, daemon=True).start()
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class InvalidPrompt(ValueError):
    """The server refused a prompt. `node_errors` is the server's own account, by node id."""

    def __init__(self, message: str, node_errors: dict[str, Any]) -> None:
        super().__init__(message)
        self.node_errors = node_errors


class PromptError(RuntimeError):
    """A node failed, or the prompt was interrupted (`interrupted`)."""

    def __init__(
        self,
        node_id: str,
        node_type: str,
        exception_message: str,
        exception_type: str,
        traceback: str,
        interrupted: bool = False,
    ) -> None:
        super().__init__(f"node {node_id!r} ({node_type}): {exception_type}: {exception_message.strip()}\n{traceback}")
        self.node_id = node_id
        self.node_type = node_type
        self.exception_message = exception_message
        self.exception_type = exception_type
        self.traceback = traceback
        self.interrupted = interrupted


def locate_host() -> tuple[Path, str]:
    """ComfyUI's folder and interpreter: `COMFYUI_PATH` and `COMFYUI_PYTHON`, or what `run.py` has set up."""
    python = os.environ.get("COMFYUI_PYTHON")
    if os.environ.get("COMFYUI_PATH"):
        return Path(os.environ["COMFYUI_PATH"]).resolve(), python or sys.executable
    venv = ROOT / ".host" / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    return ROOT / ".host" / "ComfyUI", python or str(venv)


@cache
def has_cuda(python: str) -> bool:
    """Whether torch of the given interpreter finds a CUDA device."""
    code = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 10)"
    return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def link(source: Path, target: Path) -> None:
    """Links a file or folder; copies it where links are not permitted (Windows without developer mode)."""
    try:
        target.symlink_to(source.resolve(), target_is_directory=source.is_dir())
    except OSError:
        if source.is_dir():
            leave = shutil.ignore_patterns(".git", ".host", ".cache", "output", "__pycache__")
            shutil.copytree(source, target, ignore=leave)
        else:
            shutil.copy2(source, target)


class ComfyServer:
    """Context manager: a ComfyUI process in a temporary base directory with this pack and no other.

    checkpoints are linked into models/checkpoints. models_dir, if given, is the folder models/vipaint
    and may be shared between servers. pack is the custom node pack (None: no pack). cpu=None asks torch.
    """

    def __init__(
        self,
        checkpoints: Sequence[Path] = (),
        models_dir: Path | None = None,
        env: Mapping[str, str] | None = None,
        *,
        args: Sequence[str] = (),
        pack: Path | None = ROOT,
        comfyui: Path | None = None,
        python: str | None = None,
        cpu: bool | None = None,
        startup_timeout: float = 300.0,
    ) -> None:
        found_path, found_python = locate_host()
        self.comfyui = comfyui or found_path
        self.python = python or found_python
        self.checkpoints = list(checkpoints)
        self.models_dir = models_dir
        self.env = dict(env or {})
        self.args = list(args)
        self.pack = pack
        self.cpu = cpu
        self.startup_timeout = startup_timeout
        self.base: Path | None = None
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log = ""
        # No proxy: the address is local whatever the environment says.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self) -> ComfyServer:
        if not (self.comfyui / "main.py").is_file():
            raise RuntimeError(
                f"ComfyServer: expected ComfyUI's main.py in {self.comfyui}, found none: "
                "run `python3 run.py setup`, or set COMFYUI_PATH"
            )
        for file in self.checkpoints:
            if not file.is_file():
                raise FileNotFoundError(f"ComfyServer: expected a checkpoint, found no file {file}")
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        base = self.base = Path(tempfile.mkdtemp(prefix="vipaint-comfyui-"))
        for name in ("custom_nodes", "models/checkpoints", "input", "output", "temp", "user"):
            (base / name).mkdir(parents=True)
        if self.pack is not None:
            link(self.pack, base / "custom_nodes" / PACK_NAME)
        for file in self.checkpoints:
            link(file, base / "models" / "checkpoints" / file.name)
        if self.models_dir is None:
            (base / "models" / PACK_NAME).mkdir()
        else:
            # Not `link`: a copy would not be shared.
            self.models_dir.mkdir(parents=True, exist_ok=True)
            (base / "models" / PACK_NAME).symlink_to(self.models_dir.resolve(), target_is_directory=True)
        self.port = free_port()
        cpu = not has_cuda(self.python) if self.cpu is None else self.cpu
        command = [self.python, "-u", "-c", _LAUNCH, str(self.comfyui / "main.py")]
        command += ["--port", str(self.port), "--listen", "127.0.0.1", "--base-directory", str(base)]
        command += ["--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
        command += (["--cpu"] if cpu else []) + self.args
        with open(base / "server.log", "wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.comfyui,
                env={**os.environ, "PYTHONIOENCODING": "utf-8", **self.env},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, which `stop` ends as a whole
            )
        deadline = time.monotonic() + self.startup_timeout
        while True:
            self._require_alive("at its start")
            try:
                self._get("/system_stats", timeout=5)
                return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"ComfyServer: no answer within {self.startup_timeout:.0f} s of its start. Log:\n{self.tail()}"
                )
            time.sleep(0.1)

    def stop(self) -> None:
        """Ends the server's process group and deletes its base directory; `log` stays readable."""
        process, self._process = self._process, None
        try:
            if process is not None:
                _end(process)
        finally:
            if self.base is not None:
                self._log = self.log()
                shutil.rmtree(self.base, ignore_errors=True)
                self.base = None

    def log(self) -> str:
        """What the server has printed so far."""
        if self.base is not None:
            with contextlib.suppress(FileNotFoundError):
                return (self.base / "server.log").read_text("utf-8", errors="replace")
        return self._log

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def _require_alive(self, when: str) -> None:
        if self._process is None:
            raise RuntimeError("ComfyServer: not running; use it inside its `with` block")
        code = self._process.poll()
        if code is not None:
            raise RuntimeError(f"ComfyServer: the server ended {when} with exit code {code}. Log:\n{self.tail()}")

    def _request(self, request: urllib.request.Request | str, timeout: float) -> bytes:
        with self._opener.open(request, timeout=timeout) as response:
            body: bytes = response.read()
            return body

    def _get(self, path: str, timeout: float = 30) -> Any:
        return json.loads(self._request(self.url + path, timeout))

    def _post(self, path: str, body: bytes, content_type: str) -> bytes:
        request = urllib.request.Request(self.url + path, data=body, headers={"Content-Type": content_type})
        return self._request(request, 60)

    def upload_image(self, path: Path, name: str | None = None) -> str:
        """Puts a picture into the server's input folder; returns the name for LoadImage."""
        name = name or path.name
        boundary = uuid.uuid4().hex
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode() + path.read_bytes()
        body += f"\r\n--{boundary}--\r\n".encode()
        answer = json.loads(self._post("/upload/image", body, f"multipart/form-data; boundary={boundary}"))
        return str(answer["name"])

    def queue(self, prompt: Mapping[str, Any]) -> str:
        """Queues a workflow in API format; returns its id. Raises InvalidPrompt where the server refuses any of it.

        A server that refuses some of the outputs runs the others: that prompt is taken back here.
        """
        body = json.dumps({"prompt": prompt, "client_id": uuid.uuid4().hex}).encode()
        try:
            text = self._post("/prompt", body, "application/json").decode()
            answer = json.loads(text)
            if not answer.get("node_errors"):
                return str(answer["prompt_id"])
            self._post("/queue", json.dumps({"delete": [answer["prompt_id"]]}).encode(), "application/json")
            self.interrupt(answer["prompt_id"])
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", errors="replace")
            if error.code != 400:
                raise RuntimeError(f"ComfyServer: POST /prompt answered {error.code}: {text}") from error
        raise _invalid_prompt(text)

    def wait(
        self, prompt_id: str, timeout: float = 600.0, on_poll: Callable[[float], None] | None = None
    ) -> dict[str, Any]:
        """Waits for a prompt's history entry; `on_poll` gets the seconds waited. Raises PromptError, TimeoutError."""
        begin = time.monotonic()
        while True:
            self._require_alive(f"while prompt {prompt_id} ran")
            # A socket error means that the server is busy or has just died: the next round tells which.
            with contextlib.suppress(OSError):
                entry = self._get(f"/history/{prompt_id}").get(prompt_id)
                if entry is not None:
                    _require_success(entry)
                    return dict(entry)
            waited = time.monotonic() - begin
            if waited > timeout:
                raise TimeoutError(f"ComfyServer: prompt {prompt_id} not done within {timeout:.0f} s:\n{self.tail()}")
            if on_poll is not None:
                on_poll(waited)
            time.sleep(min(0.05 + 0.1 * waited, 0.5))

    def run(self, prompt: Mapping[str, Any], timeout: float = 600.0) -> dict[str, Any]:
        """Queues a workflow and waits for its history entry."""
        return self.wait(self.queue(prompt), timeout)

    def images(self, entry: Mapping[str, Any]) -> dict[str, list[bytes]]:
        """Files of the pictures in a history entry, by node id."""
        found: dict[str, list[bytes]] = {}
        for node_id, output in entry["outputs"].items():
            for item in output.get("images", ()):
                query = urllib.parse.urlencode({key: item[key] for key in ("filename", "subfolder", "type")})
                found.setdefault(node_id, []).append(self._request(f"{self.url}/view?{query}", 60))
        return found

    def clear_history(self) -> None:
        """Deletes the server's record of finished prompts."""
        self._post("/history", json.dumps({"clear": True}).encode(), "application/json")

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Interrupts the running prompt; with an id only if that prompt is the running one."""
        body = json.dumps({} if prompt_id is None else {"prompt_id": prompt_id}).encode()
        self._post("/interrupt", body, "application/json")

    def free(self) -> None:
        """Offloads all models before the server takes the prompt after the next at the latest."""
        self._post("/free", json.dumps({"unload_models": True}).encode(), "application/json")

    def running(self) -> list[str]:
        """Ids of the prompts being executed."""
        return [str(item[1]) for item in self._get("/queue")["queue_running"]]

    def object_info(self, name: str) -> dict[str, Any]:
        """The server's description of a node class. Raises ValueError where it has none of that name."""
        found = self._get(f"/object_info/{urllib.parse.quote(name)}").get(name)
        if found is None:
            raise ValueError(f"ComfyServer: expected a node {name!r}, the server has none. Log:\n{self.tail()}")
        return dict(found)


def _end(process: subprocess.Popen[bytes]) -> None:
    for name in ("SIGTERM", "SIGKILL"):
        if os.name == "nt":
            process.kill()
        else:
            # The leader may be gone and its children not: the group is signalled in either case.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, getattr(signal, name))
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
        if os.name == "nt" or not _group_exists(process.pid):
            break
    if process.stdin is not None:
        process.stdin.close()


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _invalid_prompt(text: str) -> InvalidPrompt:
    """The exception for the body of an answer 400 to /prompt."""
    try:
        answer = json.loads(text)
    except ValueError:
        return InvalidPrompt(f"the server refused the prompt: {text}", {})
    error = answer.get("error") or {}
    lines = [f"the server refused the prompt: {_sentence(error)}" if isinstance(error, dict) else str(error)]
    node_errors = answer.get("node_errors") or {}
    for node_id, node in node_errors.items():
        lines += [f"  node {node_id!r} ({node.get('class_type')}): {_sentence(item)}" for item in node["errors"]]
    return InvalidPrompt("\n".join(lines), dict(node_errors))


def _sentence(error: Mapping[str, Any]) -> str:
    return ": ".join(str(error[key]) for key in ("message", "details") if error.get(key))


def _require_success(entry: Mapping[str, Any]) -> None:
    status = entry.get("status") or {}
    for event, data in status.get("messages", ()):
        if event == "execution_error":
            raise PromptError(
                str(data["node_id"]),
                str(data["node_type"]),
                str(data["exception_message"]),
                str(data["exception_type"]),
                "".join(data["traceback"]),
            )
        if event == "execution_interrupted":
            message = "the prompt was interrupted"
            node_id, node_type = str(data["node_id"]), str(data["node_type"])
            raise PromptError(node_id, node_type, message, "InterruptProcessingException", "", interrupted=True)
    if status.get("status_str") == "error":
        raise PromptError("", "", f"no node named in {status}", "unknown", "")
