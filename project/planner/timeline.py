"""The timeline of a pipeline and of an optimizer step: when each action of a schedule starts and ends, by simulation.

A rank runs its list in order; an action starts once the one before it has ended and what it needs has come: a forward
needs the previous stage's output, a backward (whole, or of the inputs) the next stage's. Messages travel beside the
computation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from project.planner.cost.step_time import gradient_seconds, optimizer_seconds, stage_durations, travel
from project.planner.cost.workload import Durations, workload
from project.planner.machine.cluster import Cluster
from project.planner.step import Step
from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action
from project.spec.schedules.order import Order, order_of

Duration = Callable[[int, str], float]
"""Seconds of one action of a stage, by its kind: F, B, I or W. Where layers are recomputed the trainer runs both halves
of a split backward at the inputs' turn (`RecordedStage`): I is then B, and W nothing."""

Travel = Callable[[int, int], float]
"""Seconds of a message from a stage to a neighbour on another rank."""


class Timed(NamedTuple):
    rank: int
    action: Action
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """`busy` is the seconds of computation of each rank; actions are in the order of the ranks and of their lists."""

    actions: list[Timed]
    span: float
    busy: list[float]

    @property
    def bubbles(self) -> list[float]:
        """The fraction of the step in which each rank computes nothing."""
        return [1 - busy / self.span if self.span else 0.0 for busy in self.busy]

    @property
    def bubble(self) -> float:
        """The mean over the ranks."""
        return sum(self.bubbles) / len(self.busy)


def simulate(order: Order, duration_of: Duration, travel: Travel) -> Timeline:
    """ValueError for an order in which ranks would wait for each other forever."""
    rank_of = {action.stage: rank for rank, actions in enumerate(order) for action in actions}
    last = len(rank_of) - 1
    seconds = {(stage, kind): duration_of(stage, kind) for stage in rank_of for kind in _kinds(order)}
    hop = {
        (here, there): 0.0 if rank_of[here] == rank_of[there] else travel(here, there)
        for here in range(last + 1)
        for there in (here - 1, here + 1)
        if 0 <= there <= last
    }
    ends: dict[tuple[int, bool, int], float] = {}  # of what other stages wait for: stage, whether forward, microbatch
    waiting: dict[tuple[int, bool, int], int] = {}
    rows: list[list[Timed]] = [[] for _ in order]
    clocks, runnable = [0.0] * len(order), list(range(len(order)))
    while runnable:
        rank = runnable.pop()
        actions, row, clock = order[rank], rows[rank], clocks[rank]
        while len(row) < len(actions):
            action = actions[len(row)]
            stage, kind, microbatch = action
            forward = kind == "F"
            start = clock
            if kind != "W" and stage != (0 if forward else last):
                source = stage - 1 if forward else stage + 1
                needed = (source, forward, microbatch)
                if needed not in ends:
                    waiting[needed] = rank
                    break
                start = max(clock, ends[needed] + hop[source, stage])
            clock = start + seconds[stage, kind]
            row.append(Timed(rank, action, start, clock))
            if kind != "W":
                done = (stage, forward, microbatch)
                ends[done] = clock
                if done in waiting:
                    runnable.append(waiting.pop(done))
        clocks[rank] = clock
    stuck = [str(actions[len(row)]) for actions, row in zip(order, rows, strict=True) if len(row) < len(actions)]
    if stuck:
        raise ValueError(f"the schedule deadlocks at {', '.join(stuck)}")
    busy = [sum(timed.end - timed.start for timed in row) for row in rows]
    return Timeline([timed for row in rows for timed in row], max(clocks, default=0.0), busy)


def _kinds(order: Order) -> set[str]:
    return {action.kind for actions in order for action in actions}


@dataclass(frozen=True)
class SimulatedStep:
    """`pipeline` is the timeline of one batch; `seconds` is the whole step, with all batches that it accumulates.
    `stages`, `duration` and `travel` are what the simulation was given."""

    stages: list[Durations]
    duration: Duration
    travel: Travel
    pipeline: Timeline
    seconds: float


def simulate_step(step: Step, layout: ParallelLayout, cluster: Cluster) -> SimulatedStep:
    """Simulates the step's model and batch under `layout`."""
    work = workload(step, layout)
    stages, journey = stage_durations(work, layout, cluster), travel(work, layout, cluster)

    def duration(stage: int, kind: str) -> float:
        return stages[stage].of(kind, layout.recompute)

    pipeline = simulate(order_of(layout), duration, journey)
    once = gradient_seconds(work, layout, cluster) + optimizer_seconds(work, layout, cluster)
    return SimulatedStep(stages, duration, journey, pipeline, step.accumulate * pipeline.span + once)
