"""What a world is: a model, pictures with known posteriors, and a judge of fills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch


class Prior(NamedTuple):
    """The host's MODEL and VAE."""

    model: Any
    vae: Any


class Prompts(NamedTuple):
    """The host's CONDITIONING, twice; `negative` counts where cfg is not 1."""

    positive: Any
    negative: Any


@dataclass(frozen=True)
class Wording:
    """What a prompt says of a picture, and how much it is heeded.

    names: nothing (the empty prompt), every attribute of the truth, or those with others in place of all visible ones.
    cfg: guidance scale.
    """

    names: str
    cfg: float

    def __str__(self) -> str:
        return f"{self.names}, cfg {self.cfg:g}" if self.names != EMPTY else self.names


# The method that draws from `World.exact`.
EXACT = "exact sampler"
EMPTY, TRUTH, CONTRADICTION = "empty", "truth", "contradiction"
NO_PROMPT = Wording(EMPTY, 1.0)
WORDINGS = (NO_PROMPT, *(Wording(names, cfg) for names in (TRUTH, CONTRADICTION) for cfg in (1.0, 4.0, 7.5)))


@dataclass(frozen=True)
class Judgement:
    """Fills of several pictures against what is known of them; shares are in [0, 1].

    valid: fills that are pictures of the world.
    consistent: fills that agree with all that is visible. both: valid and consistent.
    tv, floor: total variation of hidden discrete attributes from their exact posterior, mean over attributes and
        pictures, and what an exact sampler has on average at this number of fills; None where nothing is hidden, or
        where a prompt changes the posterior.
    crps: continuous ranked probability score of hidden continuous attributes, None without any. Exact samplers have one,
        too: see `World.exact`.
    wasserstein: distance (of order 1) of hidden continuous attributes from their exact posterior, None without any.
    followed: share of hidden attributes that are as the prompt says, None where it says nothing of them.
    """

    valid: float
    consistent: float
    both: float
    tv: float | None = None
    floor: float | None = None
    crps: float | None = None
    wasserstein: float | None = None
    followed: float | None = None


class Truths(Protocol):
    """What is true of N pictures, a row each: anything that has a length and can be cut."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> Any: ...


T = TypeVar("T", bound=Truths)


class World(Protocol[T]):
    """A prior and its held-out pictures.

    name: as in the tables.
    tuned: what was chosen on it, a sentence for the reader of the tables.
    files: what `load` reads. maker: the command that makes them where they are missing.
    latent_shape: (C, H, W) of the model's latents.
    holes, methods: what the benchmark paints without being told. every_hole: all holes that it can be told.
    wordings: the prompts that pictures are painted with.
    picture_bound: whether prompts hold something of the picture even where they are empty: an inpainting model's.
    held_out: how many held-out pictures there are.
    """

    @property
    def name(self) -> str: ...
    @property
    def tuned(self) -> str: ...
    @property
    def files(self) -> tuple[Path, ...]: ...
    @property
    def maker(self) -> str: ...
    @property
    def latent_shape(self) -> tuple[int, int, int]: ...
    @property
    def holes(self) -> Sequence[str]: ...
    @property
    def every_hole(self) -> Sequence[str]: ...
    @property
    def wordings(self) -> Sequence[Wording]: ...
    @property
    def methods(self) -> Sequence[str]: ...
    @property
    def picture_bound(self) -> bool: ...
    @property
    def held_out(self) -> int: ...

    def load(self) -> Prior:
        """By the host's stock loaders; the same objects for every call."""

    def truths(self, count: int) -> T:
        """The first `count` held-out ones, the same for every count."""

    def render(self, truths: T) -> torch.Tensor:
        """Their pictures (N, 3, H, W) in [0, 1]."""

    def hole(self, name: str) -> torch.Tensor:
        """(H, W) bool, True where pixels are hidden."""

    def prompts(self, wording: Wording, truth: T, picture: torch.Tensor, hole: torch.Tensor) -> Prompts:
        """What the model is told of one picture; of the empty prompt without `picture_bound`, of any number of them.

        truth: of one row.
        picture: (1, 3, H, W).
        """

    def exact(self, truths: T, hole: torch.Tensor, fills: int, generator: torch.Generator) -> torch.Tensor:
        """Draws of the exact posterior without a prompt, (N * fills, 3, H, W), all of the first picture first."""

    def judge(
        self, painted: torch.Tensor, truths: T, hole: torch.Tensor, fills: int, wording: Wording = NO_PROMPT
    ) -> Judgement:
        """Fills (N * fills, 3, H, W), all of the first picture first."""


def energy_score(painted: torch.Tensor, originals: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Energy score of the fills of every picture, (N,): mean |X - y| - 1/2 mean |X - X'| over pairs of different fills.

    A proper score (Gneiting and Raftery 2007, eq. 22), unbiased in the number of fills: on average lowest for the exact
    posterior. Distances are root mean squares over hidden pixels and colours.

    painted: (N, fills, 3, H, W), two fills at least. originals: (N, 3, H, W). hole: (H, W) bool.

    Raises ValueError for fewer fills.
    """
    fills = painted.shape[1]
    if fills < 2:
        raise ValueError(f"energy_score: expected two fills at least, found {fills}")
    scores = []
    # Pictures one by one: the hidden pixels of all would take as much memory again.
    for drawn, original in zip(painted, originals, strict=True):
        hidden, truth = drawn[..., hole].flatten(1), original[..., hole].flatten()
        unit = hidden.shape[1] ** -0.5
        to_truth = (hidden - truth).norm(dim=1).mean() * unit
        apart = torch.cdist(hidden, hidden, compute_mode="donot_use_mm_for_euclid_dist").sum() * unit
        scores.append(to_truth - 0.5 * apart / (fills * (fills - 1)))
    return torch.stack(scores)
