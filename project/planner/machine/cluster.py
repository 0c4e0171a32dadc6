"""The machine: what a planner assumes of it. No torch.

Every file in `configs/cluster/` is one of these. What is known only roughly, and decides which layout is best, is given
with the interval in which it is expected (`Stated`), so that a ranking can be asked whether it holds over all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from project.spec.peaks import Arithmetic


@dataclass(frozen=True)
class Peak:
    """FLOP/s of one device by arithmetic; `half` is that of bf16 and of fp16."""

    half: float
    tf32: float
    fp32: float


@dataclass(frozen=True)
class Stated:
    """A value, and the interval in which it is expected."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class StatedFraction(Stated):
    """Of something that nothing exceeds."""


@dataclass(frozen=True)
class Link:
    """Between two devices, one direction: seconds before the first byte, bytes a second, and the fraction of the
    latter that collectives reach."""

    latency_s: Stated
    bandwidth: Stated
    achieved: float

    def seconds(self, sent: float) -> float:
        return self.latency_s.value + sent / self.rate

    @property
    def rate(self) -> float:
        return self.bandwidth.value * self.achieved


@dataclass(frozen=True)
class Achieved:
    """What is left of the peak: of the arithmetic in a large matrix product and in a fused attention, of the memory's
    bandwidth in an elementwise kernel."""

    gemm: float
    attention: float
    memory: float


@dataclass(frozen=True)
class Tiles:
    """How well a matrix product goes in pieces: what smaller tiles reach of the rate of one of 256 x 128, and how many
    columns of the inner dimension a tile spends on filling and draining its pipeline."""

    rate_128x128: StatedFraction
    rate_128x64: StatedFraction
    rate_64x64: StatedFraction
    depth: Stated


@dataclass(frozen=True)
class Host:
    """Where a node's `cores` run all of its ranks: what a rank's program costs beside its matrix products, in seconds
    of one core.

    Of a layer's forward and backward, `block_s` everywhere, and besides `tensor_s` where tensor-parallel ranks share it
    and `expert_s` where its experts are on several ranks, with `..._peer_s` for each rank beyond two; `channel_s` for
    each token and channel that elementwise kernels pass over. Of embedding, head and loss `ends_s` and
    `tensor_ends_s`. For a message between stages `message_s`, received and sent; for each byte sent `byte_s`. For each
    parameter that the optimizer updates `parameter_s`. For the rest of a step `step_s`, and `step_peer_s` for each
    other rank. Seconds without a core: `tensor_wait_s` and `expert_wait_s`, in which a layer's collectives wait for
    peers to come and to be woken.
    """

    cores: int
    block_s: float
    tensor_s: float
    tensor_peer_s: float
    expert_s: float
    expert_peer_s: float
    tensor_wait_s: float
    tensor_wait_peer_s: float
    expert_wait_s: float
    expert_wait_peer_s: float
    channel_s: float
    ends_s: float
    tensor_ends_s: float
    tensor_ends_peer_s: float
    message_s: float
    byte_s: float
    parameter_s: float
    step_s: float
    step_peer_s: float


@dataclass(frozen=True)
class Cluster:
    """`peak_flops` and `memory_bytes` are of one device, `reserved_bytes` of the latter what is not the trainer's:
    contexts, communicators' buffers, fragmentation. `multiprocessors` is how many tiles of a matrix product it works on
    at once, `tiles` what they reach; a core, which is one multiprocessor, has none. `launch_s` is the least time from
    one kernel to the next. `intra` links the devices of a node, `inter` those of two. `price_per_hour` is of one
    device, for the cost of a token. `measured` names those of the figures that were measured on the machine itself
    (`peak_flops`, or `peak_flops.half` alone); the others are assumed (`project.planner.machine.provenance`)."""

    name: str
    nodes: int
    gpus_per_node: int
    peak_flops: Peak
    memory_bytes: float
    reserved_bytes: float
    memory_bandwidth: float
    multiprocessors: int
    achieved: Achieved
    launch_s: Stated
    intra: Link
    inter: Link
    tiles: Tiles | None = None
    host: Host | None = None
    price_per_hour: float | None = None
    measured: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node

    @property
    def usable_bytes(self) -> float:
        return self.memory_bytes - self.reserved_bytes

    def peak(self, arithmetic: Arithmetic) -> float:
        """FLOP/s."""
        return getattr(self.peak_flops, arithmetic)
