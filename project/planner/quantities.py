"""The document's numbers, each with where it is from: *derived* is arithmetic on the configuration, *assumed* rests on
the cluster's figures (rates, latencies, launch costs), *measured* on such figures measured on the machine itself
(`calibrate=true`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from project.model.cost import (
    active_parameters,
    head_flops_per_token,
    total_parameters,
    train_flops_per_token,
)
from project.parallel.layout import ParallelLayout
from project.planner.memory import Memory, most_in_flight
from project.planner.parameters import parameters_on
from project.planner.precision import width_of
from project.planner.routing import expected_imbalance
from project.planner.step_time import optimizer_seconds, stage_durations
from project.planner.transfer_time import link
from project.planner.workload import workload

if TYPE_CHECKING:
    from project.planner.derive import Derived


class Quantity(NamedTuple):
    """`source` is derived, assumed or measured; `how` one line."""

    value: float | None
    unit: str
    source: str
    how: str


def counts(found: Derived) -> dict[str, Quantity]:
    step = found.step
    config, layout = step.config, step.layout

    def derived(value: float | None, unit: str, how: str) -> Quantity:
        return Quantity(value, unit, "derived", how)

    held = [parameters_on(config, layout, rank, step.seq_len).total for rank in range(layout.pp)]
    at_most = Memory(*(max(sizes) for sizes in zip(*found.memories, strict=True)))
    most = max(found.memories, key=lambda of: of.total)
    width = width_of(step.precision).weight
    busiest = max(found.transfers, key=lambda sent: sum(transfer.bytes for transfer in sent))
    sent = sum(transfer.bytes for transfer in busiest)
    inter = sum(t.bytes for t in busiest if link(t, step, found.cluster) == "inter")
    modules = config.num_layers + len(config.moe_layers) * config.num_experts
    of_rank = len(config.moe_layers) * config.num_experts / (layout.pp * layout.ep)
    tokens = step.sequences * step.seq_len
    imbalance = expected_imbalance(tokens, config.num_experts, config.top_k) if config.moe_layers else 1.0
    weights = f"{max(held):,} parameters x {width} B, as {step.precision} keeps them"
    weights += f"; of 2 B {max(held) * 2 / 1e6:.0f} MB" if width > 2 else ""
    weights += "; and whole for the step" if layout.dp_mode == "shard" else ""
    return {
        "gpus_used": derived(layout.world_size, "1", f"pp {layout.pp} x dp {layout.dp} x tp {layout.tp}"),
        "gpus_available": Quantity(found.cluster.gpus, "1", "assumed", f"cluster {found.cluster.name}"),
        "parameters_total": derived(total_parameters(config), "1", "embedding and head included"),
        "parameters_active": derived(active_parameters(config), "1", f"top-{config.top_k} of {config.num_experts}"),
        "parameters_per_rank": derived(max(held), "1", f"the largest rank; {min(held):,} the smallest"),
        "modules_per_gpu": derived(
            modules / layout.world_size,
            "1",
            f"{modules} modules / {layout.world_size} GPUs on average; each has {of_rank:g} whole experts / etp "
            f"{layout.etp} and a 1/{layout.tp} of attention in {config.num_layers / layout.pp:g} layers",
        ),
        "weight_bytes": derived(at_most.weights, "B", weights),
        "gradient_bytes": derived(at_most.gradients, "B", "as wide as the weights"),
        "optimizer_bytes": derived(at_most.optimizer, "B", "Adam's two moments, each as wide as a weight"),
        "activation_bytes": derived(
            at_most.activations,
            "B",
            f"{most_in_flight(layout, 0)} microbatches in flight at stage 0, storage by storage",
        ),
        "logits_bytes": derived(at_most.logits, "B", "on the last stage, of each microbatch in flight, fp32"),
        "recomputation_bytes": derived(at_most.recomputation, "B", f"recompute {layout.recompute}: one layer's"),
        "buffer_bytes": derived(at_most.buffers, "B", "all-to-all rows, messages, flat gradients"),
        "framework_bytes": Quantity(at_most.framework, "B", "assumed", f"cluster {found.cluster.name}"),
        "memory_bytes": Quantity(
            most.total,
            "B",
            "assumed",
            f"the largest rank: {(most.total - most.framework) / 1e9:.2f} GB derived, the framework's "
            f"{most.framework / 1e9:.1f} GB assumed",
        ),
        "memory_available": Quantity(found.cluster.memory_bytes, "B", "assumed", f"cluster {found.cluster.name}"),
        "layers_per_stage": derived(max(len(part.layers) for part in step.parts), "1", "the largest stage"),
        "sequential_layers": derived(
            config.num_layers,
            "1",
            f"a token passes every layer in turn, whatever the stages; a stage holds "
            f"{max(len(part.layers) for part in step.parts)}",
        ),
        "attention_parallelization": derived(layout.tp, "1", "heads over tp"),
        "expert_parallelization": derived(layout.ep * layout.etp, "1", "experts over ep, slices over etp"),
        "experts_active": derived(1.0, "1", "every expert's rank computes in every layer that has experts"),
        "expert_utilization": derived(
            1 / imbalance,
            "1",
            f"mean over largest load of {tokens} tokens routed at random, top-{config.top_k} of {config.num_experts}: "
            f"max/mean {imbalance:.2f}",
        ),
        "communication_bytes": derived(sent, "B", "sent by the busiest rank in a step"),
        "inter_node_bytes": derived(inter, "B", "of those over groups that span nodes and to stages on another"),
        "bubble_closed_form": derived(
            (layout.pp - 1) / (layout.virtual_stages * layout.microbatches + layout.pp - 1),
            "1",
            f"(p-1)/(vm+p-1) with p={layout.pp}, v={layout.virtual_stages}, m={layout.microbatches}, even stages",
        ),
        "flops_per_step": derived(
            train_flops_per_token(config, step.seq_len) * step.batch * step.seq_len * step.accumulate,
            "FLOP",
            "forward and twice that backward; attention over the full sequence",
        ),
    }


def times(found: Derived, seconds: float) -> dict[str, Quantity]:
    step, cluster, timeline = found.step, found.cluster, found.timeline
    layout, work = step.layout, workload(step)
    source = "assumed" if cluster.host is None else "measured"
    tokens = step.batch * step.seq_len * step.accumulate
    peak = cluster.peak(work.arithmetic) * layout.world_size
    mfu = (found.quantities["flops_per_step"].value or 0) / (seconds * peak)
    # A forward is a third of a step; of it the layers are computed again.
    of_layers = 1 - 3 * head_flops_per_token(step.config) / train_flops_per_token(step.config, step.seq_len)
    again = 0.0 if layout.recompute == "none" else of_layers / 3
    latency = found.forward.span
    alone = replace(step, layout=ParallelLayout())
    one = stage_durations(workload(alone), alone.layout, cluster)[0]
    alone_seconds = step.accumulate * (one.total) + optimizer_seconds(workload(alone), alone.layout, cluster)

    def timed(value: float, unit: str, how: str) -> Quantity:
        return Quantity(value, unit, source, how)

    by = f"cluster {cluster.name}"
    return {
        "step_time_s": timed(seconds, "s", f"pipeline {timeline.span:.3g} s, gradients and optimizer; {by}"),
        "tokens_per_second": timed(tokens / seconds, "tokens/s", f"{tokens:,} tokens a step"),
        "mfu": timed(mfu, "1", f"model FLOPs over {layout.world_size} x {cluster.peak(work.arithmetic):.3g} FLOP/s"),
        "hfu": timed(mfu * (1 + again), "1", "recomputed forwards counted"),
        "bubble": timed(timeline.bubble, "1", f"{layout.schedule}, action by action, stages as they are"),
        "pipeline_utilization": timed(
            1 - timeline.bubble, "1", "the time that ranks compute, at whatever rate; an upper bound of utilisation"
        ),
        "forward_latency_s": timed(latency, "s", f"the batch's forward, {layout.microbatches} microbatches"),
        "latency_reduction": timed(
            1 - latency / one.forward, "1", f"against {one.forward:.3g} s for the same batch on one GPU; {by}"
        ),
        "throughput_gain": timed(
            alone_seconds / seconds, "1", f"step of {alone_seconds:.3g} s on one GPU against {seconds:.3g} s; {by}"
        ),
    }
