"""The processes of a run and how they find one another: forked here, or started before by torchrun or SLURM."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from project.compat.lightning_strategy import LaunchedStrategy, connect_ranks
from project.engine.clock import Clock, common_clock
from project.engine.mesh import Mesh, build_mesh
from project.spec.layout import ParallelLayout
from project.strategy.last_action import TIMED_OUT
from project.strategy.launcher import ForkLauncher, one_line
from project.strategy.posted_action import PostedActions
from project.strategy.rendezvous import store_of_this_attempt
from project.strategy.stop import StopRequest

Found = TypeVar("Found")


class RanksStrategy(LaunchedStrategy):
    """`timeout` is of every process group.

    Attributes:
        clock: of all ranks; this process's own before they are up.
    """

    def __init__(self, layout: ParallelLayout, timeout: timedelta) -> None:
        super().__init__(timeout=timeout)
        self.layout, self.timeout = layout, timeout
        self.stop = StopRequest()
        self.clock = Clock()
        self._mesh: Mesh | None = None
        self.posted_actions: PostedActions | None = None

    def new_launcher(self) -> ForkLauncher | None:
        assert self.cluster_environment is not None
        return None if self.cluster_environment.creates_processes_externally else ForkLauncher(self)

    def found_first(self, find: Callable[[], Found | None]) -> Found | None:
        """What `find` finds, asked before the fit: in the process that will fork the ranks, or on rank 0 of those that
        are there already, which then all know it."""
        if self.launcher is not None:
            return find()
        assert self.accelerator is not None
        self.accelerator.setup_device(self.root_device)
        self.connect_ranks()
        return self.broadcast(find() if self.is_global_zero else None)

    def setup_environment(self) -> None:
        assert self.accelerator is not None
        self.accelerator.setup_device(self.root_device)
        # The same under every launcher: how many threads share a sum decides its last bit.
        torch.set_num_threads(max(1, available_cores() // self.num_processes))
        self.connect_ranks()
        self.clock = common_clock(self.root_device)
        self._mesh = build_mesh(self.layout, self.root_device.type, self.timeout)

    def connect_ranks(self) -> None:
        self.set_world_ranks()
        device_id = None if self.root_device.type == "cpu" else self.root_device
        assert self.cluster_environment is not None
        connect_ranks(
            self.cluster_environment,
            dist.get_default_backend_for_device(self.root_device),
            timeout=self.timeout,
            device_id=device_id,
            store=None if dist.is_initialized() else store_of_this_attempt(os.environ, self.timeout),
        )
        if self.launcher is None and self.posted_actions is None:
            assert dist.group.WORLD is not None
            store = dist.group.WORLD.get_group_store()
            self.posted_actions = PostedActions(store, self.global_rank, self.world_size, self.timeout)

    def on_exception(self, exception: BaseException) -> None:
        """Raises:
        NotArrived: where that is what the exception means, and no launcher sees all ranks.
        """
        super().on_exception(exception)
        if self.posted_actions is None or not TIMED_OUT.search(one_line(exception)):
            return
        if (late := self.posted_actions.not_arrived()) is not None:
            raise late from None  # whoever asks for the cause is to hear this one

    def teardown(self) -> None:
        super().teardown()
        if self.posted_actions is not None:
            self.posted_actions.end()

    @property
    def mesh(self) -> Mesh:
        assert self._mesh is not None, "there is no mesh before the processes are up"
        return self._mesh

    @property
    def device_mesh(self) -> DeviceMesh:
        """The mesh of the dense weights, for Lightning."""
        return self.mesh.dense

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        return {"num_replicas": self.layout.dp, "rank": self.mesh.dp.get_local_rank()}

    def note(self, action: str) -> None:
        """What this rank begins, for the watchdog."""
        assert self.lightning_module is not None
        text = f"step {self.lightning_module.trainer.global_step + 1}, {action}"
        if isinstance(self.launcher, ForkLauncher):
            self.launcher.last_actions.note(self.global_rank, text)
        elif self.posted_actions is not None:
            self.posted_actions.note(text)

    def gathered(self, value: Any) -> list[Any]:
        """Every rank's, on all; collective."""
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
