"""A list of actions of one pipeline rank as it grows."""

from collections import Counter, deque

from project.spec.schedules.action import Action


class Row:
    """Each stage counts its own microbatches."""

    def __init__(self) -> None:
        self.actions: list[Action] = []
        self.begun: Counter[int] = Counter()
        self.returned: Counter[int] = Counter()
        self.waiting: deque[Action] = deque()

    def forward(self, stage: int) -> None:
        self.actions.append(Action(stage, "F", self.begun[stage]))
        self.begun[stage] += 1

    def backward(self, stage: int, split: bool = False) -> None:
        """A whole backward, or with `split` the gradients of the inputs; those of the weights then wait."""
        microbatch = self.returned[stage]
        self.actions.append(Action(stage, "I" if split else "B", microbatch))
        self.returned[stage] += 1
        if split:
            self.waiting.append(Action(stage, "W", microbatch))

    def weights(self, stage: int | None = None) -> None:
        """The weight gradients that have waited longest, of one stage or of any; a no-op if none wait."""
        found = next((half for half in self.waiting if stage in (None, half.stage)), None)
        if found is not None:
            self.waiting.remove(found)
            self.actions.append(found)
