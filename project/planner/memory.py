"""Bytes on a rank at the peak of an optimizer step, by what they are for.

Adam in this trainer: weights, gradients and two moments, each as wide as a weight (in mixed precision the fp32 weight
is the master). What autograd keeps is `activations`, exact; buffers are counted where the trainer allocates them.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import NamedTuple

from project.parallel.layout import ParallelLayout
from project.pipeline.placement import stages_of
from project.planner.activations import kept, recomputed_layer
from project.planner.order import InFlight, order_of, peaks_in_flight
from project.planner.parameters import Parameters, parameters_of
from project.planner.precision import width_of
from project.planner.traffic import Step, rows_sent


class Memory(NamedTuple):
    """Bytes. `activations` is what the microbatches in flight keep, logits apart; `buffers` what collectives and
    messages need besides; `framework` is assumed, the cluster's."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    recomputation: int
    buffers: int
    framework: int

    @property
    def total(self) -> int:
        return sum(self)


@cache
def in_flight(layout: ParallelLayout) -> dict[int, set[InFlight]]:
    """By stage, when it has most."""
    rows = (peaks_in_flight(row, layout.recompute == "none") for row in order_of(layout))
    return {stage: moments for row in rows for stage, moments in row.items()}


def most_in_flight(layout: ParallelLayout, stage: int) -> int:
    return max(moment.all for moment in in_flight(layout)[stage])


def peaks(step: Step, pp_rank: int) -> dict[int, InFlight]:
    """Of each stage of a rank, when its microbatches in flight keep most."""
    return {
        stage: kept(step, step.parts[stage]).peak(in_flight(step.layout)[stage])
        for stage in stages_of(pp_rank, step.layout)
    }


def memory(step: Step, pp_rank: int, framework: int = 0) -> Memory:
    """Of one rank of that pipeline rank; stages of one rank are taken to peak together."""
    width, layout = width_of(step.precision).weight, step.layout
    held, whole = Parameters(), Parameters()
    for part in step.parts_on(pp_rank):
        held = held.plus(parameters_of(step.config, layout, part))
        whole = whole.plus(parameters_of(step.config, layout, part, sharded=False))
    gathered = whole.total - held.total  # of shards, until the step ends
    activations, logits = 0, 0
    for stage, peak in peaks(step, pp_rank).items():
        found = kept(step, step.parts[stage])
        of_logits = found.by_module(peak).get("logits", 0)
        activations += found.at(peak) - of_logits
        logits += of_logits
    return Memory(
        weights=whole.total * width,
        gradients=(whole.total + (held.total if gathered else 0)) * width,
        optimizer=2 * held.total * width,
        activations=activations,
        logits=logits,
        recomputation=recomputed_layer(step),
        buffers=sum(buffers(step, pp_rank).values()),
        framework=framework,
    )


def by_module(step: Step, pp_rank: int) -> dict[str, int]:
    """What the microbatches in flight keep on a rank, by the module that keeps it."""
    found: Counter[str] = Counter()
    for stage, peak in peaks(step, pp_rank).items():
        here = kept(step, step.parts[stage])
        found.update(here.by_module(peak))
        found["tokens and targets"] += here.batch
    return dict(found)


def buffers(step: Step, pp_rank: int) -> dict[str, int]:
    """Beside what autograd keeps: the messages that a stage holds a buffer for, one a microbatch and direction
    (`torch.distributed.pipelining`; those in flight are kept activations by then); rows on their way to experts and
    come from there; the flat gradients of an all-reduce."""
    layout, config, width = step.layout, step.config, width_of(step.precision)
    stream = step.tokens // layout.tp * config.d_model * width.weight
    rank_of, messages = step.rank_of_stage, 0
    for part in step.parts_on(pp_rank):
        stage = part.stage
        if not part.first and rank_of[stage - 1] != pp_rank:
            messages += (layout.microbatches - most_in_flight(layout, stage)) * stream
        if not part.last and rank_of[stage + 1] != pp_rank:
            messages += layout.microbatches * stream
    rows = 2 * rows_sent(step) * config.d_model * width.compute if layout.ep * layout.etp > 1 else 0
    held = [parameters_of(config, layout, part, sharded=False) for part in step.parts_on(pp_rank)]
    partial = sum(kinds.whole for kinds in held) * width.weight if layout.tp > 1 or layout.dp > 1 else 0
    replicas = sum(kinds.total for kinds in held) * width.weight if layout.dp > 1 else 0
    flat = replicas if layout.dp_mode == "replicate" and replicas else partial
    return {"messages": messages, "all-to-all": rows if config.moe_layers else 0, "gradients": flat}
