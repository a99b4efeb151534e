"""Gives pictures to servers, two at a time each, and deals with what fails."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from batch import catalogue, pictures
from batch.catalogue import Catalogue, Item
from batch.errors import BatchError, PictureError, ServerTrouble, Unsuitable
from batch.results import STRIP, Results
from batch.worker import Painted, Worker, is_out_of_memory, is_set
from batch.workflow import Workflow
from tools.comfy_client import InvalidPrompt, PromptError

# While one is painted the next is uploaded and the last one downloaded.
SLOTS = 2
# A server with so many troubles and no picture between them is left out.
TROUBLES = 5
# When so many pictures have failed and none was painted, the fault is not theirs.
HOPELESS = 10
# Seconds from one look for an absent server to the next: at first, at most.
FIRST_LOOK, LAST_LOOK = 1.0, 30.0


class Watcher(Protocol):
    """Shown what happens."""

    def done(self, item: Item, worker: Worker) -> None: ...

    def failed(self, item: Item) -> None: ...

    def say(self, text: str) -> None: ...


@dataclass(frozen=True)
class Limits:
    """attempts: for each picture. patience: seconds without any server after which the command ends."""

    attempts: int = 3
    patience: float = 300.0


@dataclass
class Dispatch:
    """revive: restarts the command's own server where it has ended; None where there is none."""

    base: Catalogue
    workers: list[Worker]
    results: Results
    workflow: Workflow
    base_seed: int
    watcher: Watcher
    limits: Limits = field(default_factory=Limits)
    revive: Callable[[], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        self._changed = asyncio.Event()
        self._busy = self._painted = self._failed = 0
        # Its result is the end of the work, an exception why it cannot go on.
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._alone_since: float | None = None

    async def run(self) -> None:
        """Returns once nothing is left to do. Raises BatchError where it cannot go on."""
        servers = [asyncio.create_task(self._keep(worker)) for worker in self.workers]
        slots = [asyncio.create_task(self._serve(worker)) for worker in self.workers for _ in range(SLOTS)]
        watch = asyncio.create_task(self._watch())
        everything = asyncio.gather(*slots)
        try:
            self._note_change()
            ends: list[asyncio.Future[Any]] = [everything, watch, self._end]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                if end.done():
                    end.result()
        finally:
            tasks = [*slots, *servers, watch]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, everything, return_exceptions=True)

    # --- servers ---

    async def _keep(self, worker: Worker) -> None:
        """Checks a server, follows it, and looks for it again where it has gone."""
        pause = FIRST_LOOK
        while worker.out is None:
            try:
                if self.revive is not None:
                    await self.revive()
                await worker.check()
                self._require_same_code(worker)
            except Unsuitable as reason:
                await self._leave_out(worker, str(reason))
                return
            except ServerTrouble:
                await asyncio.sleep(pause)
                pause = min(LAST_LOOK, 1.5 * pause)
                continue
            if worker.troubles or pause > FIRST_LOOK:
                self.watcher.say(f"{worker.name} is back")
            pause = FIRST_LOOK
            worker.up.set()
            listening = asyncio.create_task(self._listen(worker))
            while worker.up.is_set():
                await asyncio.sleep(0.1)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            # One that answers and yet fails gets more time each time.
            await asyncio.sleep(min(LAST_LOOK, FIRST_LOOK * 2 ** (worker.troubles - 1)))

    @staticmethod
    async def _listen(worker: Worker) -> None:
        while True:
            await worker.client.listen()
            await asyncio.sleep(1)

    def _require_same_code(self, worker: Worker) -> None:
        """Raises Unsuitable where another server, checked before, runs other code of the same version."""
        for other in self.workers:
            if other is not worker and other.info and other.out is None:
                mine, theirs = worker.info["vipaint_source"], other.info["vipaint_source"]
                if mine != theirs:
                    raise Unsuitable(
                        f"{worker.name} lacks the same VIPaint code as {other.name}: it has {mine}, not {theirs}. "
                        "Install one version everywhere"
                    )

    async def _leave_out(self, worker: Worker, reason: str) -> None:
        worker.out = reason
        worker.up.clear()
        self.watcher.say(f"{worker.name} is left out: {reason}")
        self._fail_unplaceable()
        self._note_change()
        if all(other.out for other in self.workers):
            self._give_up("expected a server that can paint, found that all are left out (see above)")

    async def _trouble(self, worker: Worker, trouble: Exception) -> None:
        """A server failed at something: others take over until it answers again."""
        if worker.out is not None or not worker.up.is_set():
            return  # known already from the other slot
        worker.up.clear()
        worker.troubles += 1
        if worker.troubles >= TROUBLES:
            await self._leave_out(
                worker, f"{worker.troubles} troubles and no picture between them, the last: {trouble}"
            )
        else:
            self.watcher.say(f"{worker.name}: {trouble}. Others take over; it is looked for")

    async def _watch(self) -> None:
        """Ends the command where no server has answered for too long."""
        while True:
            await asyncio.sleep(0.2)
            if any(worker.up.is_set() for worker in self.workers):
                self._alone_since = None
            elif self._alone_since is None:
                self._alone_since = time.monotonic()
            elif time.monotonic() - self._alone_since > self.limits.patience:
                names = ", ".join(worker.name for worker in self.workers)
                raise BatchError(
                    f"expected an answer of {names} within {self.limits.patience:.0f} s (--patience), found none. Start a "
                    "server and run the same command again: it goes on where it stopped"
                )

    # --- pictures ---

    async def _serve(self, worker: Worker) -> None:
        """Paints with one of a server's slots, until it is cancelled."""
        while True:
            await worker.up.wait()
            item = await self._take(worker)
            if item is None:
                continue
            try:
                await self._paint(worker, item)
            finally:
                self._busy -= 1
                self._note_change()

    def _note_change(self) -> None:
        """Wakes the slots that wait for a picture, and ends the work where none is left."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self._busy == 0 and not self.base.waiting(1) and not self._end.done():
            self._end.set_result(None)

    def _give_up(self, reason: str) -> None:
        if not self._end.done():
            self._end.set_exception(BatchError(reason))

    async def _take(self, worker: Worker) -> Item | None:
        """The next picture for a server, as soon as there is one; None where the server has gone."""
        while worker.up.is_set():
            item = None if self._leaves_to_others(worker) else self.base.take(worker.name, worker.below)
            if item is not None:
                self._busy += 1
                return item
            # What others work on may come back.
            await is_set(self._changed, 1.0)
        return None

    def _leaves_to_others(self, worker: Worker) -> bool:
        """Whether a server that has a picture leaves the last ones to whichever server is free first."""
        others = sum(other.up.is_set() for other in self.workers if other is not worker)
        return bool(worker.jobs) and 0 < others and self.base.waiting(others + 1) <= others

    async def _paint(self, worker: Worker, item: Item) -> None:
        seed = self.workflow.seed_for(item, self.base_seed)
        try:
            painted = await worker.paint(item, seed)
        except PromptError as error:
            if is_out_of_memory(error):
                await self._out_of_memory(worker, item)
            elif error.interrupted:
                self._again(item, worker, "it was interrupted on the server")
            else:
                self._again(item, worker, f"{error.node_type} ({error.node_id}): {error.exception_message.strip()}")
        except InvalidPrompt as error:
            self._fail(item, " ".join(str(error).split()))
        except PictureError as error:
            self._fail(item, str(error))
        except ServerTrouble as trouble:
            self._again(item, worker, f"{worker.name}: {trouble}", counts=trouble.running)
            await self._trouble(worker, trouble)
        except asyncio.CancelledError:
            self.base.update(item, state=catalogue.WAITING)
            raise
        else:
            await self._keep_result(worker, item, seed, painted)

    async def _keep_result(self, worker: Worker, item: Item, seed: int, painted: Painted) -> None:
        record = self._record(worker, item, seed, painted)
        files = {**painted.files, STRIP: await asyncio.to_thread(pictures.strip, painted.tiles)}
        try:
            # Once begun it is finished, whatever happens meanwhile.
            await asyncio.shield(asyncio.to_thread(self.results.write, item.name, files, record))
            sizes = [{"name": name, "bytes": len(data)} for name, data in files.items()]
            self.results.add_line({**record, "files": sizes})
        except OSError as error:
            self.base.update(item, state=catalogue.WAITING)
            raise BatchError(
                f"expected room to write {item.name}/ in {self.results.out}, found: {error.strerror or error}. Nothing half "
                "written is left; free some space and run the same command again"
            ) from error
        self.base.update(item, state=catalogue.DONE)
        worker.troubles, self._painted = 0, self._painted + 1
        self.watcher.done(item, worker)

    def _record(self, worker: Worker, item: Item, seed: int, painted: Painted) -> dict[str, Any]:
        digests = item.digests.split(" ")
        settings = {f"{node}.{key}": value for (node, key), value in self.workflow.settings.items()}
        settings |= {key: value for key, value in item.options.items() if key not in ("prompt", "negative", "seed")}
        return {
            "name": item.name,
            "status": "done",
            "picture": item.picture.name,
            "mask": item.mask.name if item.mask else None,
            "picture_sha256": digests[0],
            "mask_sha256": digests[1] if len(digests) > 1 else None,
            "key": item.key,
            "seed": seed,
            "prompt": item.options.get("prompt"),
            "negative": item.options.get("negative"),
            "settings": settings,
            "workflow": self.workflow.identity,
            "versions": worker.info,
            "server": worker.name,
            "seconds": painted.seconds,
            "passes": painted.passes,
            "attempts": item.attempts + 1,
            "width": painted.size[0],
            "height": painted.size[1],
            "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        }

    def _again(self, item: Item, worker: Worker, reason: str, counts: bool = True) -> None:
        """Puts a picture back, or gives it up after its last attempt."""
        attempts = item.attempts + counts
        if attempts >= self.limits.attempts:
            self._fail(item, f"{reason} (attempt {attempts} of {self.limits.attempts})", attempts)
        else:
            self.base.update(item, state=catalogue.WAITING, attempts=attempts, server=worker.name)
            self.watcher.say(f"{item.name}: {reason}; tried again")

    def _fail(self, item: Item, reason: str, attempts: int = 1) -> None:
        item = self.base.update(item, state=catalogue.FAILED, reason=reason, attempts=attempts)
        self.base.remember_failure(item)
        self._failed += 1
        self.results.add_line(failure(item))
        self.watcher.failed(item)
        if self._failed >= HOPELESS and not self._painted:
            self._give_up(
                f"the first {self._failed} pictures have failed and none was painted, the last with: {reason}"
            )

    async def _out_of_memory(self, worker: Worker, item: Item) -> None:
        """The server gets smaller pictures from now on; this one goes to servers that have more memory."""
        worker.below = min(item.pixels, worker.below if worker.below is not None else item.pixels)
        megapixels = item.pixels / 1e6
        self.watcher.say(
            f"{worker.name}: out of memory at {item.name}, {megapixels:.2f} megapixels: it gets smaller ones"
        )
        with contextlib.suppress(ServerTrouble):
            await worker.client.free()
        self.base.update(item, state=catalogue.WAITING, server=worker.name)
        self._fail_unplaceable()

    def _fail_unplaceable(self) -> None:
        """Gives up the pictures that no server has memory for."""
        within = [worker for worker in self.workers if worker.out is None]
        if not within or any(worker.below is None for worker in within):
            return
        largest = max(worker.below or 0 for worker in within)
        for item in self.base.items(catalogue.WAITING):
            if item.pixels >= largest:
                reason = (
                    f"out of memory on every server, at {item.pixels / 1e6:.2f} megapixels. Use smaller pictures, or "
                )
                self._fail(item, reason + "VIPaint Crop in the workflow", item.attempts + 1)


def failure(item: Item) -> dict[str, Any]:
    """The line of a picture that was not painted."""
    mask = item.mask.name if item.mask else None
    return {"name": item.name, "status": item.state, "picture": item.picture.name, "mask": mask, "reason": item.reason}
