"""The host's progress bar and latent preview, driven by the core's callback."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from PIL import Image

from ...vipaint_core import Progress, SampleState
from .model_info import ModelInfo

_PREVIEW_SECONDS = 0.1
# Previews take this share of the time at most, however slow they are to decode.
_PREVIEW_SHARE = 0.05


def find_previewer(model: ModelPatcher, info: ModelInfo) -> Any:
    """The host's previewer; where it is set to none, the quickest: a fit or many fills are long to wait for blindly."""
    found = latent_preview.get_previewer(model.load_device, info.latent_format)
    factors = info.latent_format.latent_rgb_factors
    if found is not None or factors is None:
        return found
    return latent_preview.Latent2RGBPreviewer(
        factors,
        info.latent_format.latent_rgb_factors_bias,
        getattr(info.latent_format, "latent_rgb_factors_reshape", None),
    )


class PreviewGrid:
    """Previews of all fills in one picture: those that are being drawn, and the last ones of those that are done."""

    def __init__(self, previewer: Any, info: ModelInfo, drawing: SampleState) -> None:
        self._previewer, self._info, self._drawing = previewer, info, drawing
        self._tiles: dict[int, Any] = {}

    def update(self, x0: torch.Tensor) -> Any:
        """The host's preview of the estimates (N, C, H, W) that belong to the rows after those that are done."""
        first, size = self._drawing.done, None
        for row in range(len(x0)):
            estimate = self._info.add_frame_axis(x0[row : row + 1])
            kind, self._tiles[first + row], size = self._previewer.decode_latent_to_preview_image("JPEG", estimate)
        tiles = [self._tiles[row] for row in sorted(self._tiles)]
        return kind, tiled(tiles), size


def tiled(tiles: list[Image.Image]) -> Image.Image:
    """Pictures of one size in rows, about as many as columns."""
    if len(tiles) == 1:
        return tiles[0]
    columns = math.ceil(math.sqrt(len(tiles)))
    width, height = tiles[0].size
    gap = max(1, width // 64)
    grid = Image.new(
        "RGB", (columns * (width + gap) - gap, math.ceil(len(tiles) / columns) * (height + gap) - gap), "black"
    )
    for index, tile in enumerate(tiles):
        grid.paste(tile, (index % columns * (width + gap), index // columns * (height + gap)))
    return grid


def reporter(
    model: ModelPatcher, info: ModelInfo, fit_calls: int, draw_calls: int, drawing: SampleState
) -> Callable[[Progress], None]:
    """A callback for the core.

    fit_calls, draw_calls: planned network calls of the node before and from the first sampling call.
    drawing: of the run; it says which fills are done.
    """
    bar = comfy.utils.ProgressBar(max(fit_calls + draw_calls, 1))
    previewer = find_previewer(model, info)
    grid = None if previewer is None else PreviewGrid(previewer, info, drawing)
    due = -math.inf

    @torch.no_grad()
    def report(progress: Progress) -> None:
        nonlocal due
        is_drawing = progress.stage == "sample"
        value = progress.call + (fit_calls if is_drawing else 0)
        # Smaller batches than planned take more calls.
        planned = max(fit_calls + draw_calls, fit_calls + progress.calls if is_drawing else 1, 1)
        preview, begin = None, time.monotonic()
        if grid is not None and progress.x0 is not None and begin > due:
            # Samples of a fit are of one posterior: one of them shows it.
            preview = grid.update(progress.x0 if is_drawing else progress.x0[:1])
            end = time.monotonic()
            due = end + max(_PREVIEW_SECONDS, (end - begin) / _PREVIEW_SHARE)
        bar.update_absolute(value, planned, preview)

    return report
