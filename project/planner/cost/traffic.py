"""Traffic of one rank in one optimizer step: what the layers' tables send for each microbatch, the messages between
stages, and the sums once a step.

The tests hold it to `project.observe.ledger`, call by call and byte by byte. Experts are taken to be balanced: every
rank sends every other equally many rows.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

from project.planner.cost.parameters import parameters_of
from project.planner.cost.stages import held_by
from project.planner.machine.group import Group, group_over
from project.planner.step import Step
from project.spec.layer.operation import Axes
from project.spec.layout import DENSE
from project.spec.metrics import STATISTICS
from project.spec.partition import Part
from project.spec.precision import DOUBLE, width_of

DIRECTIONS = ("forward", "backward", "step")


class Transfer(NamedTuple):
    """`calls` operations in all of a step, each given `given` bytes by this rank. `stage` is None for what a rank does
    once for all its stages; `module` says what it is for. `times` of those calls belong to one microbatch, or are 0
    where the calls are the step's. `neighbour` is the stage at a message's other end."""

    stage: int | None
    module: str
    group: Group
    collective: str
    direction: str
    calls: int
    given: int
    times: int = 0
    neighbour: int | None = None

    @property
    def bytes(self) -> int:
        """On the wire, of all calls."""
        return self.calls * on_the_wire(self.collective, self.given, self.group.size)


def on_the_wire(collective: str, given: int, ranks: int) -> int:
    """Bytes that this rank sends in one call; the formulas of `project.observe.message`."""
    match collective:
        case "all_reduce":
            return -(-2 * given * (ranks - 1) // ranks)
        case "reduce_scatter" | "all_to_all":
            return -(-given * (ranks - 1) // ranks)
        case "all_gather":
            return given * (ranks - 1)
        case "send":
            return given
        case _:
            return 0


def traffic(step: Step, pp_rank: int) -> list[Transfer]:
    """Transfers of one rank of that pipeline rank; they all send as much. Groups of one send nothing."""
    found = (*_microbatches(step, pp_rank), *_once_a_step(step, pp_rank))
    return [transfer for transfer in found if transfer.group.size > 1 and transfer.calls]


# -- a microbatch -------------------------------------------------------------------------------------------------

Phase = Literal["forward", "again", "backward"]
PHASES = get_args(Phase)


def _microbatches(step: Step, pp_rank: int) -> Iterator[Transfer]:
    for part in step.parts_on(pp_rank):
        for line, times in _lines(step, part).items():
            direction = "forward" if line.phase == "forward" else "backward"
            group = group_over(line.axes, step.layout)
            calls = times * step.microbatches
            yield Transfer(part.stage, line.part, group, line.collective, direction, calls, line.given, times)
        yield from _messages(step, part)


class _Line(NamedTuple):
    """Equal collectives of a stage's microbatch; `again` are those of a recomputed forward."""

    part: str
    phase: Phase
    axes: Axes
    collective: str
    given: int


def _lines(step: Step, part: Part) -> dict[_Line, int]:
    """Counts how often a stage's microbatch sends each, part by part, the forward first and the backward last."""
    found: Counter[_Line] = Counter()
    held, tables, recompute = held_by(step.config, part), step.tables, step.layout.recompute
    for count, table, again in (
        (held.first, tables.first, "none"),
        (held.experts, tables.experts, recompute),
        (held.dense, tables.dense, recompute),
        (held.last, tables.last, "none"),
    ):
        for operation in table if count else ():
            for send in operation.sends:
                phases: list[Phase] = [send.direction]
                if send.is_repeated(again):
                    phases.append("again")
                for phase in phases:
                    line = _Line(operation.part, phase, send.axes, send.collective, send.given)
                    found[line] += count * send.calls
    parts = list(dict.fromkeys(line.part for line in found))
    order = sorted(found, key=lambda line: (parts.index(line.part), PHASES.index(line.phase)))
    return {line: found[line] for line in order}


def _messages(step: Step, part: Part) -> Iterator[Transfer]:
    """Activations on, gradients back, but between two stages of one rank."""
    stage, rank_of = part.stage, step.rank_of_stage
    given = step.tokens // step.layout.tp * step.config.d_model * width_of(step.precision).weight
    for neighbour, there, back in ((stage + 1, "send", "recv"), (stage - 1, "recv", "send")):
        if 0 <= neighbour < step.layout.stages and rank_of[neighbour] != rank_of[stage]:
            group = group_over(("pp",), step.layout)
            for collective, direction in ((there, "forward"), (back, "backward")):
                calls = step.microbatches
                yield Transfer(stage, "boundary", group, collective, direction, calls, given, 1, neighbour)


# -- a step -------------------------------------------------------------------------------------------------------


def _once_a_step(step: Step, pp_rank: int) -> Iterator[Transfer]:
    layout, parts = step.layout, step.parts_on(pp_rank)
    if layout.dp_mode == "shard":
        yield from _shards(step, parts)
    yield from _gradients(step, parts)
    yield from _summed(step)


def _once(
    step: Step, axes: tuple[str, ...], module: str, collective: str, direction: str, given: int, calls: int = 1
) -> Transfer:
    return Transfer(None, module, group_over(axes, step.layout), collective, direction, calls, given)


def _gradients(step: Step, parts: list[Part]) -> Iterator[Transfer]:
    """Weights that are whole on every rank of tp have partial gradients there; all weights have replicas over dp,
    experts over edp. Where the expert axes are the dense ones, dp and edp are one flat all-reduce."""
    element = width_of(step.precision).weight
    held = [parameters_of(step.config, step.layout, part, sharded=False) for part in parts]
    whole = sum(kinds.whole for kinds in held) * element
    dense = sum(kinds.divided_over_tp for kinds in held) * element
    experts = sum(kinds.experts for kinds in held) * element
    yield _once(step, ("tp",), "gradients", "all_reduce", "step", whole)
    if step.layout.dp_mode == "shard":
        yield _once(step, ("dp",), "gradients", "all_reduce", "step", whole)
    elif step.expert_axes_are_tp:
        yield _once(step, ("dp",), "gradients", "all_reduce", "step", whole + dense + experts)
    else:
        yield _once(step, ("dp",), "gradients", "all_reduce", "step", whole + dense)
        yield _once(step, ("edp",), "gradients", "all_reduce", "step", experts, 1 if experts else 0)


def _shards(step: Step, parts: list[Part]) -> Iterator[Transfer]:
    """Each layer, and what is left of a part, is gathered and its gradient scattered once a step, however many
    batches that has; experts on their own where their replicas are others."""
    for part in parts:
        for layer in part.layers:
            only = Part(part.stage, range(layer, layer + 1), False, False)
            held = parameters_of(step.config, step.layout, only, sharded=False)
            dense, experts = held.divided_over_tp, held.experts
            if step.expert_axes_are_tp:
                dense, experts = dense + experts, 0
            yield from _unit(step, ("dp",), dense)
            yield from _unit(step, ("edp",), experts)
        only = Part(part.stage, range(part.layers.start, part.layers.start), part.first, part.last)
        held = parameters_of(step.config, step.layout, only, sharded=False)
        yield from _unit(step, ("dp",), held.divided_over_tp)


def _unit(step: Step, axes: tuple[str, ...], numbers: int) -> Iterator[Transfer]:
    given = numbers * width_of(step.precision).weight
    if given:
        shard = given // group_over(axes, step.layout).size
        yield _once(step, axes, "weights", "all_gather", "forward", shard)
        yield _once(step, axes, "weights", "reduce_scatter", "step", given)


def _summed(step: Step) -> Iterator[Transfer]:
    """Before each batch the targets that count, over the replicas. After it the loss, those targets, and the table of
    all layers' statistics and loads; with a step's last batch also the squared norm and three flags."""
    yield _once(step, ("dp",), "targets", "all_reduce", "step", DOUBLE, step.accumulate)
    numbers = 2 + step.config.num_layers * (len(STATISTICS) + step.config.num_experts)
    yield _once(step, DENSE, "log", "all_reduce", "step", numbers * DOUBLE, step.accumulate - 1)
    yield _once(step, DENSE, "gradient norm and log", "all_reduce", "step", (4 + numbers) * DOUBLE)


# -- sums ---------------------------------------------------------------------------------------------------------


def by_axis(transfers: Sequence[Transfer]) -> dict[str, dict[str, dict[str, Any]]]:
    """As the ledger has it: `{axis: {collective: {calls, bytes, direction: {calls, bytes}}}}`."""
    lines: dict[tuple[str, str, str], list[int]] = {}
    for transfer in transfers:
        line = lines.setdefault((transfer.group.axis, transfer.collective, transfer.direction), [0, 0])
        line[0] += transfer.calls
        line[1] += transfer.bytes
    whole: dict[str, dict[str, dict[str, Any]]] = {}
    for axis, collective, direction in sorted(lines, key=lambda key: (key[:2], DIRECTIONS.index(key[2]))):
        calls, sent = lines[axis, collective, direction]
        entry = whole.setdefault(axis, {}).setdefault(collective, {"calls": 0, "bytes": 0})
        entry["calls"] += calls
        entry["bytes"] += sent
        entry[direction] = {"calls": calls, "bytes": sent}
    return whole
