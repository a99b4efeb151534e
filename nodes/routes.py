"""HTTP routes: the pack's version, what presets cost, and the files of a job that a script has named.

    GET    /vipaint/version               {"version": "0.1.0", "source": digest of the code}
    GET    /vipaint/prices                {"fast": {"fit": 0, "fill": 28, "chain": 28, "further": 23, "chains": 3}, ...}
    GET    /vipaint/jobs/JOB/posterior    the posterior that VIPaintSavePosterior saved under batch/JOB/
    DELETE /vipaint/jobs/JOB              deletes what was uploaded and saved under the job's name

A job is 32 hexadecimal digits of the script's choice: no name from outside is ever part of a path.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import folder_paths
from aiohttp import web

from ..vipaint_core import PRESETS, Preset
from .posterior_files import EXTENSION, FOLDER
from .sockets import passes

PACK = Path(__file__).resolve().parent.parent
# Below the host's input and output folders, and below models/vipaint.
UPLOADS, POSTERIORS = "vipaint_batch", "batch"
_JOB = "{job:[0-9a-f]{32}}"
# Folders whose code paints nothing.
_SCRIPTS = ("batch", "benchmarks", "docs", "output", "tests", "tools", "toy_prior", "workflows")


@cache
def version() -> dict[str, str]:
    """The version in pyproject.toml and a digest of all code that paints."""
    found = re.search(r'^version = "([^"]+)"', (PACK / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    total = hashlib.sha256()
    folders = (folder for folder in sorted(PACK.iterdir()) if folder.is_dir() and folder.name not in _SCRIPTS)
    for file in (file for folder in folders if folder.name[0] != "." for file in sorted(folder.rglob("*.py"))):
        data = file.read_bytes()
        total.update(f"{file.relative_to(PACK).as_posix()} {len(data)}\n".encode() + data)
    return {"version": found[1] if found else "unknown", "source": total.hexdigest()[:16]}


def job_folders(job: str) -> list[Path]:
    """Where the host and the pack keep the files of a job."""
    hosts = (folder_paths.get_input_directory(), folder_paths.get_output_directory())
    return [*(Path(folder) / UPLOADS / job for folder in hosts), *posterior_folders(job)]


def posterior_folders(job: str) -> list[Path]:
    return [Path(folder) / POSTERIORS / job for folder in folder_paths.get_folder_paths(FOLDER)]


async def get_version(request: web.Request) -> web.Response:
    return web.json_response(await asyncio.to_thread(version))


async def get_prices(request: web.Request) -> web.Response:
    """Passes through the network: of the fit, of the first fill, of later chains, of further fills; and how many chains."""

    def price(preset: Preset) -> dict[str, int]:
        each, chain, further, fit = passes(preset)
        return {"fit": fit, "fill": each, "chain": chain, "further": further, "chains": preset.chains}

    return web.json_response({name: price(preset) for name, preset in PRESETS.items()})


async def get_posterior(request: web.Request) -> web.StreamResponse:
    for folder in posterior_folders(request.match_info["job"]):
        for file in sorted(folder.glob(f"*{EXTENSION}")):
            return web.FileResponse(file, headers={"Content-Type": "application/octet-stream"})
    return web.json_response({"error": "expected a posterior saved under this job, found none"}, status=404)


async def delete_job(request: web.Request) -> web.Response:
    def delete() -> int:
        folders = [folder for folder in job_folders(request.match_info["job"]) if folder.is_dir()]
        for folder in folders:
            # rmtree refuses a link, which could lead elsewhere.
            shutil.rmtree(folder, ignore_errors=True)
        return len(folders)

    return web.json_response({"deleted": await asyncio.to_thread(delete)})


def register(server: Any) -> None:
    """Adds the routes to the host's server."""
    server.routes.get("/vipaint/version")(get_version)
    server.routes.get("/vipaint/prices")(get_prices)
    server.routes.get(f"/vipaint/jobs/{_JOB}/posterior")(get_posterior)
    server.routes.delete(f"/vipaint/jobs/{_JOB}")(delete_job)
