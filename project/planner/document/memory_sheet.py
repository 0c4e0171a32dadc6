"""The document's memory: each category's bytes by pipeline rank, and what is in flight there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from project.planner.document.derive import Derived
from project.planner.document.sheet import Sheet, number
from project.planner.machine.source import source_of_figures, source_of_results
from project.spec.schedules.in_flight import InFlight

NAMES = ("weights", "gradients", "optimizer", "activations", "logits", "recomputation", "buffers")
MOST = 4  # pipeline ranks that fit a terminal


def memory_sheet(found: Derived, whole: bool) -> Sheet:
    """The ranks of a pipeline rank hold as much. `whole` shows all of these, else the first two and the last."""
    pp = len(found.memories)
    shown = list(range(pp)) if whole or pp <= MOST else [0, 1, pp - 1]
    rows = [*_categories(found, shown), _total(found, shown), *_flying(found, shown)]
    columns = ("bytes of a rank", *(f"pp {rank}>" for rank in shown), "source")
    room = f"of {number(found.cluster.memory_bytes, 'B')} ({source_of_figures(found.cluster, 'memory_bytes')})"
    halves = "; +w: those of which only the weights' half of a backward is left" if _has_halves(found) else ""
    left_out = "" if len(shown) == pp else f"; pp 2-{pp - 2} are in plan.md and plan.json"
    total = next(place for place, row in enumerate(rows) if row[0] == "total")
    return Sheet("Memory", columns, rows, room + halves + left_out, {total - 1, total})


def _categories(found: Derived, shown: Sequence[int]) -> Iterator[tuple[str, ...]]:
    modules = sorted({module for rank in shown for module in found.activations[rank]} - {"logits"})
    for name in NAMES:
        yield name, *(number(getattr(found.memories[rank], name), "B") for rank in shown), "derived"
        for module in modules if name == "activations" else ():
            sizes = (number(found.activations[rank].get(module, 0), "B") for rank in shown)
            yield f"  {module}", *sizes, "derived"
    reserved = (number(found.memories[rank].framework, "B") for rank in shown)
    yield "framework", *reserved, source_of_figures(found.cluster, "reserved_bytes")


def _total(found: Derived, shown: Sequence[int]) -> tuple[str, ...]:
    sizes = (number(found.memories[rank].total, "B") for rank in shown)
    return "total", *sizes, source_of_results(found.cluster, "reserved_bytes")


def _flying(found: Derived, shown: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """A row for each of a rank's stages."""
    for place in range(max(map(len, found.in_flight))):
        cells = [list(found.in_flight[rank].items())[place : place + 1] for rank in shown]
        several = found.step.layout.virtual_stages > 1
        said = ("".join(_moment(*of_stage, several) for of_stage in cell) for cell in cells)
        yield "" if place else "microbatches in flight", *said, "derived"


def _moment(stage: int, moment: InFlight, several: bool) -> str:
    halves = f"+{moment.second_half}w" if moment.second_half else ""
    return f"s{stage}: {moment.whole}{halves}" if several else f"{moment.whole}{halves}"


def _has_halves(found: Derived) -> bool:
    return any(moment.second_half for stages in found.in_flight for moment in stages.values())
