"""The overhead of a rank's program, in seconds of a core: layers so narrow that their arithmetic takes no time are
trained by the real strategy on a few ranks. CPU time does not depend on the machine's other load.

The cost of a layer or a microbatch is the difference of two runs, one with four layers or six microbatches more.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from project.calibration.rank_seconds import BATCH, NARROW, Case, Seconds, rank_seconds
from project.spec.layout import ParallelLayout

FEW, MANY = 2, 6  # layers
WIDE = replace(NARROW, d_model=256, num_heads=8, num_kv_heads=8, head_dim=32, d_ff=256, max_seq_len=64)
WIDE_TOKENS = BATCH // 2 * WIDE.max_seq_len  # in a microbatch


class Overhead(NamedTuple):
    """Seconds of a core and of waiting, as `planner.machine.cluster.Host` defines them; `wide_layer_s` is the time of a
    layer of `WIDE` for `WIDE_TOKENS` tokens, arithmetic included."""

    block_s: float
    tensor_s: float
    tensor_peer_s: float
    expert_s: float
    expert_peer_s: float
    tensor_wait_s: float
    tensor_wait_peer_s: float
    expert_wait_s: float
    expert_wait_peer_s: float
    ends_s: float
    tensor_ends_s: float
    tensor_ends_peer_s: float
    message_s: float
    step_s: float
    step_peer_s: float
    wide_layer_s: float


def cases() -> dict[str, Case]:
    """The runs by short name; most are compared in pairs."""
    alone = ParallelLayout(microbatches=2)
    tp = {n: ParallelLayout(tp=n, microbatches=2) for n in (2, 4)}
    ep = {n: ParallelLayout(dp=n, ep=n, microbatches=2) for n in (2, 4)}
    return {
        "alone": Case(FEW, alone),
        "alone, more layers": Case(MANY, alone),
        "alone, more microbatches": Case(FEW, ParallelLayout(microbatches=8)),
        **{f"tp{n}": Case(FEW, layout) for n, layout in tp.items()},
        **{f"tp{n}, more microbatches": Case(FEW, replace(layout, microbatches=8)) for n, layout in tp.items()},
        **{f"tp{n}, more layers": Case(MANY, layout) for n, layout in tp.items()},
        **{f"ep{n}": Case(FEW, layout) for n, layout in ep.items()},
        **{f"ep{n}, more layers": Case(MANY, layout) for n, layout in ep.items()},
        "pp2": Case(FEW, ParallelLayout(pp=2, microbatches=2)),
        "pp2, more microbatches": Case(FEW, ParallelLayout(pp=2, microbatches=8)),
        "wide": Case(FEW, alone, WIDE),
        "wide, more layers": Case(MANY, alone, WIDE),
    }


def measure(progress: Callable[[str], None]) -> Overhead:
    found = {}
    for name, case in cases().items():
        progress(f"overhead: {name}")
        found[name] = rank_seconds(case)
    return evaluate(found)


def evaluate(spent: dict[str, Seconds]) -> Overhead:
    """The overhead from the seconds of a rank and step of each of `cases`. Costs that noise makes negative are 0."""
    more, layers = 6, (MANY - FEW) * 2  # microbatches; layers times microbatches
    found = {name: seconds.core for name, seconds in spent.items()}

    def layer(name: str) -> float:
        return (found[f"{name}, more layers"] - found[name]) / layers

    def wait(name: str) -> float:
        return (spent[f"{name}, more layers"].clock - spent[name].clock) / layers - layer(name)

    def ends(name: str) -> float:
        return (found[f"{name}, more microbatches"] - found[name]) / more - FEW * layer(name)

    def rest(name: str) -> float:
        return found[name] - 2 * (FEW * layer(name) + ends(name))

    # Each of two stages has half of the layers, and either the embedding or the head.
    message = (found["pp2, more microbatches"] - found["pp2"]) / more - (FEW * layer("alone") + ends("alone")) / 2
    values = Overhead(
        block_s=layer("alone"),
        tensor_s=layer("tp2") - layer("alone"),
        tensor_peer_s=(layer("tp4") - layer("tp2")) / 2,
        expert_s=layer("ep2") - layer("alone"),
        expert_peer_s=(layer("ep4") - layer("ep2")) / 2,
        tensor_wait_s=wait("tp2"),
        tensor_wait_peer_s=(wait("tp4") - wait("tp2")) / 2,
        expert_wait_s=wait("ep2"),
        expert_wait_peer_s=(wait("ep4") - wait("ep2")) / 2,
        ends_s=ends("alone"),
        tensor_ends_s=ends("tp2") - ends("alone"),
        tensor_ends_peer_s=(ends("tp4") - ends("tp2")) / 2,
        message_s=message,
        step_s=rest("alone"),
        step_peer_s=(rest("tp4") - rest("alone")) / 3,
        wide_layer_s=layer("wide"),
    )
    return Overhead(*(max(0.0, value) for value in values))
