"""Posterior and fit-state files: safetensors, which hold tensors and text and never code.

A digest of everything inside tells whole files from damaged ones. What a file asks for is checked as
any input: it may come from anyone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .denoiser import Evaluations
from .levels import check_levels
from .observation import Observation
from .posterior import HierarchicalPosterior
from .presets import Preset
from .refine import REFINERS

if TYPE_CHECKING:
    from .fit import Fit, FitState

FORMAT, STATE_FORMAT, VERSION = "vipaint_posterior", "vipaint_fit_state", "2"
# The key of the digest among a file's texts.
DIGEST = "sha256"


def _digest(tensors: Mapping[str, torch.Tensor], texts: Mapping[str, str]) -> str:
    """SHA-256 of all texts but the digest itself and of all tensors, with their names, types and shapes."""
    found = hashlib.sha256(json.dumps(sorted(item for item in texts.items() if item[0] != DIGEST)).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(json.dumps([name, str(tensor.dtype), tensor.shape]).encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _write(
    tensors: dict[str, torch.Tensor], kind: str, header: dict[str, object], extra: dict[str, str], path: Path
) -> None:
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    texts = {**extra, "format": kind, "version": VERSION, "header": json.dumps(header)}
    part = path.with_name(path.name + ".part")
    try:
        save_file(tensors, part, {**texts, DIGEST: _digest(tensors, texts)})
        part.replace(path)
    except SafetensorError as error:
        raise OSError(f"cannot write {path.name}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _read(path: Path, kind: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and header of a file of ours. The library checks that every tensor lies inside the file."""
    what = f"load: expected a {kind} file, version {VERSION}, found {path.name}"
    if not path.is_file():
        raise ValueError(f"{what}, which is missing or not a file")
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
    except (SafetensorError, OSError, KeyError) as error:
        raise ValueError(f"{what}, which cannot be read: {error}") from error
    kinds = {tensor.dtype for tensor in tensors.values()}
    if len(kinds) > 1 or not kinds <= {torch.float32, torch.float64}:
        raise ValueError(f"{what} with tensors of the types {', '.join(sorted(map(str, kinds)))}: expected one, float")
    if texts.get(DIGEST) != _digest(tensors, texts):
        raise ValueError(f"{what}, whose content is not what was saved: it is damaged or was altered")
    try:
        header = json.loads(texts["header"])
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{what}, whose header cannot be read: {error!r}") from error
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
        _check_numbers(tensors)
        preset = dict(header["preset"])
        for name in ("levels", "v_range"):
            preset[name] = tuple(preset[name]) if preset[name] is not None else None
        chosen = Preset(**preset)
        check_levels(chosen.levels)
        if chosen.refiner not in REFINERS:
            raise ValueError(f"preset: expected a refiner of {', '.join(REFINERS)}, found {chosen.refiner!r}")
        posterior = HierarchicalPosterior(
            tuple(map(float, header["levels"])), tensors["mu"], tensors["log_tau"], tensors["gamma"], header["eta"]
        )
        observation = Observation(
            tensors["latent"], tensors["seen"], header["sigma_y"], tensors.get("leak"), tensors.get("spill")
        )
        if posterior.mu.shape[1:] != observation.latent.shape:
            raise ValueError(f"mu {tuple(posterior.mu.shape)} does not fit latent {tuple(observation.latent.shape)}")
        history, family = tuple(map(float, header["history"])), header["family"]
        if not isinstance(family, str):
            raise ValueError(f"family: expected a text, found {family!r}")
        return Fit(posterior, observation, chosen, Evaluations(**header["evaluations"]), history, family)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"load: {path.name} is damaged: {error!r}. Fit again and save it anew.") from error


def _check_numbers(tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if not tensor.numel() or not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name}: expected finite numbers, found none, NaN or infinity")


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
