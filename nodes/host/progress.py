"""The host's progress bar and latent preview, driven by the core's callback."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher

from ...vipaint_core import Progress
from .model_info import ModelInfo

_PREVIEW_SECONDS = 0.1


def reporter(model: ModelPatcher, info: ModelInfo, fit_calls: int, draw_calls: int) -> Callable[[Progress], None]:
    """A callback for the core.

    fit_calls, draw_calls: planned network calls of the node before and from the first sampling call.
    """
    bar = comfy.utils.ProgressBar(max(fit_calls + draw_calls, 1))
    previewer = latent_preview.get_previewer(model.load_device, info.latent_format)
    shown = -math.inf

    @torch.no_grad()
    def report(progress: Progress) -> None:
        nonlocal shown
        drawing = progress.stage == "sample"
        value = progress.call + (fit_calls if drawing else 0)
        # Smaller batches than planned take more calls.
        planned = max(fit_calls + draw_calls, fit_calls + progress.calls if drawing else 1, 1)
        preview = None
        if previewer is not None and progress.x0 is not None and time.monotonic() - shown > _PREVIEW_SECONDS:
            preview = previewer.decode_latent_to_preview_image("JPEG", info.add_frame_axis(progress.x0[:1]))
            shown = time.monotonic()
        bar.update_absolute(value, planned, preview)

    return report
