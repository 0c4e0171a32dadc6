"""The strategy document as numbers: what follows from a model, a layout and a cluster.

Each number says where it is from: *derived* is arithmetic on the configuration, *assumed* rests on the cluster's
figures (rates, latencies, launch costs), *measured* on such figures measured on the machine itself (`calibrate=true`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from project.metrics.peak import Arithmetic
from project.model.cost import active_parameters, total_parameters, train_flops_per_token
from project.parallel.layout import ParallelLayout
from project.pipeline.placement import stages_of
from project.planner import collective_time
from project.planner.activations import kept
from project.planner.cluster import Cluster
from project.planner.implementation import ours
from project.planner.memory import Memory, by_module, in_flight, memory
from project.planner.order import order_of
from project.planner.parameters import parameters_on
from project.planner.precision import width_of
from project.planner.routing import expected_imbalance
from project.planner.step_time import (
    Durations,
    Workload,
    gradient_seconds,
    message_seconds,
    optimizer_seconds,
    stage_durations,
)
from project.planner.timeline import Timeline, simulate
from project.planner.traffic import Step, Transfer, by_axis, traffic
from project.run_folder import layout_entry


class Quantity(NamedTuple):
    """`source` is derived, assumed or measured; `how` one line."""

    value: float | None
    unit: str
    source: str
    how: str


@dataclass(frozen=True)
class Derived:
    """All that the document is made from. Lists are by pipeline rank, whose ranks are alike."""

    step: Step
    cluster: Cluster
    quantities: dict[str, Quantity]
    memories: list[Memory]
    activations: list[dict[str, int]]
    transfers: list[list[Transfer]]
    timeline: Timeline
    stages: list[Durations]
    claims: list[dict[str, Any]] = field(default_factory=list)


def derive(step: Step, cluster: Cluster) -> Derived:
    layout, work = step.layout, workload(step)
    stages = stage_durations(work, layout, cluster)
    message = message_seconds(work, layout, cluster)
    timeline = simulate(order_of(layout), duration_of(stages, layout), lambda here, there: message)
    ranks = range(layout.pp)
    memories = [memory(step, rank, int(cluster.reserved_bytes)) for rank in ranks]
    transfers = [traffic(step, rank) for rank in ranks]
    once = gradient_seconds(work, layout, cluster) + optimizer_seconds(work, layout, cluster)
    seconds = step.accumulate * timeline.span + once
    found = Derived(step, cluster, {}, memories, [by_module(step, rank) for rank in ranks], transfers, timeline, stages)
    found.quantities.update(_counts(found), **_times(found, seconds, message))
    return found


def workload(step: Step) -> Workload:
    arithmetic: Arithmetic = "half" if step.precision.startswith(("16", "bf16")) else "fp32"
    how = ours(step.precision, step.layout.dp_mode)
    return Workload(step.config, step.batch, step.seq_len, how, arithmetic)


def duration_of(stages: list[Durations], layout: ParallelLayout):
    """Where layers are recomputed a split backward runs whole at the inputs' turn."""
    whole = layout.recompute != "none"

    def seconds(stage: int, kind: str) -> float:
        forward, inputs, weights = stages[stage]
        both = inputs + weights
        return {"F": forward, "B": both, "I": both if whole else inputs, "W": 0.0 if whole else weights}[kind]

    return seconds


def fits(found: Derived, room: float) -> bool:
    return max(of.total for of in found.memories) <= room


# -- quantities ---------------------------------------------------------------------------------------------------


def _counts(found: Derived) -> dict[str, Quantity]:
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
    inter = sum(t.bytes for t in busiest if collective_time.tier(t.group, found.cluster) == "inter")
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
            at_most.activations, "B", f"{in_flight(layout)[0]} microbatches in flight at stage 0, storage by storage"
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
        "inter_node_bytes": derived(inter, "B", "of those over groups that span nodes"),
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


def _times(found: Derived, seconds: float, message: float) -> dict[str, Quantity]:
    step, cluster, timeline = found.step, found.cluster, found.timeline
    layout, work = step.layout, workload(step)
    source = "assumed" if cluster.host is None else "measured"
    tokens = step.batch * step.seq_len * step.accumulate
    peak = cluster.peak(work.arithmetic) * layout.world_size
    flops = found.quantities.get("flops_per_step") or _counts(found)["flops_per_step"]
    mfu = (flops.value or 0) / (seconds * peak)
    again = {"none": 0.0, "selective": 1 / 3, "full": 1 / 3}[layout.recompute]  # a forward is a third of a step
    forward = [of.forward for of in found.stages]
    latency = sum(forward) + message * (layout.pp - 1) + (layout.microbatches - 1) * max(forward)
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


# -- plan.json ----------------------------------------------------------------------------------------------------


def as_json(found: Derived) -> dict[str, Any]:
    step, layout = found.step, found.step.layout
    return {
        "layout": layout_entry(layout),
        "cluster": found.cluster.name,
        "model": asdict(step.config),
        "batch": {"batch_size": step.batch, "seq_len": step.seq_len, "accumulate": step.accumulate},
        "precision": step.precision,
        "quantities": {name: of._asdict() for name, of in found.quantities.items()},
        "ranks": [_rank(found, rank) for rank in range(layout.world_size)],
        "communication": communication(found),
        "timeline": [
            {
                "rank": timed.rank,
                "stage": timed.action.stage,
                "action": timed.action.kind,
                "microbatch": timed.action.microbatch,
                "start_s": timed.start,
                "end_s": timed.end,
            }
            for timed in found.timeline.actions
        ],
        "claims": found.claims,
    }


def _rank(found: Derived, rank: int) -> dict[str, Any]:
    step, config, layout = found.step, found.step.config, found.step.layout
    at, held = layout.coordinates(rank), step.config.num_experts // layout.ep
    stages = stages_of(at.pp, layout)
    layers = sorted(layer for stage in stages for layer in step.parts[stage].layers)
    has_experts = any(layer in config.moe_layers for layer in layers)
    return {
        "rank": rank,
        "node": rank // found.cluster.gpus_per_node,
        "gpu": rank % found.cluster.gpus_per_node,
        "stages": stages,
        "layers": layers,
        "dp": at.dp,
        "tp": at.tp,
        "ep": at.ep,
        "experts": list(range(at.ep * held, (at.ep + 1) * held)) if has_experts else [],
        "parameters": parameters_on(config, layout, at.pp, step.seq_len).total,
        "memory": found.memories[at.pp]._asdict(),
    }


def communication(found: Derived) -> dict[str, dict[str, dict[str, Any]]]:
    """Of the rank that sends most."""
    busiest = max(found.transfers, key=lambda sent: sum(transfer.bytes for transfer in sent))
    table = by_axis(busiest)
    for transfer in busiest:
        entry = table[transfer.group.axis][transfer.collective]
        once = collective_time.seconds(transfer.collective, transfer.given, transfer.group, found.cluster)
        entry["seconds"] = entry.get("seconds", 0.0) + transfer.calls * (0.0 if transfer.collective == "recv" else once)
        entry["link"] = collective_time.tier(transfer.group, found.cluster)
    return table


def planned(found: Derived) -> dict[str, Any]:
    """The figures that a run's summary has too, under its names."""
    step, layout, quantities = found.step, found.step.layout, found.quantities
    held = [parameters_on(step.config, layout, rank, step.seq_len).total for rank in range(layout.pp)]
    at = [layout.coordinates(rank).pp for rank in range(layout.world_size)]
    keys = ("step_time_s", "tokens_per_second", "mfu", "bubble")
    return {
        **{key: quantities[key].value for key in keys},
        "parameters_per_rank": [held[pp] for pp in at],
        "peak_memory_bytes_per_rank": [found.memories[pp].total for pp in at],
        "activation_bytes_peak_per_stage": [kept(step, part).at(in_flight(layout)[part.stage]) for part in step.parts],
        "communication": by_axis(max(found.transfers, key=lambda sent: sum(t.bytes for t in sent))),
    }
