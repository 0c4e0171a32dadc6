"""A collective or message as torch dispatches it: its kind, its group, and the bytes that this rank sends.

In a group of p ranks, a rank that gives n bytes to the operation sends

    all_reduce      2 n (p - 1) / p     a ring's reduce-scatter and all-gather
    reduce_scatter    n (p - 1) / p
    all_gather        n (p - 1)         n is one rank's shard
    all_to_all      the bytes for other ranks, whatever the splits
    scatter         the bytes for other ranks, at the source; elsewhere 0
    broadcast         n at the source, elsewhere 0
    reduce, gather    n, at the root 0
    send              n
    recv, barrier     0

rounded up to whole bytes. These are the bytes of ring algorithms (Chan, Heimlich, Purkayastha and van de Geijn,
"Collective communication: theory, practice, and experience", 2007), which send the least that is possible, and the
bytes that the "bus bandwidth" of NVIDIA's nccl-tests (doc/PERFORMANCE.md) divides by time. gloo and NCCL may choose
other algorithms.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from project.compat.torch_internals import HigherOrderOperator, OpOverload, arguments_by_name, group_named, tree_leaves
from project.engine.one_round import ONE_ROUND

NAMESPACES = ("c10d", "_c10d_functional", "_dtensor", ONE_ROUND)
NOT_SENT = ("wait_tensor", "check_for_nan", "_wrap_tensor_autograd")
# Kinds by the beginning of an operation's name without underscores.
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
GIVEN = ("rows", "input", "inputs", "input_tensor", "input_tensors", "input_list", "tensors", "tensor")


class Message(NamedTuple):
    """A collective or message; `bytes` are those that this rank sends, `tag` is that of a send or recv, else 0."""

    kind: str
    group: ProcessGroup
    bytes: int
    tag: int


@cache
def kind_of(operation: OpOverload | HigherOrderOperator) -> str | None:
    """The kind of an operation, or None if it sends nothing. The kind of an unknown operation is its name."""
    if isinstance(operation, HigherOrderOperator):
        return None
    namespace, _, name = operation.name().partition(".")[0].partition("::")
    if namespace not in NAMESPACES or name in NOT_SENT:
        return None
    bare = name.replace("_", "")
    return next((kind for start, kind in KINDS.items() if bare.startswith(start)), name)


def message(operation: OpOverload, args: tuple, kwargs: Mapping[str, Any]) -> Message:
    """The message of an operation that has a kind."""
    kind = kind_of(operation)
    assert kind is not None
    call = arguments_by_name(operation, args, kwargs)
    group = group_of(call)
    return Message(kind, group, sent(kind, call, group.size(), group.rank()), call.get("tag", 0))


def group_of(call: Mapping[str, Any]) -> ProcessGroup:
    group = call["process_group"] if "process_group" in call else call["group_name"]
    if isinstance(group, torch.ScriptObject):
        return ProcessGroup.unbox(group)
    return group_named(group) if isinstance(group, str) else group


def sent(kind: str, call: Mapping[str, Any], ranks: int, rank: int) -> int:
    """The bytes that this rank sends, by the formulas above."""
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
    """The bytes of an all-to-all that stay on this rank."""
    if len(tensors) > 1:  # one for each rank
        return tensors[rank].nbytes
    (rows,) = tensors
    splits = call.get("input_split_sizes")
    return rows.nbytes * splits[rank] // max(sum(splits), 1) if splits else rows.nbytes // ranks


def over(dividend: int, divisor: int) -> int:
    """The quotient, rounded up."""
    return -(-dividend // divisor)
