"""Saves posteriors to and loads them from the model folder `vipaint`."""

from __future__ import annotations

import logging
import reprlib
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.v0_0_2 import io

from ..vipaint_core import FittedPosterior, load_posterior, save_posterior
from .errors import InputError
from .execution import names_node
from .host.messages import say
from .sockets import CATEGORY, PosteriorType, posterior_output

log = logging.getLogger(__name__)

FOLDER, EXTENSION = "vipaint", ".safetensors"


def register_folder() -> None:
    """Makes the folder known to the host, next to what a user's extra_model_paths.yaml adds to it."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {EXTENSION})


register_folder()


def is_inside(base: Path, prefix: Any) -> bool:
    """Whether files of this name lie below the folder and are no hidden ones."""
    if not isinstance(prefix, str) or not prefix.isprintable() or not Path(prefix).name.strip(" ."):
        return False
    return not prefix.endswith(("/", "\\")) and base.resolve() in (base / prefix).resolve().parents


class VIPaintSavePosterior(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintSavePosterior",
            display_name="VIPaint Save Posterior",
            category=CATEGORY,
            description="Saves a posterior as a numbered safetensors file in models/vipaint. It holds the encoded "
            "picture.",
            search_aliases=["vipaint", "export posterior", "保存后验", "事後分布"],
            inputs=[
                PosteriorType.Input("posterior", tooltip="From VIPaint Fit Posterior or VIPaint Inpaint."),
                io.String.Input(
                    "filename_prefix",
                    default="posterior",
                    tooltip="Start of the file's name; a number follows. Subfolders are written with /.",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    @names_node
    def execute(cls, posterior: Any, filename_prefix: str) -> io.NodeOutput:
        if not isinstance(posterior, FittedPosterior):
            raise InputError(
                "posterior", "a VIPaint posterior", type(posterior).__name__, "Connect VIPaint Fit Posterior."
            )
        base = Path(folder_paths.get_folder_paths(FOLDER)[0])
        if not is_inside(base, filename_prefix):
            raise InputError(
                "filename_prefix",
                "a name inside models/vipaint",
                reprlib.repr(filename_prefix),
                "Use letters and digits, and / for subfolders.",
            )
        try:
            base.mkdir(parents=True, exist_ok=True)
            folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, str(base))
            file = Path(folder) / f"{name}_{counter:05}_{EXTENSION}"
            texts = {"family": posterior.family}
            if posterior.bound is not None:
                texts["bound"] = f"{-posterior.bound.total:.1f} nats"
            save_posterior(posterior, file, texts)
        except OSError as error:
            raise InputError(
                "filename_prefix",
                "a name under which a file can be written",
                str(error),
                "Choose a shorter name; check the folder's permissions and free space.",
            ) from error
        saved = (Path(subfolder) / file.name).as_posix()
        log.info("VIPaint: saved the posterior as %s", saved)
        say(saved)
        # The editor reads the lists of files again.
        return io.NodeOutput(ui={"vipaint_saved": [saved]})


class VIPaintLoadPosterior(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintLoadPosterior",
            display_name="VIPaint Load Posterior",
            category=CATEGORY,
            description="Loads a posterior from models/vipaint, to draw more fills without fitting again.",
            search_aliases=["vipaint", "import posterior", "加载后验", "事後分布"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip="A file that VIPaint Save Posterior wrote into models/vipaint.",
                )
            ],
            outputs=[posterior_output()],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        path = folder_paths.get_full_path(FOLDER, file) if isinstance(file, str) else None
        if path is None:
            return "missing"
        status = Path(path).stat()
        return f"{status.st_mtime_ns} {status.st_size}"

    @classmethod
    @names_node
    def execute(cls, file: str) -> io.NodeOutput:
        path = folder_paths.get_full_path(FOLDER, file) if isinstance(file, str) else None
        if path is None:
            raise InputError(
                "file", "a file in models/vipaint", repr(file), "Refresh the node list (R) and choose again."
            )
        try:
            return io.NodeOutput(load_posterior(path))
        except ValueError as error:
            raise InputError(
                "file", "a whole posterior file", str(error), "Choose another file, or fit again and save."
            ) from error
