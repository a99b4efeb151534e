"""Sees to it that every question is answered by the whole network: step caches of other extensions are left out.

A sampler asks once a level, on a path that changes slowly; a step cache then answers with the input and an old
difference. A fit and a solver ask often at one level, and their gradients would go through that sum. What tells a
cache is that it answers while blocks of the network have not run, whatever it is called and wherever it sits.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP

from ..errors import InputError
from .failures import ModelError, named_failures

log = logging.getLogger(__name__)

# Where the host lets extensions wrap what is asked of a network, from the outside in.
_PLACES = (WrappersMP.PREDICT_NOISE, WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)
_FUNCTION = "model_function_wrapper"
# Other ways to change what a network does: entries of model options and of their transformer options.
_OTHERS = "sampler_calc_cond_batch_function", "patches_replace"
# What tells a cache from blocks that are left out on purpose; caches rarely answer more often in a row.
_QUESTIONS = 6
# An attribute of wrappers that run the whole network whenever they are asked: they are not watched.
WHOLE = "runs_whole_network"
# Compiled networks are whole, but do not say which blocks they run.
_COMPILED = "torch.compile"

Ask = Callable[..., Any]


class WholePasses:
    """Asks a guider as the host's samplers do, without the wrappers around its network that turn out to be caches.

    A wrapper in which blocks of the network do not run that do without it is left out from then on, and its answer is
    replaced. Until then a cache has passed on what the network has said, so that results are those without
    it. To caches that keep what they see, nothing of a graph is shown. Blocks that are left out whatever is asked are
    left out on purpose, as in skip layer guidance.

    is_needed: something has been put in the network's way; otherwise nothing is watched.

    guider: of the run, whose options are guarded while the context is open.
    ask: what the sampler was given to ask, which may be another extension's around the guider.
    options: model options of the run, guarded in place.

    Raises InputError for a network whose blocks are skipped from within.
    """

    def __init__(self, guider: Any, ask: Any, options: dict[str, Any]) -> None:
        self._guider, self._options = guider, options
        self.is_needed = ask is not guider or _is_changed(guider.model_options, guider.model_patcher)
        self._network = guider.inner_model.diffusion_model
        # What a pass is told by, and the blocks of those that are parts of one: some networks call only these.
        self._within = dict(_blocks(self._network)) if self.is_needed else {}
        self._events = list[torch.nn.Module]()
        # Blocks that every pass runs; None before the first.
        self._whole: set[torch.nn.Module] | None = None
        self._plain_options = _without_wrappers(options)
        guard = _Guard(self, _name(ask), lambda _, *args, **options: ask(*args, **options), alters=True)
        self._ask: Ask = guider if ask is guider else partial(guard, guider)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """The context for asking."""
        if not self.is_needed:
            yield
            return
        original = self._guider.model_options
        self._guider.model_options = comfy.model_patcher.create_model_options_clone(original)
        with contextlib.ExitStack() as stack:
            # What refers to each other would end late, and with it the patcher that the host knows the weights by.
            stack.callback(setattr, self._guider, "model_options", original)
            for options in (self._guider.model_options, self._options):
                self._guard(options, stack)
            for part in (self._network, *self._within):
                stack.callback(part.register_forward_pre_hook(self._seen).remove)
            yield

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, **options: Any) -> torch.Tensor:
        if not self.is_needed:
            plain: torch.Tensor = self._guider(x, sigma, **options)
            return plain
        if self._whole is None:
            self._look(x.detach(), sigma, options.get("seed"))
        x0 = self._asked(x, sigma, options)
        if self._events and not self.is_whole(0):
            self._accept_skipped(x.detach(), sigma, options)
        if self._whole is None and self._events:
            self._whole = self.common(0)
        return x0

    def _asked(self, x: torch.Tensor, sigma: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        self._events.clear()
        x0: torch.Tensor = self._ask(x, sigma, **options)
        return x0

    def _accept_skipped(self, x: torch.Tensor, sigma: torch.Tensor, options: dict[str, Any]) -> None:
        """Takes blocks that the last passes have skipped for no part of whole ones, where no question makes them run.

        Raises InputError where one does: a cache runs them when questions differ much from those before.
        """
        assert self._whole is not None
        skipped = self._whole - self.common(0)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for question in range(_QUESTIONS):
                noise = torch.randn(x.shape, generator=generator).to(x)
                self._asked((1 + question) * noise, sigma, options)
                if self._whole - self.common(0) != skipped:
                    raise _skipped(self._guider.model_patcher)
        self._whole -= skipped

    @property
    def now(self) -> int:
        """A moment, for `is_whole`."""
        return len(self._events)

    def is_whole(self, since: int) -> bool:
        """Whether the network has run since a moment, all its blocks in every pass."""
        return self._whole is None or all(self._whole <= blocks for blocks in self._passes(since))

    def forget(self, start: int, end: int) -> None:
        """Passes between two moments do not count."""
        del self._events[start:end]

    def _look(self, x: torch.Tensor, sigma: torch.Tensor, seed: Any) -> None:
        """Which blocks run without any wrapper. Where it does not without them, the first pass will tell."""
        self._events.clear()
        with contextlib.suppress(ModelError), named_failures(), torch.no_grad():
            self._guider.predict_noise(x, sigma, self._plain_options, seed)
            self._whole = self.common(0) if self._events else None

    def common(self, since: int) -> set[torch.nn.Module]:
        """Blocks that all passes since a moment have run, none where there was no pass."""
        return set.intersection(*self._passes(since))

    def _passes(self, since: int) -> list[set[torch.nn.Module]]:
        """Blocks of every pass; of the current one where the moment is within it."""
        passes = [set[torch.nn.Module]()]
        for event in self._events[since:]:
            if event is self._network:
                passes.append(set())
            elif self._within[event] not in passes[-1]:
                passes[-1].add(event)
        return passes if passes[0] or len(passes) == 1 else passes[1:]

    def _seen(self, part: torch.nn.Module, _args: Any) -> None:
        self._events.append(part)

    def _guard(self, options: dict[str, Any], stack: contextlib.ExitStack) -> None:
        wrappers = options["transformer_options"].get("wrappers", {})
        rows = [row for place in _PLACES for key, row in wrappers.get(place, {}).items() if key != _COMPILED]
        for row in rows:
            stack.callback(row.__setitem__, slice(None), list(row))
            row[:] = [_Guard(self, _name(one), one) if _is_watched(one) else one for one in row]
        if _is_watched(options.get(_FUNCTION)):
            stack.callback(options.__setitem__, _FUNCTION, options[_FUNCTION])
            options[_FUNCTION] = _FunctionGuard(self, options[_FUNCTION])


class _Guard:
    """One wrapper: an `executor` is what it wraps, as the host calls it."""

    def __init__(self, passes: WholePasses, name: str, wrapper: Ask, alters: bool = False) -> None:
        """alters: the wrapper does more than to pass on questions and answers, so that it must see the graph."""
        self._passes, self._name, self._wrapper = passes, name, wrapper
        self._alters, self._left_out = alters, False
        # Sizes of the tensors in the last question, empty before the first.
        self._size = list[torch.Size]()

    def __call__(self, executor: Ask, *args: Any, **kwargs: Any) -> Any:
        if self._left_out:
            return executor(*args, **kwargs)
        before, size = self._passes.now, [tensor.shape for tensor in _tensors(args, kwargs)]
        self._size, is_known = size, self._size in ([], size)
        try:
            with named_failures():
                answer, seen = self._asked(executor, args, kwargs)
        except ModelError as error:
            if is_known or self._passes.now > before:
                raise error.__cause__ or error from None
            # It has met its own memory of another size.
            self._leave_out()
            return executor(*args, **kwargs)
        asked = self._passes.now
        if not self._passes.is_whole(before):
            ran = self._passes.common(before)
            whole = executor(*args, **kwargs)
            if not self._passes.common(asked) <= ran:
                self._passes.forget(before, asked)
                self._leave_out()
                return whole
        for given, written in zip(_tensors(args, kwargs), seen, strict=True):
            if not torch.equal(given, written):
                given.copy_(written)
        return answer

    def _leave_out(self) -> None:
        self._left_out = True
        log.warning("VIPaint: %s answers in place of the network (a step cache) and is left out here", self._name)

    def _asked(self, executor: Ask, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[torch.Tensor]]:
        """The wrapper's answer, and the question's tensors as it leaves them: some write into those that they get."""
        before = self._passes.now
        if not self._alters and torch.is_grad_enabled():
            (copies, named), messenger = _copied(args, kwargs), _Messenger(executor)
            answer = messenger.passed_on(self._wrapper(messenger, *messenger.shown(copies), **messenger.shown(named)))
            self._alters = messenger.has_news and (messenger.was_asked or self._passes.now > before)
            if not self._alters:
                return answer, _tensors(copies, named)
            self._passes.forget(before, self._passes.now)
        copies, named = _copied(args, kwargs)
        return self._wrapper(executor, *copies, **named), _tensors(copies, named)


class _FunctionGuard:
    """The wrapper of the older kind, `wrapper(apply_model, {"input": x, "timestep": t, "c": c, ...})`."""

    def __init__(self, passes: WholePasses, wrapper: Ask) -> None:
        def around(executor: Ask, x: torch.Tensor, t: torch.Tensor, given: dict[str, Any]) -> Any:
            def apply_model(x: torch.Tensor, t: torch.Tensor, **c: Any) -> Any:
                return executor(x, t, {**given, "c": c})

            return wrapper(apply_model, {**given, "input": x, "timestep": t})

        self._guard = _Guard(passes, _name(wrapper), around)

    def __call__(self, apply_model: Ask, given: dict[str, Any]) -> Any:
        def executor(x: torch.Tensor, t: torch.Tensor, given: dict[str, Any]) -> Any:
            return apply_model(x, t, **given["c"])

        others = {name: value for name, value in given.items() if name not in ("input", "timestep")}
        return self._guard(executor, given["input"], given["timestep"], others)


class _Messenger:
    """An executor for a wrapper that is shown tensors without their graph, and passes on those with it.

    was_asked: the wrapper has called it.
    has_news: the wrapper has passed on something else than it was shown.
    """

    def __init__(self, executor: Ask) -> None:
        self._executor = executor
        # By what was shown: the original, what was shown, and its version.
        self._originals = dict[int, tuple[torch.Tensor, torch.Tensor, int]]()
        self.was_asked = self.has_news = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.was_asked = True
        return self.shown(self._executor(*self.passed_on(args), **self.passed_on(kwargs)))

    def shown(self, value: Any) -> Any:
        """What the wrapper gets in place of a value."""
        return _mapped(value, self._show)

    def passed_on(self, value: Any) -> Any:
        """What was shown as this value."""
        return _mapped(value, self._original)

    def _show(self, tensor: torch.Tensor) -> torch.Tensor:
        shown = tensor.detach() if tensor.requires_grad else tensor
        self._originals[id(shown)] = tensor, shown, _version(shown)
        return shown

    def _original(self, tensor: torch.Tensor) -> torch.Tensor:
        original, shown, version = self._originals.get(id(tensor), (tensor, None, 0))
        self.has_news |= shown is None or _version(shown) != version
        return original


def _version(tensor: torch.Tensor) -> int:
    """Counts writes into a tensor; inference tensors do not."""
    return 0 if tensor.is_inference() else tensor._version


def _copied(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments whose tensors are clones."""

    def copy(value: Any) -> Any:
        return value.clone() if isinstance(value, torch.Tensor) else value

    return tuple(map(copy, args)), {name: copy(value) for name, value in kwargs.items()}


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    return [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]


def _mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The value with its tensors changed; a container without a changed tensor stays the same object."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        items = {key: _mapped(item, change) for key, item in value.items()}
        return items if any(items[key] is not item for key, item in value.items()) else value
    if isinstance(value, (list, tuple)):
        row = [_mapped(item, change) for item in value]
        same = all(new is old for new, old in zip(row, value, strict=True))
        return value if same else row if isinstance(value, list) else tuple(row)
    return value


def _blocks(network: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, torch.nn.Module | None]]:
    """The outermost blocks that stand in a row, and their parts with the block of each; of other networks the layers."""
    found = False
    for block in _trunk(network):
        found = True
        yield block, None
        yield from ((part, block) for part in block.children())
    if not found:
        yield from ((part, None) for part in network.modules() if not any(True for _ in part.children()))


def _trunk(network: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The blocks that stand in a row, the outermost ones."""
    for child in network.children():
        if isinstance(child, torch.nn.ModuleList) and any(True for part in child for _ in part.children()):
            yield from child
        else:
            yield from _trunk(child)


def _without_wrappers(options: dict[str, Any]) -> dict[str, Any]:
    plain = comfy.model_patcher.create_model_options_clone(options)
    plain.pop(_FUNCTION, None)
    for place in _PLACES:
        plain["transformer_options"].get("wrappers", {}).pop(place, None)
    return plain


def _is_changed(options: dict[str, Any], patcher: Any) -> bool:
    """Whether anything has been put in the network's way that may skip a part of it."""
    transformer = options["transformer_options"]
    wrappers = transformer.get("wrappers", {})
    return (
        any(
            key != _COMPILED and any(map(_is_watched, row))
            for place in _PLACES
            for key, row in wrappers.get(place, {}).items()
        )
        or _is_watched(options.get(_FUNCTION))
        or any(options.get(name) or transformer.get(name) for name in _OTHERS)
        or any(name.startswith("diffusion_model") for name in patcher.object_patches)
        # Some extensions give a network another forward, whoever uses it then.
        or any("forward" in vars(part) for part in patcher.model.diffusion_model.modules())
    )


def _is_watched(wrapper: Any) -> bool:
    return wrapper is not None and not getattr(wrapper, WHOLE, False)


def _name(wrapper: Any) -> str:
    """A wrapper as the log names it."""
    code = getattr(wrapper, "__code__", None)
    if code is None:
        return f"`{type(wrapper).__qualname__}`"
    file = Path(code.co_filename)
    return f"`{wrapper.__qualname__}` of {file.parent.name}/{file.name}"


def _skipped(patcher: Any) -> InputError:
    transformer = patcher.model_options["transformer_options"]
    patches = sorted({*patcher.object_patches, *transformer.get("patches_replace", {})})
    return InputError(
        "model",
        "a model whose passes run its whole network",
        "that another extension skips blocks of it" + (f" (patches: {', '.join(patches)})" if patches else ""),
        "Disconnect the node that caches or skips steps; VIPaint asks too often at one level for it.",
    )
