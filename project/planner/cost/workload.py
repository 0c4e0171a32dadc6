"""What is to be timed, and what each stage and rank holds of it. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from project.planner.cost.implementation import Implementation, ours
from project.planner.cost.work import Shape
from project.planner.step import Step
from project.spec.cost import (
    attention_parameters,
    embedding_parameters,
    router_parameters,
    stage_costs,
)
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.partition import Costs, partition
from project.spec.peaks import Arithmetic
from project.spec.placement import stage_to_rank


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
        """Of an action. Where layers are recomputed a split backward runs whole at the inputs' turn."""
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


class Held(NamedTuple):
    """What a stage, or a rank with all its stages, has of the model: layers without and with experts, the embedding,
    the head."""

    dense: int
    experts: int
    first: int
    last: int

    @property
    def layers(self) -> int:
        return self.dense + self.experts


@lru_cache(maxsize=4096)
def _stages_held(config: ModelConfig, seq_len: int, split: ParallelLayout) -> tuple[Held, ...]:
    found = []
    for part in partition(Costs(*stage_costs(config, seq_len)), split):
        dense = len(range(part.layers.start, min(part.layers.stop, config.num_dense_layers)))
        found.append(Held(dense, len(part.layers) - dense, part.first, part.last))
    return tuple(found)


def stages_held(work: Workload | Step, layout: ParallelLayout) -> tuple[Held, ...]:
    """As the trainer cuts the model."""
    split = ParallelLayout(pp=layout.pp, virtual_stages=layout.virtual_stages, partition=layout.partition)
    return _stages_held(work.config, work.seq_len, split)


@lru_cache(maxsize=4096)
def _ranks_of_stages(pp: int, virtual_stages: int, schedule: str) -> tuple[int, ...]:
    return tuple(stage_to_rank(ParallelLayout(pp=pp, virtual_stages=virtual_stages, schedule=schedule)))


def ranks_of_stages(layout: ParallelLayout) -> tuple[int, ...]:
    """The pipeline rank of each stage."""
    return _ranks_of_stages(layout.pp, layout.virtual_stages, layout.schedule)


@lru_cache(maxsize=4096)
def _stages_of_ranks(pp: int, virtual_stages: int, schedule: str) -> tuple[tuple[int, ...], ...]:
    at = _ranks_of_stages(pp, virtual_stages, schedule)
    return tuple(tuple(stage for stage, rank in enumerate(at) if rank == mine) for mine in range(pp))


def stages_of_ranks(layout: ParallelLayout) -> tuple[tuple[int, ...], ...]:
    """The stages of each pipeline rank."""
    return _stages_of_ranks(layout.pp, layout.virtual_stages, layout.schedule)


@lru_cache(maxsize=4096)
def _ranks_held(config: ModelConfig, seq_len: int, split: ParallelLayout) -> tuple[Held, ...]:
    ranks = [Held(0, 0, 0, 0)] * split.pp
    alone = ParallelLayout(pp=split.pp, virtual_stages=split.virtual_stages, partition=split.partition)
    for rank, stage in zip(ranks_of_stages(split), _stages_held(config, seq_len, alone), strict=True):
        ranks[rank] = Held(*(mine + its for mine, its in zip(ranks[rank], stage, strict=True)))
    return tuple(ranks)


def ranks_held(work: Workload, layout: ParallelLayout) -> tuple[Held, ...]:
    split = ParallelLayout(
        pp=layout.pp, virtual_stages=layout.virtual_stages, partition=layout.partition, schedule=layout.schedule
    )
    return _ranks_held(work.config, work.seq_len, split)


class Parameters(NamedTuple):
    """Of one rank: whole on every rank of tp, divided over tp, divided over ep and etp."""

    whole: float
    dense: float
    experts: float


@lru_cache(maxsize=65536)
def _rank_parameters(
    config: ModelConfig, how: Implementation, ranks: tuple[Held, ...], tp: int, over: int
) -> tuple[Parameters, ...]:
    matrices = 3 if how.gated else 2
    one_expert = matrices * config.d_model * config.d_ff
    return tuple(
        Parameters(
            held.experts * router_parameters(config) + (2 * held.layers + held.last) * config.d_model,
            (
                held.layers * attention_parameters(config)
                + held.dense * matrices * config.d_model * config.dense_d_ff
                + held.experts * config.num_shared_experts * one_expert
                + (held.first + held.last) * embedding_parameters(config)
            )
            / tp,
            held.experts * config.num_experts * one_expert / over,
        )
        for held in ranks
    )


def rank_parameters(work: Workload, layout: ParallelLayout) -> tuple[Parameters, ...]:
    """Of each pipeline rank, of whatever trainer; biases are too few to matter to time."""
    ranks = ranks_held(work, layout)
    return _rank_parameters(work.config, work.how, ranks, layout.tp, layout.ep * layout.etp)
