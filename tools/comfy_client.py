"""A client for the HTTP interface of a running ComfyUI.

    client = ComfyClient("http://127.0.0.1:8188")
    pictures = client.images(client.run(prompt))

Needs the standard library only.
"""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class InvalidPrompt(ValueError):
    """The server refused a prompt. `node_errors` is the server's own account, by node id."""

    def __init__(self, message: str, node_errors: dict[str, Any]) -> None:
        super().__init__(message)
        self.node_errors = node_errors


class PromptError(RuntimeError):
    """A node failed, or the prompt was interrupted (`interrupted`)."""

    def __init__(
        self,
        node_id: str,
        node_type: str,
        exception_message: str,
        exception_type: str,
        traceback: str,
        interrupted: bool = False,
    ) -> None:
        super().__init__(f"node {node_id!r} ({node_type}): {exception_type}: {exception_message.strip()}\n{traceback}")
        self.node_id = node_id
        self.node_type = node_type
        self.exception_message = exception_message
        self.exception_type = exception_type
        self.traceback = traceback
        self.interrupted = interrupted


class ComfyClient:
    """Speaks to one server. `url` is its address, as http://HOST:8188."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # No proxy: servers are local or in the user's own network, whatever the environment says.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def require_alive(self, when: str) -> None:
        """Raises RuntimeError where the server is known to have ended; one elsewhere never is."""

    def tail(self, lines: int = 40) -> str:
        """The server's last words, where they are known."""
        return ""

    def _request(self, request: urllib.request.Request | str, timeout: float) -> bytes:
        with self._opener.open(request, timeout=timeout) as response:
            body: bytes = response.read()
            return body

    def _get(self, path: str, timeout: float = 30) -> Any:
        return json.loads(self._request(self.url + path, timeout))

    def _post(self, path: str, body: bytes, content_type: str) -> bytes:
        request = urllib.request.Request(self.url + path, data=body, headers={"Content-Type": content_type})
        return self._request(request, 60)

    def upload_image(self, path: Path, name: str | None = None) -> str:
        """Puts a picture into the server's input folder; returns the name for LoadImage."""
        name = name or path.name
        boundary = uuid.uuid4().hex
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode() + path.read_bytes()
        body += f"\r\n--{boundary}--\r\n".encode()
        answer = json.loads(self._post("/upload/image", body, f"multipart/form-data; boundary={boundary}"))
        return str(answer["name"])

    def queue(self, prompt: Mapping[str, Any]) -> str:
        """Queues a workflow in API format; returns its id. Raises InvalidPrompt where the server refuses any of it.

        A server that refuses some of the outputs runs the others: that prompt is taken back here.
        """
        body = json.dumps({"prompt": prompt, "client_id": uuid.uuid4().hex}).encode()
        try:
            text = self._post("/prompt", body, "application/json").decode()
            answer = json.loads(text)
            if not answer.get("node_errors"):
                return str(answer["prompt_id"])
            self._post("/queue", json.dumps({"delete": [answer["prompt_id"]]}).encode(), "application/json")
            self.interrupt(answer["prompt_id"])
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", errors="replace")
            if error.code != 400:
                raise RuntimeError(f"ComfyClient: POST /prompt answered {error.code}: {text}") from error
        raise invalid_prompt(text)

    def wait(
        self, prompt_id: str, timeout: float = 600.0, on_poll: Callable[[float], None] | None = None
    ) -> dict[str, Any]:
        """Waits for a prompt's history entry; `on_poll` gets the seconds waited. Raises PromptError, TimeoutError."""
        begin = time.monotonic()
        while True:
            self.require_alive(f"while prompt {prompt_id} ran")
            # A socket error means that the server is busy or has just died: the next round tells which.
            with contextlib.suppress(OSError):
                entry = self._get(f"/history/{prompt_id}").get(prompt_id)
                if entry is not None:
                    require_success(entry)
                    return dict(entry)
            waited = time.monotonic() - begin
            if waited > timeout:
                raise TimeoutError(f"ComfyClient: prompt {prompt_id} not done within {timeout:.0f} s:\n{self.tail()}")
            if on_poll is not None:
                on_poll(waited)
            time.sleep(min(0.05 + 0.1 * waited, 0.5))

    def run(self, prompt: Mapping[str, Any], timeout: float = 600.0) -> dict[str, Any]:
        """Queues a workflow and waits for its history entry."""
        return self.wait(self.queue(prompt), timeout)

    def images(self, entry: Mapping[str, Any]) -> dict[str, list[bytes]]:
        """Files of the pictures in a history entry, by node id."""
        found: dict[str, list[bytes]] = {}
        for node_id, output in entry["outputs"].items():
            for item in output.get("images", ()):
                query = urllib.parse.urlencode({key: item[key] for key in ("filename", "subfolder", "type")})
                found.setdefault(node_id, []).append(self._request(f"{self.url}/view?{query}", 60))
        return found

    def clear_history(self) -> None:
        """Deletes the server's record of finished prompts."""
        self._post("/history", json.dumps({"clear": True}).encode(), "application/json")

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Interrupts the running prompt; with an id only if that prompt is the running one."""
        body = json.dumps({} if prompt_id is None else {"prompt_id": prompt_id}).encode()
        self._post("/interrupt", body, "application/json")

    def free(self) -> None:
        """Offloads all models before the server takes the prompt after the next at the latest."""
        self._post("/free", json.dumps({"unload_models": True}).encode(), "application/json")

    def running(self) -> list[str]:
        """Ids of the prompts being executed."""
        return [str(item[1]) for item in self._get("/queue")["queue_running"]]

    def object_info(self, name: str) -> dict[str, Any]:
        """The server's description of a node class. Raises ValueError where it has none of that name."""
        found = self._get(f"/object_info/{urllib.parse.quote(name)}").get(name)
        if found is None:
            raise ValueError(f"ComfyClient: expected a node {name!r}, the server has none. Log:\n{self.tail()}")
        return dict(found)


def invalid_prompt(text: str) -> InvalidPrompt:
    """The exception for the body of an answer 400 to /prompt."""
    try:
        answer = json.loads(text)
    except ValueError:
        return InvalidPrompt(f"the server refused the prompt: {text}", {})
    error = answer.get("error") or {}
    lines = [f"the server refused the prompt: {_sentence(error)}" if isinstance(error, dict) else str(error)]
    node_errors = answer.get("node_errors") or {}
    for node_id, node in node_errors.items():
        lines += [f"  node {node_id!r} ({node.get('class_type')}): {_sentence(item)}" for item in node["errors"]]
    return InvalidPrompt("\n".join(lines), dict(node_errors))


def _sentence(error: Mapping[str, Any]) -> str:
    return ": ".join(str(error[key]) for key in ("message", "details") if error.get(key))


def require_success(entry: Mapping[str, Any]) -> None:
    """Raises PromptError where a history entry tells of an error."""
    status = entry.get("status") or {}
    for event, data in status.get("messages", ()):
        if event == "execution_error":
            raise PromptError(
                str(data["node_id"]),
                str(data["node_type"]),
                str(data["exception_message"]),
                str(data["exception_type"]),
                "".join(data["traceback"]),
            )
        if event == "execution_interrupted":
            message = "the prompt was interrupted"
            node_id, node_type = str(data["node_id"]), str(data["node_type"])
            raise PromptError(node_id, node_type, message, "InterruptProcessingException", "", interrupted=True)
    if status.get("status_str") == "error":
        raise PromptError("", "", f"no node named in {status}", "unknown", "")
