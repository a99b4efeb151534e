"""VIPaint's mathematics: torch only, no host."""

from .coordinate import VARIANCE_EXPLODING, Coordinate, rectified_flow
from .denoiser import Denoiser, Evaluations, Progress
from .fit import Fit, FitState, fit
from .jacobian_free import JacobianFree
from .observation import Observation
from .pixels import PixelObservation
from .posterior import HierarchicalPosterior
from .presets import PRESETS, Preset, planned_evaluations
from .restore import Restoration, restore
from .sample import SampleResult, SampleState, sample
from .spill import measure_spill

__all__ = [
    "PRESETS",
    "VARIANCE_EXPLODING",
    "Coordinate",
    "Denoiser",
    "Evaluations",
    "Fit",
    "FitState",
    "HierarchicalPosterior",
    "JacobianFree",
    "Observation",
    "PixelObservation",
    "Preset",
    "Progress",
    "Restoration",
    "SampleResult",
    "SampleState",
    "fit",
    "measure_spill",
    "planned_evaluations",
    "rectified_flow",
    "restore",
    "sample",
]
