"""The legality of a layout for a model and a batch, and the layouts that are legal: numbers only, in milliseconds."""

from __future__ import annotations

import dataclasses
from typing import Any

from project.spec.fault import Fault
from project.spec.layout import ParallelLayout
from project.spec.legality.rule import all_kept, broken
from project.spec.legality.rules import RULES
from project.spec.legality.size import divisors
from project.spec.legality.splits import dense_splits, expert_splits
from project.spec.legality.usable import Batch, is_usable, unusable
from project.spec.model import ModelConfig
from project.spec.schedules.file import is_schedule_file
from project.spec.schedules.table import SCHEDULES


def layout_faults(layout: ParallelLayout, model: ModelConfig, batch_size: int, seq_len: int) -> list[Fault]:
    """Everything wrong with layout and model, alone and together; one fault a key, named as on the command line.

    `batch_size` counts the sequences of one step over all ranks. A value of a wrong type is a fault, not an error.
    """
    useless = unusable_values(layout, model, batch_size, seq_len)
    values = _values(layout, model, batch_size, seq_len)
    usable = {key: value for key, value in values.items() if key not in {fault.key for fault in useless}}
    return [*useless, *broken(RULES, usable)]


def unusable_values(layout: ParallelLayout, model: ModelConfig, batch_size: int, seq_len: int) -> list[Fault]:
    """The faults that are values of a wrong type, for which nothing better can be looked for."""
    return unusable(layout, model, Batch(batch_size, seq_len))


def legal_layouts(
    model: ModelConfig, world_size: int, batch_size: int, seq_len: int, like: ParallelLayout | None = None
) -> list[ParallelLayout]:
    """Every legal split over `world_size` ranks: those with the experts on the tensor-parallel ranks first, then by
    falling tp and rising dp. What is not a degree comes from `like`, except for microbatches that are illegal there.
    """
    like = like or ParallelLayout()
    if not is_usable(ParallelLayout(), model, Batch(batch_size, seq_len)):
        return []
    found = []
    for pp, dp, tp in dense_splits(world_size, model, batch_size):
        for ep, etp in expert_splits(dp * tp, model):
            split = dataclasses.replace(like, pp=pp, dp=dp, tp=tp, ep=ep, etp=etp, partition=None)
            legal = _with_microbatches(split, model, batch_size, seq_len)
            if legal is not None and _fits_file(legal, like):
                found.append(legal)
    return sorted(found, key=lambda at: ((at.ep, at.etp) != (at.tp, 1), -at.tp, at.dp, -at.ep, at.etp))


def legal_schedules(model: ModelConfig, layout: ParallelLayout, batch_size: int, seq_len: int) -> list[ParallelLayout]:
    """The layout under every schedule that it can have. One that takes several stages a rank is given two, or as many
    as the layout has; microbatches change where they have to.
    """
    found = []
    for schedule in SCHEDULES.values():
        stages = schedule.stages_a_rank or max(layout.virtual_stages, 2)
        partition = layout.partition if stages == layout.virtual_stages else None
        other = dataclasses.replace(layout, schedule=schedule.name, virtual_stages=stages, partition=partition)
        found.append(_with_microbatches(other, model, batch_size, seq_len))
    return [layout for layout in found if layout is not None]


def legal_microbatches(
    model: ModelConfig, layout: ParallelLayout, batch_size: int, seq_len: int
) -> list[ParallelLayout]:
    """The layout with every number of microbatches that it can have, the fewest first."""
    counts = divisors(max(batch_size // layout.dp, 1))
    found = [dataclasses.replace(layout, microbatches=count) for count in counts]
    return [layout for layout in found if is_legal(layout, model, batch_size, seq_len)]


def _with_microbatches(
    layout: ParallelLayout, model: ModelConfig, batch_size: int, seq_len: int
) -> ParallelLayout | None:
    """The layout itself where its microbatches are legal; else with the most legal ones, which leave the pipeline idle
    least; None where none are legal."""
    for count in (layout.microbatches, *reversed(divisors(max(batch_size // layout.dp, 1)))):
        other = dataclasses.replace(layout, microbatches=count)
        if is_legal(other, model, batch_size, seq_len):
            return other
    return None


def _fits_file(layout: ParallelLayout, like: ParallelLayout) -> bool:
    """Whether the layout has the pipeline ranks and microbatches of a schedule's file; True without a file."""
    shape = (layout.pp, layout.microbatches)
    return not is_schedule_file(like.schedule) or shape == (like.pp, like.microbatches)


def is_legal(layout: ParallelLayout, model: ModelConfig, batch_size: int, seq_len: int) -> bool:
    """Whether `layout_faults` would find nothing, at less cost."""
    usable = is_usable(layout, model, Batch(batch_size, seq_len))
    return usable and all_kept(RULES, _values(layout, model, batch_size, seq_len))


def _values(layout: ParallelLayout, model: ModelConfig, batch_size: int, seq_len: int) -> dict[str, Any]:
    return {
        **{f"parallel.{field.name}": getattr(layout, field.name) for field in dataclasses.fields(layout)},
        **{f"model.{field.name}": getattr(model, field.name) for field in dataclasses.fields(model)},
        "data.batch_size": batch_size,
        "data.seq_len": seq_len,
    }
