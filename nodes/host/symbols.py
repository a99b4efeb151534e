"""What the pack takes from ComfyUI beyond its public interface (`comfy_api`, `folder_paths`), checked at import.

A test finds every other use in the source and compares it with these lists.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from types import ModuleType
from typing import Any

# The pack runs on these two and on versions between them, on the oldest without the families that it lacks;
# `requires-comfyui` and `run.py` name them too.
OLDEST, NEWEST = "0.16.3", "0.30.0"

# Every version from the oldest to the newest has these.
NEEDED = (
    "comfy.conds.CONDRegular",
    "comfy.controlnet.ControlBase",
    "comfy.ldm.modules.attention.attention_pytorch",
    "comfy.ldm.modules.diffusionmodules.openaimodel.TimestepEmbedSequential",
    "comfy.model_base.BaseModel",
    "comfy.model_base.SD3",
    "comfy.model_base.SDXL",
    "comfy.model_base.SDXLRefiner",
    "comfy.model_management.InterruptProcessingException",
    "comfy.model_management.OOM_EXCEPTION",
    "comfy.model_management.current_loaded_models",
    "comfy.model_management.dtype_size",
    "comfy.model_management.extra_reserved_memory",
    "comfy.model_management.free_memory",
    "comfy.model_management.get_free_memory",
    "comfy.model_management.in_training",
    "comfy.model_management.intermediate_device",
    "comfy.model_management.is_device_cpu",
    "comfy.model_management.loaded_models",
    "comfy.model_management.soft_empty_cache",
    "comfy.model_management.throw_exception_if_processing_interrupted",
    "comfy.model_management.unload_all_models",
    "comfy.model_patcher.ModelPatcher",
    "comfy.model_patcher.ModelPatcher.add_wrapper",
    "comfy.model_patcher.ModelPatcher.get_additional_models_with_key",
    "comfy.model_patcher.ModelPatcher.get_clone_model_override",
    "comfy.model_patcher.ModelPatcher.get_model_object",
    "comfy.model_patcher.ModelPatcher.is_clone",
    "comfy.model_patcher.ModelPatcher.is_dynamic",
    "comfy.model_patcher.ModelPatcher.loaded_size",
    "comfy.model_patcher.ModelPatcher.model_patches_models",
    "comfy.model_patcher.ModelPatcher.model_size",
    "comfy.model_patcher.ModelPatcher.patch_hooks",
    "comfy.model_patcher.ModelPatcher.remove_additional_models",
    "comfy.model_patcher.ModelPatcher.set_additional_models",
    "comfy.model_patcher.create_model_options_clone",
    "comfy.model_sampling.CONST",
    "comfy.ops.fp8_ops.Linear",
    "comfy.patcher_extension.WrappersMP.APPLY_MODEL",
    "comfy.patcher_extension.WrappersMP.CALC_COND_BATCH",
    "comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL",
    "comfy.patcher_extension.WrappersMP.PREDICT_NOISE",
    "comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING",
    "comfy.samplers.CFGGuider.predict_noise",
    "comfy.samplers.CFGGuider.sample",
    "comfy.samplers.CFGGuider.set_cfg",
    "comfy.samplers.CFGGuider.set_conds",
    "comfy.samplers.Sampler",
    "comfy.samplers.calculate_sigmas",
    "comfy.samplers.filter_registered_hooks_on_conds",
    "comfy.samplers.preprocess_conds_hooks",
    "comfy.samplers.process_conds",
    "comfy.sd.VAE.spacial_compression_encode",
    "comfy.utils.ProgressBar.update_absolute",
    "comfy_execution.graph_utils.ExecutionBlocker",
    "comfy_execution.utils.get_executing_context",
    "comfy_execution.validation.validate_node_input",
    "latent_preview.Latent2RGBPreviewer",
    "latent_preview.get_previewer",
    "server.PromptServer",
)
# Used where the host has them.
OPTIONAL = (
    "comfy.model_management.intermediate_dtype",
    "comfy.model_management.is_oom",
    "comfy.model_patcher.ModelPatcher.get_non_dynamic_delegate",
)


class MissingSymbolError(ImportError):
    """This ComfyUI lacks what the pack needs of it."""


def check(symbols: Iterable[str] = NEEDED) -> None:
    """Raises MissingSymbolError that names the missing symbols, and versions of ComfyUI that have them."""
    missing = [symbol for symbol in symbols if not is_there(symbol)]
    if not missing:
        return
    found = host_version()
    fix = f"Update ComfyUI to {OLDEST} or newer."
    if _numbers(found) >= _numbers(OLDEST):
        fix = f"Update VIPaint; until it has a version for this ComfyUI, ComfyUI {NEWEST} is one that it runs on."
    raise MissingSymbolError(
        f"VIPaint: this ComfyUI ({found}) has no {', '.join(missing)}; versions {OLDEST} to {NEWEST} have. {fix}"
    )


def is_there(symbol: str) -> bool:
    """Whether the host has a module's symbol or one of its class's, by its dotted name."""
    try:
        _resolve(symbol)
    except (ImportError, AttributeError):
        return False
    return True


def host_version() -> str:
    """The host's, `unknown` where it does not say."""
    try:
        return str(_module("comfyui_version").__version__)
    except (ImportError, AttributeError):
        return "unknown"


def _resolve(symbol: str) -> Any:
    """Its value, from the longest beginning of the name that is a module."""
    parts = symbol.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found: Any = _module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(symbol)


@cache
def _module(name: str) -> ModuleType:
    return importlib.import_module(name)


def _numbers(version: str) -> tuple[int, ...]:
    """For comparison; of an unknown version those of the newest."""
    parts = version.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else _numbers(NEWEST)
