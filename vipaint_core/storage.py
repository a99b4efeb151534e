"""Posterior and fit-state files: safetensors, which hold tensors and text and never code."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .denoiser import Evaluations
from .observation import Observation
from .posterior import HierarchicalPosterior
from .presets import Preset

if TYPE_CHECKING:
    from .fit import Fit, FitState

FORMAT, STATE_FORMAT, VERSION = "vipaint_posterior", "vipaint_fit_state", "1"


def _write(
    tensors: dict[str, torch.Tensor], kind: str, header: dict[str, object], extra: dict[str, str], path: Path
) -> None:
    texts = {"format": kind, "version": VERSION, "header": json.dumps(header), **extra}
    part = path.with_name(path.name + ".part")
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, part, texts)
    part.replace(path)


def _read(path: Path, kind: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and header of a file of ours. The library checks that every tensor lies inside the file."""
    what = f"load: expected a {kind} file, version {VERSION}, found {path.name}"
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            texts = file.metadata() or {}
            if texts.get("format") != kind:
                raise ValueError(
                    f"{what}, which is another safetensors file ({texts.get('format', 'no format named')})"
                )
            if texts.get("version") != VERSION:
                raise ValueError(f"{what} of version {texts.get('version')}: update VIPaint or fit again")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        header = json.loads(texts["header"])
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{what}, which cannot be read: {error}") from error
    if not isinstance(header, dict):
        raise ValueError(f"{what}, whose header is not an object")
    return tensors, header


def save_fit(fitted: Fit, path: Path, metadata: dict[str, str]) -> None:
    posterior, observation = fitted.posterior, fitted.observation
    tensors = {
        "mu": posterior.mu,
        "log_tau": posterior.log_tau,
        "gamma": posterior.gamma,
        "latent": observation.latent,
        "seen": observation.seen,
    }
    optional = {"leak": observation.leak, "spill": observation.spill}
    tensors.update({name: tensor for name, tensor in optional.items() if tensor is not None})
    header = {
        "levels": posterior.levels,
        "eta": posterior.eta,
        "sigma_y": observation.sigma_y,
        "preset": asdict(fitted.preset),
        "family": fitted.family,
        "evaluations": asdict(fitted.evaluations),
        "history": fitted.history,
    }
    _write(tensors, FORMAT, header, metadata, path)


def load_fit(path: Path) -> Fit:
    from .fit import Fit

    tensors, header = _read(path, FORMAT)
    try:
        preset = dict(header["preset"])
        for name in ("levels", "v_range"):
            preset[name] = tuple(preset[name]) if preset[name] is not None else None
        posterior = HierarchicalPosterior(
            tuple(header["levels"]), tensors["mu"], tensors["log_tau"], tensors["gamma"], header["eta"]
        )
        observation = Observation(
            tensors["latent"], tensors["seen"], header["sigma_y"], tensors.get("leak"), tensors.get("spill")
        )
        if posterior.mu.shape[1:] != observation.latent.shape:
            raise ValueError(f"mu {tuple(posterior.mu.shape)} does not fit latent {tuple(observation.latent.shape)}")
        return Fit(
            posterior,
            observation,
            Preset(**preset),
            Evaluations(**header["evaluations"]),
            tuple(header["history"]),
            header["family"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"load: {path.name} is damaged: {error!r}. Fit again and save it anew.") from error


def save_state(state: FitState, path: Path) -> None:
    tensors = {f"parameter_{i}": t for i, t in enumerate(state.parameters)}
    tensors.update({f"moment_{i}": t for i, t in enumerate(state.moments)})
    header = {"step": state.step, "history": state.history, "evaluations": asdict(state.evaluations)}
    _write(tensors, STATE_FORMAT, header, {}, path)


def load_state(path: Path) -> FitState:
    from .fit import FitState

    tensors, header = _read(path, STATE_FORMAT)
    try:
        parameters = [tensors[f"parameter_{i}"] for i in range(3 if header["step"] else 0)]
        moments = [tensors[f"moment_{i}"] for i in range(6 if header["step"] else 0)]
        return FitState(
            header["step"], parameters, moments, list(header["history"]), Evaluations(**header["evaluations"])
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"load: {path.name} is damaged: {error!r}. Start the fit again.") from error
