"""Tensors without memory: a trainer's own step is executed, and its weights and activations are shapes alone.

Weights are fake tensors (torch's `FakeTensorMode`), and so is all that is computed from them. What is computed from
known values alone (token ids, positions, noise levels, pictures) stays known, unless it is large: what the code decides
by such values is decided as in a run. Of a fake tensor, a number is 1 and a test is true, as for finite latents.

A ledger is kept of every operation: bytes that are alive, by part of the step at their peak, and what was computed,
and what other ranks would have sent.
"""

from __future__ import annotations

import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

KNOWN = 2**26
"""Bytes up to which a tensor that does not depend on weights has its values."""
ACTIVATIONS = "activations"
aten = torch.ops.aten
DEVICE = torch.ops.prim.device.default
"""What a fake tensor is asked whenever its device is read: no operation."""
NUMBERS = {torch.bool: True, torch.float32: 1.0, torch.float64: 1.0, torch.bfloat16: 1.0, torch.float16: 1.0}
FREE = {aten.empty.memory_format, aten.empty_strided.default, aten.empty_like.default, aten.new_empty.default}
"""Operations that move no bytes, besides views."""
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


WRAPPERS = (DTensor, AsyncCollectiveTensor)
"""Tensors whose operations are those of the tensor that this rank holds."""
collectives = torch.ops._c10d_functional
OF_WEIGHTS = {torch.ops.c10d._allgather_base_.default, torch.ops.c10d._reduce_scatter_base_.default}
"""Messages of `fully_shard`, which travel while a rank computes; their arguments: output, input."""


@dataclass
class Work:
    """What a part of a step computes.

    Attributes:
        flops: Operations of matrix products, convolutions and attention.
        bytes: That all other operations read and write.
        calls: Operations of any kind.
        weights: Bytes of sharded weights and their gradients that ranks send each other, beside what they compute.
        tokens: Bytes of tokens that ranks send each other, and wait for.
        peak: Bytes alive at most, besides those of `Shadow.settle`.
    """

    flops: float = 0.0
    bytes: float = 0.0
    calls: int = 0
    weights: float = 0.0
    tokens: float = 0.0
    peak: int = 0

    def add(self, more: Work) -> None:
        """Compute more of the same."""
        for name in ("flops", "bytes", "calls", "weights", "tokens"):
            setattr(self, name, getattr(self, name) + getattr(more, name))


class Shadow(TorchDispatchMode):
    """Inside, weights are shapes and every operation is counted.

    Args:
        fake: Mode of the fake tensors, which may be shared.

    Attributes:
        stage: The part of the step that operations belong to.
        work: What each part has computed.
        alive: Bytes alive, by what holds them: names of `hold`, else `ACTIVATIONS`.
    """

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()
        self.fake = fake
        self.stage = "rest"
        self.work: defaultdict[str, Work] = defaultdict(Work)
        self.alive: Counter[str] = Counter()
        self._base: Counter[str] = Counter()
        self._held: dict[int, tuple[Any, str, int]] = {}

    def hold(self, tensors: Iterable[Tensor], holder: str) -> None:
        """Count tensors under a name, whoever made them."""
        for tensor in tensors:
            self._track(local(tensor), holder)

    def settle(self) -> dict[str, int]:
        """Begin to count: what is alive now is there all the time; its bytes."""
        self._base = Counter(self.alive)
        self.work.clear()
        return {name: size for name, size in self._base.items() if size}

    @contextmanager
    def during(self, stage: str) -> Iterator[None]:
        """Inside, operations belong to a part of the step."""
        before, self.stage = self.stage, stage
        self._note_peak()
        try:
            yield
        finally:
            self.stage = before

    def __enter__(self) -> Shadow:
        self._resize = torch.UntypedStorage.resize_
        torch.UntypedStorage.resize_ = self._resized(self._resize)  # type: ignore[method-assign]
        self.fake.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.fake.__exit__(*error)
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(each, WRAPPERS) for each in types):
            return NotImplemented  # they do it with the tensors that this rank holds, which are seen here again
        if func is DEVICE:
            return args[0].fake_device
        kwargs = kwargs or {}
        inputs = tensors_in((*args, *kwargs.values()))
        output = self._run(func, inputs, args, kwargs)
        self._count(func, inputs, args, kwargs, output)
        return output

    def _run(self, func: Any, inputs: list[Tensor], args: Any, kwargs: Any) -> Any:
        if any(isinstance(each, FakeTensor) for each in inputs):
            if func is aten._local_scalar_dense.default:
                return NUMBERS[inputs[0].dtype]
            if func is aten.equal.default:
                return True
            if func is collectives.wait_tensor.default:
                return args[0]  # a fake one would be a copy
            if func in INDEXED:
                args = (args[0], [place for index in args[1] for place in _places(index)], *args[2:])
            return func(*args, **kwargs)  # by the mode of fake tensors
        if not inputs:
            output = func(*args, **kwargs)
            if isinstance(output, Tensor) and output.is_floating_point() and bytes_of([output]) > KNOWN:
                return output
        with unset_fake_temporarily():
            return func(*args, **kwargs)

    def _count(self, func: Any, inputs: list[Tensor], args: Any, kwargs: Any, output: Any) -> None:
        work = self.work[self.stage]
        work.calls += 1
        results = tensors_in((output,))
        fresh = False
        for each in results:
            fresh |= self._track(each, ACTIVATIONS)
        if fresh:
            self._note_peak()
        packet = func._overloadpacket
        if (sent := sent_by(func, args)) is not None:
            work.add(sent)
        elif packet in flop_registry:
            work.flops += flop_registry[packet](*args, **kwargs, out_val=output)
        elif func not in FREE and (fresh or func._schema.is_mutable):
            work.bytes += bytes_of(inputs) + bytes_of(results)

    def _note_peak(self) -> None:
        work, total = self.work[self.stage], self.alive.total() - self._base.total()
        work.peak = max(work.peak, total)

    def _track(self, tensor: Tensor, holder: str) -> bool:
        """Count the storage of a tensor; whether it is a new one, or one that `hold` names."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._held:
            reference, before, size = self._held[key]
            if before != ACTIVATIONS or holder == ACTIVATIONS:
                return False
            self.alive[before] -= size
        else:
            size = storage.nbytes()
            reference = weakref.ref(storage, self._forgetting(key))
        self._held[key] = reference, holder, size
        self.alive[holder] += size
        return True

    def _forgetting(self, key: int) -> Callable[[Any], None]:
        def forget(reference: Any) -> None:
            _, holder, size = self._held.pop(key)
            self.alive[holder] -= size

        return forget

    def _resized(self, resize: Callable[..., Any]) -> Callable[..., Any]:
        """`UntypedStorage.resize_`, by which sharding frees gathered weights, and which is no operation."""

        @wraps(resize)
        def resized(storage: torch.UntypedStorage, size: int) -> Any:
            result = resize(storage, size)
            if (held := self._held.get(storage._cdata)) is not None:
                reference, holder, before = held
                self._held[storage._cdata] = reference, holder, storage.nbytes()
                self.alive[holder] += storage.nbytes() - before
                self._note_peak()
            return result

        return resized


def _places(index: Any) -> list[Any]:
    """An index by a mask with known values as indices by place: the shape of the result does not depend on a fake."""
    if isinstance(index, Tensor) and index.dtype == torch.bool and not isinstance(index, FakeTensor):
        with unset_fake_temporarily():
            return list(index.nonzero(as_tuple=True))
    return [index]


def sent_by(func: Any, args: Any) -> Work | None:
    """What comes to this rank from others by an operation; None if it is no message."""
    if func in OF_WEIGHTS:
        return Work(weights=abs(args[0].nbytes - args[1].nbytes))
    if func is collectives.all_gather_into_tensor.default:
        return Work(tokens=args[0].nbytes * (args[1] - 1))
    if func is collectives.all_to_all_single.default:
        return Work(tokens=args[0].nbytes * (1 - 1 / len(args[1])))
    return None


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among values, and in the lists among them; as `tree_leaves`, which takes longer than the rest."""
    tensors: list[Tensor] = []
    for each in values:
        if isinstance(each, Tensor):
            tensors.append(each)
        elif isinstance(each, list | tuple):
            tensors += tensors_in(each)
    return tensors


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor."""
    return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
