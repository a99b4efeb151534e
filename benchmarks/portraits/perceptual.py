"""LPIPS, a learned distance of pictures, with weights that the user has: nothing is downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch

# Of two batches of pictures (N, 3, H, W) in [0, 1], (N,).
Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def load_lpips(weights: Path) -> Distance:
    """LPIPS with AlexNet (Zhang et al. 2018, arXiv 1801.03924).

    weights: torchvision's AlexNet for ImageNet, a state dictionary, `alexnet-owt-7be5be79.pth`.

    Raises ImportError without the package `lpips`, ValueError for a file without AlexNet's features.
    """
    try:
        import lpips
    except ImportError as error:
        raise ImportError("LPIPS needs the package `lpips`: pip install lpips==0.1.4") from error
    with warnings.catch_warnings():
        # Of torchvision, about how this package builds the network.
        warnings.simplefilter("ignore", UserWarning)
        metric = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    stored = torch.load(weights, map_location="cpu", weights_only=True)
    # lpips cuts `features` into slices and keeps the numbers of its layers: `slice2.3.weight`.
    wanted = {name: "features." + name.split(".", 1)[1] for name in metric.net.state_dict()}
    missing = sorted(set(wanted.values()) - set(stored))
    if missing:
        raise ValueError(f"expected torchvision's AlexNet in {weights}, found no {missing[0]} in it")
    metric.net.load_state_dict({name: stored[source] for name, source in wanted.items()})

    def distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat(
                [metric(a, b, normalize=True).flatten() for a, b in zip(first.split(32), second.split(32), strict=True)]
            )

    return distance
