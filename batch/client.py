"""ComfyUI's HTTP and websocket interface for one server, asynchronous; `tools.comfy_client` has the blocking one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from batch.errors import PictureError, ServerTrouble
from tools.comfy_client import invalid_prompt

# Seconds for a request that the server answers from memory, and without a byte of a file that is up- or downloaded.
ANSWER, STALLED = 30.0, 60.0
LARGEST_MESSAGE = 1 << 28


class _NamedServer(aiohttp.TCPConnector):
    """Connects to one address only, whatever a redirection says."""

    def __init__(self, url: URL) -> None:
        super().__init__(limit=16)
        self._address = (url.host, url.port)

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        if (req.url.host, req.url.port) != self._address:
            raise ServerTrouble(
                f"it points to {req.url.origin()}, which was not named. Name that address if it is yours"
            )
        return await super().connect(req, traces, timeout)


@dataclass
class Tracker:
    """What the websocket tells of one prompt. news: set when it is time to look. passes: of the painting nodes, by node."""

    finished: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)
    running: bool = False
    heard: float = field(default_factory=time.monotonic)
    passes: dict[str, int] = field(default_factory=dict)
    share: float = 0.0


class Client:
    """Asynchronous context manager. url: as http://HOST:8188; may hold a user's name and password."""

    def __init__(self, url: str, client_id: str) -> None:
        self._url = URL(url)
        self.client_id = client_id
        self.trackers: dict[str, Tracker] = {}
        self.listening = False
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """The address as it may be shown."""
        return str(self._url.with_user(None)).rstrip("/")

    async def __aenter__(self) -> Client:
        # No proxy and no netrc: only the server that was named is contacted.
        self._session = aiohttp.ClientSession(connector=_NamedServer(self._url), trust_env=False)
        return self

    async def __aexit__(self, *reason: object) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def _answer(self, method: str, path: str, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None
        timeout = more.pop("timeout", aiohttp.ClientTimeout(total=ANSWER))
        try:
            async with self._session.request(
                method, f"{str(self._url).rstrip('/')}{path}", timeout=timeout, allow_redirects=False, **more
            ) as answer:
                if 300 <= answer.status < 400:
                    where = answer.headers.get("Location", "elsewhere")
                    raise ServerTrouble(
                        f"{method} {path} is answered by a redirection to {where}, which is not followed"
                    )
                if answer.status >= 500:
                    text = (await answer.text(errors="replace"))[:200]
                    raise ServerTrouble(f"{method} {path} was answered with HTTP {answer.status}: {text}")
                yield answer
        except asyncio.TimeoutError as error:
            raise ServerTrouble(f"no answer to {method} {path} in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ServerTrouble(f"{method} {path} failed: {error or type(error).__name__}") from error

    async def _json(self, method: str, path: str, **more: Any) -> Any:
        async with self._answer(method, path, **more) as answer:
            text = await answer.text(errors="replace")
            if answer.status >= 400:
                raise ServerTrouble(f"{method} {path} was answered with HTTP {answer.status}: {text[:200]}")
        try:
            return json.loads(text)
        except ValueError as error:
            raise ServerTrouble(f"{method} {path}: expected JSON, as ComfyUI answers, found {text[:80]!r}") from error

    # --- what a server is ---

    async def stats(self) -> dict[str, Any]:
        found = await self._json("GET", "/system_stats")
        if not isinstance(found, dict) or not isinstance(found.get("system"), dict):
            raise ServerTrouble("GET /system_stats: expected ComfyUI's answer, found another program's")
        return dict(found["system"])

    async def version(self) -> dict[str, str] | None:
        """Version of the pack on the server and digest of its code; None where it tells none."""
        async with self._answer("GET", "/vipaint/version") as answer:
            if answer.status >= 400:
                return None
        found = await self._json("GET", "/vipaint/version")
        return {key: str(found.get(key, "unknown")) for key in ("version", "source")}

    async def node(self, name: str) -> dict[str, Any] | None:
        """A node class as the server describes it; None where it has none."""
        found = (await self._json("GET", f"/object_info/{URL.build(path=name).raw_path}")).get(name)
        return None if found is None else dict(found)

    # --- prompts ---

    async def upload(self, subfolder: str, name: str, data: bytes) -> None:
        form = aiohttp.FormData({"overwrite": "true", "subfolder": subfolder})
        form.add_field("image", data, filename=name, content_type="image/png")
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER, sock_read=STALLED)
        async with self._answer("POST", "/upload/image", data=form, timeout=timeout) as answer:
            if answer.status >= 400:
                size = f"{len(data) / 1e6:.1f} MB"
                raise PictureError(
                    f"the server refused the upload of {size} with HTTP {answer.status}; ComfyUI's --max-upload-size sets "
                    "the largest"
                )

    async def queue(self, prompt: Mapping[str, Any]) -> str:
        """Queues a workflow; returns its id. Raises InvalidPrompt where the server refuses any of it."""
        body = {"prompt": prompt, "client_id": self.client_id}
        async with self._answer("POST", "/prompt", json=body) as answer:
            text = await answer.text(errors="replace")
            status = answer.status
        if status == 400:
            raise invalid_prompt(text)
        try:
            found = json.loads(text)
            prompt_id = str(found["prompt_id"])
        except (ValueError, LookupError, TypeError) as error:
            raise ServerTrouble(f"POST /prompt was answered with HTTP {status}: {text[:200]}") from error
        if found.get("node_errors"):
            await self.cancel(prompt_id)
            raise invalid_prompt(text)
        return prompt_id

    async def history(self, prompt_id: str) -> dict[str, Any] | None:
        found = (await self._json("GET", f"/history/{prompt_id}")).get(prompt_id)
        return None if found is None else dict(found)

    async def place(self, prompt_id: str) -> str | None:
        """`running`, `pending`, or None where the server does not know the prompt."""
        queue = await self._json("GET", "/queue")
        for name in ("running", "pending"):
            if any(item[1] == prompt_id for item in queue[f"queue_{name}"]):
                return name
        return None

    async def _post(self, path: str, body: Mapping[str, Any]) -> None:
        async with self._answer("POST", path, json=dict(body)):
            pass

    async def cancel(self, prompt_id: str) -> None:
        """Takes a prompt out of the queue, or interrupts it where it runs."""
        await self._post("/queue", {"delete": [prompt_id]})
        await self._post("/interrupt", {"prompt_id": prompt_id})

    async def forget(self, prompt_id: str | None, job: str) -> None:
        """Deletes the server's record of a prompt and the files of its job."""
        if prompt_id is not None:
            await self._post("/history", {"delete": [prompt_id]})
        async with self._answer("DELETE", f"/vipaint/jobs/{job}"):
            pass

    async def free(self) -> None:
        """Unloads all models."""
        await self._post("/free", {"unload_models": True, "free_memory": True})

    async def picture(self, entry: Mapping[str, Any]) -> bytes:
        """A picture that a history entry names."""
        query = {key: str(entry[key]) for key in ("filename", "subfolder", "type")}
        return await self._download("/view", query)

    async def posterior(self, job: str) -> bytes:
        return await self._download(f"/vipaint/jobs/{job}/posterior", {})

    async def _download(self, path: str, query: Mapping[str, str]) -> bytes:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER, sock_read=STALLED)
        async with self._answer("GET", path, params=query, timeout=timeout) as answer:
            if answer.status >= 400:
                raise ServerTrouble(f"GET {path} was answered with HTTP {answer.status}")
            return await answer.read()

    # --- progress ---

    async def listen(self) -> None:
        """Follows the websocket until it closes, and tells the trackers."""
        assert self._session is not None
        address = f"{str(self._url).rstrip('/')}/ws"
        try:
            async with self._session.ws_connect(
                address, params={"clientId": self.client_id}, max_msg_size=LARGEST_MESSAGE, heartbeat=30
            ) as socket:
                self.listening = True
                async for message in socket:
                    if message.type == aiohttp.WSMsgType.TEXT:
                        self._hear(json.loads(message.data))
        except (aiohttp.ClientError, OSError, ValueError, asyncio.TimeoutError, ServerTrouble):
            pass  # the history tells what the websocket would have told
        finally:
            self.listening = False
            # The server may have died.
            for tracker in self.trackers.values():
                tracker.news.set()

    def _hear(self, message: Mapping[str, Any]) -> None:
        data = message.get("data")
        tracker = self.trackers.get(str(data.get("prompt_id"))) if isinstance(data, dict) else None
        if tracker is None or not isinstance(data, dict):
            return
        tracker.heard = time.monotonic()
        kind = message.get("type")
        if kind == "progress_state":
            for node, state in data.get("nodes", {}).items():
                self._note(tracker, node, state.get("value"), state.get("max"))
        elif kind == "progress":
            self._note(tracker, str(data.get("node")), data.get("value"), data.get("max"))
        if kind == "executing" and data.get("node") is None:
            tracker.finished = True
            tracker.news.set()
        else:
            tracker.running = True

    @staticmethod
    def _note(tracker: Tracker, node: str, value: Any, most: Any) -> None:
        if node in tracker.passes and isinstance(value, (int, float)):
            tracker.passes[node] = max(tracker.passes[node], int(value))
            tracker.share = value / most if most else 0.0
