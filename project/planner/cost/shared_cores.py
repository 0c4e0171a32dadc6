"""A pipeline whose ranks share a node's cores, action by action."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from project.planner.cost.stages import ranks_of_stages
from project.planner.cost.workload import Durations
from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action
from project.spec.schedules.order import order_of


def shared_span(
    layout: ParallelLayout, stages: list[Durations], cores: int, latency: float, waits: Sequence[float] = ()
) -> tuple[float, float]:
    """Seconds from the first action's start to the last one's end, and seconds of a core that all ranks spend.

    A rank that runs an action wants a core for all of it but what it waits (`waits`, of each stage's microbatch). All
    get what they want, or the same part of it where that is more than there are cores; the ranks of a stage run
    together.
    """
    wanted = [1.0 if not wait else one.total / (one.total + wait) for one, wait in zip_longest(stages, waits)]
    order, at = order_of(layout), ranks_of_stages(layout)
    together, last = layout.dp * layout.tp, layout.stages - 1
    done: dict[tuple[int, bool, int], float] = {}
    place = [0] * layout.pp
    left: list[float | None] = [None] * layout.pp
    clock, spent = 0.0, 0.0
    while any(place[rank] < len(order[rank]) for rank in range(layout.pp)):
        waking: list[float] = []
        for rank in range(layout.pp):
            if left[rank] is None and place[rank] < len(order[rank]):
                action = order[rank][place[rank]]
                ready = _ready(action, done, last, at, latency)
                if ready is not None and ready <= clock:
                    left[rank] = stages[action.stage].of(action.kind, layout.recompute)
                elif ready is not None:
                    waking.append(ready)
        running = [rank for rank in range(layout.pp) if left[rank] is not None]
        if not running:
            clock = min(waking)
            continue
        wants = {rank: wanted[order[rank][place[rank]].stage] for rank in running}
        part = min(1.0, cores / (sum(wants.values()) * together))
        until = min(clock + (left[rank] or 0.0) / (part * wants[rank]) for rank in running)
        until = min([until, *waking])
        for rank in running:
            remains = (left[rank] or 0.0) - (until - clock) * part * wants[rank]
            left[rank] = remains
            if remains <= 1e-12:
                action = order[rank][place[rank]]
                if action.kind != "W":
                    done[action.stage, action.kind == "F", action.microbatch] = until
                left[rank], place[rank] = None, place[rank] + 1
        spent += (until - clock) * part * sum(wants.values()) * together
        clock = until
    return clock, spent


def _ready(
    action: Action, done: dict[tuple[int, bool, int], float], last: int, at: tuple[int, ...], latency: float
) -> float | None:
    """When what it needs has come; None where nobody knows yet."""
    forward = action.kind == "F"
    if action.kind == "W" or action.stage == (0 if forward else last):
        return 0.0
    source = action.stage - 1 if forward else action.stage + 1
    ended = done.get((source, forward, action.microbatch))
    return None if ended is None else ended + (latency if at[source] != at[action.stage] else 0.0)
