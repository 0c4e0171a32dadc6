"""Operations as torch dispatches them, and where the program is while it does: for the ledger of collectives."""

from collections.abc import Mapping
from typing import Any

import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch.distributed._functional_collectives import _is_view_op
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["HigherOrderOperator", "OpOverload", "TorchDispatchMode", "arguments_by_name", "in_backward", "is_view"]


def arguments_by_name(operation: OpOverload, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a call by their names in the operation's schema, without defaults."""
    return dict(zip((argument.name for argument in operation._schema.arguments), args, strict=False)) | dict(kwargs)


def is_view(operation: OpOverload) -> bool:
    """Tells whether the operation only views its argument, so that it does not wait for a collective's result."""
    return _is_view_op(operation)


def in_backward() -> bool:
    """Tells whether autograd is running a node of a graph on this thread."""
    return torch._C._current_autograd_node() is not None
