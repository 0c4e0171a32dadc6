"""torch: functional collectives, dispatch, meshes, pipelining, recomputation, storages and the CUDA allocator."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch._ops import HigherOrderOperator as HigherOrderOperator
from torch._ops import OpOverload
from torch.distributed import ProcessGroup
from torch.distributed._functional_collectives import AsyncCollectiveTensor as AsyncCollectiveTensor
from torch.distributed._functional_collectives import _is_view_op
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.distributed_c10d import GroupName, _resolve_process_group
from torch.distributed.pipelining.schedules import (
    PipelineScheduleMulti,
    PipelineScheduleSingle,
    _Action,
    _PipelineScheduleRuntime,
)
from torch.distributed.pipelining.stage import PipelineStage
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import SAC_IGNORED_OPS, _CachedTorchDispatchMode, _VersionWrapper

# -- collectives -------------------------------------------------------------------------------------------------------
# Functional ones are out of place, so that selective recomputation can keep their results. torch has no public name for
# these operators, which a compiled or checkpointed program dispatches.

_FUNCTIONAL = torch.ops._c10d_functional

ALL_TO_ALL = _FUNCTIONAL.all_to_all_single.default
"""Operator that `all_to_all` dispatches, for policies and tests that recognise it."""
ALL_REDUCE = _FUNCTIONAL.all_reduce.default
"""Operator that `sum_over_ranks` dispatches."""
WAIT = _FUNCTIONAL.wait_tensor.default
"""Operator that waits for the result of a functional collective."""


all_gather_single = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
"""Gathers a tensor of every rank into one; torch before 2.13 has it by its older name, as the next."""
reduce_scatter_single = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def below_autograd() -> AbstractContextManager:
    """Dispatches operators past autograd, to modes and devices: for calls that have no graph, as those within an
    `autograd.Function`. torch's own registration for collectives is in Python and costs more than they do."""
    return torch._C._AutoDispatchBelowAutograd()


def all_to_all(rows_ND: Tensor, receive: list[int], send: list[int], group: ProcessGroup) -> Tensor:
    """Returns the rows received, `receive[r]` from rank r, for `send[r]` rows sent to it, in the order of ranks."""
    with below_autograd():
        return _FUNCTIONAL.wait_tensor(_FUNCTIONAL.all_to_all_single(rows_ND, receive, send, group.group_name))


def sum_over_ranks(x: Tensor, group: ProcessGroup) -> Tensor:
    """Returns the sum of `x` over the ranks of the group; `x` stays as it is."""
    with below_autograd():
        return _FUNCTIONAL.wait_tensor(_FUNCTIONAL.all_reduce(x, "sum", group.group_name))


def gather_rows(x: Tensor, group: ProcessGroup) -> Tensor:
    """Returns the first dim of every rank's `x`, in the order of ranks: `[ranks * N, ...]` of `[N, ...]`."""
    with below_autograd():
        gathered = _FUNCTIONAL.all_gather_into_tensor(x.contiguous(), group.size(), group.group_name)
        return _FUNCTIONAL.wait_tensor(gathered)


def scatter_sums(x: Tensor, group: ProcessGroup) -> Tensor:
    """Returns this rank's rows of the sum over the ranks: `[N, ...]` of `[ranks * N, ...]`."""
    with below_autograd():
        scattered = _FUNCTIONAL.reduce_scatter_tensor(x.contiguous(), "sum", group.size(), group.group_name)
        return _FUNCTIONAL.wait_tensor(scattered)


def group_named(name: str) -> ProcessGroup:
    """Returns the process group that an operator names in its arguments."""
    return _resolve_process_group(GroupName(name))


# -- operations, and where the program is when they are dispatched -----------------------------------------------------


def arguments_by_name(operation: OpOverload, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a call by their names in the operation's schema, without defaults."""
    return dict(zip((argument.name for argument in operation._schema.arguments), args, strict=False)) | dict(kwargs)


def is_view(operation: OpOverload) -> bool:
    """Tells whether the operation only views its argument, so that it does not wait for a collective's result."""
    return _is_view_op(operation)


def in_backward() -> bool:
    """Tells whether autograd is running a node of a graph on this thread."""
    return torch._C._current_autograd_node() is not None


# -- meshes ------------------------------------------------------------------------------------------------------------


def flattened(mesh: DeviceMesh) -> DeviceMesh:
    """Returns the mesh as one axis, over one process group; the root mesh remembers it."""
    return mesh._flatten()


# -- distributed tensors -----------------------------------------------------------------------------------------------


def divided_as(local: Tensor, like: DTensor) -> DTensor:
    """Returns the DTensor of this local part that is divided as `like` is. The public `DTensor.from_local` finds out
    again what `like` knows, and takes some 80 microseconds for it."""
    return DTensor(local, like._spec, requires_grad=False)


# -- pipelining --------------------------------------------------------------------------------------------------------

Schedule = PipelineScheduleSingle | PipelineScheduleMulti
Action = _Action
"""One action of a rank: a forward, a backward or half of one, a send, a receive, FSDP's gathering ..."""
ActionRuntime = _PipelineScheduleRuntime
"""The schedule that executes a list of actions for each rank; torch's own later schedules derive from it."""


def schedule_of_order(
    order: Sequence[Sequence[str]],
    stages: Sequence[PipelineStage],
    microbatches: int,
    loss: Callable[[Tensor, Tensor], Tensor] | None,
) -> ActionRuntime:
    """Returns the schedule that runs `order`, the computations of each rank as torch writes them (`2F0`); torch adds
    the messages between ranks. Gradients are not scaled. Raises what torch raises for an order that cannot be run."""
    runtime = ActionRuntime(list(stages), microbatches, loss_fn=loss, scale_grads=False)
    runtime.pipeline_order = {rank: [Action.from_str(text) for text in row] for rank, row in enumerate(order)}
    runtime._prepare_schedule_with_comms(runtime.pipeline_order)
    return runtime


@contextmanager
def without_loss(schedule: Schedule) -> Iterator[None]:
    """Lets the schedule's `eval` run without targets: the last stage's outputs are all that is wanted."""
    loss, schedule._loss_fn = schedule._loss_fn, None
    try:
        yield
    finally:
        schedule._loss_fn = loss


class Stage(PipelineStage):
    """torch's stage, as it is from 2.13 on. Before, it holds what the last stage returns, which no rank is sent, to the
    shape of what a stage sends the next; and its first messages go to neighbours of which one may be its own rank."""

    def _validate_fwd_outputs(self, outputs: tuple[Tensor, ...]) -> None:
        if not self.is_last:
            super()._validate_fwd_outputs(outputs)  # type: ignore[misc]  # torch 2.13 has none

    def _get_init_p2p_neighbors_ops(self) -> list[dist.P2POp]:
        return []


# -- selective activation checkpointing --------------------------------------------------------------------------------


def ignore_profiler_marks() -> None:
    """Lets selective checkpointing pass over the profiler's marks: those of FSDP's hooks differ between a forward and
    its recomputation, and are part of neither."""
    marks = torch.ops.profiler
    SAC_IGNORED_OPS.update({marks._record_function_enter_new.default, marks._record_function_exit._RecordFunction})


def results_beside_graph(recomputation: AbstractContextManager) -> Iterator[Tensor]:
    """Yields the results kept for a recomputation that is still to come. `recomputation` is the second of the two
    contexts of `create_selective_checkpoint_contexts`."""
    storage = cast(_CachedTorchDispatchMode, recomputation).storage  # each operation's calls, before 2.13 as a list
    for leaf in tree_leaves([calls if isinstance(calls, list) else list(calls.values()) for calls in storage.values()]):
        if isinstance(leaf, _VersionWrapper):
            yield leaf.val


# -- tensors and storages ----------------------------------------------------------------------------------------------


def plain_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """Yields the plain tensors under a DTensor, or under one that a collective is still filling."""
    if is_traceable_wrapper_subclass(tensor):
        parts = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        yield from (plain for part in parts if isinstance(part, Tensor) for plain in plain_tensors(part))
    else:
        yield tensor


def storage_id(storage: torch.UntypedStorage) -> int:
    """Returns a number that tensors over one storage share, on any device: on `meta` the data pointers are all 0."""
    return storage._cdata


def scale_in_place(tensors: list[Tensor], factor: float) -> None:
    """Multiplies each tensor by the factor; on a GPU in one kernel for all."""
    torch._foreach_mul_(tensors, factor)


def norms(tensors: list[Tensor]) -> list[Tensor]:
    """Returns the 2-norm of each tensor of one dtype, computed in at least fp32, a scalar; on a GPU in one kernel for
    all."""
    wide = torch.promote_types(tensors[0].dtype, torch.float32)
    return list(torch._foreach_norm(tensors, 2, dtype=wide))


def clamp_in_place(tensors: list[Tensor], bound: float) -> None:
    """Limits each entry of each tensor to -bound .. bound; on a GPU in one kernel for all."""
    torch._foreach_clamp_min_(tensors, -bound)
    torch._foreach_clamp_max_(tensors, bound)


# -- CUDA --------------------------------------------------------------------------------------------------------------


def cuda_architectures() -> tuple[str, ...]:
    """The GPUs that this build of torch has code for, as in "sm_90"; `torch.cuda.get_arch_list` of torch 2.11 asks
    CUDA first, which would forbid a later fork."""
    return tuple((torch._C._cuda_getArchFlags() or "").split()) if torch.version.cuda else ()


def forked_after_cuda() -> bool:
    """Tells whether this process was forked from one in which CUDA had begun, by whatever call: it cannot use a GPU."""
    return torch.cuda._is_in_bad_fork()


def record_memory_history(most_events: int) -> None:
    """Starts recording allocations and frees, the last `most_events` of them."""
    torch.cuda.memory._record_memory_history(max_entries=most_events)


def write_memory_history(path: Path) -> None:
    """Writes what was recorded into a pickle file, and stops recording."""
    torch.cuda.memory._dump_snapshot(str(path))
    torch.cuda.memory._record_memory_history(enabled=None)
