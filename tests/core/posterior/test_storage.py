"""Posterior files: what is written comes back, and no file is believed more than it deserves."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gaussian import GaussianPrior, half_observed, left_half, noisy_draws, normal
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from vipaint_core import (
    PRESETS,
    FitConfig,
    FittedPosterior,
    Gains,
    LatentObservation,
    Preset,
    SamplerConfig,
    ScheduleConfig,
    fit,
    fit_gains,
    gain_bound,
    load_posterior,
    sample,
    save_posterior,
    start_from,
)
from vipaint_core.posterior import storage
from vipaint_core.problem.operators import Blur, Compose, Downsample, LinearOperator, Mask, gaussian_kernel

SHAPE = (2, 3, 4)
PRIOR = GaussianPrior.correlated(SHAPE)


@pytest.fixture(scope="module")
def fitted() -> FittedPosterior:
    return fit(PRIOR, half_observed(PRIOR, 2), PRESETS["paper-2"].with_changes(fit={"steps": 2}), 0, family="gaussian")


@pytest.fixture(scope="module")
def saved(fitted: FittedPosterior, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("posteriors") / "whole.safetensors"
    save_posterior(fitted, path)
    return path


def check_round_trip(fitted: FittedPosterior, prior: GaussianPrior, folder: Path) -> None:
    """Bit for bit, and so its fills; nothing else is left in the folder."""
    path = folder / "a.safetensors"
    save_posterior(fitted, path, {"note": "kept"})
    loaded = load_posterior(path)
    for name in ("mu", "log_tau", "gamma"):
        assert torch.equal(getattr(loaded.posterior, name), getattr(fitted.posterior, name))
    found, expected = loaded.observation, fitted.observation
    assert torch.equal(found.y, expected.y) and torch.equal(found.weight, expected.weight)
    assert found.shape == expected.shape and found.sigma_y == expected.sigma_y
    variance = expected.crosstalk_variance
    assert found.crosstalk_variance is None if variance is None else torch.equal(found.crosstalk_variance, variance)
    check_same(found.operator, expected.operator)
    assert loaded.posterior.levels == fitted.posterior.levels and loaded.posterior.eta == fitted.posterior.eta
    assert loaded.preset == fitted.preset and loaded.evaluations == fitted.evaluations
    assert loaded.history == fitted.history and loaded.family == fitted.family
    assert texts_of(path)["note"] == "kept"
    assert torch.equal(sample(prior, loaded, 1, 2).latents, sample(prior, fitted, 1, 2).latents)
    assert [p.name for p in folder.iterdir()] == ["a.safetensors"]


def check_same(found: LinearOperator, expected: LinearOperator) -> None:
    """Two operators of one kind with the same values, all the way in."""
    assert type(found) is type(expected)
    for field in fields(expected):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(other, torch.Tensor):
            assert torch.equal(one, other) and one.dtype == other.dtype
        elif isinstance(other, tuple):
            for part, whole in zip(one, other, strict=True):
                check_same(part, whole)
        else:
            assert one == other


@pytest.mark.parametrize("measured", [False, True])
def test_round_trip_is_bit_exact(fitted: FittedPosterior, measured: bool, tmp_path: Path) -> None:
    if measured:
        latents, weight = noisy_draws(PRIOR, 2), left_half(2, SHAPE)
        more = {"crosstalk": normal(2, 2, 2, 3, 3), "crosstalk_variance": normal(2, 1, 3, 4).square()}
        fitted = replace(fitted, observation=LatentObservation.masked(latents, weight, 0.1, **more))
    check_round_trip(fitted, PRIOR, tmp_path)


def through(operator: LinearOperator, shape: tuple[int, int, int] = (2, 4, 6)) -> tuple[FittedPosterior, GaussianPrior]:
    """A posterior of latents that are observed through an operator."""
    prior = GaussianPrior.correlated(shape)
    y = operator.A(noisy_draws(prior, 2))
    observation = LatentObservation(y, torch.ones(2, 1, *y.shape[-2:]).double(), operator, shape, 0.1)
    return fit(prior, observation, PRESETS["balanced"], 0), prior


@pytest.mark.parametrize(
    "operator",
    [
        Downsample(2, "area"),
        Compose((Blur(gaussian_kernel(0.7), "circular"), Downsample(2))),
        Mask(torch.zeros(2, 1, 4, 6) > 0, None, torch.ones(2, 1, 4, 6, dtype=torch.uint8), normal(2, 1, 2, 2)),
        Compose((Compose(), Mask(normal(2, 1, 4, 6) > 0, normal(2, 2, 2, 3, 3)), Blur(normal(3, 1), "replicate"))),
    ],
    ids=["reduced", "blurred and reduced", "cut cells", "masked and blurred"],
)
def test_round_trip_of_any_operator(operator: LinearOperator, tmp_path: Path) -> None:
    check_round_trip(*through(operator), tmp_path)


def test_round_trip_of_a_kernel_of_another_precision(tmp_path: Path) -> None:
    """`gaussian_kernel` gives float64, and a posterior in float32 keeps it."""
    fitted = through(Blur(gaussian_kernel(0.7), "circular"))[0].to("cpu")
    save_posterior(fitted, tmp_path / "a.safetensors")
    check_same(load_posterior(tmp_path / "a.safetensors").observation.operator, fitted.observation.operator)


def test_round_trip_of_an_operator_that_is_applied_twice(tmp_path: Path) -> None:
    blur = Blur(gaussian_kernel(0.5), "circular")
    check_round_trip(*through(Compose((blur, blur))), tmp_path)


@dataclass(frozen=True)
class Flip(LinearOperator):
    """An operator that files cannot name."""

    def A(self, x: torch.Tensor) -> torch.Tensor:  # noqa: N802
        return x.flip(-1)


class Wider(Downsample):
    """A kind of its own, though it is one of theirs as well."""


@pytest.mark.parametrize("operator", [Flip(), Compose((Flip(),)), Wider(2, "area")])
def test_operators_without_a_name_are_not_saved(operator: LinearOperator, tmp_path: Path) -> None:
    fitted, _ = through(operator)
    with pytest.raises(
        ValueError, match=r"expected an operator of mask, blur, downsample, compose, found (Flip|Wider)"
    ):
        save_posterior(fitted, tmp_path / "a.safetensors")
    assert not [*tmp_path.iterdir()]


# --- files of the version before ---

DATA = Path(__file__).parents[2] / "data"


def unit(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    return u / (1 + s.reshape(-1, 1, 1, 1) ** 2)


def preset_of_then(name: str) -> Preset:
    """Today's preset as it was then, but for what it says of itself and of sizes: it knew no gains."""
    balanced = {"solver_steps": 6, "recycles": False} if name == "balanced" else {}
    return PRESETS[name].with_changes(fit={"chains": 0}, sampler=balanced)


def fitted_now(name: str) -> FittedPosterior:
    """What the version before saved as posterior_v2_{name}.safetensors."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 2, 4, 4, generator=generator)
    weight = torch.ones(1, 1, 4, 4)
    weight[..., 2:] = 0
    weight[..., 1, 1] = 0.5
    crosstalk = 0.1 * torch.randn(1, 2, 2, 3, 3, generator=generator)
    variance = 0.01 * torch.rand(1, 1, 4, 4, generator=generator)
    if name == "balanced":
        observation = LatentObservation.masked(latents, weight, 0.02, crosstalk, variance)
        return fit(unit, observation, preset_of_then(name), 0, family="SD3 (FLOW)")
    preset = preset_of_then(name).with_changes(fit={"steps": 3})
    return fit(unit, LatentObservation.masked(latents, weight, 0.02), preset, 0, family="SD3 (FLOW)")


@pytest.mark.parametrize("name", ["balanced", "paper-2"])
def test_files_of_version_2_are_read(name: str) -> None:
    loaded, expected = load_posterior(DATA / f"posterior_v2_{name}.safetensors"), fitted_now(name)
    found, observation = loaded.observation, expected.observation
    torch.testing.assert_close(found.y, observation.y)
    assert torch.equal(found.weight, observation.weight)
    assert found.shape == (2, 4, 4) and found.sigma_y == 0.02
    assert isinstance(found.operator, Mask) and torch.equal(found.operator.observed, observation.weight > 0)
    if name == "balanced":
        torch.testing.assert_close(found.operator.crosstalk, observation.operator.crosstalk, rtol=0, atol=0)
        torch.testing.assert_close(found.crosstalk_variance, observation.crosstalk_variance, rtol=0, atol=0)
    else:
        assert found.operator.crosstalk is None and found.crosstalk_variance is None
    preset, lowest = expected.preset, expected.posterior.levels[0]
    assert loaded.preset.name == name and loaded.preset.descent(lowest) == preset.descent(lowest)
    assert loaded.preset.fit == preset.fit and loaded.preset.sampler == preset.sampler
    assert loaded.family == "SD3 (FLOW)" and loaded.evaluations == expected.evaluations
    assert loaded.posterior.levels == expected.posterior.levels and loaded.posterior.eta == 1.0
    assert loaded.history == pytest.approx(expected.history, rel=1e-5)
    for part in ("mu", "log_tau", "gamma"):
        one, other = (getattr(case.posterior, part) for case in (loaded, expected))
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    one, other = (sample(unit, case, 0, 2) for case in (loaded, expected))
    torch.testing.assert_close(one.latents, other.latents, rtol=1e-5, atol=1e-5)
    assert one.evaluations == other.evaluations


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("balanced", 0),
        ("paper-2", 3),
    ],
)
def test_presets_of_version_2_are_read_as_they_were(name: str, steps: int) -> None:
    """Their levels are those of every size."""
    found = load_posterior(DATA / f"posterior_v2_{name}.safetensors").preset
    then = preset_of_then(name).with_changes(description=found.description, fit={"steps": steps})
    assert found == replace(then, relative_levels=False)


@pytest.mark.parametrize("name", ["balanced", "paper-2"])
def test_files_of_version_2_are_saved_as_of_today(name: str, tmp_path: Path) -> None:
    old, path = load_posterior(DATA / f"posterior_v2_{name}.safetensors"), tmp_path / "new.safetensors"
    save_posterior(old, path)
    new = load_posterior(path)
    assert texts_of(path)["version"] == storage.VERSION and new.preset == old.preset
    assert torch.equal(sample(unit, new, 0, 2).latents, sample(unit, old, 0, 2).latents)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"refine_steps": 10**12}, "steps to be a whole number"),
        ({"rounds": 0}, "resamplings"),
        ({"s_min": 0.0}, "s_min"),
        ({"steps": 1.5}, "steps to be a whole number"),
        ({"rate": float("inf")}, "finite"),
        ({"rho": 0}, "rho"),
        ({"refiner": "__import__"}, "refiner"),
        ({"levels": []}, "s_1 < "),
        ({"levels": None}, "TypeError"),
        ({"particles": True, "eta": 0.0}, "smc"),
        ({"more": 1}, "more"),
    ],
)
def test_forged_presets_of_version_2_are_named(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    tensors, header, version = storage.read(DATA / "posterior_v2_balanced.safetensors")
    path = tmp_path / "forged.safetensors"
    storage.write(tensors, {**header, "preset": {**header["preset"], **change}}, {}, path, version)
    with pytest.raises(ValueError, match=rf"(?s)forged\.safetensors is damaged.*{words}"):
        load_posterior(path)


@pytest.mark.parametrize("field", ["late", "rounds", "levels", "particles", "second_order", "name"])
def test_missing_fields_of_version_2_are_named(field: str, tmp_path: Path) -> None:
    tensors, header, version = storage.read(DATA / "posterior_v2_balanced.safetensors")
    del header["preset"][field]
    storage.write(tensors, header, {}, tmp_path / "forged.safetensors", version)
    with pytest.raises(ValueError, match=rf"(?s)forged\.safetensors is damaged.*{field}"):
        load_posterior(tmp_path / "forged.safetensors")


# --- files that are not ours, or not as they were saved ---

GIGABYTE = 1 << 30


@pytest.fixture(scope="module")
def little_memory() -> Iterator[None]:
    """No more than another gigabyte: whoever asks for more gets an error."""
    resource = pytest.importorskip("resource", reason="Windows cannot limit a process from within")
    if sys.platform != "linux":
        pytest.skip("only Linux tells the size of a process")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GIGABYTE, before[1]))
    with pytest.raises((MemoryError, RuntimeError)):
        torch.zeros(2 * GIGABYTE, dtype=torch.uint8)
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def texts_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def forge(saved: Path, change: dict[str, Any], tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """A file with other entries in its header, or other tensors, whose digest is right."""
    kept, header, version = storage.read(saved)
    path = saved.with_name("forged.safetensors")
    storage.write({**kept, **(tensors or {})}, {**header, **change}, {}, path, version)
    return path


def outcome(path: Path) -> FittedPosterior | None:
    """A posterior that paints, or None where the file is refused; any other error fails the test."""
    try:
        found = load_posterior(path)
    except ValueError as error:
        assert path.name in str(error)
        return None
    return found


@given(content=st.binary(max_size=4096))
def test_noise_is_no_posterior(saved: Path, little_memory: None, content: bytes) -> None:
    path = saved.with_name("noise.safetensors")
    path.write_bytes(content)
    assert outcome(path) is None


@given(data=st.data())
def test_damaged_files_are_recognised(
    fitted: FittedPosterior, saved: Path, little_memory: None, data: st.DataObject
) -> None:
    """Cut off, prolonged, or with other bytes anywhere: refused, or the same posterior in other words."""
    content = bytearray(saved.read_bytes())
    end = data.draw(st.integers(0, len(content)), "end")
    # Half of all bytes are tensors; the length of the header and the header itself deserve as many tries.
    places = st.one_of(st.integers(0, 7), st.integers(8, 400), st.integers(0, len(content) - 1))
    for place, bits in data.draw(st.lists(st.tuples(places, st.integers(1, 255)), max_size=3), "flips"):
        content[place] ^= bits
    damaged = bytes(content[:end] if data.draw(st.booleans(), "cut") else content)
    damaged += data.draw(st.binary(max_size=16), "tail")
    path = saved.with_name("damaged.safetensors")
    path.write_bytes(damaged)
    found = outcome(path)
    assert found is None or torch.equal(found.posterior.mu, fitted.posterior.mu)
    assert found is None or texts_of(path) == texts_of(saved)


@given(length=st.integers(0, 2**64 - 1))
def test_no_length_of_a_header_is_believed(saved: Path, little_memory: None, length: int) -> None:
    content = saved.read_bytes()
    path = saved.with_name("length.safetensors")
    path.write_bytes(length.to_bytes(8, "little") + content[8:])
    assert (outcome(path) is not None) == (length == int.from_bytes(content[:8], "little"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
HEADER_FIELDS = ("levels", "eta", "sigma_y", "operator", "preset", "family", "evaluations", "history")
PRESET_FIELDS = [
    (part, field.name)
    for part, config in (("fit", FitConfig), ("schedule", ScheduleConfig), ("sampler", SamplerConfig))
    for field in fields(config)
]


@given(data=st.data())
def test_a_forged_header_gives_a_posterior_that_paints_or_an_error(
    saved: Path, little_memory: None, data: st.DataObject
) -> None:
    """Whoever writes the digest can write anything else too."""
    preset = dict(storage.read(saved)[1]["preset"])
    preset["schedule"] = {**preset["schedule"], "steps": 2}
    preset["sampler"] = {**preset["sampler"], "refiner": "closed_form"}
    change = data.draw(st.dictionaries(st.sampled_from(HEADER_FIELDS), json_values, max_size=2), "header")
    places = st.sampled_from([*PRESET_FIELDS, ("name", None), ("description", None), ("fit", None)])
    forged = data.draw(st.dictionaries(places, json_values, max_size=2), "preset")
    # Fields first: a part that is replaced as a whole may have none.
    for (part, name), value in sorted(forged.items(), key=lambda change: change[0][1] is None):
        preset[part] = value if name is None else {**preset[part], name: value}
    found = outcome(forge(saved, {"preset": preset, **change}))
    if found is not None:
        latents = sample(PRIOR, found, 0, 1).latents
        assert latents.shape == (2, *SHAPE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"levels": [1.0, 2.0, 3.0]}, "mu of shape"),
        ({"levels": [3.0, 1.0]}, "s_1 < "),
        ({"eta": 2}, "eta"),
        ({"eta": float("nan")}, "eta"),
        ({"sigma_y": float("inf")}, "sigma_y"),
        ({"sigma_y": "0.1"}, "TypeError"),
        ({"preset": None}, "TypeError"),
        ({"preset": {}}, "fit"),
        ({"family": None}, "family"),
    ],
)
def test_forged_entries_are_named(saved: Path, little_memory: None, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)forged\.safetensors is damaged.*{words}"):
        load_posterior(forge(saved, change))


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("schedule", {"steps": 10**12}, "steps"),
        ("schedule", {"resamplings": 0}, "resamplings"),
        ("schedule", {"s_min": 0.0}, "s_min"),
        ("fit", {"steps": 1.5}, "steps"),
        ("fit", {"learning_rate": float("inf")}, "finite"),
        ("schedule", {"rho": 0}, "rho"),
        ("sampler", {"refiner": "__import__"}, "refiner"),
        ("fit", {"keypoints": []}, "s_1 < "),
        ("fit", {"more": 1}, "more"),
        ("schedule", {"more": 1}, "more"),
        ("sampler", {"more": 1}, "more"),
        (None, {"more": 1}, "more"),
    ],
)
def test_forged_presets_are_named(saved: Path, part: str | None, change: dict[str, Any], words: str) -> None:
    preset = storage.read(saved)[1]["preset"]
    forged = {**preset, **change} if part is None else {**preset, part: {**preset[part], **change}}
    with pytest.raises(ValueError, match=rf"(?s)forged\.safetensors is damaged.*{words}"):
        load_posterior(forge(saved, {"preset": forged}))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"mu": torch.zeros(2, 2, 2, 3, 5).double()}, "one shape"),
        ({"mu": torch.full((2, 2, 2, 3, 4), torch.nan).double()}, "mu: expected finite"),
        (
            {"crosstalk_variance": torch.full((2, 1, 3, 4), torch.inf).double()},
            "crosstalk_variance: expected finite",
        ),
        ({"crosstalk_variance": torch.zeros(2, 2, 3, 4).double()}, "expected crosstalk_variance"),
        ({"y": torch.zeros(3, 2, 3, 4).double()}, "weight of shape"),
        ({"y": torch.zeros(2, 3, 4).double()}, "B, C, H, W"),
        ({"weight": torch.full((2, 1, 3, 4), 2.0).double()}, "within"),
        ({"operator.observed": torch.ones(2, 1, 3, 5).bool()}, "a mask of shape"),
        ({"operator.observed": torch.ones(2, 1, 3, 4).double()}, "boolean"),
        ({name: torch.zeros(2, 2, 2, 3, 5).double() for name in ("mu", "log_tau", "gamma")}, "latents to y"),
    ],
)
def test_forged_tensors_are_named(saved: Path, tensors: dict[str, torch.Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)forged\.safetensors is damaged.*{words}"):
        load_posterior(forge(saved, {}, tensors))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "TypeError"),
        ({}, "operator"),
        ({"operator": "__import__"}, "__import__"),
        ({"operator": ["mask"]}, "TypeError"),
        ({"operator": "mask"}, "observed"),
        ({"operator": "mask", "observed": {"tensor": "nothing"}}, "nothing"),
        ({"operator": "mask", "observed": {}}, "tensor"),
        ({"operator": "mask", "observed": {"tensor": "y"}}, "a mask of shape"),
        ({"operator": "mask", "observed": {"tensor": "operator.observed"}, "more": 1}, "more"),
        ({"operator": "blur", "kernel": {"tensor": "weight"}}, "odd height"),
        ({"operator": "downsample", "factor": 5}, "multiples of 5, found 3 x 4"),
        ({"operator": "downsample", "factor": 1.0, "kind": "area"}, "TypeError"),
        ({"operator": "downsample", "factor": 10**30}, "multiples of"),
        ({"operator": "downsample", "factor": 0}, "factor above 0"),
        ({"operator": "downsample", "factor": 1, "kind": "nearest"}, "nearest"),
        ({"operator": "compose", "operators": [{"operator": "compose", "operators": [1]}]}, "TypeError"),
        ({"operator": "compose", "operators": [{"operator": "downsample", "factor": 3}]}, "multiples of 3"),
        ({"operator": "compose", "operators": 1}, "operators"),
        ({"operator": "mask", "observed": 5}, "observed"),
        ({"operator": "mask", "observed": None}, "observed"),
        ({"operator": "blur", "kernel": 3}, "kernel"),
        ({"operator": "compose", "operators": "ab"}, "operators"),
    ],
)
def test_forged_operators_are_named(saved: Path, change: dict[str, Any] | None, words: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)forged\.safetensors is damaged.*{words}"):
        load_posterior(forge(saved, {"operator": change}))


def test_forged_kernels_are_named(saved: Path) -> None:
    kernel = {"operator": "mask", "observed": {"tensor": "operator.observed"}, "crosstalk": {"tensor": "operator.more"}}
    for shape, words in (((2, 2, 2, 2, 2), "k odd"), ((1, 2, 2, 3, 3), "k odd"), ((2, 3, 3, 3, 3), "latents to y")):
        path = forge(saved, {"operator": kernel}, {"operator.more": torch.zeros(shape).double()})
        with pytest.raises(ValueError, match=rf"(?s)forged\.safetensors is damaged.*{words}"):
            load_posterior(path)


@pytest.mark.parametrize("factor", [1, 3, 4])
def test_operators_that_do_not_fit_y_are_named(factor: int, tmp_path: Path) -> None:
    """Latents (4, 4) that were observed at half the size."""
    fitted, _ = through(Downsample(2, "area"), (2, 4, 4))
    save_posterior(fitted, tmp_path / "whole.safetensors")
    change = {"operator": "downsample", "factor": factor, "kind": "area"}
    with pytest.raises(ValueError, match=r"forged\.safetensors is damaged"):
        load_posterior(forge(tmp_path / "whole.safetensors", {"operator": change}))


def test_tensors_of_other_types_are_refused(saved: Path) -> None:
    """Only those of the operator may be bool."""
    for kind in (torch.float32, torch.int64, torch.float8_e4m3fn, torch.complex64, torch.bool):
        with pytest.raises(ValueError, match=r"forged\.safetensors with tensors of the types.*expected one, float"):
            load_posterior(forge(saved, {}, {"gamma": torch.ones(2, 2, 2, 3, 4).to(kind)}))
    with pytest.raises(ValueError, match=r"forged\.safetensors with tensors of the types.*expected one, float"):
        load_posterior(forge(saved, {}, {"operator.observed": torch.ones(2, 1, 3, 4).int()}))


@pytest.mark.parametrize("header", ["[" * 100_000, "1" * 100_000, "[]", "null", "{"])
def test_a_header_that_is_no_object_is_refused(saved: Path, header: str) -> None:
    tensors, _, version = storage.read(saved)
    texts = {"format": storage.FORMAT, "version": version, "header": header}
    path = saved.with_name("odd.safetensors")
    save_file(tensors, path, {**texts, storage.DIGEST: storage._digest(tensors, texts)})
    with pytest.raises(ValueError, match=r"odd\.safetensors, whose header"):
        load_posterior(path)


class Payload:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_unopened(tmp_path: Path) -> None:
    buffer, mark = io.BytesIO(), tmp_path / "executed"
    torch.save(Payload(mark), buffer)
    path = tmp_path / "pickle.safetensors"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="pickle"):
        load_posterior(path)
    assert not mark.exists()
    # The payload is a real one.
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert mark.exists()


def test_other_files_are_named(saved: Path, tmp_path: Path) -> None:
    for name, content in {"missing": None, "empty": b"", "text": json.dumps({"levels": [1.0]}).encode()}.items():
        if content is not None:
            (tmp_path / f"{name}.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=name):
            load_posterior(tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match="not a file"):
        load_posterior(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="another safetensors file"):
        load_posterior(tmp_path / "other.safetensors")
    tensors, _, _ = storage.read(saved)
    for version in ("1", "5"):
        save_file(tensors, tmp_path / "old.safetensors", {"format": storage.FORMAT, "version": version})
        with pytest.raises(ValueError, match=f"version {version}: update"):
            load_posterior(tmp_path / "old.safetensors")


def test_a_file_that_cannot_be_written_leaves_nothing(fitted: FittedPosterior, tmp_path: Path) -> None:
    save_posterior(fitted, tmp_path / "a.safetensors")
    with pytest.raises(OSError, match="cannot write"):
        save_posterior(fitted, tmp_path / f"{'a' * 300}.safetensors")
    with pytest.raises(OSError, match="cannot write"):
        save_posterior(fitted, tmp_path / "missing" / "a.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


# --- gains ---


def with_gains() -> FittedPosterior:
    fitted = fit_gains(PRIOR, fit(PRIOR, half_observed(PRIOR, 2), PRESETS["balanced"], 7, family="gaussian"), 2)
    return replace(fitted, bound=gain_bound(PRIOR, fitted, 1).means)


def test_gains_come_back_bit_for_bit(tmp_path: Path) -> None:
    fitted, path = with_gains(), tmp_path / "gains.safetensors"
    save_posterior(fitted, path)
    loaded = load_posterior(path)
    assert loaded.gains is not None and fitted.gains is not None
    assert loaded.gains.levels == fitted.gains.levels and torch.equal(loaded.gains.fills, fitted.gains.fills)
    for part in ("directions", "products"):
        for one, other in zip(getattr(loaded.gains, part), getattr(fitted.gains, part), strict=True):
            assert one.dtype == torch.bfloat16 and torch.equal(one, other)
    assert (loaded.seed, loaded.bound) == (7, fitted.bound)
    # The chain that it lacks is drawn, and is that of the fit.
    assert torch.equal(sample(PRIOR, loaded, 7, 4).latents, sample(PRIOR, fitted, 7, 4).latents)


def test_gains_of_other_pictures_come_back_without_fills(tmp_path: Path) -> None:
    given, path = with_gains(), tmp_path / "lent.safetensors"
    fitted = start_from(fit(PRIOR, half_observed(PRIOR, 3), PRESETS["balanced"], 8, family="gaussian"), given)
    save_posterior(fitted, path)
    loaded = load_posterior(path)
    assert loaded.gains is not None and loaded.gains.fills.shape == (0, *fitted.observation.latents.shape)
    assert torch.equal(sample(PRIOR, loaded, 8, 2).latents, sample(PRIOR, fitted, 8, 2).latents)


def test_gains_draw_in_another_precision(tmp_path: Path) -> None:
    """A device may have its own: noise is another there, but gains of any precision draw one posterior's fills."""
    fitted, path = with_gains(), tmp_path / "gains.safetensors"
    save_posterior(fitted, path)
    single = load_posterior(path).to("cpu")
    assert single.gains is not None and single.posterior.mu.dtype == single.gains.fills.dtype == torch.float32
    halves = (tuple(part.half() for part in parts) for parts in (single.gains.directions, single.gains.products))
    half = replace(single, gains=Gains(single.gains.levels, *halves, single.gains.fills))
    found = sample(PRIOR, single, 9, 4).latents
    assert found.dtype == torch.float32
    torch.testing.assert_close(sample(PRIOR, half, 9, 4).latents, found, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {"gains.fills": t["gains.fills"][..., :-1].contiguous()}, "gains"),
        (lambda t: {"gains.products.0": t["gains.products.0"][..., :-1].contiguous()}, "Gains: expected directions"),
        (lambda t: {"gains.directions.3": t["gains.directions.3"][:1].contiguous()}, "Gains: expected directions"),
        (lambda t: {"gains.directions.3": t["gains.directions.3"][:, :1].contiguous()}, "Gains: expected directions"),
        (lambda t: {"gains.products.0": torch.full_like(t["gains.products.0"], torch.nan)}, "finite numbers"),
    ],
)
def test_gains_of_other_sizes_are_refused(change: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "gains.safetensors"
    save_posterior(with_gains(), path)
    tensors, header, version = storage.read(path)
    storage.write({**tensors, **change(tensors)}, header, {}, path, version)
    with pytest.raises(ValueError, match=words):
        load_posterior(path)


def test_files_of_version_3_are_read(tmp_path: Path) -> None:
    """They know no gains: every fill is drawn alone, as it was."""
    preset = PRESETS["balanced"].with_changes(fit={"chains": 0})
    fitted, path = fit(PRIOR, half_observed(PRIOR, 2), preset, 0), tmp_path / "old.safetensors"
    save_posterior(fitted, path)
    tensors, header, _ = storage.read(path)
    for name in ("seed", "gains", "bound"):
        del header[name]
    del header["preset"]["fit"]["chains"], header["preset"]["fit"]["rank"]
    del header["preset"]["sampler"]["corrections"]
    storage.write(tensors, header, {}, path, "3")
    loaded = load_posterior(path)
    assert loaded.preset == preset and loaded.gains is None
    assert torch.equal(sample(PRIOR, loaded, 1, 2).latents, sample(PRIOR, fitted, 1, 2).latents)
