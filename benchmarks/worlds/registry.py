"""All worlds, by name, in the order of the tables."""

from __future__ import annotations

from typing import Any

from benchmarks.worlds.pixels import PIXEL_WORLD
from benchmarks.worlds.portraits import FLOW, INPAINTING, UNET_WORLD
from benchmarks.worlds.scenes import SCENES_WORLD
from benchmarks.worlds.world import World

WORLDS: dict[str, World[Any]] = {
    world.name: world for world in (FLOW, UNET_WORLD, INPAINTING, SCENES_WORLD, PIXEL_WORLD)
}
