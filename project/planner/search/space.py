"""The search space: every layout that is legal for a model, a batch and a number of ranks, in two steps: degrees, and
the pipelines over them.

Degrees satisfy the trainer's own rules (`project.spec.legality.rules`). A layout is left out only if it runs the same
as another one: with one pipeline rank all schedules do, and interleaving one stage is 1F1B.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args, get_type_hints

from project.planner.memory.peak import peak
from project.planner.step import Step
from project.spec.layout import ParallelLayout
from project.spec.legality.layouts import dense_splits, expert_splits, is_legal, layout_faults, legal_layouts
from project.spec.legality.rule import divisors
from project.spec.model import ModelConfig
from project.spec.schedules.table import SCHEDULES

DP_MODES = get_args(get_type_hints(ParallelLayout)["dp_mode"])


def degrees(model: ModelConfig, gpus: int, batch: int, seq_len: int) -> Iterator[ParallelLayout]:
    """Legal degrees and `dp_mode`s; with one microbatch, one stage a rank and no recomputation."""
    for pp, dp, tp in dense_splits(gpus, model, batch):
        plain = ParallelLayout(pp=pp, dp=dp, tp=tp, schedule="GPipe")
        if not is_legal(plain, model, batch, seq_len):
            continue
        for ep, etp in expert_splits(dp * tp, model):
            split = replace(plain, ep=ep, etp=etp)
            for mode in DP_MODES if dp > 1 or split.edp > 1 else DP_MODES[:1]:
                layout = replace(split, dp_mode=mode)
                if mode == DP_MODES[0] or is_legal(layout, model, batch, seq_len):
                    yield layout


def microbatches(layout: ParallelLayout, batch: int) -> list[int]:
    return divisors(batch // layout.dp)


def pipelines(layout: ParallelLayout, model: ModelConfig) -> Iterator[ParallelLayout]:
    """Schedules and virtual stages for the degrees and microbatches of `layout`."""
    if layout.pp == 1:
        yield replace(layout, schedule="1F1B", virtual_stages=1)
        return
    most = model.num_layers // layout.pp
    for schedule in sorted(SCHEDULES.values(), key=lambda one: one.stages_a_rank is None):
        if not schedule.takes(layout.pp, layout.microbatches):
            continue
        least = schedule.stages_a_rank or (2 if schedule.with_one_stage else 1)
        for stages in range(least, min(schedule.stages_a_rank or most, most) + 1):
            yield replace(layout, schedule=schedule.name, virtual_stages=stages)


def overrides(layout: ParallelLayout) -> str:
    """The overrides of `project/train.py` that select this layout."""
    names = ("pp", "dp", "tp", "ep", "etp", "dp_mode", "schedule", "microbatches", "virtual_stages", "recompute")
    said = [f"parallel.{name}={getattr(layout, name)}" for name in names]
    sizes = "null" if layout.partition is None else f"[{','.join(map(str, layout.partition))}]"
    return " ".join([*said, f"parallel.partition={sizes}"])


def nearest_fitting(step: Step, framework: int, room: float) -> ParallelLayout | None:
    """The nearest layout whose largest rank holds at most `room` bytes, `framework` of them reserved. Tried in this
    order: more recomputation; shards; more microbatches; both; other degrees on as many ranks; twice the ranks, and so
    on up to 64 times."""
    for layout in _changes(step):
        if peak(replace(step, layout=layout), framework) <= room:
            return layout
    return None


def _changes(step: Step) -> Iterator[ParallelLayout]:
    layout, batch = step.layout, step.batch
    more = [layout.microbatches * factor for factor in (1, 2, 4, 8) if batch % (layout.microbatches * factor) == 0]
    modes = [layout.dp_mode, "shard"] if layout.dp > 1 else [layout.dp_mode]
    again = [layout.recompute, *(mode for mode in ("selective", "full") if layout.recompute == "none")]
    for mode in modes:
        for microbatches in more:
            for recompute in again:
                changes = {"dp_mode": mode, "microbatches": microbatches, "recompute": recompute}
                changed = replace(layout, **changes)  # type: ignore[arg-type]
                if not layout_faults(changed, step.config, batch, step.seq_len):
                    yield changed
    for factor in (1, 2, 4, 8, 16, 32, 64):
        like = replace(layout, recompute="full", dp_mode="replicate", partition=None)
        yield from legal_layouts(step.config, layout.world_size * factor, batch, step.seq_len, like=like)
