from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gaussian import GaussianPrior, half_seen
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from vipaint_core import PRESETS, Fit, fit, sample, storage


@pytest.fixture(scope="module")
def fitted() -> Fit:
    prior = GaussianPrior.correlated((2, 3, 4))
    return fit(prior, half_seen(prior, 2), replace(PRESETS["paper-2"], steps=2), 0, family="gaussian")


@pytest.fixture(scope="module")
def saved(fitted: Fit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("posteriors") / "whole.safetensors"
    fitted.save(path)
    return path


@pytest.mark.parametrize("measured", [False, True])
def test_round_trip_is_bit_exact(fitted: Fit, measured: bool, tmp_path) -> None:
    more = {"leak": torch.rand(2, 1, 3, 4).double(), "spill": torch.rand(2, 2, 2, 3, 3).double()} if measured else {}
    fitted = replace(fitted, observation=replace(fitted.observation, **more))
    path = tmp_path / "a.safetensors"
    fitted.save(path, {"note": "kept"})
    loaded = Fit.load(path)
    for name in ("mu", "log_tau", "gamma"):
        assert torch.equal(getattr(loaded.posterior, name), getattr(fitted.posterior, name))
    assert torch.equal(loaded.observation.latent, fitted.observation.latent)
    assert torch.equal(loaded.observation.seen, fitted.observation.seen)
    for name in ("leak", "spill"):
        kept = getattr(loaded.observation, name)
        assert torch.equal(kept, more[name]) if measured else kept is None
    assert loaded.preset == fitted.preset and loaded.evaluations == fitted.evaluations
    assert loaded.history == fitted.history and loaded.family == "gaussian"
    prior = GaussianPrior.correlated((2, 3, 4))
    assert torch.equal(sample(prior, loaded, 1, 2).latents, sample(prior, fitted, 1, 2).latents)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


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
    kept, header = storage._read(saved, storage.FORMAT)
    path = saved.with_name("forged.safetensors")
    storage._write({**kept, **(tensors or {})}, storage.FORMAT, {**header, **change}, {}, path)
    return path


def outcome(path: Path) -> Fit | None:
    """A fit that paints, or None where the file is refused; any other error fails the test."""
    try:
        found = Fit.load(path)
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
def test_damaged_files_are_recognised(saved: Path, little_memory: None, data: st.DataObject) -> None:
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
    assert found is None or torch.equal(found.posterior.mu, Fit.load(saved).posterior.mu)
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
PRESET_FIELDS = tuple(PRESETS["fast"].__dataclass_fields__)
HEADER_FIELDS = ("levels", "eta", "sigma_y", "preset", "family", "evaluations", "history")


@given(data=st.data())
def test_a_forged_header_gives_a_posterior_that_paints_or_an_error(
    saved: Path, little_memory: None, data: st.DataObject
) -> None:
    """Whoever writes the digest can write anything else too."""
    preset = dict(storage._read(saved, storage.FORMAT)[1]["preset"], refine_steps=2, refiner="closed_form")
    change = data.draw(st.dictionaries(st.sampled_from(HEADER_FIELDS), json_values, max_size=2), "header")
    preset |= data.draw(st.dictionaries(st.sampled_from(PRESET_FIELDS), json_values, max_size=2), "preset")
    found = outcome(forge(saved, {"preset": preset, **change}))
    if found is not None:
        latents = sample(GaussianPrior.correlated((2, 3, 4)), found, 0, 1).latents
        assert latents.shape == found.observation.latent.shape


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
        ({"preset": {}}, "levels"),
        ({"family": None}, "family"),
    ],
)
def test_forged_entries_are_named(saved: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)forged\.safetensors is damaged.*{words}"):
        Fit.load(forge(saved, change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"refine_steps": 10**12}, "refine_steps"),
        ({"rounds": 0}, "rounds"),
        ({"s_min": 0.0}, "s_min"),
        ({"steps": 1.5}, "steps"),
        ({"rate": float("inf")}, "finite"),
        ({"rho": 0}, "rho"),
        ({"refiner": "__import__"}, "refiner"),
        ({"levels": []}, "s_1 < "),
        ({"more": 1}, "more"),
    ],
)
def test_forged_presets_are_named(saved: Path, change: dict[str, Any], words: str) -> None:
    preset = storage._read(saved, storage.FORMAT)[1]["preset"]
    with pytest.raises(ValueError, match=rf"(?s)forged\.safetensors is damaged.*{words}"):
        Fit.load(forge(saved, {"preset": {**preset, **change}}))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"mu": torch.zeros(2, 2, 2, 3, 5).double()}, "one shape"),
        ({"mu": torch.full((2, 2, 2, 3, 4), torch.nan).double()}, "mu: expected finite"),
        ({"leak": torch.full((2, 1, 3, 4), torch.inf).double()}, "leak: expected finite"),
        ({"latent": torch.zeros(3, 2, 3, 4).double()}, "seen of shape"),
        ({"latent": torch.zeros(2, 3, 4).double()}, "B, C, H, W"),
        ({"seen": torch.full((2, 1, 3, 4), 2.0).double()}, "within"),
        ({"spill": torch.zeros(2, 2, 2, 2, 2).double()}, "k odd"),
    ],
)
def test_forged_tensors_are_named(saved: Path, tensors: dict[str, torch.Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)forged\.safetensors is damaged.*{words}"):
        Fit.load(forge(saved, {}, tensors))


def test_tensors_of_other_types_are_refused(saved: Path) -> None:
    for kind in (torch.float32, torch.int64, torch.float8_e4m3fn, torch.complex64, torch.bool):
        with pytest.raises(ValueError, match=r"forged\.safetensors with tensors of the types.*expected one, float"):
            Fit.load(forge(saved, {}, {"gamma": torch.ones(2, 2, 2, 3, 4).to(kind)}))


@pytest.mark.parametrize("header", ["[" * 100_000, "1" * 100_000, "[]", "null", "{"])
def test_a_header_that_is_no_object_is_refused(saved: Path, header: str) -> None:
    tensors, _ = storage._read(saved, storage.FORMAT)
    texts = {"format": storage.FORMAT, "version": storage.VERSION, "header": header}
    path = saved.with_name("odd.safetensors")
    save_file(tensors, path, {**texts, storage.DIGEST: storage._digest(tensors, texts)})
    with pytest.raises(ValueError, match=r"odd\.safetensors, whose header"):
        Fit.load(path)


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
        Fit.load(path)
    assert not mark.exists()
    # The payload is a real one.
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert mark.exists()


def test_other_files_are_named(fitted: Fit, saved: Path, tmp_path: Path) -> None:
    for name, content in {"missing": None, "empty": b"", "text": json.dumps({"levels": [1.0]}).encode()}.items():
        if content is not None:
            (tmp_path / f"{name}.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=name):
            Fit.load(tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match="not a file"):
        Fit.load(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="another safetensors file"):
        Fit.load(tmp_path / "other.safetensors")
    tensors, _ = storage._read(saved, storage.FORMAT)
    save_file(tensors, tmp_path / "old.safetensors", {"format": storage.FORMAT, "version": "1"})
    with pytest.raises(ValueError, match="version 1: update"):
        Fit.load(tmp_path / "old.safetensors")


def test_a_file_that_cannot_be_written_leaves_nothing(fitted: Fit, tmp_path: Path) -> None:
    fitted.save(tmp_path / "a.safetensors")
    with pytest.raises(OSError, match="cannot write"):
        fitted.save(tmp_path / f"{'a' * 300}.safetensors")
    with pytest.raises(OSError, match="cannot write"):
        fitted.save(tmp_path / "missing" / "a.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
