"""Posterior files: safetensors, which hold tensors and text and never code.

A digest of everything inside tells whole files from damaged ones. What a file asks for is checked as
any input: it may come from anyone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..diffusion.denoiser import Evaluations
from ..presets import FitConfig, Preset, SamplerConfig, ScheduleConfig
from ..problem.observation import LatentObservation
from ..problem.operators import OPERATORS, LinearOperator
from .chain import HierarchicalPosterior
from .fitting import FittedPosterior
from .gains import Gains
from .objective import BoundParts

FORMAT, VERSION = "vipaint_posterior", "4"
# The key of the digest among a file's texts.
DIGEST = "sha256"
# Version 3 knew no gains; see `_parse_version_2`.
VERSIONS = ("2", "3", VERSION)
# Names of tensors that belong to the operator, which alone may be bool, and to the gains, which alone may be of half
# precision.
OPERATOR, GAINS = "operator", "gains"


def save_posterior(fitted: FittedPosterior, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
    """Writes one safetensors file; `load_posterior` gives the same posterior back, bit for bit.

    metadata: further texts for the file's header. Raises OSError where the file cannot be written, ValueError for
    operators that are not in `OPERATORS`.
    """
    posterior, observation = fitted.posterior, fitted.observation
    tensors = {
        "mu": posterior.mu,
        "log_tau": posterior.log_tau,
        "gamma": posterior.gamma,
        "y": observation.y,
        "weight": observation.weight,
    }
    if observation.crosstalk_variance is not None:
        tensors["crosstalk_variance"] = observation.crosstalk_variance
    header = {
        "levels": posterior.levels,
        "eta": posterior.eta,
        "sigma_y": observation.sigma_y,
        "operator": _packed(observation.operator, OPERATOR, tensors),
        "preset": asdict(fitted.preset),
        "family": fitted.family,
        "evaluations": asdict(fitted.evaluations),
        "history": fitted.history,
        "seed": fitted.seed,
        "bound": fitted.bound,
        "gains": None if fitted.gains is None else _packed_gains(fitted.gains, tensors),
    }
    write(tensors, header, metadata or {}, Path(path))


def load_posterior(path: Path | str) -> FittedPosterior:
    """Reads a file of this or an earlier version. Raises ValueError for anything else; never executes code."""
    path = Path(path)
    tensors, header, version = read(path)
    try:
        _check_numbers(tensors)
        posterior = HierarchicalPosterior(
            tuple(map(float, header["levels"])), tensors["mu"], tensors["log_tau"], tensors["gamma"], header["eta"]
        )
        parse = _parse_version_2 if version == "2" else _parse
        observation, preset = parse(tensors, header)
        _check_operator(observation, posterior.mu)
        history, family = tuple(map(float, header["history"])), header["family"]
        if not isinstance(family, str):
            raise ValueError(f"family: expected a text, found {family!r}")
        evaluations = Evaluations(**header["evaluations"])
        seed, gains = header.get("seed", 0), None
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ValueError(f"seed: expected a whole number, found {seed!r}")
        bound = None if header.get("bound") is None else BoundParts(*map(float, header["bound"]))
        if header.get("gains") is not None:
            gains = _unpacked_gains(header["gains"], tensors)
            _check_gains(gains, observation, posterior.mu)
        return FittedPosterior(posterior, observation, preset, evaluations, history, family, seed, gains, bound)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f"load: {path.name} is damaged: {error!r}. Fit again and save it anew.") from error


def _parse(tensors: Mapping[str, torch.Tensor], header: dict[str, Any]) -> tuple[LatentObservation, Preset]:
    *_, channels, height, width = tensors["mu"].shape
    observation = LatentObservation(
        tensors["y"],
        tensors["weight"],
        _unpacked(header["operator"], tensors),
        (channels, height, width),
        header["sigma_y"],
        tensors.get("crosstalk_variance"),
    )
    return observation, _preset(header["preset"])


def _check_operator(observation: LatentObservation, mu: torch.Tensor) -> None:
    """Raises ValueError where the operator does not map the posterior's latents to y."""
    latents = torch.zeros_like(mu[0])
    try:
        shown = observation.operator.A(latents).shape
    except RuntimeError as error:
        raise ValueError(f"operator: does not take the posterior's latents to y: {error}") from error
    if len(latents) != len(observation.y) or latents.shape[1:] != observation.shape or shown != observation.y.shape:
        found = f"mu {tuple(mu.shape)}, y {tuple(observation.y.shape)}"
        raise ValueError(f"operator: expected a map from the posterior's latents to y, found {found}")


def _packed_gains(gains: Gains, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Gains as JSON; their tensors are added under names that begin with `GAINS`."""
    # Those of other pictures have no fills.
    if gains.chains:
        tensors[f"{GAINS}.fills"] = gains.fills
    for name in ("directions", "products"):
        for index, part in enumerate(getattr(gains, name)):
            tensors[f"{GAINS}.{name}.{index}"] = part
    return {"levels": gains.levels}


def _unpacked_gains(packed: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> Gains:
    """The inverse of `_packed_gains`."""
    levels = tuple(map(float, packed["levels"]))
    directions, products = (
        tuple(tensors[f"{GAINS}.{name}.{index}"] for index in range(len(levels))) for name in ("directions", "products")
    )
    none = tensors["mu"].new_zeros(0, *tensors["mu"].shape[1:])
    return Gains(levels, directions, products, tensors.get(f"{GAINS}.fills", none))


def _check_gains(gains: Gains, observation: LatentObservation, mu: torch.Tensor) -> None:
    """Raises ValueError where gains are those of other latents or observations."""
    shown = {part.shape[2:] for part in gains.directions}
    if gains.fills.shape[1:] != mu.shape[1:] or not shown <= {observation.y.shape[1:]}:
        found = f"fills {tuple(gains.fills.shape)}, directions {sorted(map(tuple, shown))}"
        raise ValueError(f"gains: expected those of latents {tuple(mu.shape[1:])} and y, found {found}")


def _preset(given: dict[str, Any]) -> Preset:
    given = dict(given)
    if unknown := given.keys() - {field.name for field in fields(Preset)}:
        raise ValueError(f"preset: unknown fields {', '.join(sorted(unknown))}")
    fit = dict(given["fit"])
    for name in ("keypoints", "v_range"):
        fit[name] = tuple(fit[name]) if fit[name] is not None else None
    configs = FitConfig(**fit), ScheduleConfig(**given["schedule"]), SamplerConfig(**given["sampler"])
    relative = given["relative_levels"]
    if not isinstance(relative, bool):
        raise ValueError(f"preset: expected relative_levels to be true or false, found {relative!r}")
    return Preset(given["name"], given["description"], *configs, relative)


def _parse_version_2(tensors: Mapping[str, torch.Tensor], header: dict[str, Any]) -> tuple[LatentObservation, Preset]:
    """Version 2 had one flat table of the preset, and encoded pictures in place of y."""
    old = dict(header["preset"])
    late, resamplings = old.pop("late"), old.pop("rounds")
    second_order_below = late if old.pop("second_order") else 0.0
    fit = {
        "keypoints": old.pop("levels"),
        "learning_rate": old.pop("rate"),
        "eta": old["eta"],
        **{name: old.pop(name) for name in ("steps", "draws", "calibrated", "upper_evidence")},
        **{name: old.pop(name) for name in ("beta_prior", "beta_hierarchy", "v_range")},
    }
    schedule = {
        "steps": old.pop("refine_steps"),
        "resample_below": 0.0 if resamplings == 1 else late,
        "resamplings": resamplings,
        **{name: old.pop(name) for name in ("s_min", "rho", "guided_above")},
    }
    sampler = {
        "guidance_scale": old.pop("guidance"),
        "smc": old.pop("particles"),
        "second_order_below": second_order_below,
        **{name: old.pop(name) for name in ("refiner", "eta", "final_eta", "solver_steps", "warm_start")},
    }
    observation = LatentObservation.masked(
        tensors["latent"], tensors["seen"], header["sigma_y"], tensors.get("spill"), tensors.get("leak")
    )
    # What is left are the name, the description, and fields that are not ours.
    # Its levels were those of every size.
    preset = {**old, "fit": fit, "schedule": schedule, "sampler": sampler, "relative_levels": False}
    return observation, _preset(preset)


def _packed(operator: LinearOperator, place: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """An operator as JSON; its tensors are added under names that begin with `place`."""
    name = next((name for name, kind in OPERATORS.items() if type(operator) is kind), None)
    if name is None:
        raise ValueError(f"save: expected an operator of {', '.join(OPERATORS)}, found {type(operator).__name__}")
    found: dict[str, Any] = {"operator": name}
    for field in fields(operator):  # type: ignore[arg-type]  # all of them are dataclasses
        value, inside = getattr(operator, field.name), f"{place}.{field.name}"
        if isinstance(value, torch.Tensor):
            tensors[inside], value = value, {"tensor": inside}
        elif isinstance(value, tuple):
            value = [_packed(part, f"{inside}.{index}", tensors) for index, part in enumerate(value)]
        found[field.name] = value
    return found


def _unpacked(packed: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> LinearOperator:
    """The inverse of `_packed`."""
    values = dict(packed)
    kind = OPERATORS[values.pop("operator")]
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name not in values:
            continue
        value, form = values[field.name], str(field.type)
        if "Tensor" in form and not (value is None and "None" in form):
            if not isinstance(value, dict):
                raise ValueError(f"{field.name}: expected a tensor, found {value!r}")
            values[field.name] = tensors[value["tensor"]]
        elif form.startswith("tuple"):
            if not isinstance(value, list):
                raise ValueError(f"{field.name}: expected a list of operators, found {value!r}")
            values[field.name] = tuple(_unpacked(part, tensors) for part in value)
    return kind(**values)


def _check_numbers(tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if not tensor.numel() or not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name}: expected finite numbers, found none, NaN or infinity")


def _digest(tensors: Mapping[str, torch.Tensor], texts: Mapping[str, str]) -> str:
    """SHA-256 of all texts but the digest itself and of all tensors, with their names, types and shapes."""
    found = hashlib.sha256(json.dumps(sorted(item for item in texts.items() if item[0] != DIGEST)).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(json.dumps([name, str(tensor.dtype), tensor.shape]).encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def write(
    tensors: Mapping[str, torch.Tensor],
    header: Mapping[str, object],
    extra: Mapping[str, str],
    path: Path,
    version: str = VERSION,
) -> None:
    """Writes tensors, header and further texts with their digest, whole or not at all. Raises OSError."""
    # Cloned: one tensor may stand in several places of an operator.
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    texts = {**extra, "format": FORMAT, "version": version, "header": json.dumps(header)}
    part = path.with_name(path.name + ".part")
    try:
        save_file(tensors, part, {**texts, DIGEST: _digest(tensors, texts)})
        part.replace(path)
    except SafetensorError as error:
        raise OSError(f"cannot write {path.name}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], str]:
    """Tensors, header and version of a file of `write`. Raises ValueError for other or damaged files.

    safetensors checks that every tensor lies inside the file.
    """
    what = f"load: expected a {FORMAT} file, version {VERSIONS[0]} to {VERSION}, found {path.name}"
    if not path.is_file():
        raise ValueError(f"{what}, which is missing or not a file")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            texts = file.metadata() or {}
            if texts.get("format") != FORMAT:
                raise ValueError(
                    f"{what}, which is another safetensors file ({texts.get('format', 'no format named')})"
                )
            version = texts.get("version")
            if version not in VERSIONS:
                raise ValueError(f"{what} of version {version}: update VIPaint or fit again")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError, KeyError) as error:
        raise ValueError(f"{what}, which cannot be read: {error}") from error
    allowed = {OPERATOR: (torch.bool, torch.uint8), GAINS: (torch.bfloat16, torch.float16)}
    kinds = {
        tensor.dtype for name, tensor in tensors.items() if tensor.dtype not in allowed.get(name.split(".")[0], ())
    }
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
    return tensors, header, version
