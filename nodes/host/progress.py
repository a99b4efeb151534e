"""The host's progress bar and latent preview, driven by the core's callback."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from PIL import Image

from ...vipaint_core import GainState, Progress, SampleState
from .messages import tell
from .model_info import ModelInfo

_PREVIEW_SECONDS = 0.1
# Between two texts about the time left.
_TEXT_SECONDS = 1.0
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

    def __init__(self, previewer: Any, info: ModelInfo) -> None:
        self._previewer, self._info = previewer, info
        self._tiles: dict[tuple[int, int], Any] = {}

    def update(self, x0: torch.Tensor, drawing: Sequence[tuple[int, int]]) -> Any:
        """The host's preview of the estimates (N, C, H, W) of these fills, see `SampleState.drawing`."""
        size = None
        for row, fill in enumerate(drawing):
            estimate = self._info.add_frame_axis(x0[row : row + 1])
            kind, self._tiles[fill], size = self._previewer.decode_latent_to_preview_image("JPEG", estimate)
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


class PlannedCalls(NamedTuple):
    """Network calls of each stage of a run, in their order; see `Progress.stage`."""

    fit: int = 0
    chains: int = 0
    bound: int = 0
    sample: int = 0

    def before(self, stage: str) -> int:
        """Calls of the stages before one."""
        return sum(self[: self._fields.index(stage)])

    def corrected(self, stage: str, calls: int) -> PlannedCalls:
        """With a stage's calls as they have turned out: smaller batches than planned take more."""
        return self._replace(**{stage: max(calls, getattr(self, stage))})


class RemainingTime:
    """How long a run still takes: the calls of one stage take equally long, those of later ones as the last that ended."""

    def __init__(self) -> None:
        self._stage, self._begin, self._from, self._pace = "", 0.0, 0, 0.0

    def after(self, progress: Progress, plan: PlannedCalls) -> float | None:
        """Seconds, None while nothing is known; to be told of every call."""
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._begin, self._from = progress.stage, now, progress.call
        done = progress.call - self._from
        if done:
            self._pace = (now - self._begin) / done
        if not self._pace:
            return None
        left = sum(plan) - plan.before(progress.stage) - progress.call
        return self._pace * left


# What each stage is to the user.
_STAGES = {
    "fit": "fitting the posterior",
    "chains": "fitting the posterior by its first fills",
    "bound": "evaluating the bound",
    "sample": "drawing fills",
}


def reporter(
    model: ModelPatcher,
    info: ModelInfo,
    planned: PlannedCalls,
    drawing: SampleState,
    gains: GainState | None = None,
) -> Callable[[Progress], None]:
    """A callback for the core.

    drawing, gains: of the run; they say which fills are being drawn, in the stages "sample" and "chains".
    """
    bar = comfy.utils.ProgressBar(max(sum(planned), 1))
    previewer = find_previewer(model, info)
    grid = None if previewer is None else PreviewGrid(previewer, info)
    due, told, plan, remaining = -math.inf, -math.inf, planned, RemainingTime()

    @torch.no_grad()
    def report(progress: Progress) -> None:
        nonlocal due, told, plan
        plan = plan.corrected(progress.stage, progress.calls)
        value = progress.call + plan.before(progress.stage)
        preview, begin = None, time.monotonic()
        left = remaining.after(progress, plan)
        if left is not None and begin > told + _TEXT_SECONDS:
            told = begin
            tell(f"{_STAGES[progress.stage]}, about {in_words(left)} left")
        if grid is not None and progress.stage != "bound" and begin > due:
            # Samples of a gradient step are of one posterior: one of them shows it.
            shown: tuple[tuple[int, int], ...] = ((0, 0),)
            if progress.stage == "sample":
                shown = drawing.drawing
            elif progress.stage == "chains" and gains is not None:
                shown = gains.drawing.drawing
            preview = grid.update(progress.x0, shown)
            end = time.monotonic()
            due = end + max(_PREVIEW_SECONDS, (end - begin) / _PREVIEW_SHARE)
        bar.update_absolute(value, max(sum(plan), 1), preview)

    return report


def in_words(seconds: float) -> str:
    """A duration as it is told."""
    return f"{math.ceil(seconds)} s" if seconds < 100 else f"{math.ceil(seconds / 60)} min"
