"""What to change where a layout holds more than a device has: the nearest layout that fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from project.planner.memory.memory import peak
from project.planner.step import Step
from project.spec.layout import ParallelLayout
from project.spec.legality.layouts import layout_faults, legal_layouts


def nearest_fitting(step: Step, framework: int, room: float) -> ParallelLayout | None:
    """The first that fits of: more recomputation; shards; more microbatches; both; other degrees on as many ranks;
    twice the ranks, and so on up to 64 times."""
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
