"""NCCL of GPUs that are not there: groups that say they are NCCL's and take CUDA tensors alone, over gloo.

The pretended device hands a collective, with the same memory, to a twin of its group that takes the host's tensors.
What differs from gloo and breaks programs is NCCL's:

- a tensor of the host's is refused, by torch itself, for no backend of the group takes it;
- a collective that is not asynchronous returns no work (since torch 2.8).
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import _register_process_group
from torch._ops import OpOverload
from torch.distributed import distributed_c10d
from torch.distributed.distributed_c10d import Backend, ProcessGroup, Work, _resolve_process_group
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from tests.gpu_check.host_kernels import alias, on_device

FUNCTIONAL = torch.ops._c10d_functional
ALL_REDUCE = torch.ops.c10d.allreduce_.default
TWINS: dict[str, ProcessGroup] = {}
"""The twins by the names of their groups."""


def pretend() -> None:
    """Has every group of NCCL's that is made from now on be a pretended one."""
    Backend._ensure_backend_registered("nccl")
    Backend._plugins["NCCL"] = Backend._BackendPlugin(gloo, extended_api=True)
    distributed_c10d._get_split_source = lambda group: None  # NCCL would cut a new group's communicator out of another


def gloo(options: Any, _: object) -> Any:
    return dist.ProcessGroupGloo(options.store, options.group_rank, options.group_size, timeout=options.timeout)


def twin_name(group: ProcessGroup) -> str:
    return f"on the host, {group.group_name}"


def twin_of(group: ProcessGroup) -> ProcessGroup:
    if group.group_name not in TWINS:
        twin = ProcessGroup(dist.HashStore(), group.rank(), group.size())
        twin._set_default_backend(ProcessGroup.BackendType.GLOO)
        backend = group._get_backend(torch.device("cuda"))
        twin._register_backend(torch.device("cpu"), ProcessGroup.BackendType.GLOO, backend)
        _register_process_group(twin_name(group), twin)
        TWINS[group.group_name] = twin
    return TWINS[group.group_name]


def group_of(call: dict[str, Any]) -> ProcessGroup | None:
    group = call.get("process_group", call.get("group_name"))
    if isinstance(group, torch.ScriptObject):
        return ProcessGroup.unbox(group)
    return _resolve_process_group(group) if isinstance(group, str) else group


def carried_out(func: OpOverload, args: tuple, kwargs: dict) -> Any:
    """Runs an operator of `c10d` or `_c10d_functional` on the twin of its group."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    call = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    group = group_of(call)
    if group is None or any(tensor.device.type != "cuda" for tensor in tensors):
        return func(*args, **kwargs)  # no message; or one that torch refuses, as it does for NCCL
    functional = func.namespace == "_c10d_functional"
    twin = twin_of(group)
    call |= {"group_name": twin_name(group)} if functional else {"process_group": twin.boxed()}
    given: dict[int, Tensor] = {}
    whole: list[tuple[Tensor, Tensor]] = []  # of numbers that gloo has no mean of, which NCCL has

    def host(tensor: Tensor) -> Tensor:
        here = alias(tensor)
        if func is ALL_REDUCE and not tensor.is_floating_point():
            whole.append((here, here := here.double()))
        given[id(here)] = tensor
        return here

    def device(out: Any) -> Any:
        if isinstance(out, Tensor):
            return given[id(out)] if id(out) in given else on_device(FUNCTIONAL.wait_tensor(out), tensors[0].device)
        if isinstance(out, torch.ScriptObject) and (whole or call.get("async_op") is False):
            if (work := Work.unbox(out)) is not None:
                work.wait()
            for numbers, summed in whole:
                numbers.copy_(summed)
            return Work.boxed(None)
        return out

    return tree_map(device, func(**tree_map_only(Tensor, host, call)))
