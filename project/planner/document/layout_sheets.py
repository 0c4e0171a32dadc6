"""Sheets of what each rank has: its place and modules, the balance of the stages, and memory by category."""

from collections.abc import Iterator, Sequence
from typing import Any

from project.planner.document.derived import Derived
from project.planner.document.sheet import Sheet, spans
from project.planner.machine.source import source_of_figures, source_of_results
from project.spec.cost import layer_flops_per_token
from project.spec.partition import Part
from project.spec.schedules.in_flight import InFlight
from project.spec.units import number

MOST_RANKS = 64  # rows of the sheet of ranks
MOST_COLUMNS = 4  # pipeline ranks that fit a terminal
CATEGORIES = ("weights", "gradients", "optimizer", "activations", "logits", "recomputation", "buffers")


def rank_sheet(found: Derived, ranks: list[dict[str, Any]]) -> Sheet:
    """A row for each rank; beyond `MOST_RANKS` for the first of each stage."""
    layout = found.step.layout
    of_stage = layout.dp * layout.tp
    shown = ranks if len(ranks) <= MOST_RANKS else ranks[::of_stage]
    columns = ("rank>", "node>", "gpu>", "stages>", "layers>", "DP>", "TP>", "experts>", "parameters>")
    rows = [
        (
            str(rank["rank"]),
            str(rank["node"]),
            str(rank["gpu"]),
            spans(rank["stages"]),
            spans(rank["layers"]),
            str(rank["dp"]),
            str(rank["tp"]),
            spans(rank["experts"]),
            f"{rank['parameters']:,}",
        )
        for rank in shown
    ]
    ends = set(range(of_stage - 1, len(rows), of_stage)) if shown is ranks else set()
    note = f"derived; node and gpu {source_of_results(found.cluster, 'gpus_per_node')}"
    note += "" if shown is ranks else f"; the first of each stage's {of_stage} ranks, all are in plan.json"
    return Sheet("Ranks", columns, rows, note, ends)


def modules_sheet(found: Derived) -> Sheet:
    """A row for each stage: its modules, its forward FLOPs over the mean, and the seconds of one microbatch."""
    step = found.step
    costs = [
        sum(layer_flops_per_token(step.config, step.seq_len, layer) for layer in part.layers)
        + part.last * 2 * step.config.vocab_size * step.config.d_model
        for part in step.parts
    ]
    mean = sum(costs) / len(costs)
    rows = [
        (
            str(part.stage),
            _modules(found, part),
            f"{cost / mean:.2f}",
            number(seconds.forward, "s"),
            number(seconds.inputs + seconds.weights, "s"),
        )
        for part, cost, seconds in zip(step.parts, costs, found.stages, strict=True)
    ]
    return Sheet(
        "Modules and compute",
        ("stage>", "modules", "FLOPs/mean>", "forward>", "backward>"),
        rows,
        f"busiest over mean {max(costs) / mean:.2f}; derived, the seconds of a microbatch {found.seconds_source}",
    )


def _modules(found: Derived, part: Part) -> str:
    config, layout = found.step.config, found.step.layout
    with_experts = len([layer for layer in part.layers if layer in config.moe_layers])
    held = [f"{len(part.layers)} attention / {layout.tp}"]
    if with_experts:
        held.append(f"{with_experts * config.num_experts // layout.ep} experts / {layout.etp}")
    if with_experts < len(part.layers):
        held.append(f"{len(part.layers) - with_experts} dense / {layout.tp}")
    ends = ["embedding"] * part.first + ["head"] * part.last
    return ", ".join([*held, *ends])


def memory_sheet(found: Derived, whole: bool) -> Sheet:
    """A column for each pipeline rank, whose ranks hold equally much. Without `whole`, beyond `MOST_COLUMNS`, only the
    first two and the last have one."""
    pp = len(found.memories)
    shown = list(range(pp)) if whole or pp <= MOST_COLUMNS else [0, 1, pp - 1]
    rows = [*_categories(found, shown), _total(found, shown), *_flying(found, shown)]
    columns = ("bytes of a rank", *(f"pp {rank}>" for rank in shown), "source")
    room = f"of {number(found.cluster.memory_bytes, 'B')} ({source_of_figures(found.cluster, 'memory_bytes')})"
    halves = "; +w: those of which only the weights' half of a backward is left" if _has_halves(found) else ""
    left_out = "" if len(shown) == pp else f"; pp 2-{pp - 2} are in plan.md and plan.json"
    total = next(place for place, row in enumerate(rows) if row[0] == "total")
    return Sheet("Memory", columns, rows, room + halves + left_out, {total - 1, total})


def _categories(found: Derived, shown: Sequence[int]) -> Iterator[tuple[str, ...]]:
    modules = sorted({module for rank in shown for module in found.activations[rank]} - {"logits"})
    for name in CATEGORIES:
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
    """Microbatches in flight: a row for each stage of a rank."""
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
