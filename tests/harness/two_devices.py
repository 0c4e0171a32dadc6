"""A second device that is not there: what is made without a `device=` counts as the host's, everything else as the
device's, and a collective or a synchronised log that is given a tensor of the host's is an error, as it is with NCCL.

It follows Python's calls of torch. What autograd and torch's own C++ make is taken for the device's.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import lightning.pytorch as L
import torch
import torch.distributed as dist
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

FACTORIES = {torch.tensor, torch.zeros, torch.ones, torch.full, torch.empty, torch.arange, torch.rand, torch.randn}
TO_HOST = {Tensor.cpu}
TO_DEVICE = {Tensor.to, Tensor.cuda}
COLLECTIVES = ("all_reduce", "all_gather", "broadcast", "reduce_scatter", "all_to_all_single", "reduce")


class HostTensorError(AssertionError):
    """A tensor of the host's where one of the device's has to be."""


class TwoDevices(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.host = WeakIdKeyDictionary()

    def is_host(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value in self.host

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if func in FACTORIES:
            here = kwargs.get("device") is None
        elif func in TO_DEVICE:
            here = False
        else:
            here = func in TO_HOST or (bool(given) and all(map(self.is_host, given)))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                if here:
                    self.host[leaf] = True
                elif func in TO_DEVICE:  # which returns its input where that is on the device already
                    self.host.pop(leaf, None)
        return result

    def check(self, what: str, *given: Any) -> None:
        if any(map(self.is_host, tree_leaves(given))):
            raise HostTensorError(f"{what} is given a tensor of the host's")


@contextlib.contextmanager
def two_devices() -> Iterator[TwoDevices]:
    """Enters the mode, and has collectives and synchronised logs look at what they are given."""
    mode = TwoDevices()

    def watched(name: str) -> Any:
        plain = getattr(dist, name)

        def collective(*args: Any, **kwargs: Any) -> Any:
            mode.check(f"dist.{name}", args, kwargs)
            return plain(*args, **kwargs)

        return mock.patch.object(dist, name, collective)

    log = L.LightningModule.log

    def logged(self: L.LightningModule, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("sync_dist"):
            mode.check(f"self.log({name!r}, sync_dist=True)", value)
        log(self, name, value, *args, **kwargs)

    with contextlib.ExitStack() as stack:
        for name in COLLECTIVES:
            stack.enter_context(watched(name))
        stack.enter_context(mock.patch.object(L.LightningModule, "log", logged))
        stack.enter_context(mode)
        yield mode
