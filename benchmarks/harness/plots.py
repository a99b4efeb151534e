"""Quality against price: one named point per method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("svg")
# The same data give the same file, with words as text.
matplotlib.rcParams.update({"svg.hashsalt": "vipaint", "svg.fonttype": "none"})

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.ticker import PercentFormatter  # noqa: E402


@dataclass(frozen=True)
class Point:
    """A method, its passes through the network per sample, forward and backward, and its quality."""

    name: str
    passes: float
    quality: float


@dataclass(frozen=True)
class Panel:
    """points over a logarithmic axis of passes. best: a line at what an exact sampler has."""

    label: str
    points: Sequence[Point]
    best: float | None = None
    share: bool = False
    logarithmic: bool = False


def save(panels: Sequence[Panel], file: Path, ours: Sequence[str]) -> None:
    """Writes the panels side by side as SVG; `ours` names the highlighted methods."""
    figure, axes = plt.subplots(1, len(panels), figsize=(6 * len(panels), 5), layout="constrained", squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        for point in panel.points:
            own = point.name in ours
            axis.scatter(point.passes, point.quality, s=50 if own else 25, color="tab:red" if own else "tab:gray")
            axis.annotate(
                point.name,
                (point.passes, point.quality),
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=8,
                fontweight="bold" if own else "normal",
            )
        axis.set_xscale("log")
        axis.set_xlabel("passes through the network per sample, forward and backward")
        axis.set_ylabel(panel.label)
        axis.margins(x=0.15)
        if panel.logarithmic:
            axis.set_yscale("log")
        if panel.share:
            axis.yaxis.set_major_formatter(PercentFormatter(1))
        if panel.best is not None:
            axis.axhline(panel.best, color="tab:green", linewidth=1, linestyle="--", label="exact sampler")
            axis.legend(fontsize=8)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
