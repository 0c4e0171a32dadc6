"""Every layout that is legal for a model, a batch and a number of ranks, in two steps: degrees, and the pipelines over
them.

Degrees are held to the trainer's own rules (`project.spec.legality.rules`). Left out is only what runs the same as
something that is there: of one pipeline rank all schedules do, and interleaving one stage is 1F1B.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, get_args, get_type_hints

from project.spec.layout import ParallelLayout
from project.spec.legality.layouts import is_legal
from project.spec.legality.size import divisors
from project.spec.legality.splits import dense_splits, expert_splits
from project.spec.model import ModelConfig
from project.spec.schedules.table import SCHEDULES

Recompute = Literal["none", "selective", "full"]
RECOMPUTATIONS: tuple[Recompute, ...] = get_args(Recompute)
DP_MODES = get_args(get_type_hints(ParallelLayout)["dp_mode"])


def degrees(model: ModelConfig, gpus: int, batch: int, seq_len: int) -> Iterator[ParallelLayout]:
    """One microbatch, one stage a rank, nothing recomputed."""
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
