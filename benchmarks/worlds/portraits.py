"""The portraits as worlds: three models of the same pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from einops import rearrange, repeat
from safetensors import safe_open

from benchmarks.harness.host import PACK, stock
from benchmarks.portraits.methods import KSAMPLER
from benchmarks.portraits.prior import HELD_OUT, held_out
from benchmarks.toy import judge
from benchmarks.worlds.world import (
    CONTRADICTION,
    EMPTY,
    EXACT,
    NO_PROMPT,
    TRUTH,
    WORDINGS,
    Judgement,
    Prior,
    Prompts,
    Wording,
)
from toy_prior import CHECKPOINT, UNET, UNET_INPAINTING, UNET_VAE, pictures
from toy_prior import model as toy
from toy_prior import prompts as words

HOLES = ("right", "top", "bottom", "centre", "strip", "cut")


@cache
def _prior(file: Path, vae_file: Path | None) -> Prior:
    return Prior(*toy.load(file, vae_file))


@cache
def _token_table(file: Path) -> torch.Tensor:
    with safe_open(file, "pt") as stored:
        return stored.get_tensor(words.KEY)


def picture_inputs(picture: torch.Tensor, hole: torch.Tensor) -> dict[str, torch.Tensor]:
    """The host's IMAGE and MASK of pictures (N, 3, H, W)."""
    mask = repeat(hole.float(), "h w -> n h w", n=len(picture))
    return {"pixels": rearrange(picture, "n c h w -> n h w c"), "mask": mask}


@dataclass(frozen=True)
class Portraits:
    """See `World`.

    file: the checkpoint. vae_file: of its VAE, where it has none itself.
    prompted: whether it has a table of tokens.
    """

    name: str
    tuned: str
    file: Path
    methods: Sequence[str]
    vae_file: Path | None = None
    latent_shape: tuple[int, int, int] = toy.LATENT_SHAPE
    prompted: bool = False
    picture_bound: bool = False
    holes: Sequence[str] = HOLES
    every_hole: Sequence[str] = pictures.MASKS
    held_out: int = HELD_OUT
    wordings: Sequence[Wording] = (NO_PROMPT,)

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.file,) if self.vae_file is None else (self.file, self.vae_file)

    @property
    def maker(self) -> str:
        return f"python -m {toy.MAKERS[self.file]}"

    def load(self) -> Prior:
        return _prior(self.file, self.vae_file)

    def truths(self, count: int) -> pictures.Attributes:
        return held_out(count)

    def render(self, truths: pictures.Attributes) -> torch.Tensor:
        return pictures.render(truths)

    def hole(self, name: str) -> torch.Tensor:
        return pictures.hole(name)

    def prompts(
        self, wording: Wording, truth: pictures.Attributes, picture: torch.Tensor, hole: torch.Tensor
    ) -> Prompts:
        if not self.prompted:
            empty = PACK.host.text_inputs.zero_conditioning(self.load().model)
            return Prompts(empty, empty)
        table = _token_table(self.file)
        said = (words.conditioning(table, named(wording, truth, hole)), words.conditioning(table, {}))
        if not self.picture_bound:
            return Prompts(*said)
        # The node greys the hole. Its latents of the whole picture are left: `Task.latent_input` has nothing hidden.
        positive, negative, _ = stock.InpaintModelConditioning().encode(
            *said, vae=self.load().vae, **picture_inputs(picture, hole)
        )
        return Prompts(positive, negative)

    def exact(
        self, truths: pictures.Attributes, hole: torch.Tensor, fills: int, generator: torch.Generator
    ) -> torch.Tensor:
        values = {name: repeat(value, "n -> (n fills)", fills=fills) for name, value in truths.discrete().items()}
        for name in pictures.hidden_attributes(hole):
            values[name] = torch.randint(pictures.ATTRIBUTES[name], values[name].shape, generator=generator)
        return self.render(pictures.compose(values, repeat(truths.hue, "n -> (n fills)", fills=fills)))

    def judge(
        self,
        painted: torch.Tensor,
        truths: pictures.Attributes,
        hole: torch.Tensor,
        fills: int,
        wording: Wording = NO_PROMPT,
    ) -> Judgement:
        scores = judge(painted, truths, self.render(truths), hole, fills)
        found = Judgement(**{name: scores[name] for name in ("valid", "consistent", "both", "tv", "floor")})
        hidden = pictures.hidden_attributes(hole)
        if wording.names == EMPTY or not hidden:
            return found
        read, true = pictures.read(painted).attributes.discrete(), truths.discrete()
        followed = [read[name] == repeat(true[name], "n -> (n fills)", fills=fills) for name in hidden]
        return replace(found, tv=None, floor=None, followed=float(torch.stack(followed).float().mean()))


def named(wording: Wording, truth: pictures.Attributes, hole: torch.Tensor) -> dict[str, int]:
    """What a prompt names of one portrait."""
    if wording.names == EMPTY:
        return {}
    values = dict(zip(words.VOCABULARY, words.values_of(truth)[0].tolist(), strict=True))
    if wording.names == TRUTH:
        return values
    assert wording.names == CONTRADICTION
    hidden = pictures.hidden_attributes(hole)
    # The hue's opposite, of other attributes the next value.
    steps = {name: size // 2 if name == "hue" else int(name not in hidden) for name, size in words.VOCABULARY.items()}
    return {name: (value + steps[name]) % words.VOCABULARY[name] for name, value in values.items()}


OURS = ("balanced", "fast", "thorough")
NEAR = (KSAMPLER, "LanPaint", "pigdm", "dps", "ding", "langevin", "flair")
FLOW = Portraits(
    name="portraits",
    tuned="every preset was tuned on it",
    file=CHECKPOINT,
    methods=(EXACT, *OURS, *NEAR),
)
UNET_WORLD = Portraits(
    name="portraits-unet",
    tuned="nothing was tuned on it",
    file=UNET,
    vae_file=UNET_VAE,
    latent_shape=(4, 16, 16),
    methods=(EXACT, *OURS, *NEAR),
    prompted=True,
    wordings=WORDINGS,
)
INPAINTING = replace(
    UNET_WORLD,
    name="portraits-inpainting",
    file=UNET_INPAINTING,
    methods=(*OURS, KSAMPLER),
    picture_bound=True,
    wordings=(NO_PROMPT,),
)
