"""Holes in pictures: what is put into them before encoding, and which latent cells they hide.

Pictures are (B, H, W, C) as in ComfyUI, holes (B, 1, H, W) in [0, 1], 1 is hidden.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from scipy import ndimage

# Encodings with other fillers that show how visible cells depend on what is in the hole.
FILLERS = 8
# Details of these fillers are smaller than so many latent cells.
FILLER_CELLS = 4
# Least standard deviation of their pixels, which are in [0, 1].
LEAST_DEVIATION = 0.15


def pad_to_cells(tensor: torch.Tensor, cell: int) -> torch.Tensor:
    """(B, C, H, W) with its last line and column repeated up to multiples of the VAE's cell.

    A padded cell is hidden where the picture's border in it is hidden: as a hidden cell it would take its
    visible pixels with it.
    """
    height, width = tensor.shape[-2:]
    return F.pad(tensor, (0, -width % cell, 0, -height % cell), mode="replicate")


def latent_hole(hole: torch.Tensor, size: tuple[int, int] | torch.Size) -> torch.Tensor:
    """The hole in latent cells, (B, 1, h, w): a cell is as hidden as its most hidden pixel."""
    spare = max(hole.shape[-2] % size[0], hole.shape[-1] % size[1])
    if spare and hole.shape[-2] > size[0] and hole.shape[-1] > size[1]:
        # The VAE crops such pictures: cells and mask are apart by up to `spare` pixels.
        hole = F.max_pool2d(hole, 2 * spare + 1, 1, spare)
    return F.adaptive_max_pool2d(hole, tuple(size))


def covered(hole: torch.Tensor) -> torch.Tensor:
    """How much of each pixel is covered before encoding, in [0, 1]: all where the hole is 1, nothing up to 0.5.

    A feathered mask is grey on what is to be kept: a cover would be kept in its place. A blurred mask is
    light grey on what is to go.
    """
    return (2 * hole - 1).clamp(0, 1)


def fill_from_nearest(pictures: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Pictures with the hole filled from the nearest pixels that are kept.

    No hidden pixel is left; see `covered` for half-hidden ones. Encoders look beyond their cell: a filler
    of another colour would tint the visible cells at the border.
    """
    rows = []
    for picture, cover in zip(pictures, covered(hole)[:, 0], strict=True):
        hidden = cover.cpu().numpy() > 0
        if hidden.all():
            near = torch.full_like(picture, 0.5)
        else:
            index = ndimage.distance_transform_edt(hidden, return_distances=False, return_indices=True)
            line, column = (torch.from_numpy(np.ascontiguousarray(i)).long().to(picture.device) for i in index)
            near = picture[line, column]
        rows.append(torch.lerp(picture, near, rearrange(cover.to(picture), "h w -> h w 1")))
    return torch.stack(rows)


def fill_with_noise(filled: torch.Tensor, hole: torch.Tensor, cell: int) -> list[torch.Tensor]:
    """Pictures with smooth random colours in the hole, `FILLERS` of them, as bright and as varied as what is visible.

    How visible cells move with them shows what they owe to the filler: see `measure_crosstalk`. Parts of the picture
    itself would say too little of content that is unlike it: where a hole leaves a thin strip, what hidden content
    moves latents by had more than ten times the variance that eight of them showed.

    cell: pixels of a latent cell. Amplitudes fall faster than those of natural images, 1 / f (Field 1987,
        doi 10.1364/JOSAA.4.002379), but only for details of less than `FILLER_CELLS` cells: encoders look no further, and
        cells that are farther apart tell of fillers that owe nothing to each other.
    """
    weight = rearrange(covered(hole), "b 1 h w -> b h w 1").to(filled)
    height, width, channels = filled.shape[1:]
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    amplitude = (down**2 + across**2 + (FILLER_CELLS * cell) ** -2) ** -0.75
    mean, deviation = _colours_of(filled, weight == 0)
    generator = torch.Generator().manual_seed(0)
    pictures = []
    for _ in range(FILLERS):
        # Natural colours differ from each other in brightness most.
        noise = 0.65 * torch.randn(channels, height, width, generator=generator)
        noise += 0.75 * torch.randn(height, width, generator=generator)
        smooth = torch.fft.irfft2(amplitude * torch.fft.rfft2(noise), s=(height, width))
        unit = rearrange(smooth / smooth.std().clamp_min(1e-30), "c h w -> h w c").to(filled)
        pictures.append(torch.lerp(filled, (mean + deviation * unit).clamp(0, 1), weight))
    return pictures


def _colours_of(pictures: torch.Tensor, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the pixels that are seen, (B, H, W, 1) bool, every channel's mean (B, 1, 1, C) and all their deviation (B, 1, 1, 1).

    What is hidden often varies more than what little is seen: the deviation is at least `LEAST_DEVIATION`.
    """
    means, deviations = [], []
    for picture, own in zip(pictures, seen[..., 0], strict=True):
        # Where nothing is seen, all is grey.
        pixels = picture[own] if own.any() else picture.flatten(0, 1)
        means.append(pixels.mean(0))
        deviations.append(pixels.std(correction=0).clamp_min(LEAST_DEVIATION))
    return torch.stack(means)[:, None, None], torch.stack(deviations)[:, None, None, None]


def distance_to_visible(hole: torch.Tensor) -> torch.Tensor:
    """Distance in pixels from each hidden pixel to the nearest visible one, (B, 1, H, W).

    0 where visible, infinite without any visible pixel.
    """
    rows = []
    for cover in hole[:, 0]:
        hidden = cover.cpu().numpy() > 0
        far = ndimage.distance_transform_edt(hidden)
        rows.append(torch.full(cover.shape, torch.inf) if hidden.all() else torch.from_numpy(far).float())
    return torch.stack(rows)[:, None].to(hole.device)
