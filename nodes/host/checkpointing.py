"""Gradient checkpointing of the host's networks, block by block."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential
from torch.utils._pytree import tree_flatten, tree_unflatten

# What a network's parts stand in, one after the other.
_ROWS = (torch.nn.ModuleList, TimestepEmbedSequential)

Around = Callable[[], contextlib.AbstractContextManager[Any]]


@contextlib.contextmanager
def checkpointed(networks: Iterable[torch.nn.Module], around: Around = contextlib.nullcontext) -> Iterator[None]:
    """Within it a block keeps only its inputs for backward, which computes its activations again, in every pass.

    Exact, also for blocks that write into their inputs. A network without known blocks is one block.
    around: a context for that second time; modes of torch functions are off within a backward pass. The host
    has no hook around a block that serves all families: the blocks get a `forward` of their own for the
    time being.
    """
    with contextlib.ExitStack() as stack:
        for network in networks:
            for block in list(_blocks(network)) or [getattr(network, "diffusion_model", network)]:
                stack.callback(_put_back, block, vars(block).get("forward"))
                vars(block)["forward"] = partial(_recomputed, block.forward, around)
        yield


def _put_back(block: torch.nn.Module, forward: Callable[..., Any] | None) -> None:
    if forward is None:
        del vars(block)["forward"]
    else:
        vars(block)["forward"] = forward


def _blocks(network: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The innermost parts that stand in a row and are more than one operation."""
    for child in network.children():
        inner = list(_blocks(child))
        if not inner and isinstance(network, _ROWS) and any(True for _ in child.children()):
            yield child
        yield from inner


def _recomputed(forward: Callable[..., Any], around: Around, *args: Any, **kwargs: Any) -> Any:
    leaves, given = tree_flatten((args, kwargs))
    places = [place for place, leaf in enumerate(leaves) if _is_saved(leaf)]
    tensors = [leaves[place] for place in places]
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in tensors):
        return forward(*args, **kwargs)
    # The rest stays as it is now: the host counts blocks in its options. Tensors are autograd's to keep.
    rest = [None if _is_saved(leaf) else leaf for leaf in leaves]

    def run(tensors: Sequence[torch.Tensor]) -> tuple[Any, ...]:
        """The leaves of the block's result, and their structure."""
        filled = list(rest)
        for place, tensor in zip(places, tensors, strict=True):
            # The block may write into it.
            filled[place] = tensor.clone()
        again, named = tree_unflatten(filled, given)
        with around():
            found, structure = tree_flatten(forward(*again, **named))
        return *found, structure

    *found, structure = _Recomputed.apply(run, *tensors)
    return tree_unflatten(found, structure)


def _is_saved(leaf: Any) -> bool:
    """Inference tensors, of the host's options, cannot be; nobody writes into them either."""
    return isinstance(leaf, torch.Tensor) and not leaf.is_inference()


class _Recomputed(torch.autograd.Function):
    """run(tensors), whose graph lives only within a backward pass."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., tuple[Any, ...]], *tensors: torch.Tensor) -> tuple[Any, ...]:
        ctx.run = run
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        return run(tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        leaves = [t.detach().requires_grad_(n) for t, n in zip(ctx.saved_tensors, needed, strict=True)]
        with torch.enable_grad():
            found = ctx.run(leaves)
        reached = [(out, g) for out, g in zip(found, gradients, strict=True) if g is not None and out.requires_grad]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        if not reached:
            return None, *(None for _ in leaves)
        outs, gradients = zip(*reached, strict=True)
        result = iter(torch.autograd.grad(outs, wanted, gradients, allow_unused=True))
        return None, *(next(result) if leaf.requires_grad else None for leaf in leaves)
