"""The machine: each figure that the planner needs, with the rule that it has to satisfy.

Every file in `configs/cluster/` is one `Cluster`, read and checked by `project.planner.machine.cluster_file`. A figure
that is known only roughly, and that decides which layout is best, comes with the interval in which it is expected
(`Stated`), so that the search can tell whether its ranking holds over the whole interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, ClassVar, get_args, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from project.spec.fault import is_number, legal, said
from project.spec.precision import Arithmetic

_STRICT = ConfigDict(extra="forbid")


def _rule(holds: Callable[[Any], bool], reason: str) -> PlainValidator:
    """Accepts a value as it is, or gives the reason why not."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise _broken("must be given" if value is None else reason)
        return value

    return PlainValidator(check)


def _broken(reason: str, **context: Any) -> PydanticCustomError:
    return PydanticCustomError("rule", "{reason}", {"reason": reason, **context})


Word = Annotated[str, _rule(lambda value: isinstance(value, str) and value != "", "must be a word")]
Count = Annotated[int, _rule(lambda value: type(value) is int and value >= 1, "must be a whole number of at least 1")]
Positive = Annotated[float, _rule(lambda value: is_number(value) and value > 0, "must be a number above 0")]
FromZero = Annotated[float, _rule(lambda value: is_number(value) and value >= 0, "must be a number of at least 0")]
Fraction = Annotated[
    float, _rule(lambda value: is_number(value) and 0 < value <= 1, "must be a number above 0 and at most 1")
]


def _between(high: float, info: ValidationInfo) -> float:
    """Checks `low <= value <= high`. The last field of the three checks it; the fault is reported for `value`."""
    low, value = info.data.get("low"), info.data.get("value")
    if low is not None and value is not None and not low <= value <= high:
        raise _broken(f"is not between low={low} and high={high}", field="value", value=value)
    return high


def _needs_tiles(tiles: Tiles | None, info: ValidationInfo) -> Tiles | None:
    if tiles is None and info.data.get("multiprocessors") != 1:
        raise _broken("must be given where multiprocessors is not 1")
    return tiles


def _known(measured: Any) -> tuple[str, ...]:
    """Checks a list of names of figures, which may be null."""
    if not isinstance(measured, list | tuple | None):
        raise _broken("must be a list of the figures that were measured")
    names = [name for name in field_names(Cluster) if name not in ("name", "measured")]
    names += [f"{name}.{field}" for name in names if (part := part_of(Cluster, name)) for field in field_names(part)]
    unknown = [f"{said(name)} is no figure of it; {legal(name, names)}" for name in measured or () if name not in names]
    if unknown:
        raise _broken("; ".join(unknown))
    return tuple(measured or ())


@dataclass(frozen=True)
class Peak:
    """Peak FLOP/s of one device by arithmetic; `half` holds for bf16 and for fp16."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    half: Positive
    tf32: Positive
    fp32: Positive


@dataclass(frozen=True)
class Stated:
    """A value, and the interval in which it is expected: `low <= value <= high`."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    value: Positive
    low: Positive
    high: Annotated[Positive, AfterValidator(_between)]


@dataclass(frozen=True)
class StatedFraction(Stated):
    """A stated fraction of a rate that nothing exceeds; all three are at most 1."""

    value: Fraction
    low: Fraction
    high: Annotated[Fraction, AfterValidator(_between)]


@dataclass(frozen=True)
class Link:
    """One direction between two devices: seconds before the first byte, bytes/s, and the fraction of this bandwidth
    that collectives achieve."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    latency_s: Stated
    bandwidth: Stated
    achieved: Fraction

    def seconds(self, sent: float) -> float:
        """Seconds for one message of `sent` bytes."""
        return self.latency_s.value + sent / self.rate

    @property
    def rate(self) -> float:
        """Achieved bytes/s."""
        return self.bandwidth.value * self.achieved


@dataclass(frozen=True)
class Achieved:
    """Fractions of the peak that are achieved: of the arithmetic in a large matrix product and in a fused attention
    kernel, and of the memory bandwidth in an elementwise kernel."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    gemm: Fraction
    attention: Fraction
    memory: Fraction


@dataclass(frozen=True)
class Tiles:
    """Efficiency of a tiled matrix product: rates of smaller tiles relative to the rate of a 256 x 128 tile, and the
    number of columns of the inner dimension that a tile spends on filling and draining its pipeline."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    rate_128x128: StatedFraction
    rate_128x64: StatedFraction
    rate_64x64: StatedFraction
    depth: Stated


@dataclass(frozen=True)
class Host:
    """Cost of a rank's program where all ranks of a node run on its `cores`: core seconds beside the matrix products.

    Forward and backward of a layer take `block_s`, plus `tensor_s` where tensor-parallel ranks share the layer and
    `expert_s` where its experts are on several ranks (`..._peer_s` more for each rank beyond two), plus `channel_s`
    for each token and channel that elementwise kernels process. Embedding, head and loss take `ends_s`, and
    `tensor_ends_s` more where tensor-parallel ranks share them. A message between stages takes `message_s`, received
    and sent; each byte sent `byte_s`; each parameter that the optimizer updates `parameter_s`. The rest of a step
    takes `step_s`, and `step_peer_s` more for each other rank. `tensor_wait_s` and `expert_wait_s` are seconds without
    a core: the collectives of a layer wait for peers to arrive and to be scheduled.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    cores: Count
    block_s: FromZero
    tensor_s: FromZero
    tensor_peer_s: FromZero
    expert_s: FromZero
    expert_peer_s: FromZero
    tensor_wait_s: FromZero
    tensor_wait_peer_s: FromZero
    expert_wait_s: FromZero
    expert_wait_peer_s: FromZero
    channel_s: FromZero
    ends_s: FromZero
    tensor_ends_s: FromZero
    tensor_ends_peer_s: FromZero
    message_s: FromZero
    byte_s: FromZero
    parameter_s: FromZero
    step_s: FromZero
    step_peer_s: FromZero


@dataclass(frozen=True)
class Cluster:
    """`nodes` nodes of `gpus_per_node` devices each; `intra` links the devices of a node, `inter` those of two nodes.

    `peak_flops`, `memory_bytes` and `memory_bandwidth` (bytes/s) describe one device. `reserved_bytes` of its memory
    are not available to the trainer: contexts, buffers of communicators, fragmentation. `multiprocessors` tiles of a
    matrix product are computed at once, with the efficiency of `tiles`; a CPU core counts as one multiprocessor and has
    no tiles. `launch_s` is the host's time for an operator, the least from one kernel to the next. `host` is given
    where the ranks of a node share its cores. `price_per_hour` (dollars a device) gives the cost of a token. `measured`
    names the figures that were measured on the machine itself (`peak_flops`, or `peak_flops.half` alone); all others
    are assumed (`project.planner.machine.source`).
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: Word
    nodes: Count
    gpus_per_node: Count
    peak_flops: Peak
    memory_bytes: Positive
    reserved_bytes: FromZero
    memory_bandwidth: Positive
    multiprocessors: Count
    achieved: Achieved
    launch_s: Stated
    intra: Link
    inter: Link
    tiles: Annotated[Tiles | None, Field(validate_default=True), AfterValidator(_needs_tiles)] = None
    host: Host | None = None
    price_per_hour: FromZero | None = None
    measured: Annotated[tuple[str, ...], PlainValidator(_known)] = ()

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node

    @property
    def usable_bytes(self) -> float:
        """Bytes of a device that the trainer may use."""
        return self.memory_bytes - self.reserved_bytes

    def memory_per_rank(self, ranks: int) -> float:
        """Bytes for each of `ranks` ranks: a device's, or where ranks share a node's cores their share of its
        memory."""
        return self.memory_bytes if self.host is None else self.memory_bytes / -(-ranks // self.nodes)

    def peak(self, arithmetic: Arithmetic) -> float:
        """FLOP/s of one device."""
        return getattr(self.peak_flops, arithmetic)


def field_names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


def part_of(kind: type, name: str) -> type | None:
    """The dataclass that a field holds; None for a plain value."""
    hint = get_type_hints(kind)[name]
    return next((one for one in get_args(hint) or (hint,) if isinstance(one, type) and is_dataclass(one)), None)
