"""The processes of one run, as torchrun starts them: `torchrun --nproc-per-node N -m editr1 train CONFIG`.

A process is called a rank. All ranks run the same program and meet at the same places; a world of one rank meets
nobody, and every method below is then the identity. Values travel as JSON and tensors as they are: nothing is pickled.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.elastic.multiprocessing.errors import get_error_handler
from torch.distributed.rendezvous import rendezvous

from editr1.errors import UserError, first_line

FAILURE = "editr1/failure"  # key of the store of all ranks: the rank that failed first, and why
GRACE = 15.0  # seconds


class RankLost(UserError):
    """Other ranks ended or hang, so this one cannot go on."""


@dataclass(frozen=True)
class World:
    """The ranks of a run.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        timeout: Seconds that ranks wait for each other.
        gloo: The group in which ranks with GPUs meet, as not every torch lets theirs do that; None for the default one.
        launcher: Process id of the torchrun that started this process, if one did.
        context: Neighbours that share the tokens of each denoiser call (`editors/context.py`). Together they are one
            worker: they make the same edits and train on the same rows, and the first one speaks for all.
    """

    rank: int = 0
    size: int = 1
    timeout: float = 1800.0
    gloo: Any = None
    launcher: int | None = None
    context: int = 1

    @property
    def workers(self) -> int:
        """Number of workers that share out the edits and rows of a step."""
        return self.size // self.context

    @property
    def worker(self) -> int:
        """Number of this rank's worker, from 0."""
        return self.rank // self.context

    @property
    def speaks(self) -> bool:
        """Whether this rank is the first one of its worker."""
        return self.rank % self.context == 0

    @property
    def is_orphan(self) -> bool:
        """Whether torchrun is gone without a word, as after SIGKILL: nobody else would end this process."""
        return self.launcher is not None and os.getppid() != self.launcher

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the files of the run."""
        return self.rank == 0

    def gather(self, value: Any, place: str) -> list[Any]:
        """The JSON values of all ranks, by rank, on every rank; `place` names the meeting in errors."""
        if self.size == 1:
            return [value]
        self.meet(place)
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        with _losses(place):
            lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(lengths, torch.tensor([len(text)]))
            longest = max(int(length) for length in lengths)
            texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(texts, torch.cat([text, text.new_zeros(longest - len(text))]))
        return [json.loads(bytes(t[: int(n)].numpy())) for t, n in zip(texts, lengths, strict=True)]

    def agree(self, flag: bool, place: str) -> bool:
        """Whether any rank says so, on every rank."""
        return any(self.gather(flag, place))

    @torch.no_grad()
    def all_sum(self, tensors: Sequence[Tensor], place: str, group: dist.ProcessGroup | None = None) -> None:
        """Replace tensors of one device by their sums over all ranks, or over a group's, in one message."""
        if self.size == 1 or not tensors:
            return
        self.meet(place)
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _losses(place):
            dist.all_reduce(flat, group=group)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def all_come(self, place: str, seconds: float = GRACE) -> bool:
        """Whether all ranks come to this place within some seconds; those that wait elsewhere notice nothing."""
        if self.size == 1:
            return True
        store, key = _store(), f"editr1/{place}/"
        store.set(f"{key}{self.rank}", "")
        try:
            store.wait([f"{key}{rank}" for rank in range(self.size)], timedelta(seconds=seconds))
        except RuntimeError:  # torch's error of a time that is over
            return False
        return True

    def broadcast_bytes(self, data: bytes, source: int) -> bytes:
        """The bytes of rank `source`, on every rank."""
        with _losses("a message"):
            length = torch.tensor([len(data)])
            dist.broadcast(length, source)
            text = torch.frombuffer(bytearray(data if self.rank == source else int(length)), dtype=torch.uint8)
            dist.broadcast(text, source)
        return bytes(text.numpy())

    def broadcast_tensor(self, tensor: Tensor, source: int) -> Tensor:
        """The tensor of rank `source`, on every rank; others give one of its shape and number format."""
        data = packed(tensor)
        if data.numel():
            raw = data.reshape(-1).view(torch.uint8)
            with _losses("a tensor"):
                dist.broadcast(raw, source)
        return data

    def meet(self, place: str) -> None:
        """Wait until all ranks are here.

        Raises:
            RankLost: A rank ended or did not come in time; names it.
        """
        if self.size > 1:
            # rank 0 is the one that knows who is missing, so the others wait a little longer, for its word
            seconds = self.timeout if self.is_main else self.timeout + GRACE
            with _losses(place):
                dist.monitored_barrier(self.gloo, timeout=timedelta(seconds=seconds), wait_all_ranks=True)


ALONE = World()


@contextmanager
def open_world(timeout: float = ALONE.timeout) -> Iterator[World]:
    """The world that torchrun describes in the environment; a world of one without it.

    A rank computes on its own GPU (`cuda:LOCAL_RANK`), or on the CPU if there is no GPU.

    Raises:
        UserError: There are more ranks than GPUs on this machine.
        RankLost: A rank does not come in time.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World(timeout=timeout)
        return
    launcher = os.getppid() if dist.is_torchelastic_launched() else None
    gpus, local_ranks = torch.cuda.device_count(), int(os.environ["LOCAL_WORLD_SIZE"])
    if 0 < gpus < local_ranks:
        raise UserError(f"torchrun starts {local_ranks} processes on the {gpus} GPUs here; use --nproc-per-node {gpus}")
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    patience = timedelta(seconds=timeout)
    store, rank, size = next(rendezvous("env://", timeout=patience))
    store = PrefixStore(_session(store, rank, size, timeout), store)
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
    gloo = dist.new_group(backend="gloo", timeout=patience) if gpus else None
    yield World(dist.get_rank(), dist.get_world_size(), timeout, gloo, launcher)
    dist.destroy_process_group()  # not after an error: it would wait for ranks that are gone


def packed(tensor: Tensor) -> Tensor:
    """The tensor without gaps, so that its bytes can be sent: a copy, unless each value follows the one before.

    `contiguous` is not enough: it leaves a tensor of one value as it is, whatever its stride.
    """
    tensor = tensor.contiguous()
    return tensor.clone(memory_format=torch.contiguous_format) if 0 in tensor.stride() else tensor


def first_to_fail(error: BaseException) -> bool:
    """Record why this rank ends, for the others and for torchrun's report; whether nobody has said it already.

    torchrun stops all ranks as soon as one has ended. A rank that is not the first to fail waits for that, so that the
    first one has the time to say why.
    """
    handler = get_error_handler()
    handler.initialize()
    if _is_first(error, handler.record_exception):
        return True
    time.sleep(GRACE)
    return not dist.is_initialized()  # where the ranks have not met and none has stopped this one, the fault is its own


def _is_first(error: BaseException, record: Callable[[BaseException], None]) -> bool:
    if not dist.is_initialized():  # what is wrong before the ranks meet is mostly wrong on all of this machine
        record(error)
        return os.environ["LOCAL_RANK"] == "0"
    own_fault = isinstance(error, UserError) and not isinstance(error, RankLost)
    if not own_fault and _told():  # what comes after a rank's end mostly comes of it
        return False
    record(error)
    rank = dist.get_rank()
    own = json.dumps({"rank": rank, "cause": str(error)})
    kept = json.loads(_store().compare_set(FAILURE, "", own))
    return bool(kept["rank"] == rank or kept["cause"] != str(error))


def _session(store: Any, rank: int, size: int, timeout: float) -> str:
    """A name that the ranks of this start of torchrun share, and those of no other.

    After a restart, torchrun's store still holds what the ranks before wrote: their addresses, and why they failed
    (pytorch issue 135712); its count of restarts is each machine's own. So rank 0 names the session, and answers a
    greeting under a word that only a living rank can wait for. It knows that an answer came when the rank repeats it.
    """
    own = f"editr1/{uuid4().hex}"
    if rank > 0:
        store.set(f"editr1/greeting/{rank}", own)
        with _losses("the start of the run"):
            session = store.get(own).decode()
        store.set(f"{session}/{rank}", "")
        return session
    absent, deadline = {*range(1, size)}, time.monotonic() + timeout
    while absent:
        for other in [each for each in absent if store.check([f"editr1/greeting/{each}"])]:
            store.set(store.get(f"editr1/greeting/{other}").decode(), own)
        absent = {each for each in absent if not store.check([f"{own}/{each}"])}
        if time.monotonic() > deadline:
            names = ", ".join(map(str, sorted(absent)))
            raise RankLost(f"rank {names} ended or hangs: it did not reach the start of the run")
        time.sleep(0.01)
    return own


@contextmanager
def _losses(place: str) -> Iterator[None]:
    """Turn the errors of collectives into a line that names the lost rank and its cause, if these are known."""
    try:
        yield
    except RuntimeError as error:
        if _told():
            failure = json.loads(_store().get(FAILURE))
            raise RankLost(f"rank {failure['rank']} ended the run: {failure['cause']}") from error
        missing = re.search(r"(?:[Rr]anks? ([\d, ]+) failed to pass|recv from rank (\d+))", str(error))
        if missing is None:
            raise RankLost(f"another rank ended, so this one cannot go on with {place}: {first_line(error)}") from error
        names = (missing[1] or missing[2]).strip(" ,")
        raise RankLost(f"rank {names} ended or hangs: it did not reach {place}") from error


def _told(seconds: float = 2.0) -> bool:
    """Whether a rank has recorded why it ended; it may be about to."""
    if not dist.is_initialized():
        return False
    try:
        _store().wait([FAILURE], timedelta(seconds=seconds))
    except RuntimeError:
        return False
    return True


def _store() -> Any:
    """The store of all ranks, which torchrun keeps."""
    return dist.distributed_c10d._get_default_store()
