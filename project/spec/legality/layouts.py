"""The legality of a layout for a model and a batch, and the layouts that are legal: numbers only, in milliseconds."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from annotated_types import Ge

from project.spec.fault import Fault, is_number, legal, said
from project.spec.layout import ParallelLayout
from project.spec.legality.rule import all_kept, broken, divisors
from project.spec.legality.rules import RULES
from project.spec.model import ModelConfig
from project.spec.record import Count, choices, hints, rejected, words_of
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
    """The faults that are values of a wrong type, which no rule can work with."""
    return [
        Fault(f"{section}.{name}", said(getattr(record, name)), _reason(type(record), name, getattr(record, name)))
        for section, record in _sections(layout, model, batch_size, seq_len).items()
        for name in _unusable(record)
    ]


def is_legal(layout: ParallelLayout, model: ModelConfig, batch_size: int, seq_len: int) -> bool:
    """True if `layout_faults` would find nothing; cheaper."""
    usable = _is_usable(layout, model, batch_size, seq_len)
    return usable and all_kept(RULES, _values(layout, model, batch_size, seq_len))


def legal_layouts(
    model: ModelConfig, world_size: int, batch_size: int, seq_len: int, like: ParallelLayout | None = None
) -> list[ParallelLayout]:
    """Every legal split over `world_size` ranks: those with the experts on the tensor-parallel ranks first, then by
    falling tp and rising dp. What is not a degree comes from `like`, except for microbatches that are illegal there.
    """
    like = like or ParallelLayout()
    if not _is_usable(ParallelLayout(), model, batch_size, seq_len):
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


def dense_splits(world_size: int, model: ModelConfig, batch_size: int) -> Iterator[tuple[int, int, int]]:
    """(pp, dp, tp) by rising tp and pp; `batch_size` counts the sequences of all replicas."""
    for tp in divisors(world_size):
        if model.num_kv_heads % tp:
            continue
        for pp in divisors(world_size // tp):
            dp = world_size // (tp * pp)
            if pp <= model.num_layers and batch_size % dp == 0:
                yield pp, dp, tp


def expert_splits(stage_ranks: int, model: ModelConfig) -> Iterator[tuple[int, int]]:
    """(ep, etp) over the dp x tp ranks of a stage, by rising etp and ep; (1, 1) alone where no layer has experts."""
    if model.num_dense_layers >= model.num_layers:
        yield 1, 1
        return
    for etp in divisors(stage_ranks):
        for ep in divisors(stage_ranks // etp):
            if model.num_experts % ep == 0 and model.d_ff % etp == 0:
                yield ep, etp


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
    """True if the layout has the pipeline ranks and microbatches of a schedule's file, or no file."""
    shape = (layout.pp, layout.microbatches)
    return not is_schedule_file(like.schedule) or shape == (like.pp, like.microbatches)


@dataclass(frozen=True)
class _Batch:
    """The batch of one iteration, over all ranks: its sequences, and the tokens of each."""

    batch_size: Count
    seq_len: Count


def _sections(layout: ParallelLayout, model: ModelConfig, batch_size: int, seq_len: int) -> dict[str, Any]:
    """The records by the sections of a configuration that they are read from."""
    return {"parallel": layout, "model": model, "data": _Batch(batch_size, seq_len)}


def _values(layout: ParallelLayout, model: ModelConfig, batch_size: int, seq_len: int) -> dict[str, Any]:
    return {
        f"{section}.{name}": value
        for section, record in _sections(layout, model, batch_size, seq_len).items()
        for name, value in vars(record).items()
    }


def _is_usable(layout: ParallelLayout, model: ModelConfig, batch_size: int, seq_len: int) -> bool:
    return not any(map(_unusable, _sections(layout, model, batch_size, seq_len).values()))


def _unusable(record: Any) -> list[str]:
    """The fields with values of a wrong type. A word that is not known is the fault of a rule instead."""
    kind: type = type(record)
    values = vars(record)
    is_word = lambda name: isinstance(values[name], str) and not hasattr(hints(kind)[name], "__metadata__")  # noqa: E731
    return [name for name in rejected(kind, values) if not is_word(name)]


def _reason(kind: type, name: str, value: object) -> str:
    hint = hints(kind)[name]
    if not hasattr(hint, "__metadata__"):
        return f"must be a word; {legal(value, choices(kind, name) or tuple(SCHEDULES))}"
    if hint.__origin__ is not int or not is_number(value):
        return f"must be {words_of(hint)}"
    least: Any = next(extra.ge for extra in hint.__metadata__ if isinstance(extra, Ge))
    return f"must be {words_of(hint)}; nearest {max(least, round(value))}"
