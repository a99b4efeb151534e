"""The command: finds the pictures, checks the servers, paints, and tells what was made. See batch/options.py."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
from tqdm import tqdm

from batch import catalogue, farm, plan, report, results, workflow
from batch.catalogue import Catalogue
from batch.client import Client
from batch.dispatch import Dispatch, Limits, failure
from batch.display import Display, say
from batch.errors import BatchError, ServerTrouble, Unsuitable
from batch.local import LocalServer
from batch.options import addresses, pairs, parse, shard_of
from batch.pairing import Source, collect
from batch.plan import Plan
from batch.results import Results, read_lines
from batch.worker import Worker
from batch.workflow import Workflow
from tools.comfy_server import pack_version

STATE = ".batch"
LISTED = 20


@dataclass(frozen=True)
class Job:
    """What the options come to."""

    options: argparse.Namespace
    flow: Workflow
    source: Source
    base_seed: int
    servers: list[str]

    @property
    def state(self) -> Path:
        """The command's own folder in the output folder; a shard and a farm's part have others."""
        if self.options.part:
            return Path(self.options.parts / self.options.part)
        shard = self.source.shard
        return self.source.out / STATE / ("all" if shard is None else f"{shard[0]}-of-{shard[1]}")

    @property
    def lines(self) -> Path:
        if self.options.part:
            return self.state / results.LINES
        shard = self.source.shard
        return self.source.out / (results.LINES if shard is None else f"batch-{shard[0]}-of-{shard[1]}.jsonl")

    @property
    def is_all(self) -> bool:
        """Whether it is about all pictures, not a part of them."""
        return self.source.shard is None and not self.options.part


def prepare(options: argparse.Namespace) -> Job:
    """Raises BatchError where the options do not go together."""
    nodes = dict(pairs(options.node, "--node"))
    flow = workflow.load(options.workflow, nodes, pairs(options.set, "--set"), options.outputs)
    out = options.out.resolve()
    if out.exists() and not out.is_dir():
        raise BatchError(f"expected a folder for the results, found a file at {out}")
    masks = options.masks.resolve() if options.masks else None
    source = Source(
        options.pictures.resolve(), masks, options.prompts, out, flow.mask_from != "none", shard_of(options.shard)
    )
    if out == source.pictures:
        raise BatchError(
            "expected a folder for the results beside the pictures, found the pictures' own. Choose another --out"
        )
    seed = options.seed if options.seed is not None else flow.base_seed()
    return Job(options, flow, source, seed, addresses(options.server))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds a lock on the output folder. Raises BatchError where another command has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise BatchError(
            f"expected to be alone, found that another batch command writes into {folder.parent.parent}"
        ) from None
    try:
        yield
    finally:
        lock.release()


def look(job: Job, base: Catalogue, kept: Results) -> Plan:
    """Finds and checks all pictures, and tells what is to be done."""
    bar: tqdm[Any] | None = None

    def step(number: int, total: int) -> None:
        nonlocal bar
        bar = bar or tqdm(
            total=total, unit="picture", desc="checking", mininterval=1, leave=False, delay=2, file=sys.stderr
        )
        bar.update(1)

    workers = min(8, os.cpu_count() or 1)
    try:
        if job.options.part:
            farm.read_part(job.options.parts / f"{job.options.part}.jsonl", base)
        else:
            collect(job.source, base)
        found = plan.make(job.source, base, kept, job.flow, job.base_seed, workers, job.options.reread, step)
    finally:
        if bar is not None:
            bar.close()
    say(str(found))
    if found.unused:
        some = ", ".join(found.unused[:5]) + (", ..." if len(found.unused) > 5 else "")
        say(f"{len(found.unused)} masks without a picture: {some}")
    if found.total == 0 and job.is_all:
        raise BatchError(f"expected pictures in {job.source.pictures}, found none")
    return found


def list_problems(job: Job, base: Catalogue, count: int) -> None:
    """Shows the first problems; a file has all of them."""
    file = job.state / "problems.txt"
    with open(file, "w", encoding="utf-8") as out:
        for number, item in enumerate(base.items(catalogue.PROBLEM)):
            line = f"{item.name}: {item.reason}"
            out.write(line + "\n")
            if number < LISTED:
                say(f"  {line}")
    if count > LISTED:
        say(f"  and {count - LISTED} more, see {file}")


async def check_servers(workers: Sequence[Worker], skip: bool) -> None:
    """Raises BatchError with all that the servers lack, unless unsuitable ones are to be skipped."""
    found = await asyncio.gather(*(worker.check() for worker in workers), return_exceptions=True)
    problems = []
    for worker, error in zip(workers, found, strict=True):
        if isinstance(error, Unsuitable):
            problems.append(str(error))
            worker.out = str(error)
        elif isinstance(error, ServerTrouble):
            say(f"{worker.name} cannot be used yet: {error}. It is looked for")
        elif error is not None:
            raise error
    checked = [worker for worker in workers if worker.info and worker.out is None]
    codes = {worker.info["vipaint_source"]: worker.name for worker in checked}
    if len(codes) > 1:
        what = ", ".join(f"{name} has {code}" for code, name in codes.items())
        raise BatchError(
            f"expected the same VIPaint code on all servers, found that {what}. Install one version everywhere"
        )
    for problem in problems:
        say(f"  {problem}")
    if problems and not (skip and len(problems) < len(workers)):
        raise BatchError(
            f"expected servers that can do this work, found {len(problems)} of {len(workers)} that cannot (see above). "
            "Correct them, or add --skip to go on with the others"
        )


@asynccontextmanager
async def connect(job: Job, found: Plan) -> AsyncIterator[tuple[list[Worker], LocalServer | None]]:
    """The servers that were named, or one that is started here."""
    async with AsyncExitStack() as stack:
        local, urls = None, job.servers
        if not urls:
            say("starting ComfyUI")
            local = await stack.enter_async_context(LocalServer(job.flow.prompt, job.options.models))
            urls = [local.url]
        settings = {*job.flow.settings, *found.settings}
        clients = [await stack.enter_async_context(Client(url, uuid.uuid4().hex)) for url in urls]
        version, timeout = pack_version(), job.options.timeout
        yield [Worker(client, job.flow, version, timeout, settings) for client in clients], local


async def paint(job: Job, base: Catalogue, kept: Results, found: Plan) -> None:
    """Raises BatchError where not all could be tried."""
    with contextlib.suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _cancel, asyncio.current_task())
    async with connect(job, found) as (workers, local):
        await check_servers(workers, job.options.skip)
        display = Display(found.waiting, workers)
        limits = Limits(job.options.attempts, job.options.patience)
        revive = local.revive if local else None
        dispatch = Dispatch(base, workers, kept, job.flow, job.base_seed, display, limits, revive)
        follow = asyncio.create_task(display.follow())
        try:
            await dispatch.run()
        finally:
            follow.cancel()
            display.close()


def _cancel(task: asyncio.Task[Any] | None) -> None:
    if task is not None:
        task.cancel()


async def check_only(job: Job, found: Plan) -> None:
    async with connect(job, found) as (workers, _):
        await check_servers(workers, job.options.skip)
        for worker in workers:
            if worker.info:
                say(f"{worker.name}: " + ", ".join(f"{name} {value}" for name, value in worker.info.items()))


def summarise(job: Job, base: Catalogue, kept: Results) -> bool:
    """Writes the list and the pages; returns whether every picture is painted."""

    def lines() -> Iterator[dict[str, Any]]:
        for item in base.items():
            record = kept.record(item.name) if item.state == catalogue.DONE else None
            yield record if record is not None else failure(item)

    kept.write_lines(lines())
    total, done = base.count(), base.count(catalogue.DONE)
    counts = f"{done} of {total} pictures are painted"
    for state, words in (
        (catalogue.FAILED, "failed"),
        (catalogue.PROBLEM, "have problems"),
        (catalogue.WAITING, "are left"),
    ):
        counts += f", {base.count(state)} {words}" if base.count(state) else ""
    if job.is_all:
        page = report.write(job.source.out, read_lines(kept.lines), total, counts + ".")
        say(f"{counts}: {page}")
    else:
        say(f"{counts}: {kept.lines}")
    return done == total


def run(options: argparse.Namespace) -> int:
    job = prepare(options)
    with alone(job.state), Catalogue(job.state) as base:
        kept = Results(job.source.out, job.state, job.lines)
        try:
            return work(job, base, kept)
        finally:
            kept.close()


def work(job: Job, base: Catalogue, kept: Results) -> int:
    options = job.options
    found = look(job, base, kept)
    if found.problems:
        list_problems(job, base, found.problems)
    if options.dry_run:
        if job.servers:
            asyncio.run(check_only(job, found))
        return 0 if found.waiting + found.problems == 0 else 1
    if options.summary:
        return 0 if summarise(job, base, kept) else 1
    if found.problems and not (options.skip or options.part):
        raise BatchError(
            f"expected pictures with masks, found {found.problems} problems (see above). Nothing was painted: correct them, "
            "or add --skip to paint the others"
        )
    stopped: BaseException | None = None
    if found.waiting:
        try:
            if options.farm:
                paint_on_farm(job, base, kept)
            else:
                asyncio.run(paint(job, base, kept, found))
        except (BatchError, OSError, KeyboardInterrupt, asyncio.CancelledError) as reason:
            stopped = reason
    if (
        base.count(catalogue.DONE) == found.done
        and isinstance(stopped, BatchError)
        and not base.count(catalogue.FAILED)
    ):
        raise stopped
    interrupted = isinstance(stopped, (KeyboardInterrupt, asyncio.CancelledError))
    if stopped is not None:
        say("interrupted: the same command goes on where it stopped" if interrupted else f"error: {stopped}")
    complete = summarise(job, base, kept)
    if interrupted:
        return 130
    if options.part:
        # A failed picture is reported: the engine need not repeat the job for it.
        return 1 if base.count(catalogue.WAITING) else 0
    return 0 if complete else 1


def paint_on_farm(job: Job, base: Catalogue, kept: Results) -> None:
    """Raises BatchError where some jobs did not end well."""
    try:
        farm.paint(job.options, job.servers, base, job.state.parent / "farm")
    finally:
        for item in base.items(catalogue.WAITING):
            record = kept.record(item.name)
            if record is not None and record.get("key") == item.key:
                base.update(item, state=catalogue.DONE)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    try:
        return run(options)
    except BatchError as error:
        say(f"error: {error}")
    except OSError as error:
        say(f"error: a file operation failed: {error}. Check permissions and disk space, then run this again")
    except sqlite3.Error as error:
        say(f"error: the database in {STATE}/ cannot be used: {error}. Check disk space, also of the temporary folder")
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    return 2


if __name__ == "__main__":
    sys.exit(main())
