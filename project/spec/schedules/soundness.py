"""Checks that a schedule does everything once, and in an order that can be run."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action, Cell

Rows = Sequence[Sequence[Cell]]


class Waiting(NamedTuple):
    rank: int
    action: Action
    needed: Action


def count_faults(rows: Rows, layout: ParallelLayout) -> Iterator[str]:
    """Actions that are missing or doubled, one sentence each."""
    count = Counter(action for cells in rows for cell in cells for action in cell)
    for stage in range(layout.stages):
        for microbatch in range(layout.microbatches):
            yield from _odd_counts(count, *(Action(stage, kind, microbatch) for kind in "FBIW"))


def _odd_counts(
    count: Counter[Action], forward: Action, backward: Action, of_inputs: Action, of_weights: Action
) -> Iterator[str]:
    for action in (forward, backward, of_inputs, of_weights):
        if count[action] > 1:
            yield f"{action} is there {count[action]} times"
    if not count[forward]:
        yield f"{forward} is missing"
    if not (count[backward] or count[of_inputs] or count[of_weights]):
        yield f"{backward} is missing"
    elif count[backward] and (count[of_inputs] or count[of_weights]):
        half = of_inputs if count[of_inputs] else of_weights
        yield f"{half} is there beside {backward}, of which it is a half"
    elif not count[backward] and not (count[of_inputs] and count[of_weights]):
        there, missing = (of_inputs, of_weights) if count[of_inputs] else (of_weights, of_inputs)
        yield f"{there} is there without {missing}"


def order_faults(rows: Rows, layout: ParallelLayout) -> Iterator[str]:
    """Actions that a rank runs before one of its own that they need. For rows without faults of the above kind."""
    for row, cells in enumerate(rows, 1):
        ordered = [action for cell in cells for action in cell]
        yield from (f"row {row}: {sentence}" for sentence in _inversions(ordered, layout))


def _inversions(ordered: Sequence[Action], layout: ParallelLayout) -> Iterator[str]:
    place = {action: place for place, action in enumerate(ordered)}
    for action in ordered:
        first = action._replace(kind="I" if action.kind == "W" else "F")
        if place[action] < place[first]:
            yield f"{action} is before {first}"
    # The losses are kept in the order in which they arise, and handed out by the number of the microbatch.
    losses = [action for action in ordered if action.kind == "F" and action.stage == layout.stages - 1]
    for microbatch, action in enumerate(losses):
        if action.microbatch != microbatch:
            yield f"{action} is before {action._replace(microbatch=microbatch)}, but the last stage goes by number"
            return


def stuck(rows: Rows, stages: int) -> list[Waiting]:
    """Where the ranks stop for good, each running its row in order: the first action of each whose input never comes.

    As in torch, actions that overlap start together: none of them can wait for another.
    """
    done: set[Action] = set()
    left = [[cell for cell in cells if cell] for cells in rows]
    at = [0] * len(left)
    progress = True
    while progress:
        progress = False
        for rank, cells in enumerate(left):
            while at[rank] < len(cells) and not any(_missing(action, done, stages) for action in cells[at[rank]]):
                done.update(action._replace(kind="B") if action.kind == "I" else action for action in cells[at[rank]])
                at[rank] += 1
                progress = True
    heads = [(rank, action) for rank, cells in enumerate(left) if at[rank] < len(cells) for action in cells[at[rank]]]
    found = [(rank, action, _missing(action, done, stages)) for rank, action in heads]
    return [Waiting(rank, action, needed) for rank, action, needed in found if needed is not None]


def _missing(action: Action, done: set[Action], stages: int) -> Action | None:
    """The action of another stage whose message has yet to come; gradients of inputs count as a whole backward."""
    if action.kind == "F" and action.stage > 0:
        needed = action._replace(stage=action.stage - 1)
    elif action.kind in "BI" and action.stage < stages - 1:
        needed = Action(action.stage + 1, "B", action.microbatch)
    else:
        return None
    return None if needed in done else needed
