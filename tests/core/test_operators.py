"""Every operator is linear and its adjoint is one; blurs and reductions against other ways to compute them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from vipaint_core.operators import Blur, Compose, Downsample, Mask, Operator, gaussian_kernel, motion_kernel

SIZES = ((37, 31), (40, 56))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def operators() -> dict[str, Operator]:
    reduced = {f"{kind} {factor}": Downsample(factor, kind) for kind in ("area", "bicubic") for factor in (2, 4, 8)}
    kernel = random(5, 9).abs()
    blurs = {padding: Blur(kernel / kernel.sum(), padding) for padding in ("reflect", "replicate", "circular")}
    blurs |= {"gaussian": Blur(gaussian_kernel(1.7)), "motion": Blur(motion_kernel(9, 30))}
    return {**reduced, **blurs, "blurred and reduced": Compose((blurs["gaussian"], reduced["area 2"])), "id": Compose()}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*operators(), "mask"])
def test_adjoint(name: str, size: tuple[int, int]) -> None:
    mask = Mask(random(3, 1, *size) > 0)
    operator = mask if name == "mask" else operators()[name]
    factor = next((f for f in (2, 4, 8) if str(f) in name), 2 if "reduced" in name else 1)
    size = (size[0] * factor, size[1] * factor)
    first, second = random(3, 2, *size, seed=1), random(3, 2, *size, seed=2)
    image = operator.A(first)
    torch.testing.assert_close(operator.A(2 * first - second), 2 * image - operator.A(second))
    y = random(*image.shape, seed=3)
    adjoint = operator.A_adjoint(y)
    assert adjoint.shape == first.shape and not adjoint.requires_grad
    torch.testing.assert_close((image * y).sum(), (first * adjoint).sum(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("padding", "mode"), [("reflect", "mirror"), ("replicate", "nearest"), ("circular", "wrap")])
def test_blur_is_a_correlation(padding: str, mode: str) -> None:
    x, kernel = random(1, 1, 37, 31), random(5, 9)
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
    x = random(1, 1, 64, 48).float()
    small = Image.fromarray(x[0, 0].numpy()).resize((12, 16), Image.Resampling.BICUBIC)
    torch.testing.assert_close(Downsample(4).A(x)[0, 0], torch.from_numpy(np.array(small)), atol=1e-4, rtol=0)


def test_sizes_and_kinds_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"multiples of 4, found 37 x 32"):
        Downsample(4).A(torch.zeros(1, 1, 37, 32))
    with pytest.raises(ValueError, match="nearest"):
        Downsample(2, "nearest")
    with pytest.raises(ValueError, match="odd"):
        Blur(torch.ones(2, 3))
