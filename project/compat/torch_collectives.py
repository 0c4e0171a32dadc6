"""torch's functional collectives: out of place, so that selective recomputation can keep their results.

torch has no public name for them; a compiled or checkpointed program dispatches these operators.
"""

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.distributed_c10d import GroupName, _resolve_process_group

__all__ = ["ALL_REDUCE", "ALL_TO_ALL", "WAIT", "AsyncCollectiveTensor", "all_to_all", "group_named", "sum_over_ranks"]

_FUNCTIONAL = torch.ops._c10d_functional

ALL_TO_ALL = _FUNCTIONAL.all_to_all_single.default
"""Operator that `all_to_all` dispatches, for policies and tests that recognise it."""
ALL_REDUCE = _FUNCTIONAL.all_reduce.default
"""Operator that `sum_over_ranks` dispatches."""
WAIT = _FUNCTIONAL.wait_tensor.default
"""Operator that waits for the result of a functional collective."""


def all_to_all(rows_ND: Tensor, receive: list[int], send: list[int], group: ProcessGroup) -> Tensor:
    """Returns the rows received, `receive[r]` from rank r, for `send[r]` rows sent to it, in the order of ranks."""
    return _FUNCTIONAL.wait_tensor(_FUNCTIONAL.all_to_all_single(rows_ND, receive, send, group.group_name))


def sum_over_ranks(x: Tensor, group: ProcessGroup) -> Tensor:
    """Returns the sum of `x` over the ranks of the group; `x` stays as it is."""
    return _FUNCTIONAL.wait_tensor(_FUNCTIONAL.all_reduce(x, "sum", group.group_name))


def group_named(name: str) -> ProcessGroup:
    """Returns the process group that an operator names in its arguments."""
    return _resolve_process_group(GroupName(name))
