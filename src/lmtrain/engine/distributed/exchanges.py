"""How long a process waits in exchanges with the others, found without making it wait.

DDP exchanges gradients while the backward pass goes on, so only what is left when this process has computed its last
gradient is waiting: for the slower processes, and for the transfer that could not be hidden. Autograd calls back when
the pass is over, in the order in which it was asked to: a callback asked for at the pass's beginning comes before
DDP's own, which waits for the exchange, and one that the first asks for comes behind it. Nothing takes part in the
arithmetic, and no result changes by a bit.

A model that ``fully_shard`` cut exchanges at every layer, and the stream or the process waits where the layer's weights
are asked for (``unshard``, ``wait_for_unshard``), its gradients sent (``post_backward``) and the last of them waited
for (``finalize_backward``); those methods of its parameter groups, private in torch 2.11 to 2.13, are watched
(:meth:`Exchanges.watch_forward`).

On a CPU an exchange blocks the process, and the clock tells. On a GPU its stream waits and Python goes on: there events
lie on the stream, and their times are read where a log line is made, whose loss has waited for them anyway.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

_MOST_PENDING: Final = 512  # pairs of events; of more the finished ones are read, which does not wait
_SHARDED: Final = ("unshard", "wait_for_unshard", "post_backward", "finalize_backward")  # of torch's FSDPParamGroup
_Mark = float | torch.cuda.Event


class Exchanges:
    """Seconds that this process has waited in the exchanges of its steps; ``clock`` gives seconds."""

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self._by_events = device.type == "cuda"
        self._clock = clock
        self._seconds = 0.0
        self._pending: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self._hooks: list[Any] = []
        self._watched: int | None = None  # id of the model whose forward pass is watched
        self._groups: list[Any] = []  # of a sharded model's parameters, whose methods are watched
        self._began: _Mark | None = None
        self._in_step = self._is_counting = False

    @contextmanager
    def step(self, model: Any) -> Iterator[None]:
        """The forward and backward pass of a micro-batch by ``model``; what it exchanges elsewhere is no step's."""
        self.watch_forward(model)
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """An exchange that the block makes."""
        began = self._mark()
        yield
        self._add(began)

    def watch_backward(self, loss: Tensor) -> None:
        """Count what the backward pass of ``loss`` waits for when its last gradient is there."""
        if loss.requires_grad:
            loss.register_hook(lambda _: _at_the_end(self._computed))

    def _computed(self) -> None:
        began = self._mark()
        _at_the_end(lambda: self._add(began))

    def watch_forward(self, model: Any) -> None:
        """Count what the passes of ``model`` exchange layer by layer where it is sharded, and what DDP's forward pass
        begins with where it has buffers: the first process sends its own."""
        if id(model) == self._watched:
            return
        self.leave()
        self._watched = id(model)
        if isinstance(model, DistributedDataParallel):
            if model.broadcast_buffers and any(True for _ in model.module.buffers()):
                self._hooks = [
                    model.register_forward_pre_hook(self._before_buffers),
                    model.module.register_forward_pre_hook(self._after_buffers),
                ]
        else:
            self._groups = list({id(group): group for group in _parameter_groups(model)}.values())
            for group in self._groups:
                for name in _SHARDED:
                    setattr(group, name, self._counted(getattr(group, name)))

    @property
    def sees_shards(self) -> bool:
        """Whether the exchanges of a sharded model are counted."""
        return bool(self._groups)

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if not self._in_step or self._is_counting:  # one asks for the next layer's weights in another's
                return call(*args, **kwargs)
            self._is_counting, began = True, self._mark()
            try:
                return call(*args, **kwargs)
            finally:
                self._is_counting = False
                self._add(began)

        return counted

    def leave(self) -> None:
        """Watch no model any more."""
        for hook in self._hooks:
            hook.remove()
        for group in self._groups:
            for name in _SHARDED:
                vars(group).pop(name, None)
        self._hooks, self._groups, self._watched, self._began = [], [], None, None

    def _before_buffers(self, *_: Any) -> None:
        self._began = self._mark() if self._in_step else None

    def _after_buffers(self, *_: Any) -> None:
        if self._began is not None:
            self._add(self._began)
        self._began = None

    @property
    def seconds(self) -> float:
        """So far; on a GPU this waits for the exchanges that were counted last."""
        self._read(wait=True)
        return self._seconds

    def _mark(self) -> _Mark:
        if not self._by_events:
            return self._clock()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _add(self, began: _Mark) -> None:
        ended = self._mark()
        if isinstance(began, float) and isinstance(ended, float):
            self._seconds += ended - began
        elif isinstance(began, torch.cuda.Event) and isinstance(ended, torch.cuda.Event):
            self._pending.append((began, ended))
            if len(self._pending) > _MOST_PENDING:
                self._read(wait=False)

    def _read(self, *, wait: bool) -> None:
        while self._pending and (wait or self._pending[0][1].query()):
            began, ended = self._pending.popleft()
            if wait:
                ended.synchronize()
            self._seconds += began.elapsed_time(ended) / 1000


def _parameter_groups(model: Any) -> Iterator[Any]:
    """Of a model that ``fully_shard`` cut, those of several modules several times; none where this version of torch has
    no such methods."""
    if not torch.distributed.is_available():
        return
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            state = module._get_fsdp_state()
            groups = getattr(state, "_fsdp_param_groups", None)  # before torch 2.13 there was one
            for group in [getattr(state, "_fsdp_param_group", None)] if groups is None else groups:
                if all(hasattr(group, name) for name in _SHARDED):
                    yield group


def _at_the_end(call: Callable[[], None]) -> None:
    """``call`` when the backward pass that is under way is over."""
    torch.autograd.Variable._execution_engine.queue_callback(call)
