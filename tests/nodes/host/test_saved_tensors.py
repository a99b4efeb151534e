"""Backward is exact where a network writes into what it still needs, and keeps nothing alive."""

from __future__ import annotations

import weakref
from functools import partial

import pytest
import torch


@pytest.fixture
def cloned_before_writes(pack):
    return pack.host.saved_tensors.cloned_before_writes


def gradient(function, guard=None):
    """Of a function of the numbers 1 to 6."""
    x = torch.arange(1.0, 7).requires_grad_()
    with guard() if guard else torch.enable_grad():
        return torch.autograd.grad(function(x).sum(), x)[0]


def through_a_view_at_another_place(x):
    a = 2 * x
    total = a.square().sum()
    a[3:].add_(1)
    return total + a.sin().sum()


def of_a_saved_view(x):
    a = 2 * x
    total = a[3:].square().sum() + a.reshape(2, 3).t()[1].exp().sum()
    a.mul_(0.5)
    return total + a.sum()


def of_a_saved_result(x):
    a = x.exp()
    b = a * 1
    total = a.sum() + a.sqrt().sum()
    a.detach().zero_()
    return total + b.square().sum()


def of_several_at_once(x):
    a, b = 2 * x, 3 * x
    total = (a * b).sum()
    torch._foreach_add_([a, b], 1.0)
    return total + (a * b).sum()


def into_out(x):
    a = 2 * x
    total = a.square().sum()
    with torch.no_grad():
        torch.add(a, 1.0, out=a)
    return total


EXACT = {
    through_a_view_at_another_place: lambda x: (2 * x).square().sum() + (2 * x + (x > 3.5).float()).sin().sum(),
    of_a_saved_view: lambda x: (2 * x)[3:].square().sum() + (2 * x)[[1, 4]].exp().sum() + x.sum(),
    of_a_saved_result: lambda x: x.exp().sum() + x.exp().sqrt().sum() + x.exp().square().sum(),
    of_several_at_once: lambda x: (6 * x.square()).sum() + ((2 * x + 1) * (3 * x + 1)).sum(),
    into_out: lambda x: (2 * x).square().sum(),
}


@pytest.mark.parametrize("function", EXACT)
def test_gradients_are_exact_where_saved_tensors_are_written_into(cloned_before_writes, function):
    torch.testing.assert_close(gradient(function, cloned_before_writes), gradient(EXACT[function]))


def test_an_address_that_comes_again_is_another_tensor(cloned_before_writes):
    """PyTorch's own guard gives the clone of one that was freed, now and then."""

    def freed_at_once(x):
        total = 0
        for number in range(5000):
            factor = torch.full((6,), float(number))
            total = total + factor * x
            factor.zero_()
        return total

    # All of it whole numbers that float32 knows.
    assert torch.equal(gradient(freed_at_once, cloned_before_writes), torch.full((6,), float(sum(range(5000)))))


def test_nothing_is_cloned_that_nobody_writes_into_and_a_view_once(cloned_before_writes):
    clones = []

    class Clones(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            clones.extend([function] * (function is torch.ops.aten.clone.default))
            return function(*args, **(kwargs or {}))

    def work(write, x):
        a, b = 2 * x, 3 * x
        total = a.square() + a.sin() + a * b
        del b
        if write:
            a.zero_()
            a.zero_()
        return total

    for write in (False, True):
        with Clones():
            gradient(partial(work, write), cloned_before_writes)
        assert len(clones) == write


@pytest.mark.parametrize("backward", [False, True])
def test_what_is_saved_is_freed_with_its_graph(cloned_before_writes, backward):
    with cloned_before_writes():
        x = torch.arange(1.0, 7).requires_grad_()
        result = (2 * x).exp()
        total = result.sqrt().sum()
        kept = weakref.ref(result)
        if backward:
            torch.autograd.grad(total, x)
        del result, total
        assert kept() is None


def test_gradients_of_gradients(cloned_before_writes):
    with cloned_before_writes():
        x = torch.arange(1.0, 7).requires_grad_()
        a = x.exp()
        total = a.square().sum()
        a.zero_()
        (first,) = torch.autograd.grad(total, x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, 4 * (2 * x).exp())


def test_backward_after_the_context_is_refused(cloned_before_writes):
    x = torch.ones(3, requires_grad=True)
    with cloned_before_writes():
        total = x.square().sum()
    with pytest.raises(RuntimeError, match="inside `denoiser"):
        total.backward()
