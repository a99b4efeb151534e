"""Procedural portraits, 128 x 128 or smaller, whose conditional distributions are known exactly.

A portrait is a background gradient (continuous hue) under six cut-out layers: skin, hair,
left eye, right eye, mouth and accessory. All attributes are independent and uniform, except
that both eyes are the same. Layers touch disjoint parts of the picture, so given any visible
part the exact posterior is: what is visible is determined, what is hidden is uniform, and a
hidden eye equals the visible one.

Every layer is drawn once with Pillow at four times the resolution and cached; pictures are
alpha composites in torch, so that rendering a batch costs six multiply-adds per pixel and the
reader below matches against the very templates that the generator used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw

SIZE = 128
_SCALE = 4
# Sides that pictures come in, in pixels: those of the latent models, and of the model of pixels.
SIDES = (SIZE, 32)

SKINS = ((255, 224, 196), (240, 184, 135), (198, 134, 90), (141, 85, 52), (92, 54, 38), (160, 200, 120))
HAIR_COLOURS = ((30, 20, 25), (135, 65, 15), (245, 205, 70), (220, 20, 130))
HAIR_STYLES = ("cap", "bun", "spikes")
EYE_COLOURS = ((20, 60, 235), (20, 175, 60), (15, 15, 15), (215, 25, 30))
EYE_SHAPES = ("round", "narrow", "square")
MOUTHS = ("smile", "flat", "open", "grin")
ACCESSORIES = ("none", "bird", "badge")

# Number of values of every discrete attribute. Hair and eyes combine a shape and a colour.
ATTRIBUTES = {
    "skin": len(SKINS),
    "hair_style": len(HAIR_STYLES),
    "hair_colour": len(HAIR_COLOURS),
    "eye_shape": len(EYE_SHAPES),
    "eye_colour": len(EYE_COLOURS),
    "mouth": len(MOUTHS),
    "accessory": len(ACCESSORIES),
}
# What the reader matches: each group is one layer of the composite.
GROUPS = {
    "skin": len(SKINS),
    "hair": len(HAIR_STYLES) * len(HAIR_COLOURS),
    "eye_left": len(EYE_SHAPES) * len(EYE_COLOURS),
    "eye_right": len(EYE_SHAPES) * len(EYE_COLOURS),
    "mouth": len(MOUTHS),
    "accessory": len(ACCESSORIES),
}
MASKS = ("right", "top", "bottom", "centre", "blocks", "border", "strip", "cut")


def _draw(group: str, value: int) -> Image.Image:
    """Draws one layer as RGBA at `_SCALE` times the final size (coordinates in final pixels)."""
    image = Image.new("RGBA", (SIZE * _SCALE, SIZE * _SCALE))
    pen = ImageDraw.Draw(image)

    def box(cx: float, cy: float, rx: float, ry: float) -> list[float]:
        return [(cx - rx) * _SCALE, (cy - ry) * _SCALE, (cx + rx) * _SCALE, (cy + ry) * _SCALE]

    def points(*xy: tuple[float, float]) -> list[tuple[float, float]]:
        return [(x * _SCALE, y * _SCALE) for x, y in xy]

    if group == "skin":
        skin = SKINS[value]
        pen.rectangle(box(64, 106, 10, 10), fill=skin)
        pen.ellipse(box(64, 66, 28, 36), fill=skin)
        pen.rounded_rectangle([26 * _SCALE, 112 * _SCALE, 102 * _SCALE, 140 * _SCALE], 12 * _SCALE, fill=(60, 66, 86))
        pen.ellipse(box(64, 112, 10, 5), fill=skin)
    elif group == "hair":
        style, colour = HAIR_STYLES[value // len(HAIR_COLOURS)], HAIR_COLOURS[value % len(HAIR_COLOURS)]
        pen.ellipse(box(64, 54, 33, 33), fill=colour)
        pen.rectangle([0, 50 * _SCALE, SIZE * _SCALE, SIZE * _SCALE], fill=(0, 0, 0, 0))
        if style == "bun":
            pen.ellipse(box(64, 14, 15, 12), fill=colour)
        elif style == "spikes":
            for x in (42, 56.5, 71.5, 86):
                pen.polygon(points((x - 8, 34), (x + (x - 64) * 0.25, 5), (x + 8, 34)), fill=colour)
    elif group in ("eye_left", "eye_right"):
        cx, cy = (50, 72) if group == "eye_left" else (78, 72)
        shape, colour = EYE_SHAPES[value // len(EYE_COLOURS)], EYE_COLOURS[value % len(EYE_COLOURS)]
        white = (250, 250, 250)
        if shape == "round":
            pen.ellipse(box(cx, cy, 9, 8), fill=white)
            pen.ellipse(box(cx, cy, 6, 6), fill=colour)
        elif shape == "narrow":
            pen.ellipse(box(cx, cy, 10, 4), fill=white)
            pen.ellipse(box(cx, cy, 7, 4), fill=colour)
        else:
            pen.rectangle(box(cx, cy, 10, 8), fill=white)
            pen.rectangle(box(cx, cy, 5, 8), fill=colour)
    elif group == "mouth":
        kind, cy = MOUTHS[value], 89
        if kind == "smile":
            pen.pieslice(box(64, cy - 5, 12, 11), 0, 180, fill=(215, 20, 60))
        elif kind == "flat":
            pen.rectangle(box(64, cy, 11, 2.5), fill=(90, 10, 50))
        elif kind == "open":
            pen.ellipse(box(64, cy, 8, 7), fill=(250, 120, 150))
            pen.ellipse(box(64, cy, 5.5, 4.5), fill=(40, 5, 15))
        else:
            pen.rounded_rectangle(box(64, cy, 12, 6), 3 * _SCALE, fill=(120, 20, 30))
            pen.rectangle(box(64, cy, 10, 3.6), fill=(250, 250, 250))
    elif ACCESSORIES[value] == "bird":
        pen.polygon(points((104, 94), (97, 97), (104, 100)), fill=(240, 150, 20))
        pen.ellipse(box(112, 96, 9, 11), fill=(40, 170, 90))
        pen.ellipse(box(109, 92, 2, 2), fill=(10, 10, 10))
    elif ACCESSORIES[value] == "badge":
        pen.ellipse(box(86, 121, 6, 6), fill=(240, 200, 40))
    return image


@lru_cache(maxsize=None)
def layer(group: str, device: torch.device | None = None, side: int = SIZE) -> torch.Tensor:
    """Premultiplied RGBA templates of one group, shape (values, 4, side, side), in [0, 1].

    device: the CPU where None. side: of the pictures in pixels, a divisor of 128; pixels are means over larger ones'.
    """
    if device is not None:
        return layer(group, side=side).to(device)
    scale = SIZE * _SCALE // side
    rows = []
    for value in range(GROUPS[group]):
        rgba = np.asarray(_draw(group, value), dtype=np.float32) / 255.0
        rgba[..., :3] *= rgba[..., 3:]
        rows.append(rgba.reshape(side, scale, side, scale, 4).mean((1, 3)))
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).contiguous()


@lru_cache(maxsize=None)
def support(group: str, side: int = SIZE) -> torch.Tensor:
    """Pixels that tell the values of a group apart, shape (side, side), bool."""
    templates = layer(group, side=side)
    return (templates.amax(0) - templates.amin(0)).amax(0) > 0.02


@lru_cache(maxsize=None)
def _background_pixels(side: int) -> torch.Tensor:
    alpha = torch.stack([layer(group, side=side)[:, 3].amax(0) for group in GROUPS]).amax(0)
    return alpha == 0


def background(hue: torch.Tensor, side: int = SIZE) -> torch.Tensor:
    """Background gradients for hues in cycles, (N,) -> (N, 3, side, side)."""
    phase = 2 * math.pi * (hue[:, None] - torch.arange(3, device=hue.device) / 3)
    colour = 0.55 + 0.3 * torch.cos(phase)
    shade = _shade(side).to(hue.device)
    return (colour[:, :, None, None] * shade[None, None, :, None]).expand(-1, -1, -1, side).clamp(0, 1)


def _shade(side: int) -> torch.Tensor:
    """Brightness of the background's lines, (side,)."""
    return torch.linspace(1.1, 0.75, SIZE).unflatten(0, (side, -1)).mean(1)


@dataclass(frozen=True)
class Attributes:
    """Attributes of N portraits.

    hue: (N,), of the background, in cycles.
    groups: by layer, (N,) indices of its templates.
    """

    hue: torch.Tensor
    groups: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.hue)

    def __getitem__(self, index: slice | torch.Tensor) -> Attributes:
        return Attributes(self.hue[index], {name: value[index] for name, value in self.groups.items()})

    def to(self, device: str | torch.device) -> Attributes:
        return Attributes(self.hue.to(device), {name: value.to(device) for name, value in self.groups.items()})

    def discrete(self) -> dict[str, torch.Tensor]:
        """The seven discrete attributes by name, (N,) each (-1 where unread); eyes are the left eye's."""
        hair, eye = self.groups["hair"], self.groups["eye_left"]
        return {
            "skin": self.groups["skin"],
            "hair_style": hair.div(len(HAIR_COLOURS), rounding_mode="floor"),
            "hair_colour": torch.where(hair < 0, hair, hair % len(HAIR_COLOURS)),
            "eye_shape": eye.div(len(EYE_COLOURS), rounding_mode="floor"),
            "eye_colour": torch.where(eye < 0, eye, eye % len(EYE_COLOURS)),
            "mouth": self.groups["mouth"],
            "accessory": self.groups["accessory"],
        }


def compose(discrete: dict[str, torch.Tensor], hue: torch.Tensor) -> Attributes:
    """Attributes of the seven discrete ones, as `Attributes.discrete` has them."""
    groups = {
        "skin": discrete["skin"],
        "hair": discrete["hair_style"] * len(HAIR_COLOURS) + discrete["hair_colour"],
        "eye_left": discrete["eye_shape"] * len(EYE_COLOURS) + discrete["eye_colour"],
        "mouth": discrete["mouth"],
        "accessory": discrete["accessory"],
    }
    return Attributes(hue, {name: groups[name.replace("right", "left")] for name in GROUPS})


def sample_attributes(count: int, generator: torch.Generator) -> Attributes:
    """Draws independent uniform attributes; the right eye copies the left."""
    groups = {name: torch.randint(size, (count,), generator=generator) for name, size in GROUPS.items()}
    groups["eye_right"] = groups["eye_left"]
    return Attributes(torch.rand(count, generator=generator), groups)


def render(attributes: Attributes, side: int = SIZE) -> torch.Tensor:
    """Portraits in [0, 1], shape (N, 3, side, side), on the attributes' device."""
    picture = background(attributes.hue, side)
    for name in GROUPS:
        top = layer(name, picture.device, side)[attributes.groups[name]]
        picture = top[:, :3] + (1 - top[:, 3:]) * picture
    return picture


def hole(name: str, side: int = SIZE) -> torch.Tensor:
    """The named mask of the benchmark, (side, side) bool, True where pixels are hidden.

    Raises ValueError for names that are not in `MASKS`.
    """
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    if name == "right":
        mask[:, 64:] = True
    elif name == "top":
        mask[:64] = True
    elif name == "bottom":
        mask[64:] = True
    elif name == "centre":
        mask[32:104, 32:96] = True
    elif name == "blocks":
        # 70 % of the blocks, in an order in which no attribute is shown by half.
        covered = torch.randperm(64, generator=torch.Generator().manual_seed(12))[:45]
        mask.view(8, 16, 8, 16)[covered // 8, :, covered % 8] = True
    elif name == "border":
        mask[:] = True
        mask[36:96, 32:96] = False
    elif name in ("strip", "cut"):
        # What is left shows eyes, skin and wall: a line of latent cells, or the halves of two lines.
        first = 72 if name == "strip" else 68
        mask[:] = True
        mask[first : first + 8] = False
    else:
        raise ValueError(f"hole: expected one of {', '.join(MASKS)}, found {name!r}")
    # Edges lie on multiples of four pixels.
    return mask[:: SIZE // side, :: SIZE // side]


@dataclass(frozen=True)
class Reading:
    """What the reader found in N pictures; groups outside the region that it looked at are -1 and matched.

    error: by group, (N,) root mean square distances to the best template.
    matched: by group, (N,) bool, whether that distance is within the template's `tolerance`.
    side: of the pictures.
    """

    attributes: Attributes
    error: dict[str, torch.Tensor]
    matched: dict[str, torch.Tensor]
    side: int = SIZE

    @property
    def valid(self) -> torch.Tensor:
        """Pictures in which every readable group matches a template and both eyes agree, (N,) bool."""
        return torch.stack(list(self.matched.values())).all(0) & self.eyes_agree

    @property
    def eyes_agree(self) -> torch.Tensor:
        left, right = self.attributes.groups["eye_left"], self.attributes.groups["eye_right"]
        return (left == right) | (left < 0) | (right < 0)

    def allowed(self, name: str) -> torch.Tensor:
        """The largest error at which a group, or the background, counts as matched, (N,)."""
        if name == "background":
            return torch.full_like(self.error[name], BACKGROUND_TOLERANCE)
        return tolerance(name, self.side)[self.attributes.groups[name]]


BACKGROUND_TOLERANCE = 0.05


@lru_cache(maxsize=None)
def tolerance(group: str, side: int = SIZE) -> torch.Tensor:
    """For every template of a group, half the root mean square distance to the nearest other one, (values,).

    Within it a picture can mean no other template (triangle inequality).
    """
    templates = layer(group, side=side)[:, :, _own(group, side)]
    shown = (templates[:, :3] + 0.5 * (1 - templates[:, 3:])).flatten(1)
    distance = torch.cdist(shown, shown) / shown.shape[1] ** 0.5
    return 0.5 * distance.fill_diagonal_(torch.inf).amin(1)


def read(pictures: torch.Tensor, region: torch.Tensor | None = None) -> Reading:
    """Recovers attributes of pictures by matching rendered templates.

    A group is read where at least half of its support lies in the region.

    pictures: (N, 3, side, side) in [0, 1], of a side that `SIDES` has.
    region: (side, side) bool, the pixels to look at; None: all.

    Raises ValueError for another shape.
    """
    side = pictures.shape[-1]
    if pictures.ndim != 4 or tuple(pictures.shape[1:]) != (3, side, side) or side not in SIDES:
        sides = " or ".join(str(side) for side in SIDES)
        raise ValueError(
            f"read: expected pictures of shape (N, 3, side, side), side {sides}, found {tuple(pictures.shape)}"
        )
    pictures = pictures.float().cpu()
    region = torch.ones(side, side, dtype=torch.bool) if region is None else region
    count = len(pictures)
    hue, hue_error = _read_hue(pictures, region & _background_pixels(side))
    base = background(hue, side)
    groups: dict[str, torch.Tensor] = {}
    error: dict[str, torch.Tensor] = {"background": hue_error}
    for name in GROUPS:
        pixels = _own(name, side) & region
        if pixels.sum() < 0.5 * _own(name, side).sum():
            groups[name] = torch.full((count,), -1)
            error[name] = torch.zeros(count)
            continue
        target = pictures[:, :, pixels]
        under = base[:, :, pixels]
        templates = layer(name, side=side)[:, :, pixels]
        distance = torch.stack(
            [(t[:3] + (1 - t[3:]) * under - target).square().mean((1, 2)).sqrt() for t in templates], dim=1
        )
        error[name], groups[name] = distance.min(1)
        chosen = layer(name, side=side)[groups[name]]
        base = chosen[:, :3] + (1 - chosen[:, 3:]) * base
    reading = Reading(Attributes(hue, groups), error, {}, side)
    # Groups outside the region have index -1 and error 0: they match whatever tolerance that picks.
    return replace(reading, matched={name: value <= reading.allowed(name) for name, value in error.items()})


@lru_cache(maxsize=None)
def _own(name: str, side: int) -> torch.Tensor:
    """Support of a group without the pixels that a layer above it may cover, (side, side) bool."""
    pixels = support(name, side)
    for other in list(GROUPS)[list(GROUPS).index(name) + 1 :]:
        pixels = pixels & ~(layer(other, side=side)[:, 3].amax(0) > 0)
    return pixels


def _read_hue(pictures: torch.Tensor, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Least-squares hue over background pixels: the gradient is linear in (cos, sin) of the hue."""
    side = pictures.shape[-1]
    shade = _shade(side)[:, None].expand(side, side)[pixels]
    offset = 2 * math.pi * torch.arange(3) / 3
    basis = 0.3 * torch.stack([torch.cos(offset)[:, None] * shade, torch.sin(offset)[:, None] * shade])
    residual = pictures[:, :, pixels] - 0.55 * shade
    gram = torch.einsum("kcp,lcp->kl", basis, basis)
    moment = torch.einsum("kcp,ncp->nk", basis, residual)
    cosine, sine = torch.linalg.solve(gram, moment.T)
    hue = torch.remainder(torch.atan2(sine, cosine) / (2 * math.pi), 1.0)
    error = (background(hue, side)[:, :, pixels] - pictures[:, :, pixels]).square().mean((1, 2)).sqrt()
    return hue, error


def total_variation(values: torch.Tensor, size: int) -> torch.Tensor:
    """Distance of the values' frequencies over the last dimension from uniform, (..., draws) -> (...)."""
    share = torch.nn.functional.one_hot(values, size).float().mean(-2)
    return 0.5 * (share - 1 / size).abs().sum(-1)


def contrast(name: str, side: int = SIZE) -> torch.Tensor:
    """Largest difference, on each pixel, between values of an attribute with all others alike, (pairs, side, side)."""
    whole = {"eye_shape": ("eye_left", "eye_right"), "eye_colour": ("eye_left", "eye_right")}
    parts = []
    for group in whole.get(name, ("hair",) if name.startswith("hair") else (name,)):
        values = layer(group, side=side)
        if name != group:
            shapes = values.unflatten(0, (-1, len(EYE_COLOURS if group.startswith("eye") else HAIR_COLOURS)))
            values = shapes.movedim(1, 0) if name.endswith("colour") else shapes
        first, second = torch.combinations(torch.arange(len(values))).T
        difference = (values[first] - values[second]).abs().amax(-3)
        parts.append(difference.amax(1) if name != group else difference)
    return torch.stack(parts).amax(0)


def hidden_attributes(mask: torch.Tensor) -> list[str]:
    """Names of discrete attributes of which a hole shows nothing: their exact posterior is uniform."""
    return [name for name in ATTRIBUTES if not bool((contrast(name, len(mask))[:, ~mask] > 0.02).any())]
