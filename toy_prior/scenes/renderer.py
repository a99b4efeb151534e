"""The renderer of scenes: rays through a fixed pinhole, shading, shadows, textures and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

from toy_prior.scenes.attributes import FRONTS, MATERIALS, SHAPES, Attributes

SIZE = 256
ELEVATION = 46.0

# Linear colours of lamp and surroundings by time of day, and how bright the lamp falls on the wall.
_LAMP = ((1.05, 0.98, 0.86), (1.0, 0.52, 0.26), (0.3, 0.42, 0.85))
_AMBIENT = ((0.22, 0.24, 0.28), (0.18, 0.13, 0.19), (0.05, 0.07, 0.12))
_ALBEDO = ((0.62, 0.07, 0.06), (0.08, 0.42, 0.11), (0.07, 0.15, 0.6), (0.75, 0.5, 0.05))
_FRONT_ALBEDO = ((0.0, 0.0, 0.0), (0.7, 0.7, 0.68), (0.08, 0.08, 0.09))
_WALL_COLOURS = (
    ((0.62, 0.58, 0.5), (0.5, 0.46, 0.4)),
    ((0.5, 0.56, 0.52), (0.28, 0.38, 0.4)),
    ((0.5, 0.27, 0.2), (0.6, 0.56, 0.5)),
)
_GROUND_COLOURS = (
    ((0.6, 0.58, 0.54), (0.16, 0.17, 0.19)),
    ((0.46, 0.28, 0.15), (0.2, 0.11, 0.06)),
    ((0.3, 0.17, 0.3), (0.24, 0.12, 0.25)),
)
# Strength of the mottling on wall and ground.
_WALL_MOTTLE, _GROUND_MOTTLE = (0.11, 0.05, 0.1), (0.04, 0.09, 0.15)

_EYE, _TARGET, _VIEW = (0.0, 3.3, -4.9), (0.0, 0.38, 0.2), 0.345
_WALL_DEPTH = 1.6
# Centre on the ground (x, z), radius and height; a box's radius is half its side.
SLOTS = ("left", "right", "front")
_PLACES = {"left": (-1.1, 0.0), "right": (1.1, 0.0), "front": (0.0, -1.0)}
_SOLIDS = {
    "sphere": (0.43, 0.86),
    "box": (0.34, 0.74),
    "cylinder": (0.36, 0.84),
    "ball": (0.21, 0.42),
    "cube": (0.18, 0.36),
}
_KINDS = {"sphere": "sphere", "ball": "sphere", "box": "box", "cube": "box", "cylinder": "cylinder"}
_TURN = math.radians(28.0)
# Which attribute says what is at a place, and its values.
SHAPE_OF = {"left": "left_shape", "right": "right_shape", "front": "front"}
_SHAPES_OF = {"left": SHAPES, "right": SHAPES, "front": FRONTS}
# The part of the picture in which a solid and its shadow are: top, left, bottom, right.
WINDOWS = {"left": (96, 0, 176, 128), "right": (96, 128, 176, 256), "front": (160, 84, 216, 172)}
_SAMPLES = 3


# Geometry: rays through pixels, cast once. Tensors are (..., H, W), points and normals have x, y, z in front.


@dataclass(frozen=True)
class _Base:
    """What is behind the solids. point: (3, H, W); wall: (H, W), share; patterns: by texture, (values, H, W)."""

    point: torch.Tensor
    wall: torch.Tensor
    walls: torch.Tensor
    grounds: torch.Tensor


@dataclass(frozen=True)
class _Solid:
    """A solid before the camera. alpha, band, occlusion: (H, W); normal, towards (the camera): (3, H, W)."""

    alpha: torch.Tensor
    normal: torch.Tensor
    towards: torch.Tensor
    band: torch.Tensor
    occlusion: torch.Tensor


def _rays(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The camera, (3, 1, 1), and unit directions through samples x samples points of every pixel, (3, H s, W s)."""
    eye, target = torch.tensor(_EYE, dtype=torch.float64), torch.tensor(_TARGET, dtype=torch.float64)
    forward = F.normalize(target - eye, dim=0)
    right = F.normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), forward), dim=0)
    up = torch.linalg.cross(forward, right)
    side = SIZE * samples
    steps = ((torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 - 1) * _VIEW
    rays = forward[:, None, None] + right[:, None, None] * steps - up[:, None, None] * steps[:, None]
    return eye[:, None, None], F.normalize(rays, dim=0)


def _mean(x: torch.Tensor) -> torch.Tensor:
    """Means over the samples of every pixel, (..., H s, W s) -> (..., H, W), in single precision."""
    return (
        F.avg_pool2d(x.reshape(-1, *x.shape[-2:])[:, None], _SAMPLES)[:, 0].reshape(*x.shape[:-2], SIZE, SIZE).float()
    )


def _fraction_hash(*cells: torch.Tensor) -> torch.Tensor:
    """A number in [0, 1) for every cell of a texture, the same for all pictures."""
    total = sum(cell.floor() * step for cell, step in zip(cells, (12.9898, 78.233), strict=False))
    return torch.as_tensor((torch.sin(torch.as_tensor(total)) * 43758.5453) % 1)


@lru_cache(maxsize=None)
def _base(device: torch.device) -> _Base:
    eye, rays = _rays(_SAMPLES)
    ground, wall = -eye[1] / rays[1], (_WALL_DEPTH - eye[2]) / rays[2]
    is_wall = (rays[1] >= 0) | (wall < ground)
    x, y, z = eye + torch.where(is_wall, wall, ground) * rays
    board = (y < 0.1).double()
    stripes = (torch.sin(x * 2 * math.pi / 0.42) > 0.1).double()
    row = y / 0.2
    column = x / 0.46 + 0.5 * (row.floor() % 2)
    joints = ((row % 1 < 0.13) | (column % 1 < 0.06)).double()
    bricks = torch.maximum(joints, 0.3 * _fraction_hash(column, row))
    walls = torch.stack([torch.zeros_like(x), stripes, bricks])
    walls = walls * (1 - board) + board * torch.tensor([0.9, 0.9, 0.9]).double()[:, None, None]
    tiles = ((x / 0.6).floor() + (z / 0.6 + 0.3).floor()) % 2
    plank = x / 0.36 + 0.5
    end = z / 1.7 + _fraction_hash(plank, torch.zeros_like(plank)) * 3
    planks = torch.maximum(((plank % 1 < 0.05) | (end % 1 < 0.015)).double(), 0.6 * _fraction_hash(plank, end))
    carpet = 0.5 + 0.5 * torch.sin(x * 2 * math.pi / 0.11) * torch.sin(z * 2 * math.pi / 0.15)
    middle, directions = _rays(1)
    ground, wall = -middle[1] / directions[1], (_WALL_DEPTH - middle[2]) / directions[2]
    at_wall = (directions[1] >= 0) | (wall < ground)
    point = middle + torch.where(at_wall, wall, ground) * directions
    grounds = torch.stack([tiles, planks, carpet])
    parts = point.float(), _mean(is_wall.double()), _mean(walls), _mean(grounds)
    return _Base(*(part.to(device) for part in parts))


def _turned(x: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates on the ground along a box's sides."""
    return math.cos(_TURN) * x + math.sin(_TURN) * z, -math.sin(_TURN) * x + math.cos(_TURN) * z


@lru_cache(maxsize=None)
def _solid(slot: str, shape: str, device: torch.device) -> _Solid:
    eye, rays = _rays(_SAMPLES)
    radius, height = _SOLIDS[shape]
    centre = torch.tensor([_PLACES[slot][0], height / 2, _PLACES[slot][1]], dtype=torch.float64)[:, None, None]
    origin = eye - centre
    far = torch.full_like(rays[0], torch.inf)
    if _KINDS[shape] == "sphere":
        along = (origin * rays).sum(0)
        distance = along.square() - (origin.square().sum(0) - radius**2)
        t = torch.where(distance >= 0, -along - distance.clamp_min(0).sqrt(), far)
        local = origin + t.nan_to_num(posinf=0.0) * rays
        normal = local / radius
    elif _KINDS[shape] == "box":
        ox, oz = _turned(origin[0], origin[2])
        dx, dz = _turned(rays[0], rays[2])
        start, step = (
            torch.stack([ox.expand_as(dx), origin[1].expand_as(dx), oz.expand_as(dx)]),
            torch.stack([dx, rays[1], dz]),
        )
        half = torch.tensor([radius, height / 2, radius], dtype=torch.float64)[:, None, None]
        enter, axis = ((-step.sign() * half - start) / step).max(0)
        leave = ((step.sign() * half - start) / step).amin(0)
        t = torch.where(enter < leave, enter, far)
        local = origin + t.nan_to_num(posinf=0.0) * rays
        facing = F.one_hot(axis, 3).movedim(-1, 0) * -step.sign()
        cosine, sine = math.cos(_TURN), math.sin(_TURN)
        normal = torch.stack([cosine * facing[0] - sine * facing[2], facing[1], sine * facing[0] + cosine * facing[2]])
    else:
        a = rays[0].square() + rays[2].square()
        b = origin[0] * rays[0] + origin[2] * rays[2]
        distance = b.square() - a * (origin[0].square() + origin[2].square() - radius**2)
        side = (-b - distance.clamp_min(0).sqrt()) / a
        side_height = origin[1] + side * rays[1]
        side = torch.where((distance >= 0) & (side_height.abs() <= height / 2), side, far)
        top = (height / 2 - origin[1]) / rays[1]
        reach = (origin[0] + top * rays[0]).square() + (origin[2] + top * rays[2]).square()
        top = torch.where((reach <= radius**2) & (top > 0), top, far)
        t = torch.minimum(side, top)
        local = origin + t.nan_to_num(posinf=0.0) * rays
        flat = torch.stack([local[0], torch.zeros_like(local[1]), local[2]]) / radius
        normal = torch.where(top < side, torch.tensor([0.0, 1.0, 0.0]).double()[:, None, None], flat)
    hit = torch.isfinite(t).double()
    alpha = _mean(hit)
    share = alpha.clamp_min(1e-6)
    above = local[1] + height / 2
    band = ((above / height * 3.5) % 1 < 0.5).double()
    # Little of the surroundings reaches what is near the ground and looks down.
    occlusion = (0.55 + 0.45 * (above / (0.6 * height)).clamp(0, 1)) * (0.75 + 0.25 * normal[1])
    parts = [
        alpha,
        F.normalize(_mean(hit * normal), dim=0),
        F.normalize(_mean(-hit * rays), dim=0),
        _mean(hit * band) / share,
        _mean(hit * occlusion) / share,
    ]
    return _Solid(*(part.to(device) for part in parts))


def lamp_direction(azimuth: torch.Tensor) -> torch.Tensor:
    """Unit vectors towards the lamp for azimuths in degrees, (N,) -> (N, 3)."""
    angle, elevation = torch.deg2rad(azimuth), math.radians(ELEVATION)
    up = torch.full_like(angle, math.sin(elevation))
    return torch.stack([math.cos(elevation) * angle.sin(), up, -math.cos(elevation) * angle.cos()], 1)


def _smooth(x: torch.Tensor) -> torch.Tensor:
    """From 0 at -1/2 to 1 at 1/2, smoothly."""
    x = (x + 0.5).clamp(0, 1)
    return x * x * (3 - 2 * x)


def _shadow(slot: str, shape: str, lamp: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """The share of the lamp that a solid hides from points behind it, (N, h, w).

    lamp: (N, 3), unit vectors.
    point: (3, h, w).
    """
    radius, height = _SOLIDS[shape]
    px, py, pz = point[0] - _PLACES[slot][0], point[1], point[2] - _PLACES[slot][1]
    lx, ly, lz = (part[:, None, None] for part in lamp.T)
    if _KINDS[shape] == "sphere":
        py = py - radius
        along = -(px * lx + py * ly + pz * lz)
        distance = (px.square() + py.square() + pz.square() - along.square()).clamp_min(1e-12).sqrt()
        return _smooth((radius - distance) / _penumbra(along)) * (along > 0)
    if _KINDS[shape] == "box":
        (px, pz), (lx, lz) = _turned(px, pz), _turned(lx, lz)
        # A direction along a side has no entry on it: keep it off zero.
        lx, lz = (torch.where(part.abs() < 1e-4, 1e-4, part) for part in (lx, lz))
        enter = torch.maximum((-lx.sign() * radius - px) / lx, (-lz.sign() * radius - pz) / lz)
        leave = torch.minimum((lx.sign() * radius - px) / lx, (lz.sign() * radius - pz) / lz)
        across = (leave - enter) * 0.5 * torch.minimum(lx.abs(), lz.abs())
    else:
        flat = (lx.square() + lz.square()).sqrt()
        middle = -(px * lx + pz * lz) / flat.square()
        distance = (px * lz - pz * lx).abs() / flat
        half = (radius**2 - distance.square()).clamp_min(0).sqrt() / flat
        enter, leave = middle - half, middle + half
        across = radius - distance
    enter = enter.clamp_min(0)
    wide = _penumbra(enter)
    over = _smooth((height - (py + enter * ly)) / wide)
    return _smooth(across / wide) * over * (leave > 0)


def _penumbra(distance: torch.Tensor) -> torch.Tensor:
    """Width of a shadow's edge, so far behind the edge that casts it."""
    return 0.05 + 0.12 * distance.clamp_min(0)


def _contact(slot: str, shape: str, point: torch.Tensor) -> torch.Tensor:
    """What a solid takes of the surroundings' light near its foot, (h, w)."""
    radius, _ = _SOLIDS[shape]
    distance = ((point[0] - _PLACES[slot][0]).square() + (point[2] - _PLACES[slot][1]).square()).sqrt()
    reach = 0.6 * radius if _KINDS[shape] == "sphere" else radius
    return 0.6 * torch.exp(-((distance - reach).clamp_min(0) / 0.09).square()) * torch.exp(-point[1] / 0.08)


# Noise from hashes, so that a picture does not depend on its batch.


def _normal(number: torch.Tensor, salt: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal numbers (N, *shape), a function of every row's number, the salt and the place."""
    device = number.device
    place = torch.arange(math.prod(shape), device=device).reshape(shape)
    x = (number + (salt << 42)).reshape(-1, *[1] * len(shape)) * 0x9E3779B97F4A7C1 + place * 0x2545F4914F6CDD1
    # The mixing of splitmix64 (Steele et al. 2014); torch shifts signed numbers.
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    x = x ^ ((x >> 31) & ((1 << 33) - 1))
    radius = ((x & 0xFFFFFFFF).float() + 0.5).div(2**32).clamp(max=1 - 2**-24)
    angle = ((x >> 32) & 0xFFFFFFFF).float() * (2 * math.pi / 2**32)
    return (-2 * radius.log()).sqrt() * angle.cos()


def _mottle(number: torch.Tensor) -> torch.Tensor:
    """Band-limited noise of unit variance, about, on several scales, (N, 256, 256)."""
    total = torch.zeros(len(number), 1, SIZE, SIZE, device=number.device)
    for salt, (cells, weight) in enumerate(((8, 0.5), (20, 0.5), (48, 0.5), (110, 0.5)), 1):
        grid = _normal(number, salt, (1, cells, cells))
        total += weight * F.interpolate(grid, (SIZE, SIZE), mode="bilinear", align_corners=False) * 1.5
    return total[:, 0]


def render(attributes: Attributes, grain: bool = True, slot: str | None = None) -> torch.Tensor:
    """Pictures in [0, 1], shape (N, 3, 256, 256), on the attributes' device.

    A solid whose shape is -1 is left out.

    grain: with mottled surfaces and sensor noise; without, the expected picture, about.
    slot: render only the window of that place (see `WINDOWS`) and its solid, without grain.
    """
    device, values = attributes.azimuth.device, attributes.values
    top, left, bottom, right = WINDOWS[slot] if slot else (0, 0, SIZE, SIZE)
    frame = ..., slice(top, bottom), slice(left, right)
    base = _base(device)
    point, wall_share = base.point[frame], base.wall[frame]

    def of(table: object, name: str) -> torch.Tensor:
        return torch.tensor(table, device=device)[values[name]]

    lamp = lamp_direction(attributes.azimuth.float())
    light, ambient = of(_LAMP, "time")[..., None, None], of(_AMBIENT, "time")[..., None, None]
    shadow = torch.zeros(len(attributes), 1, *wall_share.shape, device=device)
    contact = torch.zeros_like(shadow)
    placed = _placed(values, (slot,) if slot else SLOTS)
    for where, shape, rows in placed:
        down, across = _within(WINDOWS[where], top, left)
        place = (rows, 0, down, across)
        points = point[:, down, across]
        shadow[place] = torch.maximum(shadow[place], _shadow(where, shape, lamp[rows], points))
        contact[place] = torch.maximum(contact[place], _contact(where, shape, points))
    mottle = _mottle(attributes.number)[:, None] if grain and not slot else torch.zeros(1, device=device)

    def surface(name: str, colours: object, strengths: object, patterns: torch.Tensor) -> torch.Tensor:
        first, second = of(colours, name)[..., None, None].unbind(1)
        mixed = first + patterns[frame][values[name]][:, None] * (second - first)
        return mixed * (1 + of(strengths, name)[:, None, None, None] * mottle)

    wall = surface("wall", _WALL_COLOURS, _WALL_MOTTLE, base.walls)
    ground = surface("ground", _GROUND_COLOURS, _GROUND_MOTTLE, base.grounds)
    glow = 0.25 + 0.5 * torch.exp(-(point[0] / 2.4).square() - ((point[1] - 0.9) / 1.5).square())
    level = math.sin(math.radians(ELEVATION)) + wall_share * (glow - math.sin(math.radians(ELEVATION)))
    picture = (ground + wall_share * (wall - ground)) * (ambient * (1 - contact) + light * (1 - shadow) * level)
    for where, shape, rows in placed:
        down, across = _within(WINDOWS[where], top, left)
        shaded, alpha = _shaded(where, shape, attributes[rows], lamp[rows], (light[rows], ambient[rows]))
        under = picture[rows, :, down, across]
        picture[rows, :, down, across] = under + alpha * (shaded - under)
    picture = (picture * _vignette(device)[frame]).clamp(1e-5, 1).pow(1 / 2.2)
    if grain and not slot:
        deviation = (3e-5 + 2e-4 * picture).sqrt()
        picture = picture + deviation * _normal(attributes.number, 9, (3, SIZE, SIZE))
    return picture.clamp(0, 1)


def _within(window: tuple[int, int, int, int], top: int, left: int) -> tuple[slice, slice]:
    """Rows and columns of a window in a frame that begins there."""
    return slice(window[0] - top, window[2] - top), slice(window[1] - left, window[3] - left)


def _placed(values: dict[str, torch.Tensor], slots: tuple[str, ...]) -> list[tuple[str, str, torch.Tensor]]:
    """Place, shape and rows of all solids, those behind first."""
    found = []
    for slot in slots:
        for index, shape in enumerate(_SHAPES_OF[slot]):
            rows = (values[SHAPE_OF[slot]] == index).nonzero()[:, 0]
            if shape != "none" and len(rows):
                found.append((slot, shape, rows))
    return found


def _shaded(
    slot: str, shape: str, attributes: Attributes, lamp: torch.Tensor, lights: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Linear colours of a solid in its window, (N, 3, h, w), and its alpha (h, w)."""
    top, left, bottom, right = WINDOWS[slot]
    solid = _solid(slot, shape, attributes.azimuth.device)
    alpha, normal, towards, band, occlusion = (
        getattr(solid, name)[..., top:bottom, left:right]
        for name in ("alpha", "normal", "towards", "band", "occlusion")
    )
    light, ambient = lights
    device, values = lamp.device, attributes.values
    if slot == "front":
        albedo = torch.tensor(_FRONT_ALBEDO, device=device)[values["front"]][..., None, None]
        gloss = torch.full((len(lamp), 1, 1, 1), 0.35, device=device)
    else:
        material = values[f"{slot}_material"][:, None, None, None]
        albedo = torch.tensor(_ALBEDO, device=device)[values[f"{slot}_colour"]][..., None, None]
        albedo = torch.where(material == MATERIALS.index("banded"), albedo + band * (0.72 - albedo), albedo)
        gloss = torch.where(material == MATERIALS.index("glossy"), 0.9, 0.03)
    diffuse = torch.einsum("nk,khw->nhw", lamp, normal).clamp_min(0)[:, None]
    halfway = F.normalize(lamp[..., None, None] + towards, dim=1)
    mirrored = (halfway * normal).sum(1, keepdim=True).clamp_min(0)
    # Besides the lamp a glossy solid mirrors the room, more at grazing angles.
    grazing = (1 - (towards * normal).sum(0).clamp(0, 1)).pow(4)
    glint = gloss * (light * (mirrored.pow(60) + 0.15 * mirrored.pow(8)) + ambient * (0.1 + 0.8 * grazing))
    return albedo * (ambient * occlusion + light * diffuse) + glint, alpha


@lru_cache(maxsize=None)
def _vignette(device: torch.device) -> torch.Tensor:
    steps = torch.linspace(-1, 1, SIZE, device=device).square()
    return 1.08 - 0.22 * (steps + steps[:, None])
