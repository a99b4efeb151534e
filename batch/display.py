"""What the command says while it works."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from tqdm import tqdm

from batch.catalogue import Item
from batch.worker import Worker


def say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


class Display:
    """A bar with rate and time left, and lines of what happens."""

    def __init__(self, total: int, workers: Sequence[Worker]) -> None:
        # Into a file a line now and then is enough.
        wait = 0.2 if sys.stderr.isatty() else 10.0
        self._bar = tqdm(
            total=total, unit="picture", smoothing=0.05, mininterval=wait, dynamic_ncols=True, file=sys.stderr
        )
        self._workers, self._failed = workers, 0

    def done(self, item: Item, worker: Worker) -> None:
        self._bar.update(1)

    def failed(self, item: Item) -> None:
        self._failed += 1
        self._bar.update(1)
        say(f"{item.name} has failed: {item.reason}")

    def say(self, text: str) -> None:
        say(text)

    async def follow(self) -> None:
        """Shows the servers at work, and how far each is."""
        while True:
            up = [worker for worker in self._workers if worker.up.is_set()]
            shares = [f"{100 * max((t.share for t in worker.jobs.values()), default=0):.0f} %" for worker in up[:8]]
            failed = f", {self._failed} failed" if self._failed else ""
            self._bar.set_postfix_str(
                f"{len(up)} of {len(self._workers)} servers: {' '.join(shares)}{failed}", refresh=False
            )
            await asyncio.sleep(1)

    def close(self) -> None:
        self._bar.close()
