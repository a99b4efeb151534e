"""The command on real ComfyUI servers with the toy model."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from batch import pictures
from batch.__main__ import main
from batch.local import TOY, toy_checkpoints
from tools.comfy_server import ROOT, ComfyServer, pack_version

pytestmark = pytest.mark.host

SIDE = 64
(CHECKPOINT,) = toy_checkpoints({"checkpoint": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": TOY}}})
# Servers share the cores of a small machine; while one waits the other can start.
FRUGAL = {"OMP_NUM_THREADS": "1"}
SECONDS = 0.7
WAITING_PACK = """
import time
class Wait:
    CATEGORY, FUNCTION, RETURN_TYPES = "test", "go", ("IMAGE",)
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "seconds": ("FLOAT", {"default": 1.0})}}
    def go(self, image, seconds):
        time.sleep(seconds)
        return (image,)
NODE_CLASS_MAPPINGS = {"TestWait": Wait}
"""


@pytest.fixture(scope="module")
def start(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ComfyServer]:
    """Makes servers with the toy model, this pack and a node that waits."""
    folder = tmp_path_factory.mktemp("packs")
    (folder / "waiting").mkdir()
    (folder / "waiting" / "__init__.py").write_text(WAITING_PACK, "utf-8")
    (folder / "paths.yaml").write_text(json.dumps({"packs": {"custom_nodes": str(folder)}}), "utf-8")
    args = ["--extra-model-paths-config", str(folder / "paths.yaml")]
    return lambda **options: ComfyServer([CHECKPOINT], env=FRUGAL, args=args, **options)


@pytest.fixture(scope="module")
def server(start: Callable[..., ComfyServer]) -> Iterator[ComfyServer]:
    with start() as running:
        yield running


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """The shipped workflow, in which every picture takes some time and no computing."""
    graph = json.loads((ROOT / "workflows" / "api" / "inpaint.json").read_text("utf-8"))
    graph["wait"] = {"class_type": "TestWait", "inputs": {"image": ["decode", 0], "seconds": SECONDS}}
    graph["composite"]["inputs"]["fills"] = ["wait", 0]
    (tmp_path / "slow.json").write_text(json.dumps(graph), "utf-8")
    return tmp_path / "slow.json"


def draw(number: int, side: int) -> tuple[Image.Image, Image.Image]:
    """A picture of soft colours that no other number has, and a mask of its right half."""
    pixels = np.random.default_rng(number).integers(0, 255, (4, 4, 3), np.uint8)
    mask = Image.new("L", (side, side))
    mask.paste(255, (side // 2, 0, side, side))
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), mask.convert("RGB")


@pytest.fixture
def portraits(tmp_path: Path) -> SimpleNamespace:
    """Folders for pictures with hidden right halves: `fill(n)`, `add(name, number, side)`."""
    made = SimpleNamespace(pictures=tmp_path / "in", masks=tmp_path / "masks", out=tmp_path / "out")
    for path in (made.pictures, made.masks):
        path.mkdir()

    def add(name: str, number: int, side: int = SIDE) -> None:
        for place, image in zip((made.pictures, made.masks), draw(number, side), strict=True):
            image.save(place / name)

    made.add = add
    made.fill = lambda count: [add(f"p{number:02}.png", number) for number in range(count)]
    made.arguments = [str(made.pictures), "--masks", str(made.masks), "--out", str(made.out), "--set", "preset=fast"]
    return made


def begin(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    with open(log, "ab") as file:
        return subprocess.Popen([sys.executable, "-m", "batch", *arguments], cwd=ROOT, stderr=file)


def lines(out: Path) -> list[dict[str, object]]:
    file = out / "batch.jsonl"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []


def until(condition: Callable[[], bool], child: subprocess.Popen[bytes], log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert child.poll() is None and time.monotonic() < end, log.read_text("utf-8")[-3000:]
        time.sleep(0.02)


def executed(*servers: ComfyServer) -> int:
    return sum(server.log().count("Prompt executed in") for server in servers)


def all_whole(out: Path) -> bool:
    """Whether every file of a result decodes, and every result has all of its files."""
    for record in out.rglob("record.json"):
        for file in json.loads(record.read_text("utf-8"))["files"]:
            path = record.parent / file["name"]
            if path.stat().st_size != file["bytes"]:
                return False
            if path.suffix in (".png", ".jpg"):
                Image.open(path).load()
    strays = [
        path
        for path in out.rglob("fill_*.png")
        if "part" not in path.parts and not (path.parent / "record.json").is_file()
    ]
    return not strays


def visible_is_unchanged(portraits: SimpleNamespace, name: str, suffix: str = ".png") -> bool:
    original = np.asarray(Image.open(portraits.pictures / f"{name}{suffix}").convert("RGB"))
    seen = np.asarray(Image.open(portraits.masks / f"{name}.png").convert("L")) == 0
    fill = np.asarray(Image.open(portraits.out / name / "fill_1.png"))
    return (
        fill.shape == original.shape
        and np.array_equal(fill[seen], original[seen])
        and (fill[~seen] != original[~seen]).any()
    )


def test_24_pictures_survive_a_killed_server_its_restart_and_a_killed_command(
    server: ComfyServer,
    start: Callable[..., ComfyServer],
    slow: Path,
    portraits: SimpleNamespace,
    tmp_path: Path,
) -> None:
    portraits.fill(24)
    log, before = tmp_path / "log", executed(server)
    with start() as second:
        arguments = [*portraits.arguments, "fills=2", "--workflow", str(slow), "--server", server.url, second.url]
        child = begin(arguments, log)
        until(lambda: {line["server"] for line in lines(portraits.out)} == {server.url, second.url}, child, log)
        assert second.pid is not None
        os.killpg(second.pid, signal.SIGKILL)
        killed = executed(second)
        with start(port=second.port) as restarted:
            # The command finds it again by itself.
            until(lambda: executed(restarted) >= 1, child, log)
            child.kill()
            child.wait()
            done = {path.parent.name for path in portraits.out.rglob("record.json") if "part" not in path.parts}
            assert 2 < len(done) < 24 and all_whole(portraits.out)
            times = {name: (portraits.out / name / "record.json").stat().st_mtime_ns for name in done}
            for queue in (server, restarted):
                while any(queue.get("/queue").values()):
                    time.sleep(0.05)
            painted = executed(server, restarted) - before + killed
            assert painted - len(done) <= 5, "in flight: two on each server, and one that was killed with its server"
            again = begin(arguments, log)
            assert again.wait(180) == 0, log.read_text("utf-8")[-3000:]
            assert executed(server, restarted) - before + killed - painted == 24 - len(done)
            left = [*restarted.base.glob("*/vipaint_batch/*")] if restarted.base else []
    said = log.read_text("utf-8")
    assert f"{second.url}: " in said and f"{second.url} is back" in said and f"{len(done)} done" in said
    found = {line["name"]: line for line in lines(portraits.out)}
    assert len(found) == len(lines(portraits.out)) == 24 and all(line["status"] == "done" for line in found.values())
    assert all((portraits.out / name / "record.json").stat().st_mtime_ns == then for name, then in times.items())
    assert all_whole(portraits.out) and all(visible_is_unchanged(portraits, name) for name in found)
    for line in found.values():
        assert (
            line["passes"] == 2 * 28 and line["seconds"] > 0 and line["versions"]["comfyui"] and len(line["files"]) == 4
        )
    # Nothing is left on the servers but what belonged to the killed command.
    assert len(left) <= 4


@pytest.fixture
def call(
    server: ComfyServer, portraits: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> Callable[..., SimpleNamespace]:
    def run(*more: str, out: Path | None = None) -> SimpleNamespace:
        arguments = [str(out) if value == str(portraits.out) and out else value for value in portraits.arguments]
        capsys.readouterr()
        code = main([*arguments, *more, "--server", server.url])
        found = {str(line["name"]): line for line in lines(out or portraits.out)}
        return SimpleNamespace(code=code, said=capsys.readouterr().err, lines=found)

    return run


@pytest.fixture
def nothing_left(server: ComfyServer) -> Iterator[None]:
    """The command deletes what it put on the server; what a killed one left is not its own."""
    before = job_folders(server)
    yield
    assert set(job_folders(server)) <= set(before)


def job_folders(server: ComfyServer) -> list[Path]:
    assert server.base is not None
    return [*server.base.glob("*/vipaint_batch/*"), *server.base.glob("models/vipaint/batch/*")]


@pytest.mark.usefixtures("nothing_left")
def test_odd_pictures_are_painted_and_bad_ones_are_named(
    server: ComfyServer, portraits: SimpleNamespace, call: Callable[..., SimpleNamespace]
) -> None:
    for number, name in enumerate(("deep", "turned", "odd", "clear", "cmyk", "corrupt", "small", "empty")):
        portraits.add(f"{name}.png", number, 64)
    picture, mask = draw(1, 64)
    grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(portraits.pictures / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    wide, wide_mask = picture.crop((0, 0, 64, 40)), mask.crop((0, 0, 64, 40))
    wide.transpose(Image.Transpose.ROTATE_90).save(portraits.pictures / "turned.png", exif=exif)
    wide_mask.save(portraits.masks / "turned.png")
    picture.crop((0, 0, 61, 37)).save(portraits.pictures / "odd.png")
    mask.crop((0, 0, 61, 37)).save(portraits.masks / "odd.png")
    clear = picture.copy()
    clear.putalpha(mask.convert("L").point(lambda value: 255 - value))
    clear.save(portraits.pictures / "clear.png")
    (portraits.masks / "clear.png").unlink()
    picture.convert("CMYK").save(portraits.pictures / "cmyk.tif")
    (portraits.pictures / "cmyk.png").unlink()
    data = (portraits.pictures / "corrupt.png").read_bytes()
    (portraits.pictures / "corrupt.png").write_bytes(data[: len(data) // 2])
    mask.resize((32, 64)).save(portraits.masks / "small.png")
    Image.new("L", (64, 64)).save(portraits.masks / "empty.png")

    found = call("fills=1")
    assert found.code == 2 and not found.lines and "Nothing was painted" in found.said
    for words in (
        "corrupt: picture corrupt.png: expected a picture, found that corrupt.png cannot be read",
        "small: mask small.png: expected the picture's size, 64 x 64 pixels, found 32 x 64",
        "empty: mask empty.png: empty",
    ):
        assert words in found.said
    found = call("fills=1", "--skip")
    assert found.code == 1 and {name for name, line in found.lines.items() if line["status"] == "problem"} == {
        "corrupt",
        "small",
        "empty",
    }
    for name, file in (
        ("deep", "deep.png"),
        ("turned", "turned.png"),
        ("odd", "odd.png"),
        ("clear", "clear.png"),
        ("cmyk", "cmyk.tif"),
    ):
        upright = pictures.read(portraits.pictures / file)
        original = np.asarray(pictures.colours(upright))
        hole = (
            pictures.hole_of_alpha(upright)
            if name == "clear"
            else pictures.hole_of_mask(pictures.read(portraits.masks / f"{name}.png"))
        )
        seen, fill = np.asarray(hole) == 0, np.asarray(Image.open(portraits.out / name / "fill_1.png"))
        assert fill.shape == original.shape and seen.any() and not seen.all()
        assert np.array_equal(fill[seen], original[seen]), name
    assert np.asarray(Image.open(portraits.out / "turned" / "fill_1.png")).shape == (40, 64, 3)


@pytest.mark.usefixtures("nothing_left")
def test_a_poisoned_picture_prompts_and_all_outputs(
    server: ComfyServer, portraits: SimpleNamespace, call: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    for number in range(3):
        portraits.add(f"p{number}.png", number, 64)
    table = tmp_path / "t.csv"
    table.write_text("picture,name,seed,cfg\np0.png,,5,\np0.png,again,5,\np1.png,,,nan\np2.png,,6,1\n")
    found = call(
        "fills=2", "--prompts", str(table), "--outputs", "fills", "uncertainty", "posterior", "--attempts", "2"
    )
    assert found.code == 1 and found.lines["p1"]["status"] == "failed"
    assert "VIPaintInpaint (inpaint): VIPaint Inpaint, input `cfg`" in found.lines["p1"]["reason"]
    assert "(attempt 2 of 2)" in found.lines["p1"]["reason"]
    names = {file["name"] for file in found.lines["p0"]["files"]}
    assert names == {"fill_1.png", "fill_2.png", "uncertainty.png", "posterior.safetensors", "strip.jpg"}
    data = (portraits.out / "p0" / "posterior.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert "__metadata__" in header and len(header) > 1
    # One seed, one picture, two names: the same pixels.
    assert all(
        np.array_equal(*(np.asarray(Image.open(portraits.out / name / f"fill_{i}.png")) for name in ("p0", "again")))
        for i in (1, 2)
    )
    assert not np.array_equal(*(np.asarray(Image.open(portraits.out / "p0" / f"fill_{i}.png")) for i in (1, 2)))
    found = call("fills=2", "checkpoint.ckpt_name=absent.safetensors")
    assert (
        found.code == 2
        and "'absent.safetensors' for checkpoint.ckpt_name: it offers vipaint_toy.safetensors" in found.said
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a file system")
def test_a_full_disk_leaves_nothing_half_written(
    portraits: SimpleNamespace, call: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    for number in range(12):
        portraits.add(f"p{number}.png", number, 64)
    portraits.out.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=240k", "tmpfs", portraits.out], check=False)
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        found = call("fills=2")
        assert found.code in (1, 2) and "No space left on device" in found.said
        done = len(list(portraits.out.rglob("record.json")))
        assert 0 < done < 12 and all_whole(portraits.out)
        subprocess.run(["mount", "-o", "remount,size=16m", portraits.out], check=True)
        found = call("fills=2")
        assert found.code == 0 and f"{done} done, {12 - done} to paint" in found.said and all_whole(portraits.out)
    finally:
        subprocess.run(["umount", portraits.out], check=True)


@pytest.fixture
def other_models(tmp_path: Path) -> Path:
    """A folder of models beside ComfyUI's own, with the toy model under another name."""
    (tmp_path / "models" / "checkpoints").mkdir(parents=True)
    shutil.copy2(CHECKPOINT, tmp_path / "models" / "checkpoints" / "mine.safetensors")
    return tmp_path / "models"


def test_without_a_server_one_is_started_and_ended(
    comfyui: Path, portraits: SimpleNamespace, other_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    portraits.fill(2)
    more = ["fills=2", "checkpoint.ckpt_name=mine.safetensors", "--models", str(other_models)]
    assert main([*portraits.arguments, *more]) == 0, capsys.readouterr().err
    found = lines(portraits.out)
    assert len(found) == 2 and all_whole(portraits.out) and visible_is_unchanged(portraits, "p00")
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{found[0]['server']}/system_stats", timeout=5)


def test_the_server_s_routes_reach_the_files_of_a_job_and_no_others(server: ComfyServer) -> None:
    """The names that scripts give are 32 hexadecimal digits, and links lead nowhere."""
    assert server.base is not None
    job = "0123456789abcdef" * 2
    folders = [server.base / "input/vipaint_batch" / job, server.base / "output/vipaint_batch" / job]
    folders.append(server.base / "models/vipaint/batch" / job)
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "posterior_00001_.safetensors").write_bytes(b"fit")
    outside = server.base / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (server.base / "output/vipaint_batch" / ("f" * 32)).symlink_to(outside)

    def ask(path: str, method: str = "GET") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request(method, path)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    assert ask(f"/vipaint/jobs/{job}/posterior") == (200, b"fit")
    for name in ("..", "%2e%2e", "x" * 32, job[:-1], f"{job}%2f..", job.upper()):
        assert ask(f"/vipaint/jobs/{name}/posterior")[0] == 404, name
        assert ask(f"/vipaint/jobs/{name}", "DELETE")[0] in (404, 405), name
    assert ask(f"/vipaint/jobs/{'f' * 32}", "DELETE")[0] == 200 and (outside / "kept").exists()
    assert all(folder.exists() for folder in folders)
    assert ask(f"/vipaint/jobs/{job}", "DELETE")[0] == 200 and not any(folder.exists() for folder in folders)
    assert ask(f"/vipaint/jobs/{job}/posterior")[0] == 404
    (server.base / "output/vipaint_batch" / ("f" * 32)).unlink()
    version = json.loads(ask("/vipaint/version")[1])
    assert version["version"] == pack_version() and len(version["source"]) == 16
