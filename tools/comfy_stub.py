"""An imitation of ComfyUI's HTTP interface with fixed service times, for what no real server shows on purpose.

    with Stub(seconds=0.1) as stub:
        ... stub.url ...

    python -m tools.comfy_stub --seconds 0.1 --count 4    # prints addresses; ends with its standard input

It paints nothing: every fill is the picture that was uploaded. One prompt is executed at a time, as by ComfyUI.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tools.comfy_server import pack_version

INPUTS = {
    "CheckpointLoaderSimple": {"ckpt_name": [["vipaint_toy.safetensors"], {}]},
    "VIPaintInpaint": {name: ["INT", {}] for name in ("seed", "cfg", "fills", "preset")},
}
# What a server may do with a picture in place of painting it.
OUT_OF_MEMORY, ERROR, HANG, DIE = "out of memory", "error", "hang", "die"


@dataclass
class Stub:
    """Context manager: a server in a thread of its own.

    seconds: that a prompt takes. verdict: gets the uploaded picture's bytes, returns what is done with it, or None for
    painting. missing: node classes that the server lacks. version: of the pack, None for none. answers: HTTP status, or
    address of a redirection, for requests to a path.
    """

    seconds: float = 0.02
    verdict: Callable[[bytes], str | None] = lambda data: None
    missing: Sequence[str] = ()
    version: str | None = field(default_factory=pack_version)
    source: str = "stub"
    models: Sequence[str] = ("vipaint_toy.safetensors",)
    answers: dict[str, int | str] = field(default_factory=dict)
    port: int = 0

    def __post_init__(self) -> None:
        self.painted = 0
        self.seen: list[str] = []  # requests
        self.most_queued = 0
        self.first = self.last = 0.0  # when it began to paint, and when it last stopped
        self._uploads: dict[str, bytes] = {}
        self._queue: list[tuple[str, dict[str, Any], str]] = []
        self._running: str | None = None
        self._history: dict[str, dict[str, Any]] = {}
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._interrupted = False

    # --- life ---

    def __enter__(self) -> Stub:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        if not started.wait(10):
            raise RuntimeError("Stub: not up within 10 s")
        return self

    def __exit__(self, *reason: object) -> None:
        self.die()
        self._thread.join(10)

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self.start())
        started.set()
        self._loop.run_forever()
        self._work.cancel()
        self._loop.run_until_complete(asyncio.gather(self._work, self._runner.cleanup(), return_exceptions=True))
        self._loop.close()

    def die(self) -> None:
        """Ends at once, as a killed server does."""
        if not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._loop.stop)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Serves in the running loop."""
        app = web.Application(client_max_size=1 << 28, middlewares=[self._overrule])
        app.add_routes(
            [
                web.get("/system_stats", self._stats),
                web.get("/object_info/{name}", self._node),
                web.get("/vipaint/version", self._version),
                web.get("/vipaint/jobs/{job}/posterior", self._posterior),
                web.delete("/vipaint/jobs/{job}", self._forget),
                web.post("/upload/image", self._upload),
                web.post("/prompt", self._prompt),
                web.get("/history/{id}", self._get_history),
                web.post("/history", self._delete_history),
                web.get("/queue", self._get_queue),
                web.post("/queue", self._delete_queue),
                web.post("/interrupt", self._interrupt),
                web.post("/free", self._free),
                web.get("/view", self._view),
                web.get("/ws", self._socket),
            ]
        )
        self._arrived = asyncio.Event()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        server = site._server
        assert isinstance(server, asyncio.Server)
        self.port = server.sockets[0].getsockname()[1]
        self._work = asyncio.get_running_loop().create_task(self._execute())

    @web.middleware
    async def _overrule(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.seen.append(f"{request.method} {request.path}")
        answer = self.answers.get(request.path)
        if isinstance(answer, str):
            raise web.HTTPFound(answer)
        if answer is not None:
            return web.Response(status=answer, text="as told")
        found: web.StreamResponse = await handler(request)
        return found

    # --- painting ---

    async def _execute(self) -> None:
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            prompt_id, prompt, client = self._queue.pop(0)
            self._running, self._interrupted = prompt_id, False
            begin = time.time()
            messages = [["execution_start", {"prompt_id": prompt_id, "timestamp": int(begin * 1000)}]]
            await self._tell(client, "execution_start", {"prompt_id": prompt_id})
            verdict = self.verdict(self._uploads.get(_uploaded(prompt), b""))
            if verdict == DIE:
                self.die()
            await asyncio.sleep(self.seconds)
            while verdict in (HANG, DIE) and not self._interrupted:
                await asyncio.sleep(0.02)
            painted = verdict is None and not self._interrupted
            await self._tell(client, "progress", {"prompt_id": prompt_id, "node": "inpaint", "value": 8, "max": 8})
            outputs = {}
            if painted:
                self.painted += 1
                self.first, self.last = self.first or begin, time.time()
                outputs = {name: _outputs(name, prompt) for name in prompt if prompt[name]["class_type"] == "SaveImage"}
                name, data = "execution_success", {}
            elif self._interrupted:
                name, data = "execution_interrupted", {"node_id": "inpaint", "node_type": "VIPaintInpaint"}
            else:
                kind = "torch.OutOfMemoryError" if verdict == OUT_OF_MEMORY else "ValueError"
                name, data = "execution_error", _error(kind, f"{verdict}, as told")
            messages.append([name, {**data, "prompt_id": prompt_id, "timestamp": int((begin + self.seconds) * 1000)}])
            status = {"status_str": "success" if painted else "error", "messages": messages}
            self._history[prompt_id] = {"outputs": outputs, "status": status}
            self._running = None
            await self._tell(client, "executing", {"node": None, "prompt_id": prompt_id})

    async def _tell(self, client: str, kind: str, data: Mapping[str, Any]) -> None:
        socket = self._sockets.get(client)
        if socket is not None and not socket.closed:
            with contextlib.suppress(ConnectionError):
                await socket.send_str(json.dumps({"type": kind, "data": data}))

    # --- routes ---

    async def _stats(self, request: web.Request) -> web.Response:
        return web.json_response({"system": {"comfyui_version": "stub", "pytorch_version": "none"}, "devices": []})

    async def _node(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name in self.missing or (self.version is None and name.startswith("VIPaint")):
            return web.json_response({})
        inputs = dict(INPUTS.get(name, {}))
        if "ckpt_name" in inputs:
            inputs["ckpt_name"] = [list(self.models), {}]
        return web.json_response({name: {"input": {"required": inputs}}})

    async def _version(self, request: web.Request) -> web.Response:
        if self.version is None:
            raise web.HTTPNotFound
        return web.json_response({"version": self.version, "source": self.source})

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        image = form["image"]
        assert isinstance(image, web.FileField)
        folder = str(form["subfolder"])
        name = f"{folder}/{image.filename}"
        self._uploads[name] = image.file.read()
        return web.json_response({"name": image.filename, "subfolder": folder, "type": "input"})

    async def _prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        prompt_id = str(uuid.uuid4())
        self._queue.append((prompt_id, body["prompt"], str(body.get("client_id"))))
        self.most_queued = max(self.most_queued, len(self._queue) + (self._running is not None))
        self._arrived.set()
        return web.json_response({"prompt_id": prompt_id, "node_errors": {}})

    async def _get_history(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        return web.json_response({name: self._history[name]} if name in self._history else {})

    async def _delete_history(self, request: web.Request) -> web.Response:
        for name in (await request.json()).get("delete", ()):
            self._history.pop(name, None)
        return web.Response()

    async def _get_queue(self, request: web.Request) -> web.Response:
        running = [[0, self._running]] if self._running else []
        return web.json_response({"queue_running": running, "queue_pending": [[0, item[0]] for item in self._queue]})

    async def _delete_queue(self, request: web.Request) -> web.Response:
        names = (await request.json()).get("delete", ())
        self._queue = [item for item in self._queue if item[0] not in names]
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        self._interrupted = (await request.json()).get("prompt_id") in (None, self._running)
        return web.Response()

    async def _free(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _view(self, request: web.Request) -> web.Response:
        job = request.query["subfolder"]
        return web.Response(body=self._uploads[f"{job}/picture.png"], content_type="image/png")

    async def _posterior(self, request: web.Request) -> web.Response:
        return web.Response(body=b"a posterior")

    async def _forget(self, request: web.Request) -> web.Response:
        job = request.match_info["job"]
        for name in [name for name in self._uploads if f"/{job}/" in name]:
            del self._uploads[name]
        return web.json_response({"deleted": 1})

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client = request.query.get("clientId", "")
        self._sockets[client] = socket
        try:
            async for _ in socket:
                pass
        finally:
            self._sockets.pop(client, None)
        return socket

    @property
    def kept(self) -> int:
        """Files and records that nobody has deleted."""
        return len(self._uploads) + len(self._history)


def _uploaded(prompt: Mapping[str, Any]) -> str:
    (name,) = (node["inputs"]["image"] for node in prompt.values() if node["class_type"] == "LoadImage")
    return str(name)


def _outputs(name: str, prompt: Mapping[str, Any]) -> dict[str, Any]:
    folder, prefix = prompt[name]["inputs"]["filename_prefix"].rsplit("/", 1)
    count = prompt["inpaint"]["inputs"]["fills"] if prefix == "fills" else 1
    # The subfolder is that of the uploads, in which `_view` looks.
    entries = [{"filename": f"{prefix}_{i}.png", "subfolder": folder, "type": "output"} for i in range(count)]
    return {"images": entries}


def _error(kind: str, message: str) -> dict[str, Any]:
    node = {"node_id": "inpaint", "node_type": "VIPaintInpaint"}
    return {**node, "exception_type": kind, "exception_message": message, "traceback": []}


async def _run(seconds: float, count: int) -> None:
    stubs = [Stub(seconds) for _ in range(count)]
    for stub in stubs:
        await stub.start()
    print(json.dumps([stub.url for stub in stubs]), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    facts = ("painted", "first", "last", "kept", "most_queued")
    print(json.dumps([{fact: getattr(stub, fact) for fact in facts} for stub in stubs]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--count", type=int, default=1)
    found = parser.parse_args()
    asyncio.run(_run(found.seconds, found.count))
