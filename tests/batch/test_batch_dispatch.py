"""The command on stub servers that fail in every way that servers do."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from tools import comfy_stub
from tools.comfy_stub import DIE, ERROR, HANG, OUT_OF_MEMORY, Stub

ROOT = Path(__file__).resolve().parent.parent.parent
Call = Callable[..., SimpleNamespace]
Start = Callable[..., Stub]


def size(data: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(data)).size


def whole(folder: Path) -> bool:
    """Whether no file of a result is half-written or left over."""
    parts = [*folder.rglob("part/*"), *folder.rglob("*.part")]
    for record in folder.rglob("record.json"):
        files = json.loads(record.read_text("utf-8"))["files"]
        if any((record.parent / file["name"]).stat().st_size != file["bytes"] for file in files):
            return False
        if {path.name for path in record.parent.iterdir() if path.is_file()} != {
            "record.json",
            *(f["name"] for f in files),
        }:
            return False
    strays = [path for path in folder.rglob("fill_*") if not (path.parent / "record.json").is_file()]
    return not parts and not strays


# --- where all goes well ---


def test_every_picture_is_painted_once_two_at_a_time(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    folder.fill(12)
    servers = [stubs(seconds=0.05) for _ in range(3)]
    found = call("--server", *(server.url for server in servers))
    assert found.code == 0 and len(found.rows) == 12
    assert sum(server.painted for server in servers) == 12 and all(server.painted for server in servers)
    assert all(server.most_queued == 2 for server in servers)
    # Nothing is left on the servers: no uploads, no records.
    assert all(server.kept == 0 for server in servers)
    for name, line in found.lines.items():
        sent = Image.open(folder.out / name / "fill_1.png")
        assert sent.tobytes() == Image.open(folder.pictures / f"{name}.png").convert("RGB").tobytes()
        assert line["server"] in {server.url for server in servers} and line["seconds"] == pytest.approx(
            0.05, abs=0.002
        )
        assert line["passes"] == 8 and line["attempts"] == 1 and line["versions"]["vipaint"]
    assert len({line["seed"] for line in found.lines.values()}) == 12
    assert "12/12 [" in found.said and ("picture/s" in found.said or "s/picture" in found.said)
    assert whole(folder.out)


def test_uploads_overlap_with_painting(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    """While a prompt runs the next is queued already: the server is never idle for longer than it takes to ask it."""
    folder.fill(10)
    server = stubs(seconds=0.1)
    assert call("--server", server.url).code == 0
    assert server.last - server.first < 10 * 0.1 + 0.2


def test_the_same_command_goes_on_and_a_changed_setting_or_input_repaints(
    folder: SimpleNamespace, call: Call, stubs: Start, picture: Callable[..., Image.Image]
) -> None:
    folder.fill(4)
    server = stubs()
    assert call("--server", server.url).code == 0 and server.painted == 4
    # All is done: no server is asked.
    server.seen.clear()
    assert call("--server", server.url).code == 0 and server.painted == 4 and not server.seen
    # Other times, same content; another name, same content.
    os.utime(folder.pictures / "p0.png", (1, 1))
    assert call("--server", server.url).code == 0 and server.painted == 4
    # Another content of the same name; a lost file; a file cut short.
    picture(77).save(folder.pictures / "p0.png")
    (folder.out / "p1" / "fill_1.png").unlink()
    (folder.out / "p2" / "strip.jpg").write_bytes(b"short")
    found = call("--server", server.url)
    assert found.code == 0 and server.painted == 7 and "1 of these again" in found.said
    # Another mask; another setting; the setting as before.
    picture(5).convert("L").save(folder.masks / "p3.png")
    assert call("--server", server.url).code == 0 and server.painted == 8
    found = call("--server", server.url, "--set", "preset=fast")
    assert found.code == 0 and server.painted == 12
    assert found.lines["p0"]["settings"] == {"inpaint.fills": 1, "inpaint.preset": "fast"}
    assert call("--server", server.url).code == 0 and server.painted == 16
    assert len(call("--server", server.url).rows) == 4 and whole(folder.out)


def test_a_seed_is_the_picture_s_own_or_one_for_all(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    folder.fill(2)
    server = stubs()
    first = call("--server", server.url)
    shutil.rmtree(folder.out)
    again = call("--server", server.url)
    assert [line["seed"] for line in first.rows] == [line["seed"] for line in again.rows]
    other = call("--server", server.url, "--seed", "1")
    assert {line["seed"] for line in other.rows}.isdisjoint(line["seed"] for line in first.rows)
    assert {line["seed"] for line in call("--server", server.url, "--set", "seed=7").rows} == {7}


def test_a_dry_run_asks_and_paints_nothing(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    folder.fill(3)
    server = stubs()
    found = call("--server", server.url, "--dry-run")
    assert found.code == 1 and "3 pictures: 0 done, 3 to paint" in found.said and "comfyui stub" in found.said
    assert server.painted == 0 and not any(line.startswith(("POST", "DELETE")) for line in server.seen)
    assert not list(folder.out.glob("p*"))


def test_outputs_as_asked(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    folder.fill(1)
    server = stubs()
    names = lambda: {file["name"] for file in call_again().rows[0]["files"]}  # noqa: E731
    call_again = lambda: call("--server", server.url, "--set", "fills=2", *asked)  # noqa: E731
    asked: list[str] = []
    assert names() == {"fill_1.png", "fill_2.png", "uncertainty.png", "strip.jpg"}
    asked = ["--outputs", "fills", "posterior"]
    assert names() == {"fill_1.png", "fill_2.png", "posterior.safetensors", "strip.jpg"}
    # The former result's files do not stay beside the new one's.
    assert not (folder.out / "p0" / "uncertainty.png").exists()


def test_the_pages_show_every_picture_and_need_no_server(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    folder.fill(102)
    folder.add("sub folder/ä & <b>.png", 500)
    Path(folder.masks / "p50.png").unlink()
    assert call("--server", stubs(seconds=0).url, "--skip").code == 1
    first, second = (folder.out / name for name in ("index.html", "_index/2.html"))
    text = first.read_text("utf-8") + second.read_text("utf-8")
    assert text.count("<figure") == 103 and "http://" not in text and "no mask" in text
    assert "&lt;b&gt;" in text and "<b>.png" not in text
    for page in (first, second):
        body = page.read_text("utf-8")
        links = [part.split('"')[0] for mark in ('src="', 'href="') for part in body.split(mark)[1:]]
        assert len(links) > 2
        for link in links:
            from urllib.parse import unquote

            assert (page.parent / unquote(link)).is_file(), link


# --- servers that fail ---


def test_a_dead_server_s_work_goes_to_the_others(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    folder.fill(12)
    seen: list[bytes] = []

    def dies(data: bytes) -> str | None:
        seen.append(data)
        return DIE if len(seen) == 3 else None

    good, bad = stubs(seconds=0.05), stubs(seconds=0.05, verdict=dies)
    found = call("--server", good.url, bad.url)
    assert found.code == 0 and bad.painted == 2
    # Painted twice at most what was in flight: painted, and not downloaded yet.
    assert 12 <= good.painted + bad.painted <= 13
    # The one that was being painted counts as tried, the one queued behind it does not.
    assert 13 <= sum(line["attempts"] for line in found.rows) <= 14
    assert bad.url in found.said


def test_a_server_that_comes_back_is_used_again(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    folder.fill(30)
    first = stubs(seconds=0.05)
    port, back = first.port, {}

    def restart() -> None:
        first.die()
        time.sleep(0.7)
        back["server"] = stubs(seconds=0.05, port=port)

    timer = threading.Timer(0.5, restart)
    timer.start()
    found = call("--server", first.url, stubs(seconds=0.1).url)
    timer.join()
    assert found.code == 0 and f"{first.url} is back" in found.said
    assert back["server"].painted > 0


def test_a_server_that_answers_500_loses_its_work(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    folder.fill(8)
    good, bad = stubs(), stubs(answers={"/prompt": 500})
    found = call("--server", good.url, bad.url)
    assert found.code == 0 and good.painted == 8
    assert "HTTP 500" in found.said


def test_where_all_servers_answer_500_every_picture_is_named(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    folder.fill(3)
    server = stubs(answers={"/upload/image": 500})
    found = call("--server", server.url)
    assert found.code == 1 and "is left out" in found.said and "HTTP 500" in found.said
    assert len(found.rows) == 3 and all(line["status"] != "done" for line in found.rows)


def test_a_hanging_picture_is_given_up_and_reported(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    folder.fill(3)
    folder.add("slow.png", 9, width=20)
    server = stubs(verdict=lambda data: HANG if size(data)[0] == 20 else None)
    found = call("--server", server.url, "--timeout", "0.5", "--attempts", "2")
    assert found.code == 1 and server.painted == 3
    assert "no progress for 0 s" in found.lines["slow"]["reason"] and "attempt 2 of 2" in found.lines["slow"]["reason"]


def test_a_server_that_does_not_answer_at_all_is_taken_for_dead(
    folder: SimpleNamespace, call: Call, stubs: Start
) -> None:
    folder.fill(6)
    frozen = stubs(seconds=0.02)

    def freezes(data: bytes) -> str | None:
        frozen._loop.call_soon(time.sleep, 4.0)  # the whole server, not only the prompt
        return HANG

    frozen.verdict = freezes
    good = stubs(seconds=0.05)
    found = call("--server", frozen.url, good.url)
    assert found.code == 0 and good.painted == 6


def test_a_poisoned_picture_is_tried_as_often_as_stated(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    folder.fill(4)
    folder.add("bad.png", 9, width=20)
    tries: list[str] = []

    def verdict(name: str) -> Callable[[bytes], str | None]:
        def judge(data: bytes) -> str | None:
            if size(data)[0] != 20:
                return None
            tries.append(name)
            return ERROR

        return judge

    servers = [stubs(verdict=verdict(name)) for name in "ab"]
    found = call("--server", *(server.url for server in servers), "--attempts", "4")
    assert found.code == 1 and len(tries) == 4
    line = found.lines["bad"]
    assert line["status"] == "failed" and "VIPaintInpaint (inpaint): error, as told (attempt 4 of 4)" in line["reason"]
    assert sum(line["status"] == "done" for line in found.rows) == 4
    # It comes last when the command runs again, and is painted where that is possible now.
    folder.add("z.png", 10)
    for server in servers:
        server.verdict = lambda data: None
    found = call("--server", servers[0].url)
    assert found.code == 0 and [line["name"] for line in found.rows] == ["bad", "p0", "p1", "p2", "p3", "z"]


def test_a_server_out_of_memory_gets_smaller_pictures(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    for number in range(4):
        folder.add(f"small{number}.png", number)
        folder.add(f"large{number}.png", number + 50, width=40, height=40)
    large: list[bytes] = []

    def small_memory(data: bytes) -> str | None:
        if size(data)[0] < 40:
            return None
        large.append(data)
        return OUT_OF_MEMORY

    weak, strong = stubs(seconds=0.02, verdict=small_memory), stubs(seconds=0.05)
    found = call("--server", weak.url, strong.url)
    assert found.code == 0 and weak.painted and 1 <= len(large) <= 2, "those in flight when it became known"
    assert all(line["server"] == strong.url for name, line in found.lines.items() if name.startswith("large"))
    assert "POST /free" in weak.seen


def test_a_picture_for_which_no_server_has_memory_is_reported(
    folder: SimpleNamespace, call: Call, stubs: Start
) -> None:
    folder.fill(3)
    folder.add("huge.png", 9, width=60, height=60)
    servers = [stubs(verdict=lambda data: OUT_OF_MEMORY if size(data)[0] == 60 else None) for _ in range(2)]
    found = call("--server", *(server.url for server in servers))
    assert found.code == 1 and "out of memory on every server" in found.lines["huge"]["reason"]
    assert sum(server.painted for server in servers) == 3


def test_without_any_server_the_command_ends_in_time(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    folder.fill(2)
    gone = stubs()
    gone.die()
    gone._thread.join(5)
    found = call("--server", gone.url, "--patience", "0.5")
    assert found.code == 2 and "--patience" in found.said and gone.url in found.said


def test_a_batch_that_fails_from_the_first_picture_on_ends_early(
    folder: SimpleNamespace, call: Call, stubs: Start
) -> None:
    folder.fill(30)
    server = stubs(seconds=0.005, verdict=lambda data: ERROR)
    found = call("--server", server.url, "--attempts", "1")
    assert found.code == 1 and "the first 10 pictures have failed" in found.said
    assert sum(line["status"] == "failed" for line in found.rows) in (10, 11)
    assert sum(line["status"] == "waiting" for line in found.rows) >= 19


# --- servers that are refused ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"version": None}, "lacks the VIPaint pack. Install it there"),
        ({"version": "0.0.1"}, "it has 0.0.1. Use one version everywhere"),
        (
            {"models": ("other.safetensors",)},
            "'vipaint_toy.safetensors' for checkpoint.ckpt_name: it offers other.safetensors",
        ),
        ({"missing": ("VAEDecode",)}, "lacks the nodes VAEDecode"),
        ({"missing": ("VIPaintComposite",)}, "lacks the nodes VIPaintComposite"),
        ({"source": "other"}, "expected the same VIPaint code on all servers"),
    ],
)
def test_an_unsuitable_server_is_refused_before_any_work(
    folder: SimpleNamespace, call: Call, stubs: Start, options: dict[str, object], words: str
) -> None:
    folder.fill(2)
    good, bad = stubs(), stubs(**options)
    found = call("--server", good.url, bad.url)
    assert found.code == 2 and words in found.said and bad.url in found.said
    assert good.painted == bad.painted == 0
    if "source" not in options:
        found = call("--server", good.url, bad.url, "--skip")
        assert found.code == 0 and good.painted == 2 and bad.painted == 0


def test_a_setting_that_no_node_has_is_refused(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    folder.fill(1)
    server = stubs()
    found = call("--server", server.url, "--set", "prset=fast")
    assert found.code == 2 and "lacks an input 'prset' of VIPaintInpaint" in found.said and server.painted == 0


# --- only the servers named ---


@pytest.mark.parametrize("path", ["/system_stats", "/prompt", "/view", "/ws"])
def test_redirections_are_not_followed(folder: SimpleNamespace, call: Call, stubs: Start, path: str) -> None:
    folder.fill(2)
    other = stubs()
    server = stubs(answers={path: other.url + path})
    found = call("--server", server.url, "--attempts", "1", "--patience", "0.5")
    assert not other.seen
    # Without the websocket all goes on by asking.
    assert found.code == (0 if path == "/ws" else 1 if path != "/system_stats" else 2)
    assert path == "/ws" or "redirection" in found.said


def test_proxies_of_the_environment_are_not_contacted(
    folder: SimpleNamespace, call: Call, stubs: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.fill(1)
    proxy, server = stubs(), stubs()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    assert call("--server", server.url).code == 0 and not proxy.seen


def test_a_password_in_an_address_is_never_shown(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    folder.fill(1)
    server = stubs()
    found = call("--server", server.url.replace("//", "//anna:secret@"))
    assert found.code == 0
    kept = "".join(path.read_text("utf-8", errors="replace") for path in folder.out.rglob("*") if path.is_file())
    assert "secret" not in found.said + kept and found.rows[0]["server"] == server.url


def test_names_that_a_server_gives_are_no_paths_here(
    folder: SimpleNamespace, call: Call, stubs: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.fill(1)
    outputs = comfy_stub._outputs

    def hostile(name: str, prompt: dict[str, object]) -> dict[str, object]:
        found = outputs(name, prompt)
        return {"images": [{**image, "filename": "../../../evil.png"} for image in found["images"]]}

    monkeypatch.setattr(comfy_stub, "_outputs", hostile)
    before = {path for path in tmp_path.rglob("*") if folder.out not in path.parents}
    assert call("--server", stubs().url).code == 0
    assert {path for path in tmp_path.rglob("*") if folder.out not in path.parents} == before | {folder.out}
    assert {path.name for path in folder.out.iterdir()} == {"p0", "index.html", "batch.jsonl", ".batch"}


@pytest.mark.parametrize("address", ["ftp://host:1", "http://", "http://host:notaport", "host:8188?x=1"])
def test_addresses_that_are_none(folder: SimpleNamespace, call: Call, address: str) -> None:
    folder.fill(1)
    found = call("--server", address)
    assert found.code == 2 and "expected a server as http://HOST:8188" in found.said


# --- the command itself ---


def test_a_picture_that_changes_meanwhile_is_not_painted_as_the_old_one(
    folder: SimpleNamespace, call: Call, stubs: Start, picture: Callable[..., Image.Image]
) -> None:
    folder.fill(6)

    def change(data: bytes) -> None:
        picture(99).save(folder.pictures / "p5.png")

    found = call("--server", stubs(seconds=0.05, verdict=change).url)
    assert found.code == 1 and "has changed" in found.lines["p5"]["reason"]
    assert call("--server", stubs().url).code == 0


def test_two_commands_do_not_write_into_one_folder(folder: SimpleNamespace, call: Call, stubs: Start) -> None:
    import filelock

    folder.fill(1)
    (folder.out / ".batch" / "all").mkdir(parents=True)
    with filelock.FileLock(folder.out / ".batch" / "all" / "lock"):
        found = call("--server", stubs().url)
    assert found.code == 2 and "another batch command writes into" in found.said


def begin(folder: SimpleNamespace, server: Stub) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "batch", str(folder.pictures), "--masks", str(folder.masks)]
    command += ["--out", str(folder.out), "--set", "fills=1", "--server", server.url]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_a_stopped_command_leaves_nothing_half_done_and_goes_on(
    folder: SimpleNamespace, call: Call, stubs: Start, name: str
) -> None:
    folder.fill(40)
    server = stubs()

    def slower(_: bytes) -> None:
        # So slow from here on that the signal comes in time on a busy machine.
        server.seconds = 0.5 if server.painted >= 8 else 0.02

    server.verdict = slower
    child = begin(folder, server)
    while server.painted < 8 and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(getattr(signal, name))
    _, said = child.communicate(timeout=20)
    # What was being written when the command was killed is in its scratch folder.
    done = sum("part" not in record.parts for record in folder.out.rglob("record.json"))
    assert 5 <= done < 40
    if name != "SIGKILL":
        assert child.returncode == 130 and "goes on where it stopped" in said
        assert whole(folder.out) and not server._queue and server.kept == 0, "the server is left as it was"
        assert len((folder.out / "batch.jsonl").read_text("utf-8").splitlines()) == 40
    server.verdict, server.seconds = lambda _: None, 0.02
    while server._queue or server._running:  # what a killed command left there
        time.sleep(0.01)
    painted = server.painted
    found = call("--server", server.url)
    assert found.code == 0 and server.painted - painted == 40 - done and whole(folder.out)
    assert painted - done <= 3, "in flight: two in the queue, and one whose result was on its way"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a file system")
def test_a_full_disk_stops_the_command_and_it_goes_on(
    folder: SimpleNamespace, call: Call, stubs: Start, picture: Callable[..., Image.Image]
) -> None:
    folder.fill(30)
    folder.out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder.out], check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        server = stubs()
        found = call("--server", server.url)
        assert found.code in (1, 2) and "No space left" in found.said
        done = len(list(folder.out.rglob("record.json")))
        assert 0 < done < 30 and whole(folder.out)
        subprocess.run(["mount", "-o", "remount,size=8m", folder.out], check=True)
        painted = server.painted
        found = call("--server", server.url)
        assert found.code == 0 and server.painted - painted == 30 - done and whole(folder.out)
    finally:
        subprocess.run(["umount", folder.out], check=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "fills"], "expected --set NAME=VALUE, found 'fills'"),
        (["--set", "fills=many"], "expected a number like 1 for the setting 'fills', found 'many'"),
        (["--set", "image=x"], "is connected to picture"),
        (["--shard", "4/4"], "expected --shard I/N"),
        (["--node", "artist=inpaint"], "expected --node ROLE=NODE with a role of"),
        (["--node", "save=nowhere"], "expected a node with the id or title 'nowhere'"),
        (["--workflow", "nowhere.json"], "expected a workflow in API format"),
        (["--workflow", str(ROOT / "workflows" / "inpaint.json")], "found the editor's format"),
        (["--prompts", "nowhere.csv"], "expected a table in UTF-8"),
    ],
)
def test_arguments_that_are_refused(folder: SimpleNamespace, call: Call, arguments: list[str], words: str) -> None:
    folder.fill(1)
    found = call(*arguments)
    assert found.code == 2 and words in found.said and "Traceback" not in found.said
