"""The record of a pipeline schedule: all that legality, executor, planner, charts, help and tests ask about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action


def round_robin(layout: ParallelLayout) -> list[int]:
    """The pipeline rank of each stage: 0, 1, .. pp - 1, and again from 0."""
    return [stage % layout.pp for stage in range(layout.stages)]


def v_shaped(layout: ParallelLayout) -> list[int]:
    """The pipeline rank of each stage: down 0, 1, .. pp - 1, and up again. Rank 0 has the first stage and the last."""
    ranks = range(layout.pp)
    return [*ranks, *reversed(ranks)]


def rounds(pp: int, microbatches: int) -> int:
    """Rounds of about `pp` microbatches in which a schedule passes through all stages of a rank."""
    return max(1, microbatches // pp)


FILL_AND_DRAIN = "(p-1)/(vm+p-1)"


def fill_and_drain(layout: ParallelLayout) -> float:
    """Bubble of a pipeline that idles while it fills and empties alone, by `FILL_AND_DRAIN`."""
    return (layout.pp - 1) / (layout.virtual_stages * layout.microbatches + layout.pp - 1)


def no_closed_form(layout: ParallelLayout) -> None:
    return None


def whole_pass(forward: float, inputs: float, weights: float) -> float:
    return forward + inputs + weights


def no_stall(forward: float, inputs: float, weights: float) -> float:
    return 0.0


@dataclass(frozen=True)
class Schedule:
    """`words` are a line of `--help`, of at most 38 characters.

    `order(rank, stages, layout)` lists the actions of one pipeline rank, which holds `stages`, in rising order. Actions
    that overlap follow each other. `placement` gives the pipeline rank of each stage.

    `stages_a_rank` is a fixed number; None for any. `with_one_stage` names the schedule that does the same where a rank
    has one stage.

    `for_fewer_microbatches` names the schedule to take instead where there are fewer microbatches than stages; None if
    this one takes any number. `in_rounds`: the number of `rounds` has to divide the microbatches.

    `filled_by` is a number of microbatches with which as many are in flight as ever; None if all forwards come before
    the first backward, so that every microbatch is in flight at once. `splits_backward`: the gradients of inputs and of
    weights are computed apart (actions I and W instead of B).

    `bubble` is the fraction of a step in which ranks compute nothing, if all stages take as long and messages no time;
    None where no closed form is known. `bubble_formula` is its formula in p (`pp`), v (`virtual_stages`) and m
    (`microbatches`), as documents print it.

    `wait(forward, inputs, weights)` is the time that the slowest rank waits for another rank to pass a microbatch on,
    by the time that this takes the other one; weight gradients that fill it are taken off. It is for one stage a rank,
    and is divided by their number. `stall(forward, inputs, weights)` is the time that a rank of a full pipeline waits
    for its neighbours for each microbatch.

    `torch_class` is the schedule's name in `torch.distributed.pipelining`; None if torch has none, and its runtime is
    given `order`.
    """

    name: str
    words: str
    order: Callable[[int, Sequence[int], ParallelLayout], list[Action]]
    placement: Callable[[ParallelLayout], list[int]] = round_robin
    stages_a_rank: int | None = None
    with_one_stage: str | None = None
    for_fewer_microbatches: str | None = None
    in_rounds: bool = False
    filled_by: Callable[[ParallelLayout], int] | None = None
    splits_backward: bool = False
    bubble: Callable[[ParallelLayout], float | None] = no_closed_form
    bubble_formula: str = ""
    wait: Callable[[float, float, float], float] = whole_pass
    stall: Callable[[float, float, float], float] = no_stall
    torch_class: str | None = None

    def least_microbatches(self, pp: int) -> int:
        return 1 if self.for_fewer_microbatches is None else pp * (self.stages_a_rank or 1)

    def takes(self, pp: int, microbatches: int) -> bool:
        """True if the schedule can run so many microbatches over so many ranks."""
        in_even_rounds = not self.in_rounds or microbatches % rounds(pp, microbatches) == 0
        return microbatches >= self.least_microbatches(pp) and in_even_rounds
