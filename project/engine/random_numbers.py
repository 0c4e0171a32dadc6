"""Random numbers of a rank's forwards, as of dropout: seeded anew for every microbatch of every stage, so that a
resumed run draws what the run before would have drawn, and what is drawn elsewhere (a loader's order) stays as it is.

Ranks whose activations differ (other replicas, other shards of the sequence, of the heads or of the hidden units) draw
different numbers. Where tensor-parallel ranks hold the same activation, a dropout module draws the same mask on all of
them: its first call finds out, by its input. Recomputation draws the numbers of the forward (`recompute.py`).
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from project.engine.mesh import Mesh, gathered
from project.engine.recompute import Recomputed
from project.engine.stage import RecordedStage

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU)
"""torch's modules that draw a number for each entry of their input."""

Generators = tuple[Tensor, Tensor | None]
"""The states of torch's default generators: the CPU's, and the device's if it is another."""


class RandomNumbers:
    """The numbers that this rank's `parts` draw, from the seed that rank 0 was given (`torch.manual_seed`); collective.

    Attributes:
        alike: generators that are in the same state on all tensor-parallel ranks, for what they hold alike.
    """

    def __init__(self, parts: Sequence[nn.Module], mesh: Mesh, device: torch.device) -> None:
        self.mesh, self.device = mesh, device
        self.seed: int = gathered(torch.initial_seed())[0]
        self.at: tuple[object, ...] = ()
        self.forwards: Counter[int] = Counter()
        self.alike: Generators | None = None
        if mesh.tp.size() > 1:
            for module in (module for part in parts for module in part.modules()):
                if isinstance(module.forward, Recomputed):
                    module.forward.replay = self.replay
                if issubclass(type(module), DROPOUT):
                    module.forward = MaskOfReplicas(module, self)
                    self.alike = self.generators()

    def begin(self, *at: object) -> None:
        """Says which batch the next forwards are of, the same words on every rank."""
        if at != self.at:
            self.at = at
            self.forwards.clear()

    @contextmanager
    def of_forward(self, stage: RecordedStage) -> Iterator[None]:
        """Gives the next forward of `stage` numbers of its own, and the generators back to whoever had them."""
        before = self.generators()
        replica = (*self.at, stage.stage_index, self.forwards[stage.stage_index], self.mesh.dp.get_local_rank())
        self.forwards[stage.stage_index] += 1
        try:
            if self.alike is not None:
                self.reseed(*replica)
                self.alike = self.generators()
            self.reseed(*replica, self.mesh.tp.get_local_rank())
            yield
        finally:
            self.restore(before)

    @contextmanager
    def of_replicas(self) -> Iterator[None]:
        """Draws from `alike`."""
        assert self.alike is not None
        own = self.generators()
        try:
            self.restore(self.alike)
            yield
            self.alike = self.generators()
        finally:
            self.restore(own)

    def replay(self) -> Callable[[], Any]:
        """Returns a context manager under which `alike` is again in its present state."""
        present = self.alike

        @contextmanager
        def replayed() -> Iterator[None]:
            self.alike, before = present, self.alike
            try:
                yield
            finally:
                self.alike = before

        return replayed

    # -- torch's generators -------------------------------------------------------------------------------------------

    def reseed(self, *words: object) -> None:
        digest = hashlib.blake2b(repr((self.seed, *words)).encode(), digest_size=8).digest()
        number = int.from_bytes(digest) >> 1
        torch.default_generator.manual_seed(number)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(number)

    def generators(self) -> Generators:
        on_gpu = self.device.type != "cpu"
        return torch.get_rng_state(), torch.get_device_module(self.device).get_rng_state(
            self.device
        ) if on_gpu else None

    def restore(self, generators: Generators) -> None:
        on_cpu, on_device = generators
        torch.set_rng_state(on_cpu)
        if on_device is not None:
            torch.get_device_module(self.device).set_rng_state(on_device, self.device)


class MaskOfReplicas:
    """A dropout module's `forward` that draws one mask for all tensor-parallel ranks if they hold the same input."""

    def __init__(self, module: nn.Module, numbers: RandomNumbers) -> None:
        self.module, self.forward, self.numbers = module, module.forward, numbers
        self.alike: bool | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if not self.module.training:
            return self.forward(x)
        if self.alike is None:
            self.alike = held_alike(x, self.numbers.mesh.tp)
        if not self.alike:
            return self.forward(x)
        with self.numbers.of_replicas():
            return self.forward(x)


@torch.no_grad()
def held_alike(x: Tensor, axis: DeviceMesh) -> bool:
    """True if all ranks of the axis hold the same activation; collective, but for a DTensor, which says it."""
    if isinstance(x, DTensor):
        return all(placement.is_replicate() for placement in x.placements)
    values = x.detach().double()
    weights = torch.arange(1, x.numel() + 1, dtype=torch.float64, device=x.device).sin()
    here = torch.stack((values.sum(), values.square().sum(), values.flatten() @ weights, weights.sum()))
    of_ranks = [torch.empty_like(here) for _ in range(axis.size())]
    dist.all_gather(of_ranks, here, group=axis.get_group())
    return all(torch.equal(of_rank, here) for of_rank in of_ranks)
