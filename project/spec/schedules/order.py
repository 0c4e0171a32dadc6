"""What each pipeline rank runs, in its order, under any schedule: the lists that `torch.distributed.pipelining` (2.13)
executes, worked out without torch, for a search asks for thousands of them. The tests hold them to torch's own lists
and to what ranks have executed.

Of 1F1B torch's own list is not what it runs: `Schedule1F1B._get_pipeline_order` numbers the last rank's forwards from
1.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import chain, repeat

from project.spec.layout import ParallelLayout, is_schedule_file
from project.spec.placement import stages_of
from project.spec.schedules.action import Action
from project.spec.schedules.file import read_schedule

Order = list[list[Action]]
"""By pipeline rank."""


def order_of(layout: ParallelLayout) -> Order:
    """Actions that overlap come one after the other, as the runtime runs them."""
    if is_schedule_file(layout.schedule):
        return read_schedule(layout.schedule)
    return [RULES[layout.schedule](rank, layout) for rank in range(layout.pp)]


def forwards(order: Order) -> Order:
    """The same lists without the backwards: what a batch's forward alone is."""
    return [[action for action in row if action.kind == "F"] for row in order]


class Row:
    """One rank's list as it grows. Each stage counts its own microbatches."""

    def __init__(self) -> None:
        self.actions: list[Action] = []
        self.begun: Counter[int] = Counter()
        self.returned: Counter[int] = Counter()
        self.waiting: deque[Action] = deque()

    def forward(self, stage: int) -> None:
        self.actions.append(Action(stage, "F", self.begun[stage]))
        self.begun[stage] += 1

    def backward(self, stage: int, split: bool = False) -> None:
        """With `split` of the inputs alone; the weights' half then waits."""
        microbatch = self.returned[stage]
        self.actions.append(Action(stage, "I" if split else "B", microbatch))
        self.returned[stage] += 1
        if split:
            self.waiting.append(Action(stage, "W", microbatch))

    def weights(self, stage: int | None = None) -> None:
        """The half that has waited longest, of one stage or of any; none if none waits."""
        found = next((half for half in self.waiting if stage in (None, half.stage)), None)
        if found is not None:
            self.waiting.remove(found)
            self.actions.append(found)


# -- one stage a rank ---------------------------------------------------------------------------------------------


def gpipe(rank: int, layout: ParallelLayout) -> list[Action]:
    return [Action(rank, kind, microbatch) for kind in "FB" for microbatch in range(layout.microbatches)]


def one_f_one_b(rank: int, layout: ParallelLayout) -> list[Action]:
    """As many forwards as there are stages from here to the end, then one backward and one forward in turn."""
    row, warm_up = Row(), min(layout.microbatches, layout.pp - rank)
    for _ in range(warm_up):
        row.forward(rank)
    for _ in range(layout.microbatches - warm_up):
        row.backward(rank)
        row.forward(rank)
    for _ in range(warm_up):
        row.backward(rank)
    return row.actions


# -- round and round ----------------------------------------------------------------------------------------------


def looped(rank: int, layout: ParallelLayout) -> list[Action]:
    """All of a stage before the next (breadth first), and back the way it came."""
    stages, microbatches = stages_of(rank, layout), range(layout.microbatches)
    forwards = (Action(stage, "F", microbatch) for stage in stages for microbatch in microbatches)
    backwards = (Action(stage, "B", microbatch) for stage in reversed(stages) for microbatch in reversed(microbatches))
    return [*forwards, *backwards]


def turns(layout: ParallelLayout, stages: Sequence[int]) -> list[int]:
    """The stage of each turn: microbatches go in rounds of about pp, each round through all of a rank's stages."""
    rounds = max(1, layout.microbatches // layout.pp)
    return list(chain.from_iterable(repeat(s, layout.microbatches // rounds) for _ in range(rounds) for s in stages))


def warm_up(rank: int, layout: ParallelLayout, hop: int) -> int:
    """Forwards before the first backward: the last rank's first round up to its last stage, and `hop` for each rank
    between here and there."""
    in_round = layout.microbatches // max(1, layout.microbatches // layout.pp)
    last = (layout.virtual_stages - 1) * in_round
    return min(last + hop * (layout.pp - 1 - rank), layout.virtual_stages * layout.microbatches)


def interleaved(rank: int, layout: ParallelLayout) -> list[Action]:
    row, stages = Row(), stages_of(rank, layout)
    forwards, backwards = turns(layout, stages), turns(layout, stages[::-1])
    before = warm_up(rank, layout, hop=2)
    for stage in forwards[:before]:
        row.forward(stage)
    for ahead, back in zip(forwards[before:], backwards, strict=False):
        row.forward(ahead)
        row.backward(back)
    for stage in backwards[len(forwards) - before :]:
        row.backward(stage)
    return row.actions


def interleaved_zero_bubble(rank: int, layout: ParallelLayout) -> list[Action]:
    """ZB1P (Qi et al., arXiv 2401.10241): the weights' halves run `rank` backwards late, and fill the end."""
    row, stages = Row(), stages_of(rank, layout)
    forwards, backwards = turns(layout, stages), turns(layout, stages[::-1])
    before = warm_up(rank, layout, hop=1)
    for stage in forwards[:before]:
        row.forward(stage)
    ahead = [*forwards[before:], *repeat(None, before)]
    for turn, (following, back) in enumerate(zip(ahead, backwards, strict=True)):
        if following is not None:
            row.forward(following)
        row.backward(back, split=True)
        if turn >= rank:
            row.weights()
    while row.waiting:
        row.weights()
    return row.actions


# -- down and up again --------------------------------------------------------------------------------------------


def zbv(rank: int, layout: ParallelLayout) -> list[Action]:
    """ZB-V (the same paper, section 6). Fewer microbatches than fill it are run as if there were enough, and those that
    are not there left out."""
    row, (down, up) = Row(), stages_of(rank, layout)
    after = layout.pp - rank
    filling = max(2 * layout.pp - 1, layout.microbatches)

    def whole(stage: int) -> None:
        row.backward(stage, split=True)
        row.weights(stage)

    for _ in range(2 * after - 1):
        row.forward(down)
    for _ in range(rank):
        row.forward(up)
        row.forward(down)
    for _ in range(after):
        row.forward(up)
        whole(up)
    while row.begun[up] < filling:
        if row.begun[down] < filling:
            row.forward(down)
        whole(down)
        row.forward(up)
        whole(up)
    for _ in range(rank):
        row.backward(down, split=True)
        row.backward(up, split=True)
    for _ in range(after):
        whole(down)
    for stage in (up, down):
        for _ in range(rank):
            row.weights(stage)
    return [action for action in row.actions if action.microbatch < layout.microbatches]


def dual_pipe_v(rank: int, layout: ParallelLayout) -> list[Action]:
    """DualPipe (DeepSeek-V3, arXiv 2412.19437, section 3.2.1) folded to a V, in the eight steps of its authors' code
    (github.com/deepseek-ai/DualPipe)."""
    row, (down, up) = Row(), stages_of(rank, layout)
    after, half = layout.pp - 1 - rank, (rank + 1) // 2
    for _ in range(2 * after):
        row.forward(down)
    for _ in range(rank + 1):
        row.forward(down)
        row.forward(up)
    for _ in range(after):
        row.backward(up, split=True)
        row.weights()
        row.forward(up)
    for _ in range(layout.microbatches - 2 * layout.pp + rank + 1):
        row.forward(down)
        row.backward(up)
        row.forward(up)
        row.backward(down)
    for _ in range(after):
        row.backward(up)
        row.forward(up)
        row.backward(down)
    for turn in range(rank + 1):
        row.backward(up, split=turn > half or (turn == half and rank % 2 == 1))
        row.backward(down, split=turn >= half)
    for _ in range(after):
        row.weights()
        row.backward(down, split=True)
    for _ in range(rank + 1):
        row.weights()
    return row.actions


RULES: dict[str, Callable[[int, ParallelLayout], list[Action]]] = {
    "1F1B": one_f_one_b,
    "GPipe": gpipe,
    "Interleaved1F1B": interleaved,
    "LoopedBFS": looped,
    "InterleavedZeroBubble": interleaved_zero_bubble,
    "ZBVZeroBubble": zbv,
    "DualPipeV": dual_pipe_v,
}
