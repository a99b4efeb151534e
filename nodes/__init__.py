"""The pack's ComfyUI nodes: thin adapters between the host's graph and `vipaint_core`."""

from __future__ import annotations

from . import host  # noqa: F401  (looks first whether this ComfyUI has what is needed)
from .baseline import VIPaintBaseline
from .composite import VIPaintComposite
from .crop import VIPaintCrop
from .fit import VIPaintFit
from .inpaint import VIPaintInpaint
from .mask import VIPaintMask
from .posterior_files import VIPaintLoadPosterior, VIPaintSavePosterior
from .restore import VIPaintRestore
from .sample import VIPaintSample
from .sampler import VIPaintSampler
from .sigmas import VIPaintSigmas
from .uncertainty import VIPaintUncertainty
from .unconditional import VIPaintUnconditional

NODES = (
    VIPaintInpaint,
    VIPaintRestore,
    VIPaintFit,
    VIPaintSample,
    VIPaintSavePosterior,
    VIPaintLoadPosterior,
    VIPaintSampler,
    VIPaintSigmas,
    VIPaintMask,
    VIPaintCrop,
    VIPaintComposite,
    VIPaintUncertainty,
    VIPaintUnconditional,
    VIPaintBaseline,
)

__all__ = ["NODES"]
