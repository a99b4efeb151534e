"""VIPaint's mathematics: torch only, no host."""

from .diffusion.coarse_grids import CoarseGridDenoiser, reachable_level
from .diffusion.coordinate import VARIANCE_EXPLODING, Coordinate, rectified_flow
from .diffusion.denoiser import Denoiser, Evaluations, Progress
from .diffusion.jacobian_free import JacobianFree
from .posterior.chain import HierarchicalPosterior, KeptContent
from .posterior.fitting import FitState, FittedPosterior, fit, initial_posterior
from .posterior.gains import Gains
from .posterior.storage import load_posterior, save_posterior
from .posterior.variation import around, given_cells
from .presets import PRESETS, FitConfig, Preset, SamplerConfig, ScheduleConfig
from .problem.crosstalk import measure_crosstalk, measure_cut_cells
from .problem.observation import LatentObservation
from .problem.pixels import PixelObservation
from .sampling.driver import DrawMethod, SampleResult, SampleState, draw_fills
from .sampling.gain_bound import bound_calls, gain_bound
from .sampling.posterior_sampling import (
    SHOWN_TOO,
    GainState,
    chain_method,
    chains_needed,
    descent_method,
    fit_gains,
    further_method,
    gain_levels,
    posterior_method,
    sample,
    shown_too,
    start_from,
)
from .sampling.restoration import RestorationConfig, restoration_method, restore

__all__ = [
    "PRESETS",
    "SHOWN_TOO",
    "VARIANCE_EXPLODING",
    "CoarseGridDenoiser",
    "Coordinate",
    "Denoiser",
    "DrawMethod",
    "Evaluations",
    "FitConfig",
    "FitState",
    "FittedPosterior",
    "GainState",
    "Gains",
    "HierarchicalPosterior",
    "JacobianFree",
    "KeptContent",
    "LatentObservation",
    "PixelObservation",
    "Preset",
    "Progress",
    "RestorationConfig",
    "SampleResult",
    "SampleState",
    "SamplerConfig",
    "ScheduleConfig",
    "around",
    "bound_calls",
    "chain_method",
    "chains_needed",
    "descent_method",
    "draw_fills",
    "fit",
    "fit_gains",
    "further_method",
    "gain_bound",
    "gain_levels",
    "given_cells",
    "initial_posterior",
    "load_posterior",
    "measure_crosstalk",
    "measure_cut_cells",
    "posterior_method",
    "reachable_level",
    "rectified_flow",
    "restoration_method",
    "restore",
    "sample",
    "save_posterior",
    "shown_too",
    "start_from",
]
