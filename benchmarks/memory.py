"""Memory beside the weights: gradient modes against the host's plain KSampler, at the sizes of real families.

    python3 run.py benchmark memory [--families NAME ...] [--sizes 512 1024] [--quick]

Networks of the published sizes from the host's own classes, bfloat16, one picture, guidance 4 and so two rows in the
network. Most that is allocated at once beyond what was before:

KSampler       one Euler step of the host
sampling       one guided step of `balanced`: a pass and two products with its Jacobian
fit            one Adam step of `paper-2` with one draw: three passes in one graph, then backward
in all         what a plain pass allocates, one after the other: by it `nodes/memory.py` tells what a mode will need
host           what the host reckons for a plain pass of these rows on a GPU

On a GPU this is `torch.cuda.max_memory_allocated`. On the CPU nothing is computed, so that any size fits any machine, in
minutes: operations on large tensors return storage of the right size that nobody writes to, and its bytes are counted
from the first to the last reference (see `Sketch`). For SD1.5 and SDXL that is within 11 % of what a GPU allocates, for
whole graphs of SD3.5 and Flux up to 25 % more. A plain pass of Flux at 1024 pixels takes twice what is counted.
"""

from __future__ import annotations

import argparse
import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from benchmarks.report import QUICK, RESULTS, markdown, provenance, write_csv
from benchmarks.samplers import PACK

GUIDANCE = 4.0
PLAIN, ABOUT = "KSampler", ("in all", "host")
_UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
}
# The host's class, its settings of the network, tokens of a prompt.
FAMILIES: dict[str, tuple[str, dict[str, Any], int]] = {
    "SD1.5": (
        "SD15",
        {
            **_UNET,
            "adm_in_channels": None,
            "num_res_blocks": [2, 2, 2, 2],
            "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
            "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
            "transformer_depth_middle": 1,
            "channel_mult": [1, 2, 4, 4],
            "use_linear_in_transformer": False,
            "context_dim": 768,
            "num_heads": 8,
        },
        77,
    ),
    "SDXL": (
        "SDXL",
        {
            **_UNET,
            "num_classes": "sequential",
            "adm_in_channels": 2816,
            "num_res_blocks": [2, 2, 2],
            "transformer_depth": [0, 0, 2, 2, 10, 10],
            "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
            "transformer_depth_middle": 10,
            "channel_mult": [1, 2, 4],
            "use_linear_in_transformer": True,
            "context_dim": 2048,
            "num_head_channels": 64,
        },
        77,
    ),
    "SD3.5 medium": (
        "SD3",
        {
            "in_channels": 16,
            "out_channels": 16,
            "patch_size": 2,
            "depth": 24,
            "input_size": None,
            "adm_in_channels": 2048,
            "context_embedder_config": {
                "target": "torch.nn.Linear",
                "params": {"in_features": 4096, "out_features": 1536},
            },
            "num_patches": 384**2,
            "pos_embed_max_size": 384,
            "pos_embed_scaling_factor": None,
            "qk_norm": "rms",
            "x_block_self_attn_layers": list(range(13)),
        },
        154,
    ),
    "Flux": (
        "Flux",
        {
            "image_model": "flux",
            "in_channels": 16,
            "out_channels": 16,
            "vec_in_dim": 768,
            "context_in_dim": 4096,
            "hidden_size": 3072,
            "mlp_ratio": 4.0,
            "num_heads": 24,
            "depth": 19,
            "depth_single_blocks": 38,
            "axes_dim": [16, 56, 56],
            "theta": 10000,
            "patch_size": 2,
            "qkv_bias": True,
            "txt_ids_dims": [],
            "guidance_embed": True,
        },
        256,
    ),
}


@dataclass(frozen=True)
class Peak:
    """Bytes; mode is one of the bridge's or `KSampler`, work `sampling` or `fit`."""

    family: str
    size: int
    mode: str
    work: str
    peak: int
    in_all: int
    host: int


class Sketch(TorchDispatchMode):
    """Allocates what operations on large tensors return and computes none of it; counts the bytes that are alive.

    peak: most bytes at once since the beginning. Storage that was there before does not count.
    """

    # Latents are computed with, so that checks of them hold.
    LARGE = 2**18

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        before = {x.untyped_storage()._cdata for x in given}
        result = self._result(func, args, kwargs, given)
        for out in tree_flatten(result)[0]:
            if isinstance(out, torch.Tensor) and out.device.type != "meta":
                self._count(out.untyped_storage(), before)
        return result

    def _result(self, func: Any, args: Any, kwargs: Any, given: list[torch.Tensor]) -> Any:
        written = [r.alias_info.is_write for r in func._schema.returns if r.alias_info is not None]
        is_view = "_unsafe_view" in func._schema.name or (written and not any(written))
        if is_view or all(x.numel() <= self.LARGE for x in given):
            return func(*args, **kwargs)
        if any(written):
            return kwargs["out"] if "out" in kwargs else args[0]

        def bare(x: Any) -> Any:
            return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta") if _is(x) else x

        def real(x: Any) -> Any:
            return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype) if _is(x) else x

        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": "meta"}
        return tree_map(real, func(*tree_map(bare, args), **tree_map(bare, kwargs)))

    def _count(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in before or key in self._known:
            return
        self._known.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


def _is(x: Any) -> bool:
    return isinstance(x, torch.Tensor)


def load(family: str, computed: bool) -> Any:
    """A MODEL, on a GPU where there is one. computed: its weights are random, else as they lie in memory."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    name, network, _ = FAMILIES[family]
    config = getattr(comfy.supported_models, name)(dict(network))
    config.set_inference_dtype(torch.bfloat16, None)
    device = comfy.model_management.get_torch_device()
    model = config.get_model({}, "")
    if computed:
        model.diffusion_model.to_empty(device=device)
        for weight in (*model.diffusion_model.parameters(), *model.diffusion_model.buffers()):
            torch.nn.init.normal_(weight, std=0.02)
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def shape_of(model: Any, size: int) -> tuple[int, ...]:
    """Of the latent of one square picture of this size, in pixels."""
    return 1, model.get_model_object("latent_format").latent_channels, size // 8, size // 8


def prompt(model: Any, family: str) -> Any:
    ((text, options),) = PACK.unconditional.unconditional(model)
    return [[text.new_zeros(1, FAMILIES[family][2], text.shape[-1]), options]]


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """Within it, most bytes allocated at once beyond those before."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield lambda: torch.cuda.max_memory_allocated() - before
    else:
        with Sketch() as sketch:
            yield lambda: sketch.peak


def plain(model: Any, conditioning: Any, shape: tuple[int, ...]) -> int:
    """One step of the host's own sampler."""
    import comfy.sample

    with torch.inference_mode():
        latent = torch.zeros(shape)
        noise = comfy.sample.prepare_noise(latent, 0)
        arguments = (1, GUIDANCE, "euler", "simple", conditioning, conditioning, latent)
        with counted() as peak:
            comfy.sample.sample(model, noise, *arguments, disable_pbar=True, seed=0)
            return peak()


def guided(model: Any, conditioning: Any, shape: tuple[int, ...], mode: str, work: str) -> int:
    """One step of ours with a mode of the bridge; work: `sampling` or `fit`."""
    core = PACK.core
    preset = replace(core.PRESETS["paper-2"], steps=1, draws=1)
    seen = torch.ones(1, 1, *shape[2:])
    seen[..., shape[-1] // 2 :] = 0
    observation = core.Observation(torch.zeros(shape), seen)

    def sampling(denoiser: Any, device: torch.device) -> None:
        denoiser = core.denoiser.Counted(denoiser, "sample", 1, None)
        with denoiser.gradients():
            point = torch.randn(shape, device=device).requires_grad_()
            x0 = denoiser(point, 2.0)
            for _ in range(2):
                torch.autograd.grad(x0, point, torch.ones_like(x0), retain_graph=True)

    def run(denoiser: Any, _place: Any, device: torch.device) -> int:
        with counted() as peak:
            if work == "fit":
                core.fit(denoiser, observation.to(device), preset, 0)
            else:
                sampling(denoiser, device)
            return peak()

    with torch.inference_mode():
        return PACK.bridge.open_denoiser(
            model, conditioning, conditioning, cfg=GUIDANCE, shape=shape, seed=0, gradient=True, mode=mode, work=run
        )


def in_all(model: Any, conditioning: Any, shape: tuple[int, ...]) -> int:
    """As `nodes/memory.py` measures it."""

    def run(denoiser: Any, _place: Any, device: torch.device) -> int:
        with counted():
            return int(PACK.memory.allocated(denoiser, shape[1:], device))

    with torch.inference_mode():
        return PACK.bridge.open_denoiser(
            model, conditioning, conditioning, cfg=GUIDANCE, shape=shape, seed=0, gradient=True, work=run
        )


def measure(family: str, sizes: list[int]) -> Iterator[Peak]:
    """Every mode and kind of work on pictures of these sizes, in pixels."""
    import comfy.model_management

    # What they are does not change what is allocated, but with numbers that are none our nodes stop.
    model = load(family, computed=torch.cuda.is_available())
    conditioning = prompt(model, family)
    for size in sizes:
        shape = shape_of(model, size)
        about = in_all(model, conditioning, shape), int(PACK.memory.unit(model, shape[1:], 2))
        yield Peak(family, size, PLAIN, "sampling", plain(model, conditioning, shape), *about)
        for mode in PACK.bridge.MODES:
            for work in ("sampling", "fit"):
                yield Peak(family, size, mode, work, guided(model, conditioning, shape, mode, work), *about)
    comfy.model_management.unload_all_models()


def table(peaks: list[Peak]) -> str:
    """GB, a row per family and size."""
    columns = list(dict.fromkeys((peak.mode, peak.work) for peak in peaks))
    header = ("family", "pixels", *(mode if mode == PLAIN else f"{mode}, {work}" for mode, work in columns), *ABOUT)
    rows = []
    for family, size in dict.fromkeys((peak.family, peak.size) for peak in peaks):
        own = {(p.mode, p.work): p for p in peaks if (p.family, p.size) == (family, size)}
        first = own[columns[0]]
        found = (*(own[column].peak for column in columns), first.in_all, first.host)
        rows.append((family, str(size), *(f"{part / 2**30:.2f}" for part in found)))
    return markdown(header, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 1024])
    parser.add_argument("--quick", action="store_true", help="SD1.5 at 512, into output/")
    options = parser.parse_args()
    families, sizes, out = options.families, options.sizes, RESULTS
    if options.quick:
        families, sizes, out = ["SD1.5"], [512], QUICK
    peaks = []
    for family in families:
        for peak in measure(family, sizes):
            print(f"{family} {peak.size} {peak.mode:14}{peak.work:9} {peak.peak / 2**30:8.2f} GB", flush=True)
            peaks.append(peak)
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "memory.csv", [asdict(peak) for peak in peaks])
    (out / "memory.md").write_text(
        f"# Memory beside the weights, GB\n\n`python3 run.py benchmark memory`, {provenance()}.\n\n```\n{about}\n```\n\n"
        f"{table(peaks)}",
        "utf-8",
    )
    print(table(peaks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
