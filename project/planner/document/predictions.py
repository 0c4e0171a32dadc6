"""The document's times and ratios of times, all from the cluster's rates (`project.planner.machine.source`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from project.planner.cost.step_time import optimizer_seconds, stage_durations
from project.planner.cost.workload import workload
from project.planner.document.quantities import Quantity
from project.planner.step import Step
from project.spec.cost import head_flops_per_token, train_flops_per_token
from project.spec.layout import ParallelLayout

if TYPE_CHECKING:
    from project.planner.document.derive import Derived


def predictions(found: Derived, seconds: float) -> dict[str, Quantity]:
    """`seconds` is a step's."""
    said = {**_speed(found, seconds), **_pipeline(found), **_against_one(found, seconds)}
    return {name: Quantity(value, unit, found.seconds_source, how) for name, (value, unit, how) in said.items()}


def _speed(found: Derived, seconds: float) -> dict[str, tuple[float, str, str]]:
    step, cluster, layout = found.step, found.cluster, found.step.layout
    tokens = step.batch * step.seq_len * step.accumulate
    rate = cluster.peak(workload(step).arithmetic)
    mfu = (found.quantities["flops_per_step"].value or 0) / (seconds * rate * layout.world_size)
    whole = f"pipeline {found.timeline.span:.3g} s, gradients and optimizer; cluster {cluster.name}"
    return {
        "step_time_s": (seconds, "s", whole),
        "tokens_per_second": (tokens / seconds, "tokens/s", f"{tokens:,} tokens a step"),
        "mfu": (mfu, "1", f"model FLOPs over {layout.world_size} x {rate:.3g} FLOP/s"),
        "hfu": (mfu * (1 + _computed_again(step)), "1", "recomputed forwards counted"),
    }


def _computed_again(step: Step) -> float:
    """As a fraction of a step's FLOPs. A forward is a third of a step; of it the layers are computed again."""
    if step.layout.recompute == "none":
        return 0.0
    return 1 / 3 - head_flops_per_token(step.config) / train_flops_per_token(step.config, step.seq_len)


def _pipeline(found: Derived) -> dict[str, tuple[float, str, str]]:
    layout, idle = found.step.layout, found.timeline.bubble
    busy = "the time that ranks compute, at whatever rate; an upper bound of utilisation"
    latency = f"the batch's forward, {layout.microbatches} microbatches, action by action"
    return {
        "bubble": (idle, "1", f"{layout.schedule}, action by action, stages as they are"),
        "pipeline_utilization": (1 - idle, "1", busy),
        "forward_latency_s": (found.forward.span, "s", latency),
    }


def _against_one(found: Derived, seconds: float) -> dict[str, tuple[float, str, str]]:
    """GPU, with the same batch at once."""
    alone, cluster, latency = replace(found.step, layout=ParallelLayout()), found.cluster, found.forward.span
    work, by = workload(alone), f"cluster {found.cluster.name}"
    stage = stage_durations(work, alone.layout, cluster)[0]
    of_step = alone.accumulate * stage.total + optimizer_seconds(work, alone.layout, cluster)
    same = f"against {stage.forward:.3g} s for the same batch on one GPU; {by}"
    gain = f"step of {of_step:.3g} s on one GPU against {seconds:.3g} s; {by}"
    return {
        "latency_reduction": (1 - latency / stage.forward, "1", same),
        "throughput_gain": (of_step / seconds, "1", gain),
    }
