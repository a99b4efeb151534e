"""One ComfyUI server: whether it can do the work, and how it paints a picture."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from batch import pictures
from batch.catalogue import Item
from batch.client import Client, Tracker
from batch.errors import PictureError, ServerTrouble, Unsuitable
from batch.workflow import UPLOADS, Filled, Workflow
from tools.comfy_client import PromptError, require_success

# Seconds between looks at a server's queue and history, with the websocket open and without.
LOOK, LOOK_BLIND = 2.0, 0.5
# Seconds in which a server that has said that a prompt is finished must have it in its history.
RECORDED = 10.0
# Seconds for deleting what is left of a prompt.
CLEARING = 5.0


@dataclass(frozen=True)
class Painted:
    """files: content by name, as `fill_1.png`. tiles: thumbnails of input, fills and uncertainty. passes: through the
    network, None where the server told none. seconds: that the server says it took."""

    files: dict[str, bytes]
    tiles: list[Image.Image]
    size: tuple[int, int]
    seconds: float | None
    passes: int | None


@dataclass
class Worker:
    """client: of the server. pack: version that the server must have. settings: inputs, by node, that must exist.

    below: pixels that a picture must not reach, since one as large did not fit into memory. info: versions, once
    checked. up: set while the server works; out: why it is left out for good.
    """

    client: Client
    workflow: Workflow
    pack: str
    timeout: float
    settings: Iterable[tuple[str, str]] = ()
    below: int | None = None
    info: dict[str, str] = field(default_factory=dict)
    up: asyncio.Event = field(default_factory=asyncio.Event)
    out: str | None = None
    troubles: int = 0
    jobs: dict[str, Tracker] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.client.name

    async def check(self) -> None:
        """Raises Unsuitable with all that the server lacks, ServerTrouble where it does not answer."""
        stats = await self.client.stats()
        classes = sorted(self.workflow.classes)
        found = dict(zip(classes, await asyncio.gather(*map(self.client.node, classes)), strict=True))
        missing = [name for name, node in found.items() if node is None]
        version = await self.client.version()
        problems = []
        ours = [name for name in missing if name.startswith("VIPaint")]
        if ours and len(ours) == len([name for name in classes if name.startswith("VIPaint")]):
            problems.append("the VIPaint pack. Install it there and restart ComfyUI")
        elif version is None:
            problems.append(
                f"version {self.pack} of the VIPaint pack: it has one that tells no version. Update it there"
            )
        elif version["version"] != self.pack:
            problems.append(
                f"version {self.pack} of the VIPaint pack: it has {version['version']}. Use one version everywhere"
            )
        others = [name for name in missing if name not in ours] + (ours if not problems else [])
        if others:
            problems.append(f"the nodes {', '.join(others)}. Install their packs there")
        problems += self._missing_choices(found)
        if problems:
            raise Unsuitable(f"{self.name} lacks " + "; and ".join(problems))
        self.info = {
            "comfyui": str(stats.get("comfyui_version", "unknown")),
            "pytorch": str(stats.get("pytorch_version", "unknown")),
            "vipaint": version["version"] if version else "unknown",
            "vipaint_source": version["source"] if version else "unknown",
        }

    def _missing_choices(self, classes: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
        """Models and other choices of the workflow that the server does not offer, and settings that no node has."""
        problems = []
        for name, node in self.workflow.prompt.items():
            described = classes.get(node["class_type"])
            if described is None:
                continue
            kinds = described.get("input") or {}
            inputs = {**(kinds.get("required") or {}), **(kinds.get("optional") or {})}
            for key, value in node["inputs"].items():
                offered = _offered(inputs.get(key))
                if offered is not None and isinstance(value, str) and value not in offered:
                    some = ", ".join(map(str, offered[:8])) + (", ..." if len(offered) > 8 else "")
                    problems.append(f"{value!r} for {name}.{key}: it offers {some or 'nothing'}")
            wanted = {key for holder, key in self.settings if holder == name}
            unknown = sorted(key for key in wanted if key.split(".")[0] not in inputs)
            problems += [f"an input {key!r} of {node['class_type']}: it has {', '.join(inputs)}" for key in unknown]
        return problems

    # --- one picture ---

    async def paint(self, item: Item, seed: int) -> Painted:
        """Uploads, queues, waits and downloads. Raises PictureError, PromptError, InvalidPrompt or ServerTrouble."""
        job = uuid.uuid4().hex
        picture, mask, tile, size = await asyncio.to_thread(_prepare, item, self.workflow.mask_from)
        filled = self.workflow.fill(job, seed, item.options)
        tracker = Tracker(passes=dict.fromkeys(self.workflow.seeds, 0))
        prompt_id = None
        self.jobs[job] = tracker
        try:
            await self.client.upload(f"{UPLOADS}/{job}", "picture.png", picture)
            if mask is not None:
                await self.client.upload(f"{UPLOADS}/{job}", "mask.png", mask)
            prompt_id = await self._queue(filled, tracker)
            entry = await self._wait(prompt_id, tracker)
            require_success(entry)
            files = await self._download(filled, entry, job)
            tiles = await asyncio.to_thread(_tiles, files, tile)
            passes = sum(tracker.passes.values()) or None
            return Painted(files, tiles, size, _seconds(entry), passes)
        except ServerTrouble as trouble:
            raise ServerTrouble(str(trouble), trouble.running and (prompt_id is None or tracker.running)) from trouble
        finally:
            del self.jobs[job]
            if prompt_id is not None:
                self.client.trackers.pop(prompt_id, None)
            # The results are here, or of no use: the server's disk and memory need not hold them. It may be gone, too.
            await _even_if_cancelled(self._clear(prompt_id, job, tracker))

    async def _queue(self, filled: Filled, tracker: Tracker) -> str:
        prompt_id = await self.client.queue(filled.prompt)
        tracker.heard = time.monotonic()
        self.client.trackers[prompt_id] = tracker
        return prompt_id

    async def _wait(self, prompt_id: str, tracker: Tracker) -> dict[str, Any]:
        """The history entry of a finished prompt."""
        while True:
            look = LOOK if self.client.listening else LOOK_BLIND
            await is_set(tracker.news, look)
            tracker.news.clear()
            said_so = time.monotonic()
            while (entry := await self.client.history(prompt_id)) is None and tracker.finished:
                if time.monotonic() - said_so > RECORDED:
                    raise ServerTrouble("it said that the prompt is finished and has no record of it")
                await asyncio.sleep(0.05)
            if entry is not None:
                tracker.finished = True
                return entry
            place = await self.client.place(prompt_id)
            if place is None and (entry := await self.client.history(prompt_id)) is None:
                raise ServerTrouble("it has forgotten the prompt, as after a restart")
            tracker.running = tracker.running or place == "running"
            if place != "running":
                tracker.heard = time.monotonic()  # others come first
            elif time.monotonic() - tracker.heard > self.timeout:
                raise ServerTrouble(f"no progress for {self.timeout:.0f} s (--timeout)")

    async def _download(self, filled: Filled, entry: Mapping[str, Any], job: str) -> dict[str, bytes]:
        files = {}
        for output, node in filled.savers.items():
            images = (entry.get("outputs") or {}).get(node, {}).get("images") or []
            if not images:
                raise PictureError(f"expected pictures of the node {node!r}, found none")
            for number, image in enumerate(images, 1):
                # Names of our own: those that a server gives are never part of a path here.
                name = f"fill_{number}.png" if output == "fills" else _numbered(output, number, len(images))
                files[name] = await self.client.picture(image)
        if filled.posterior:
            files["posterior.safetensors"] = await self.client.posterior(job)
        return files

    async def _clear(self, prompt_id: str | None, job: str, tracker: Tracker) -> None:
        async def clear() -> None:
            if prompt_id is not None and not tracker.finished:
                await self.client.cancel(prompt_id)
                # Its record and its files are complete only when it has stopped.
                while await self.client.place(prompt_id) is not None:
                    await asyncio.sleep(0.05)
            await self.client.forget(prompt_id, job)

        with contextlib.suppress(ServerTrouble, asyncio.TimeoutError):
            await asyncio.wait_for(clear(), CLEARING)


async def is_set(event: asyncio.Event, seconds: float) -> bool:
    """Waits so long at most. asyncio.wait_for would lose a cancellation that comes with the event before Python 3.12."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([waiting], timeout=seconds)
    finally:
        waiting.cancel()
    return event.is_set()


async def _even_if_cancelled(work: Any) -> None:
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _numbered(output: str, number: int, count: int) -> str:
    return f"{output}.png" if count == 1 else f"{output}_{number}.png"


def _offered(description: Any) -> list[Any] | None:
    """The choices of a list input; None for inputs that take anything, among them uploaded files."""
    if not isinstance(description, (list, tuple)) or not description:
        return None
    more = description[1] if len(description) > 1 and isinstance(description[1], dict) else {}
    choices = description[0] if isinstance(description[0], list) else more.get("options")
    if not isinstance(choices, list) or any(key.endswith("_upload") or key == "remote" for key in more):
        return None
    return choices if all(isinstance(choice, (str, int, float)) for choice in choices) else None


def _prepare(item: Item, mask_from: str) -> tuple[bytes, bytes | None, Image.Image, tuple[int, int]]:
    """PNG files of picture and mask, a thumbnail of what is visible, and the size."""
    image = pictures.read(_unchanged(item.picture, item.digests.split(" ")[0]))
    picture = pictures.colours(image)
    hole = None
    if mask_from != "none":
        hole = (
            pictures.hole_of_mask(pictures.read(_unchanged(item.mask, item.digests.split(" ")[1])))
            if item.mask
            else pictures.hole_of_alpha(image)
        )
    files = pictures.for_nodes(picture, hole, mask_from == "alpha")
    return *files, pictures.shown(picture, hole), picture.size


def _unchanged(path: Path, digest: str) -> bytes:
    """A file's bytes. Raises PictureError where they are not those that were paired and checked."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PictureError(
            f"expected {path.name} as it was at the start, found no such file ({error.strerror})"
        ) from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise PictureError(f"expected {path.name} as it was at the start, found that it has changed. Run this again")
    return data


def _tiles(files: Mapping[str, bytes], first: Image.Image) -> list[Image.Image]:
    """Thumbnails; every picture is read to its end, so that none that is damaged counts as done."""
    images = [pictures.read(data) for name, data in files.items() if name.endswith(".png")]
    return [first, *(pictures.thumbnail(image) for image in images[: pictures.SHOWN])]


def _seconds(entry: Mapping[str, Any]) -> float | None:
    """What the server says that the prompt took."""
    messages = (entry.get("status") or {}).get("messages") or []
    times = {name: data.get("timestamp") for name, data in messages if isinstance(data, dict)}
    begin, end = times.get("execution_start"), times.get("execution_success")
    return round((end - begin) / 1000, 3) if begin is not None and end is not None else None


def is_out_of_memory(error: PromptError) -> bool:
    text = f"{error.exception_type} {error.exception_message}".casefold()
    return "outofmemory" in text or "out of memory" in text or "allocation on device" in text
