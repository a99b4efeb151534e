"""Every operator is linear and its adjoint is one; blurs and reductions against other ways to compute them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussian import normal
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from vipaint_core import LatentObservation
from vipaint_core.problem.operators import (
    OPERATORS,
    Blur,
    Compose,
    Downsample,
    LinearOperator,
    Mask,
    gaussian_kernel,
    motion_kernel,
)

EPS = torch.finfo(torch.float64).eps
SIZES = ((37, 31), (40, 56))


def operators() -> dict[str, LinearOperator]:
    reduced = {f"{kind} {factor}": Downsample(factor, kind) for kind in ("area", "bicubic") for factor in (2, 4, 8)}
    kernel = normal(5, 9).abs()
    blurs = {padding: Blur(kernel / kernel.sum(), padding) for padding in ("reflect", "replicate", "circular")}
    blurs |= {"gaussian": Blur(gaussian_kernel(1.7)), "motion": Blur(motion_kernel(9, 30))}
    return {**reduced, **blurs, "blurred and reduced": Compose((blurs["gaussian"], reduced["area 2"])), "id": Compose()}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*operators(), "mask"])
def test_adjoint(name: str, size: tuple[int, int]) -> None:
    mask = Mask(normal(3, 1, *size) > 0)
    operator = mask if name == "mask" else operators()[name]
    factor = next((f for f in (2, 4, 8) if str(f) in name), 2 if "reduced" in name else 1)
    size = (size[0] * factor, size[1] * factor)
    first, second = normal(3, 2, *size, seed=1), normal(3, 2, *size, seed=2)
    output = operator.A(first)
    torch.testing.assert_close(operator.A(2 * first - second), 2 * output - operator.A(second))
    y = normal(*output.shape, seed=3)
    adjoint = operator.A_adjoint(y)
    assert adjoint.shape == first.shape and not adjoint.requires_grad
    torch.testing.assert_close((output * y).sum(), (first * adjoint).sum(), rtol=1e-10, atol=1e-10)


# --- masks ---


def test_a_mask_with_crosstalk_by_definition() -> None:
    """A cell less the kernel's share of the hidden cells around it, every picture with its own kernel."""
    observed, kernel = normal(2, 1, 6, 5) > 0, normal(2, 3, 3, 3, 3)
    observation = LatentObservation.masked(normal(2, 3, 6, 5), observed.double(), crosstalk=kernel)
    x, y, operator = normal(2, 3, 6, 5, seed=1), normal(2, 3, 6, 5, seed=2), observation.operator
    inner = (observed[1, 0] & ~observed[1, 0].roll(1, 1))[:, 1:-1]
    line, column = inner.nonzero()[0].tolist()
    column += 1
    expected = x[1, :, line, column].clone()
    for i in range(max(line - 1, 0), min(line + 2, 6)):
        for j in range(column - 1, column + 2):
            if not observed[1, 0, i, j]:
                expected -= kernel[1, :, :, i - line + 1, j - column + 1] @ x[1, :, i, j]
    assert torch.allclose(operator.A(x)[1, :, line, column], expected)
    assert torch.allclose((operator.A(x) * y).sum(), (x * operator.A_adjoint(y)).sum())
    assert (operator.A(x)[~observed.expand_as(x)] == 0).all()
    assert torch.equal(observation.y, operator.A(normal(2, 3, 6, 5)))


@st.composite
def masks(draw: st.DrawFn) -> tuple[Mask, torch.Tensor, torch.Tensor]:
    """A mask, with or without crosstalk, and two latents of any size, single rows and columns included."""
    batch, channels, height, width = (draw(st.integers(1, n)) for n in (3, 4, 9, 9))
    seed = draw(st.integers(0, 2**32 - 1))
    hidden = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    observed = torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(seed)) >= hidden
    size = draw(st.sampled_from([0, 1, 3, 5]))
    crosstalk = normal(batch, channels, channels, size, size, seed=seed + 1) if size else None
    x, y = normal(2, batch, channels, height, width, seed=seed + 2)
    if draw(st.booleans()):
        return Mask(observed, crosstalk), x, y
    kinds = draw(st.integers(1, 3))
    kind = torch.randint(0, kinds + 1, observed.shape, generator=torch.Generator().manual_seed(seed))
    kind = torch.where(observed, 0, kind).to(torch.uint8)
    return Mask(observed, crosstalk, kind, orthogonal_rows(batch, kinds, channels, seed)), x, y


def orthogonal_rows(batch: int, kinds: int, channels: int, seed: int) -> torch.Tensor:
    """(batch, kinds, channels, channels), rows of different lengths; the first is zero."""
    rows = torch.linalg.qr(normal(batch, kinds, channels, channels, seed=seed + 3)).Q
    return rows * torch.arange(channels).to(rows)[:, None]


@given(masks(), st.floats(-3, 3), st.floats(-3, 3))
def test_masks_are_linear_and_hide_what_is_hidden(
    case: tuple[Mask, torch.Tensor, torch.Tensor], a: float, b: float
) -> None:
    operator, x, y = case
    for linear in (operator.A, operator.A_adjoint):
        torch.testing.assert_close(linear(a * x + b * y), a * linear(x) + b * linear(y), rtol=1e-9, atol=1e-9)
    cut = torch.zeros_like(operator.observed) if operator.cut_kind is None else operator.cut_kind > 0
    assert (operator.A(x)[~(operator.observed | cut).expand_as(x)] == 0).all()
    # What is hidden is read through the crosstalk and in cut cells, and nowhere else.
    visible = torch.where(operator.observed, x, 0.0)
    assert torch.equal(operator.A(visible), visible)
    if operator.crosstalk is None:
        assert torch.equal(torch.where(cut, 0.0, operator.A(x)), visible)


@given(masks())
def test_the_gram_of_a_mask_is_the_diagonal_of_a_a_adjoint(case: tuple[Mask, torch.Tensor, torch.Tensor]) -> None:
    mask, x, _ = case
    operator = replace(mask, crosstalk=None)
    shown = operator.A(x)
    torch.testing.assert_close(operator.A(operator.A_adjoint(shown)), operator.gram * shown, rtol=1e-9, atol=1e-9)


def test_cut_cells_by_definition() -> None:
    """The map of their kind, every picture with its own maps."""
    observed = torch.zeros(2, 1, 1, 3, dtype=torch.bool)
    observed[..., 0] = True
    kind = torch.tensor([[0, 2, 1], [0, 0, 2]], dtype=torch.uint8).reshape(2, 1, 1, 3)
    maps, x = orthogonal_rows(2, 2, 3, 0), normal(2, 3, 1, 3)
    found = Mask(observed, None, kind, maps).A(x)[:, :, 0]
    assert torch.equal(found[..., 0], x[:, :, 0, 0]) and (found[1, :, 1] == 0).all()
    for image, column, number in ((0, 1, 2), (0, 2, 1), (1, 2, 2)):
        assert torch.allclose(found[image, :, column], maps[image, number - 1] @ x[image, :, 0, column])


@pytest.mark.parametrize(
    "broken",
    [
        {"cut_maps": None},
        {"cut_kind": None},
        {"cut_kind": torch.zeros(1, 1, 2, 3, dtype=torch.uint8)},
        {"cut_maps": torch.zeros(1, 3, 3)},
    ],
    ids=str,
)
def test_cut_cells_of_another_shape_are_refused(broken: dict[str, torch.Tensor | None]) -> None:
    parts = {"cut_kind": torch.zeros(1, 1, 2, 2, dtype=torch.uint8), "cut_maps": torch.zeros(1, 1, 3, 3), **broken}
    with pytest.raises(ValueError, match=r"Mask: expected .*cut_kind"):
        Mask(torch.zeros(1, 1, 2, 2, dtype=torch.bool), None, **parts)


@given(masks())
def test_the_automatic_adjoint_is_a_mask_s_own(case: tuple[Mask, torch.Tensor, torch.Tensor]) -> None:
    operator, _, y = case
    found = LinearOperator.A_adjoint(operator, y)
    assert not found.requires_grad
    torch.testing.assert_close(found, operator.A_adjoint(y), rtol=1e-12, atol=1e-12)


def test_rows_of_an_operator_are_those_of_its_images() -> None:
    observed, x = normal(3, 1, 5, 4) > 0, normal(3, 2, 5, 4, seed=2)
    kind = (~observed).to(torch.uint8)
    mask = Mask(observed, normal(3, 2, 2, 3, 3, seed=1), kind, orthogonal_rows(3, 1, 2, 0))
    operator, index = Compose((mask, Blur(normal(3, 3, seed=3)))), torch.tensor([2, 0, 2])
    torch.testing.assert_close(operator.rows(index).A(x[index]), operator.A(x)[index])


# --- any operator ---


@st.composite
def any_operator(draw: st.DrawFn) -> tuple[LinearOperator, torch.Tensor]:
    """Any operator, and a tensor that it takes."""
    mask, x, _ = draw(masks())
    seed = draw(st.integers(0, 2**32 - 1))
    factor = draw(st.integers(1, 4))
    reduced = Downsample(factor, draw(st.sampled_from(["area", "bicubic"])))
    rows, columns = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    blur = Blur(
        normal(2 * rows + 1, 2 * columns + 1, seed=seed), draw(st.sampled_from(["reflect", "replicate", "circular"]))
    )
    # Reflected and repeated borders need pictures larger than half the kernel.
    larger = normal(*x.shape[:2], factor * (4 + x.shape[2]), factor * (4 + x.shape[3]), seed=seed + 1)
    return draw(
        st.sampled_from(
            [(mask, x), (Compose((mask,)), x), (reduced, larger), (blur, larger), (Compose((blur, reduced)), larger)]
        )
    )


@given(any_operator(), st.integers(0, 2**32 - 1))
def test_the_adjoint_is_the_adjoint(case: tuple[LinearOperator, torch.Tensor], seed: int) -> None:
    """<A x, y> = <x, A' y>."""
    operator, x = case
    output = operator.A(x)
    y = normal(*output.shape, seed=seed)
    back = operator.A_adjoint(y)
    scale = output.norm() * y.norm() + x.norm() * back.norm() + 1e-30
    assert ((output * y).sum() - (x * back).sum()).abs() <= 1e3 * EPS * scale


def test_every_operator_has_one_name() -> None:
    """All that the core has are in the list of those that files may name."""
    assert set(OPERATORS.values()) == {Mask, Blur, Downsample, Compose} and len(OPERATORS) == 4


# --- blurs and reductions ---


@pytest.mark.parametrize(("padding", "mode"), [("reflect", "mirror"), ("replicate", "nearest"), ("circular", "wrap")])
def test_blur_is_a_correlation(padding: str, mode: str) -> None:
    x, kernel = normal(1, 1, 37, 31), normal(5, 9)
    expected = ndimage.correlate(x[0, 0].numpy(), kernel.numpy(), mode=mode)
    torch.testing.assert_close(Blur(kernel, padding).A(x)[0, 0], torch.from_numpy(expected))


def test_gaussian_kernel_spreads_by_sigma() -> None:
    kernel = gaussian_kernel(2.5)
    place = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
    assert kernel.sum() == pytest.approx(1)
    assert (kernel.sum(0) * place.square()).sum().sqrt() == pytest.approx(2.5, rel=0.01)
    point = np.zeros((41, 41))
    point[20, 20] = 1
    expected = ndimage.gaussian_filter(point, 2.5, mode="constant", truncate=4)
    found = Blur(kernel, "replicate").A(torch.from_numpy(point)[None, None])[0, 0]
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-12, rtol=0)


def test_motion_kernel_lies_along_its_angle() -> None:
    flat = motion_kernel(7, 0)
    assert (flat[len(flat) // 2] > 0).sum() == 9 and flat.sum() == pytest.approx(1)
    assert flat[[i for i in range(len(flat)) if i != len(flat) // 2]].abs().max() < 1e-12
    torch.testing.assert_close(motion_kernel(7, 90), flat.T)
    rising = motion_kernel(11, 30)
    place = torch.arange(len(rising), dtype=torch.float64) - len(rising) // 2
    slope = (rising * place[:, None] * place).sum() / (rising * place.square()).sum()
    # Rows count downwards.
    assert slope == pytest.approx(-np.tan(np.radians(30)), abs=0.03)


def test_bicubic_reduction_is_pillow_s() -> None:
    x = normal(1, 1, 64, 48).float()
    small = Image.fromarray(x[0, 0].numpy()).resize((12, 16), Image.Resampling.BICUBIC)
    torch.testing.assert_close(Downsample(4).A(x)[0, 0], torch.from_numpy(np.array(small)), atol=1e-4, rtol=0)


def test_sizes_and_kinds_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"multiples of 4, found 37 x 32"):
        Downsample(4).A(torch.zeros(1, 1, 37, 32))
    with pytest.raises(ValueError, match="nearest"):
        Downsample(2, "nearest")
    with pytest.raises(ValueError, match="odd"):
        Blur(torch.ones(2, 3))
