"""Pictures for the editor in the host's folder of temporary files, named by what they show."""

from __future__ import annotations

import hashlib
from pathlib import Path

import folder_paths
import numpy as np
import torch
from PIL import Image

SUBFOLDER = "vipaint"
# Fast: these files are looked at once.
COMPRESSION = 1


def saved_pictures(pictures: torch.Tensor) -> list[dict[str, str]]:
    """Saves pictures (N, H, W, 3 or 4) in [0, 1] as PNG; what the editor's `/view` is asked for, one for each.

    A picture that is there already is not written again: choosing another of 64 fills costs nothing.
    """
    folder = Path(folder_paths.get_temp_directory()) / SUBFOLDER
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for picture in pictures:
        pixels = (picture.detach().cpu().float().clamp(0, 1).numpy() * 255).round().astype(np.uint8)
        digest = hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=12)
        digest.update(str(pixels.shape).encode())
        name = f"{digest.hexdigest()}.png"
        if not (folder / name).is_file():
            part = folder / f"{name}.part"
            Image.fromarray(pixels).save(part, "PNG", compress_level=COMPRESSION)
            part.replace(folder / name)
        found.append({"filename": name, "subfolder": SUBFOLDER, "type": "temp"})
    return found
