"""The work that is to be timed: a model, a batch, and the trainer that computes it."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from project.planner.cost.parameters import Parameters, divided
from project.planner.cost.stages import Held, ranks_held, stages_held
from project.planner.step import Step
from project.spec.layer.implementation import Implementation, ours
from project.spec.layer.operation import Shape
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.precision import Arithmetic


@dataclass(frozen=True)
class Workload:
    """`batch` counts the sequences of one optimizer step over all replicas; `imbalance` is the load of the busiest
    rank's experts over the mean."""

    config: ModelConfig
    batch: int
    seq_len: int
    how: Implementation
    arithmetic: Arithmetic = "half"
    imbalance: float = 1.0

    def shape(self, layout: ParallelLayout) -> Shape:
        sequences = self.batch // (layout.dp * layout.microbatches)
        return Shape(sequences, self.seq_len, layout.tp, layout.ep, layout.etp, self.imbalance)

    def held_by_stages(self, layout: ParallelLayout) -> tuple[Held, ...]:
        return stages_held(self.config, layout, self.seq_len)

    def held_by_ranks(self, layout: ParallelLayout) -> tuple[Held, ...]:
        """By pipeline rank, with all its stages."""
        return ranks_held(self.config, layout, self.seq_len)


def workload(step: Step, layout: ParallelLayout | None = None) -> Workload:
    """A step of this trainer, under its own layout or another: what is kept depends on how replicas are held."""
    arithmetic: Arithmetic = "half" if step.precision.startswith(("16", "bf16")) else "fp32"
    how = ours(step.precision, (layout or step.layout).dp_mode)
    return Workload(step.config, step.batch, step.seq_len, how, arithmetic)


class Durations(NamedTuple):
    """Seconds of one microbatch: forward; backward of the inputs, what is computed again included; of the weights."""

    forward: float = 0.0
    inputs: float = 0.0
    weights: float = 0.0

    @property
    def total(self) -> float:
        return self.forward + self.inputs + self.weights

    def of(self, kind: str, recompute: str) -> float:
        """Seconds of an action. Where layers are recomputed a split backward runs whole at the inputs' turn."""
        both = self.inputs + self.weights
        halves = (self.inputs, self.weights) if recompute == "none" else (both, 0.0)
        return {"F": self.forward, "B": both, "I": halves[0], "W": halves[1]}[kind]


class StepTime(NamedTuple):
    """Seconds. `bubble` is the part of `pipeline` in which the slowest rank waits for others to fill it or to empty;
    `messages` of it is spent on what stages send each other."""

    pipeline: float
    bubble: float
    messages: float
    gradients: float
    optimizer: float

    @property
    def total(self) -> float:
        return self.pipeline + self.gradients + self.optimizer


def rank_parameters(work: Workload, layout: ParallelLayout) -> tuple[Parameters, ...]:
    """Parameters of each pipeline rank, whichever the trainer; biases are too few to matter to time. Replicas count
    their whole share."""
    return _rank_parameters(work.config, work.how, work.held_by_ranks(layout), layout.tp, layout.ep * layout.etp)


@lru_cache(maxsize=65536)
def _rank_parameters(
    config: ModelConfig, how: Implementation, ranks: tuple[Held, ...], tp: int, over: int
) -> tuple[Parameters, ...]:
    return tuple(divided(config, how, held, tp, over) for held in ranks)
