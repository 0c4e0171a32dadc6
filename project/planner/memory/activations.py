"""Bytes that autograd keeps on a rank from a stage's forward for its backward, read off the layers' tables. The tests
hold the sums to `project.observe.memory`, which counts storages.

Experts are taken to be balanced.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from project.planner.cost.stages import held_by
from project.planner.step import Step
from project.spec.layer.implementation import EVERY, Implementation
from project.spec.layer.operation import Table
from project.spec.partition import Part
from project.spec.precision import INT64
from project.spec.schedules.in_flight import InFlight, peaks_in_flight
from project.spec.schedules.order import Order


class Kept(NamedTuple):
    """Bytes of one stage on one rank: of each microbatch in flight, by module; of those what the first half of a split
    backward gives back; and of the whole batch, whose tokens (or targets) are one storage however many microbatches
    see a part of it."""

    microbatch: dict[str, int]
    first_half: dict[str, int]
    batch: int

    def by_module(self, moment: InFlight) -> dict[str, int]:
        return {
            module: moment.all * size - moment.second_half * self.first_half.get(module, 0)
            for module, size in self.microbatch.items()
        }

    def at(self, moment: InFlight) -> int:
        return sum(self.by_module(moment).values()) + self.batch

    def peak(self, moments: set[InFlight]) -> InFlight:
        return max(moments, key=self.at)


def activation_peaks(step: Step, order: Order) -> list[int]:
    """Bytes by stage, with as many microbatches in flight as the schedule has there."""
    split = step.layout.recompute == "none"
    moments = {stage: found for row in order for stage, found in peaks_in_flight(row, split).items()}
    stages = [kept(step, part) for part in step.parts]
    return [here.at(here.peak(moments[stage])) for stage, here in enumerate(stages)]


def kept(step: Step, part: Part) -> Kept:
    tables, how, recompute, held = step.tables, step.how, step.layout.recompute, held_by(step.config, part)
    found: Counter[str] = Counter()
    for count, table in ((held.experts, tables.experts), (held.dense, tables.dense)):
        for module, size in bytes_kept(table, how, recompute).items() if count else ():
            found[module] += count * int(size)
    if part.last:
        found.update({module: int(size) for module, size in bytes_kept(tables.last, how, "none").items()})
    last_table = tables.last if part.last else tables.experts if held.experts else ()
    batch = step.batch // step.layout.dp * step.seq_len * INT64
    return Kept(dict(found), for_inputs(last_table), batch * (part.first + part.last))


def bytes_kept(table: Table, how: Implementation, recompute: str) -> dict[str, float]:
    """Bytes of one microbatch under a mode of recomputation, by the heading of the operation that keeps them.

    A layer that is recomputed whole keeps its input and the router's choice, and under selective recomputation the
    results of the collectives that it does not repeat; one of which selective recomputation repeats a class of
    operations keeps all that these do not bring back.
    """
    repeated, found = how.repeats(recompute), dict[str, float]()
    whole = repeated == EVERY
    for operation in table:
        if whole:
            size: float = operation.stays
            if recompute == "selective":
                size += sum(send.calls * send.given for send in operation.sends if send.is_kept)
        else:
            size = 0
            for keep in operation.keeps:
                if keep.made_by not in repeated:
                    size += keep.size
        if size:
            found[operation.part] = found.get(operation.part, 0) + size
    return found


def for_inputs(table: Table) -> dict[str, int]:
    """Bytes of a stage's last layer, or of its head, that no gradient of a weight needs, for no weight is nearer to the
    end: the loss; or after experts the choice's weights and balance, and the way back."""
    found: Counter[str] = Counter()
    for operation in table:
        for keep in operation.keeps:
            if keep.for_inputs:
                found[operation.part] += int(keep.size)
    return dict(found)
