"""A local ComfyUI process with its own base directory.

    with ComfyServer(checkpoints=[file]) as server:
        entry = server.run(prompt)
        pictures = server.images(entry)

`tools.comfy_client` has its HTTP interface. Needs the standard library only. The server writes nothing into the host's
folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType

from tools.comfy_client import ComfyClient, InvalidPrompt, PromptError

__all__ = ["ROOT", "ComfyServer", "InvalidPrompt", "PromptError", "has_cuda", "locate_host"]

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


def locate_host() -> tuple[Path, str]:
    """ComfyUI's folder and interpreter: `COMFYUI_PATH` and `COMFYUI_PYTHON`, or what `run.py` has set up."""
    python = os.environ.get("COMFYUI_PYTHON")
    if os.environ.get("COMFYUI_PATH"):
        return Path(os.environ["COMFYUI_PATH"]).resolve(), python or sys.executable
    venv = ROOT / ".host" / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    return ROOT / ".host" / "ComfyUI", python or str(venv)


def pack_version() -> str:
    """The pack's version, as in pyproject.toml."""
    found = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    return found[1] if found else "unknown"


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


class ComfyServer(ComfyClient):
    """Context manager: a ComfyUI process in a temporary base directory with this pack and no other.

    checkpoints are linked into models/checkpoints. models_dir, if given, is the folder models/vipaint
    and may be shared between servers. pack is the custom node pack (None: no pack). cpu=None asks torch, port=None
    takes a free one.
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
        port: int | None = None,
        startup_timeout: float = 300.0,
    ) -> None:
        super().__init__("")
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
        self.port = port or 0
        self._fixed_port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._log = ""

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
        self.port = self._fixed_port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
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
            self.require_alive("at its start")
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
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def require_alive(self, when: str) -> None:
        if self._process is None:
            raise RuntimeError("ComfyServer: not running; use it inside its `with` block")
        code = self._process.poll()
        if code is not None:
            raise RuntimeError(f"ComfyServer: the server ended {when} with exit code {code}. Log:\n{self.tail()}")


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
