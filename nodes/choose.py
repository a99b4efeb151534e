"""Shows all fills of a picture side by side in the editor, and hands on those that are chosen."""

from __future__ import annotations

import re
import reprlib
from typing import Any

import torch
from comfy_api.v0_0_2 import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..vipaint_core.imaging.spread import heat_map, line_width, outline, spread
from . import validation
from .errors import InputError
from .execution import names_node
from .host.messages import say
from .host.temporary_files import saved_pictures
from .sockets import CATEGORY
from .uncertainty import fills_of

# Standard deviation of colours from 0 to 1 that the overlay draws brightest.
FULL_SCALE = 0.25
SYNTAX = "numbers of fills such as `2` or `1, 4`, for several pictures separated by `;`"


def parse_chosen(chosen: Any, fills: int, pictures: int) -> list[list[int]]:
    """Indices from 0 of the chosen fills of each picture, empty lists where nothing is chosen yet.

    One list serves all pictures. Raises InputError.
    """
    fix = f"Choose in the node, or write {SYNTAX}."
    if not isinstance(chosen, str) or not re.fullmatch(r"[\d\s,;]*", chosen):
        raise InputError("chosen", SYNTAX, reprlib.repr(chosen), fix)
    parts = [[int(number) - 1 for number in re.findall(r"\d+", part)] for part in chosen.split(";")]
    parts = parts * pictures if len(parts) == 1 else parts
    if len(parts) != pictures:
        raise InputError("chosen", f"fills of {pictures} pictures, separated by `;`", f"those of {len(parts)}", fix)
    beyond = [number + 1 for part in parts for number in part if not 0 <= number < fills]
    if beyond:
        raise InputError("chosen", f"numbers from 1 to {fills}", str(beyond[0]), fix)
    return parts


def chosen_latent(latent: Any, rows: list[int], count: int) -> dict[str, Any]:
    """The chosen rows of a LATENT of all fills. Raises InputError."""
    samples = latent.get("samples") if isinstance(latent, dict) else None
    if not isinstance(samples, torch.Tensor) or len(samples) != count:
        found = f"{len(samples)}" if isinstance(samples, torch.Tensor) else type(latent).__name__
        raise InputError("latent", f"the {count} latents of the fills", found, "Connect the latent of the same run.")
    kept = {
        name: value[rows] if isinstance(value, torch.Tensor) and len(value) == count else value
        for name, value in latent.items()
    }
    # Numbers of the host's own noise for each row.
    if isinstance(numbers := kept.get("batch_index"), list) and len(numbers) == count:
        kept["batch_index"] = [numbers[row] for row in rows]
    return kept


def shown(fills: torch.Tensor, original: torch.Tensor | None, mask: torch.Tensor | None, each: int) -> dict[str, Any]:
    """What the editor's part of the node shows: names of pictures, as the host's `/view` takes them.

    fills: (B * each, H, W, 3). original: (B, H, W, 3). mask: (B, 1, H, W).
    """
    deviation = (spread(fills, each) / FULL_SCALE).clamp(0, 1)
    # Transparent where all agree.
    glow = torch.cat([heat_map(deviation), deviation.sqrt()[..., None].cpu()], -1)
    size = fills.shape[1], fills.shape[2]
    lines = None if mask is None else outline(mask[:, 0] > 0, line_width(size))
    return {
        "vipaint_fills": saved_pictures(fills),
        "vipaint_original": [] if original is None else saved_pictures(original),
        "vipaint_outline": [] if lines is None else saved_pictures(lines),
        "vipaint_spread": saved_pictures(glow) if each > 1 else [],
        "vipaint_each": [each],
    }


class VIPaintChoose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintChoose",
            display_name="VIPaint Choose Fill",
            category=CATEGORY,
            description="Shows all fills side by side, large, before and after, with the outline of the hole and where "
            "they differ; hands on the one that is chosen. Choosing another does not paint again.",
            search_aliases=[
                "vipaint",
                "pick",
                "select",
                "compare",
                "gallery",
                "image chooser",
                "before after",
                "选择",
                "对比",
                "選択",
                "比較",
                "choisir",
            ],
            inputs=[
                io.Image.Input("images", tooltip="Decoded fills, best those of VIPaint Composite."),
                io.String.Input(
                    "chosen",
                    default="1",
                    tooltip="Numbers of the fills that are handed on: `2`, or several, `1, 4`. For several pictures one "
                    "list for all, or one for each, separated by `;`. Empty: what follows waits for a choice.",
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="The latent of the same fills, to go on from the chosen one without encoding it again.",
                ),
                io.Image.Input(
                    "original", optional=True, tooltip="The pictures that were painted in, to compare the fills with."
                ),
                io.Mask.Input("mask", optional=True, tooltip="The mask that was painted: the fills show its outline."),
                io.Int.Input(
                    "fills",
                    default=0,
                    min=0,
                    max=4096,
                    optional=True,
                    advanced=True,
                    tooltip="Fills per picture. 0: found out, from original where it is connected, else from the pixels "
                    "that the fills of one picture have in common.",
                ),
            ],
            outputs=[
                io.Latent.Output("latent", tooltip="The chosen latents, with their noise mask."),
                io.Image.Output("image", tooltip="The chosen fills, those of the first picture first."),
            ],
            is_output_node=True,
        )

    @classmethod
    @names_node
    def execute(
        cls,
        images: torch.Tensor,
        chosen: str = "1",
        latent: dict[str, Any] | None = None,
        original: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        fills: int = 0,
    ) -> io.NodeOutput:
        validation.check_widgets(cls, fills=fills)
        pictures = validation.check_image("images", images)
        each, given, hole = fills_of(pictures, fills, original, mask)
        count = len(pictures) // each
        parts = parse_chosen(chosen, each, count)
        rows = [picture * each + number for picture, numbers in enumerate(parts) for number in numbers]
        following: list[Any] = [ExecutionBlocker(None), ExecutionBlocker(None)]
        if rows:
            following = [None if latent is None else chosen_latent(latent, rows, len(pictures)), images[rows]]
        else:
            say("nothing is chosen yet: what follows waits. Click a fill and run again")
        return io.NodeOutput(*following, ui=shown(pictures, given, hole, each))
