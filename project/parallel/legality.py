"""Is a layout legal for a model and a batch, and which layouts are? Numbers only, no torch: it answers in milliseconds,
before any process starts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from project.fault import Fault
from project.legal_values import is_number, legal, said
from project.model.config import ModelConfig
from project.parallel.layout import SCHEDULES, ParallelLayout
from project.parallel.layout_rules import NOT_YET, RULES
from project.parallel.rule import Values, broken, divisors


def layout_faults(layout: ParallelLayout, model: ModelConfig, batch_size: int, seq_len: int) -> list[Fault]:
    """All that is wrong with layout and model, alone and together; one fault a key, named as on the command line.

    `batch_size` counts the sequences of one step over all ranks. A value of a wrong type is a fault, not an error.
    """
    values = {
        **{f"parallel.{field.name}": getattr(layout, field.name) for field in dataclasses.fields(layout)},
        **{f"model.{field.name}": getattr(model, field.name) for field in dataclasses.fields(model)},
        "data.batch_size": batch_size,
        "data.seq_len": seq_len,
    }
    unusable = list(_unusable(values))
    usable = {key: value for key, value in values.items() if key not in {fault.key for fault in unusable}}
    return [*unusable, *broken((*RULES, *NOT_YET), usable)]


def legal_layouts(
    model: ModelConfig, world_size: int, batch_size: int, seq_len: int, like: ParallelLayout | None = None
) -> list[ParallelLayout]:
    """Every legal split over `world_size` ranks: those with the experts on the tensor-parallel ranks first, then by
    falling tp. What is not a degree comes from `like`, but for microbatches that are illegal there.
    """
    like = like or ParallelLayout()
    layouts = []
    for degrees in sorted(_degrees(world_size), key=lambda d: (d["ep"], d["etp"]) != (d["tp"], 1)):
        # As given, or else the most there can be, which leaves the pipeline idle least.
        for microbatches in (like.microbatches, max(batch_size // degrees["dp"], 1)):
            changes: dict[str, Any] = {**degrees, "microbatches": microbatches, "partition": None}
            layout = dataclasses.replace(like, **changes)
            if not layout_faults(layout, model, batch_size, seq_len):
                layouts.append(layout)
                break
    return layouts


def _degrees(world_size: int) -> Iterator[dict[str, int]]:
    for tp in reversed(divisors(world_size)):
        for dp in divisors(world_size // tp):
            for ep in reversed(divisors(dp * tp)):
                for etp in divisors(dp * tp // ep):
                    yield {"pp": world_size // (dp * tp), "dp": dp, "tp": tp, "ep": ep, "etp": etp}


def _unusable(values: Values) -> Iterator[Fault]:
    """Values that no rule can work with."""
    hints = get_type_hints(ParallelLayout) | get_type_hints(ModelConfig) | {"batch_size": int, "seq_len": int}
    for key, value in values.items():
        hint = hints[key.rpartition(".")[2]]
        if hint is int:
            least = 0 if key == "model.num_shared_experts" else 1
            if type(value) is not int or value < least:
                near = f"; nearest {max(least, round(value))}" if is_number(value) else ""
                yield Fault(key, said(value), f"must be a whole number of at least {least}{near}")
        elif hint is float:
            if not is_number(value) or value < 0:
                yield Fault(key, said(value), "must be a number of at least 0")
        elif key == "parallel.partition":
            if value is not None and not (isinstance(value, tuple) and all(type(part) is int for part in value)):
                yield Fault(key, said(value), "must be null or a list of whole numbers, as in [2,2,2,2]")
        elif not isinstance(value, str):
            yield Fault(key, said(value), f"must be a word; {legal(value, get_args(hint) or SCHEDULES)}")
