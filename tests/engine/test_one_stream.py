"""Messages in one order: NCCL runs those of a communicator one after the other on each rank, and each waits for its
partner. Every schedule that torch's runtime executes gets through so, and those from files too."""

import csv
import random
from collections import deque
from pathlib import Path
from typing import NamedTuple

import pytest
from torch.distributed.pipelining.schedules import (
    RECV_B,
    RECV_F,
    SEND_B,
    SEND_F,
    _Action,
    _PipelineScheduleRuntime,
)

from project.spec.layout import ParallelLayout
from project.spec.partition import stages_of
from project.spec.schedules.table import SCHEDULES
from tests.harness.lowering import build
from tests.harness.schedules import layout_of

SENDS = {SEND_F: 1, SEND_B: -1}
RECEIVES = {RECV_F: -1, RECV_B: 1}


class End(NamedTuple):
    """One end of a message: whether it is the sender's; the stages from and to; the microbatch; the other rank."""

    sends: bool
    stages: tuple[int, int]
    microbatch: int | None
    peer: int


def ends(schedule: _PipelineScheduleRuntime, gradients: bool | None = None) -> dict[int, deque[End]]:
    """The messages of each rank in its order: all, or those of one direction, as over a communicator of its own."""
    rank_of = schedule.stage_index_to_group_rank

    def end(action: _Action) -> End | None:
        kind, stage = action.computation_type, action.stage_index
        if kind not in SENDS | RECEIVES or gradients not in (None, kind in (SEND_B, RECV_B)):
            return None
        other = stage + (SENDS | RECEIVES)[kind]
        sends = kind in SENDS
        return End(sends, (stage, other) if sends else (other, stage), action.microbatch_index, rank_of[other])

    return {
        rank: deque(one for action in actions for leaf in action.sub_actions or (action,) if (one := end(leaf)))
        for rank, actions in schedule.pipeline_order_with_comms.items()
    }


def left_over(waiting: dict[int, deque[End]]) -> int:
    """Messages that never go, where each rank's next one goes only when it is also its partner's next."""
    moved = True
    while moved:
        moved = False
        for rank, mine in waiting.items():
            while mine and (theirs := waiting[mine[0].peer]):
                other = theirs[0]
                if other.peer != rank or other.sends == mine[0].sends or other[1:3] != mine[0][1:3]:
                    break
                mine.popleft()
                theirs.popleft()
                moved = True
    return sum(map(len, waiting.values()))


def check(layout: ParallelLayout) -> None:
    built = build(layout)
    assert isinstance(built, _PipelineScheduleRuntime)
    assert sum(map(len, ends(built).values())) > 0
    for gradients in (None, False, True):
        assert left_over(ends(built, gradients)) == 0, (layout, gradients)


BY_RUNTIME = [name for name in SCHEDULES if name not in ("GPipe", "1F1B")]  # those two send in batches of torch's


@pytest.mark.parametrize("pp", [2, 4])
@pytest.mark.parametrize("microbatches", [8, 16])
@pytest.mark.parametrize("schedule", BY_RUNTIME)
def test_the_messages_of_a_schedule_get_through_one_at_a_time(schedule: str, pp: int, microbatches: int) -> None:
    check(layout_of(schedule, pp, microbatches))


def any_order(layout: ParallelLayout, draw: random.Random) -> list[list[str]]:
    """Actions of each rank in some order in which all can run: one that is ready after the other, drawn."""
    last, todo = (
        layout.stages - 1,
        [
            (stage, kind, batch)
            for stage in range(layout.stages)
            for kind in "FB"
            for batch in range(layout.microbatches)
        ],
    )
    done: set[tuple[int, str, int]] = set()
    rank_of = {stage: rank for rank in range(layout.pp) for stage in stages_of(rank, layout)}
    rows: list[list[str]] = [[] for _ in range(layout.pp)]

    def is_ready(stage: int, kind: str, batch: int) -> bool:
        if kind == "F":
            return stage == 0 or (stage - 1, "F", batch) in done
        return (stage, "F", batch) in done and (stage == last or (stage + 1, "B", batch) in done)

    while todo:
        action = draw.choice([one for one in todo if is_ready(*one)])
        todo.remove(action)
        done.add(action)
        rows[rank_of[action[0]]].append("{}{}{}".format(*action))
    return rows


@pytest.mark.parametrize("seed", range(20))
def test_the_messages_of_a_schedule_s_file_get_through_one_at_a_time(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    placed = ParallelLayout(
        pp=draw.choice([2, 3, 4]), virtual_stages=2, schedule="LoopedBFS", microbatches=draw.choice([4, 6])
    )
    path = tmp_path / "schedule.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(any_order(placed, draw))
    check(ParallelLayout(pp=placed.pp, virtual_stages=2, schedule=str(path), microbatches=placed.microbatches))


def test_two_ranks_that_both_send_first_never_get_through() -> None:
    """The simulation notices one."""
    first, second = End(True, (0, 1), 0, 1), End(True, (1, 0), 0, 0)
    received = End(False, (1, 0), 0, 1), End(False, (0, 1), 0, 0)
    assert left_over({0: deque([first, received[0]]), 1: deque([second, received[1]])}) == 4
