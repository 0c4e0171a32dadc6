"""One collective or message as torch dispatches it: what it is, over which group, and what this rank puts on the wire.

With p ranks in the group and n bytes given to the operation by this rank, it sends

    all_reduce      2 n (p - 1) / p     a ring's reduce-scatter and all-gather
    reduce_scatter    n (p - 1) / p
    all_gather        n (p - 1)         n is one rank's shard
    all_to_all      what it has for others, whatever the splits
    broadcast         n at the source; scatter: what it has for others, there; nothing elsewhere
    reduce, gather    n everywhere but at the root
    send              n; recv and barrier nothing

rounded up to whole bytes. These are the ring algorithms' (Chan, Heimlich, Purkayastha and van de Geijn, "Collective
communication: theory, practice, and experience", 2007), which send the least that any can, and what the "bus
bandwidth" of NVIDIA's nccl-tests (doc/PERFORMANCE.md) divides by time. gloo and NCCL may choose other algorithms.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._distributed_c10d import ProcessGroup, _resolve_process_group
from torch._ops import HigherOrderOperator, OpOverload
from torch.distributed.distributed_c10d import GroupName
from torch.utils._pytree import tree_leaves

NAMESPACES = ("c10d", "_c10d_functional", "_dtensor")
NOT_SENT = ("wait_tensor", "check_for_nan", "_wrap_tensor_autograd")
# By how an operation's name begins, its underscores aside.
KINDS = {
    "allreduce": "all_reduce",
    "allgather": "all_gather",
    "reducescatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "sharddimalltoall": "all_to_all",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "gather": "gather",
    "scatter": "scatter",
    "send": "send",
    "isend": "send",
    "recv": "recv",
    "irecv": "recv",
    "barrier": "barrier",
    "monitoredbarrier": "barrier",
}
GIVEN = ("input", "inputs", "input_tensor", "input_tensors", "input_list", "tensors", "tensor")


class Message(NamedTuple):
    """`tag` is that of a send or recv, else 0."""

    kind: str
    group: ProcessGroup
    bytes: int
    tag: int


@cache
def kind_of(operation: OpOverload | HigherOrderOperator) -> str | None:
    """None for what sends nothing. An operation that is not known here goes by its own name."""
    if isinstance(operation, HigherOrderOperator):
        return None
    namespace, _, name = operation._schema.name.partition("::")
    if namespace not in NAMESPACES or name in NOT_SENT:
        return None
    bare = name.replace("_", "")
    return next((kind for start, kind in KINDS.items() if bare.startswith(start)), name)


def message(operation: OpOverload, args: tuple, kwargs: Mapping[str, Any]) -> Message:
    """Of an operation that has a kind."""
    kind = kind_of(operation)
    assert kind is not None
    call = dict(zip((argument.name for argument in operation._schema.arguments), args, strict=False)) | dict(kwargs)
    group = group_of(call)
    return Message(kind, group, sent(kind, call, group.size(), group.rank()), call.get("tag", 0))


def group_of(call: Mapping[str, Any]) -> ProcessGroup:
    group = call["process_group"] if "process_group" in call else call["group_name"]
    if isinstance(group, torch.ScriptObject):
        return ProcessGroup.unbox(group)
    return _resolve_process_group(GroupName(group)) if isinstance(group, str) else group


def sent(kind: str, call: Mapping[str, Any], ranks: int, rank: int) -> int:
    """Bytes; the formulas above."""
    tensors: list[Tensor] = tree_leaves(next((call[name] for name in GIVEN if name in call), []))
    given = sum(tensor.nbytes for tensor in tensors)
    at_root = rank == call.get("root_rank", call.get("src"))
    match kind:
        case "all_reduce":
            return over(2 * given * (ranks - 1), ranks)
        case "reduce_scatter" | "scatter":
            return over(given * (ranks - 1), ranks)
        case "all_gather":
            return given * (ranks - 1)
        case "all_to_all":
            return given - kept(call, tensors, ranks, rank)
        case "broadcast":
            return given if at_root else 0
        case "reduce" | "gather":
            return 0 if at_root else given
        case "recv" | "barrier":
            return 0
        case _:
            return given


def kept(call: Mapping[str, Any], tensors: list[Tensor], ranks: int, rank: int) -> int:
    """What an all-to-all leaves where it is."""
    if len(tensors) > 1:  # one for each rank
        return tensors[rank].nbytes
    (rows,) = tensors
    splits = call.get("input_split_sizes")
    return rows.nbytes * splits[rank] // max(sum(splits), 1) if splits else rows.nbytes // ranks


def over(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
