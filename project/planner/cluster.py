"""The machine: what a planner assumes of it. No torch.

Every file in `configs/cluster/` is one of these. What is known only roughly, and decides which layout is best, is given
with the interval in which it is expected (`Stated`), so that a ranking can be asked whether it holds over all of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, get_args, get_type_hints

from project.fault import Fault
from project.legal_values import is_number, legal, said
from project.metrics.peak import Arithmetic


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
    (`peak_flops`, or `peak_flops.half` alone); the others are assumed (`project.planner.provenance`)."""

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


class ImpossibleCluster(ValueError):
    """`faults` says of each key what is wrong with it."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(f"{fault.key}={fault.value}: {fault.message}" for fault in faults))
        self.faults = faults


def read_cluster(entries: Mapping[str, Any]) -> Cluster:
    """From the mapping that a file is.

    Raises:
        ImpossibleCluster: with every fault, each under its key.
    """
    entries = {key: value for key, value in entries.items() if key != "_target_"}
    faults = list(_faults(Cluster, "cluster", entries))
    if faults:
        raise ImpossibleCluster(faults)
    return _build(Cluster, entries)


def cluster_faults(entries: Mapping[str, Any]) -> list[Fault]:
    return list(_faults(Cluster, "cluster", {key: value for key, value in entries.items() if key != "_target_"}))


def as_entries(cluster: Cluster) -> dict[str, Any]:
    """What `read_cluster` reads."""
    return dataclasses.asdict(cluster)


_OPTIONAL = ("tiles", "host", "price_per_hour", "measured")
_COUNTS = ("nodes", "gpus_per_node", "multiprocessors", "cores")
_FROM_ZERO = ("reserved_bytes", "price_per_hour")


def _faults(kind: type, at: str, entries: Any) -> Iterator[Fault]:
    if not isinstance(entries, Mapping):
        yield Fault(at, said(entries), f"must have the keys {', '.join(_names(kind))}")
        return
    for key in entries:
        if key not in _names(kind):
            yield Fault(f"{at}.{key}", said(entries[key]), f"is no key of it; {legal(key, _names(kind))}")
    for name in _names(kind):
        key, value = f"{at}.{name}", entries.get(name)
        if value is None:
            if name not in _OPTIONAL:
                yield Fault(key, "null", "must be given")
        elif (part := _part(kind, name)) is not None:
            yield from _faults(part, key, value)
        elif (reason := _reason(kind, name, value)) is not None:
            yield Fault(key, said(value), reason)
    if kind is Cluster and entries.get("multiprocessors") != 1 and entries.get("tiles") is None:
        yield Fault(f"{at}.tiles", "null", "must be given where multiprocessors is not 1")
    if issubclass(kind, Stated) and all(is_number(entries.get(name)) for name in _names(kind)):
        low, value, high = entries["low"], entries["value"], entries["high"]
        if not low <= value <= high:
            yield Fault(f"{at}.value", said(value), f"is not between low={low} and high={high}")


def _reason(kind: type, name: str, value: Any) -> str | None:
    if name == "name":
        return None if isinstance(value, str) and value else "must be a word"
    if name == "measured":
        return _no_figures(value)
    if name in _COUNTS:
        return None if type(value) is int and value >= 1 else "must be a whole number of at least 1"
    if kind in (Achieved, StatedFraction) or name == "achieved":
        return None if is_number(value) and 0 < value <= 1 else "must be a number above 0 and at most 1"
    if name in _FROM_ZERO or kind is Host:
        return None if is_number(value) and value >= 0 else "must be a number of at least 0"
    return None if is_number(value) and value > 0 else "must be a number above 0"


def _no_figures(value: Any) -> str | None:
    figures = [name for name in _names(Cluster) if name not in ("name", "measured")]
    figures += [f"{name}.{under}" for name in figures if (part := _part(Cluster, name)) for under in _names(part)]
    if not isinstance(value, list | tuple):
        return "must be a list of the figures that were measured"
    unknown = [f"{said(name)} is no figure of it; {legal(name, figures)}" for name in value if name not in figures]
    return "; ".join(unknown) or None


def _names(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _part(kind: type, name: str) -> type | None:
    """The dataclass that an entry is, if it is one."""
    hint = get_type_hints(kind)[name]
    return next((one for one in get_args(hint) or (hint,) if isinstance(one, type) and is_dataclass(one)), None)


def _build(kind: type, entries: Mapping[str, Any]) -> Any:
    made = {}
    for key, value in entries.items():
        part = _part(kind, key)
        made[key] = _build(part, value) if part is not None and value is not None else value
        if key == "measured":
            made[key] = tuple(value or ())
    return kind(**made)
