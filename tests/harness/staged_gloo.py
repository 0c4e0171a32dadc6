"""A backend for ranks that share one GPU. NCCL refuses two ranks on a device, and gloo can neither send nor exchange
GPU memory: here gloo carries every message by way of the host.

On a CPU it is gloo with one copy more, which is how it is tested without a GPU.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import _create_work_from_future

NAME = "staged_gloo"


class StagedGloo(dist.ProcessGroup):
    """Collectives are done when they return; a received message is there once it was waited for."""

    def __init__(self, store: Any, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(rank, size)
        self.gloo = dist.ProcessGroupGloo(store, rank, size, timeout)
        self._store, self._rank, self._size = store, rank, size

    def get_group_store(self) -> Any:
        return self._store

    def size(self) -> int:
        return self._size

    def rank(self) -> int:
        return self._rank

    @property
    def pg_name(self) -> str:
        return dist.distributed_c10d._world.pg_names[self]

    @property
    def group_name(self) -> str:
        return self.pg_name

    def getBackendName(self) -> str:
        return NAME

    # -- collectives --------------------------------------------------------------------------------------------------

    def allreduce(self, tensors: list[Tensor], opts: Any = None) -> dist.Work:
        return by_way_of_the_host(lambda here: self.gloo.allreduce(here, opts or dist.AllreduceOptions()), tensors)

    def broadcast(self, tensors: list[Tensor], opts: Any) -> dist.Work:
        return by_way_of_the_host(lambda here: self.gloo.broadcast(here, opts), tensors)

    def allgather(self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any = None) -> dist.Work:
        (gathered,), source = outputs, [host(tensor) for tensor in inputs]
        return by_way_of_the_host(lambda here: self.gloo.allgather([here], source), gathered)

    def all_gather_single(self, output: Tensor, source: Tensor, opts: Any = None) -> dist.Work:
        return by_way_of_the_host(lambda here: self.gloo._allgather_base(here[0], host(source)), [output])

    def reduce_scatter_single(self, output: Tensor, source: Tensor, opts: Any) -> dist.Work:
        return by_way_of_the_host(lambda here: self.gloo._reduce_scatter_base(here[0], host(source), opts), [output])

    def all_to_all_single(
        self, output: Tensor, source: Tensor, receive: list[int], send: list[int], opts: Any = None
    ) -> dist.Work:
        call = self.gloo.alltoall_base
        return by_way_of_the_host(lambda here: call(here[0], host(source), list(receive), list(send)), [output])

    # Functional collectives come as lists of one tensor.

    def allreduce_coalesced(self, tensors: list[Tensor], opts: Any = None) -> dist.Work:
        return last(self.allreduce([tensor], opts) for tensor in tensors)

    def all_gather_single_coalesced(self, outputs: list[Tensor], sources: list[Tensor], opts: Any = None) -> dist.Work:
        return last(self.all_gather_single(*pair) for pair in zip(outputs, sources, strict=True))

    def reduce_scatter_single_coalesced(self, outputs: list[Tensor], sources: list[Tensor], opts: Any) -> dist.Work:
        return last(self.reduce_scatter_single(*pair, opts) for pair in zip(outputs, sources, strict=True))

    def barrier(self, opts: Any = None) -> dist.Work:
        return self.allreduce([torch.ones(1)])

    # -- from rank to rank --------------------------------------------------------------------------------------------

    def send(self, tensors: list[Tensor], peer: int, tag: int) -> dist.Work:
        return self.gloo.send([host(tensor) for tensor in tensors], peer, tag)

    def recv(self, tensors: list[Tensor], peer: int, tag: int) -> dist.Work:
        here = [host(tensor) for tensor in tensors]
        return Arrival(self.gloo.recv(here, peer, tag), tensors, here)


class Arrival(dist.Work):
    def __init__(self, work: dist.Work, there: Sequence[Tensor], here: Sequence[Tensor]) -> None:
        super().__init__()
        self.work, self.there, self.here = work, there, here

    def is_completed(self) -> bool:
        return self.work.is_completed()

    def wait(self, timeout: timedelta = timedelta(0)) -> bool:
        self.work.wait()
        copy(self.here, self.there)
        return True


def host(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    for ours, theirs in zip(source, target, strict=True):
        theirs.detach().copy_(ours)


def by_way_of_the_host(call: Callable[[list[Tensor]], dist.Work], tensors: list[Tensor]) -> dist.Work:
    here = [host(tensor) for tensor in tensors]
    call(here).wait()
    copy(here, tensors)
    done: torch.futures.Future = torch.futures.Future()
    done.set_result(tensors)
    return _create_work_from_future(done)


def last(works: Iterable[dist.Work]) -> dist.Work:
    *_, work = works
    return work


def register() -> None:
    if not hasattr(dist.Backend, NAME.upper()):
        dist.Backend.register_backend(NAME, StagedGloo, devices=["cpu", "cuda"])
