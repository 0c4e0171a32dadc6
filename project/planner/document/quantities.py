"""The quantities of the document, each with its unit, its source (`project.planner.machine.source`) and its
derivation: counts and bytes first, then times and ratios of times."""

from dataclasses import replace
from typing import NamedTuple

from project.planner.cost.communication_time import transfer_link
from project.planner.cost.routing import expected_imbalance
from project.planner.cost.step_time import optimizer_seconds, stage_durations
from project.planner.cost.workload import workload
from project.planner.document.derived import Derived
from project.planner.machine.source import source_of_figures, source_of_results
from project.planner.memory.peak import Memory
from project.planner.step import Step
from project.spec.cost import active_parameters, head_flops_per_token, total_parameters, train_flops_per_token
from project.spec.layout import ParallelLayout
from project.spec.precision import width_of
from project.spec.schedules.in_flight import InFlight
from project.spec.schedules.table import schedule_of


class Quantity(NamedTuple):
    """`value` in `unit`, None where it cannot be known; `source` is derived, assumed or measured; `how` is the
    derivation in one line."""

    value: float | None
    unit: str
    source: str
    how: str


def _derived(value: float | None, unit: str, how: str) -> Quantity:
    return Quantity(value, unit, "derived", how)


def quantities(found: Derived) -> dict[str, Quantity]:
    work = _work(found)
    counts = {**_gpus(found), **_parameters(found), **_memory(found), **_split(found), **_sent(found), **work}
    flops = work["flops_per_step"].value or 0
    times = {**_speed(found, flops), **_pipeline(found), **_against_one(found)}
    return counts | {
        name: Quantity(value, unit, found.seconds_source, how) for name, (value, unit, how) in times.items()
    }


def _gpus(found: Derived) -> dict[str, Quantity]:
    layout, cluster = found.step.layout, found.cluster
    available = source_of_figures(cluster, "nodes", "gpus_per_node")
    return {
        "gpus_used": _derived(layout.world_size, "1", f"pp {layout.pp} x dp {layout.dp} x tp {layout.tp}"),
        "gpus_available": Quantity(cluster.gpus, "1", available, f"cluster {cluster.name}"),
    }


def _parameters(found: Derived) -> dict[str, Quantity]:
    config, layout = found.step.config, found.step.layout
    held = found.parameters
    modules = config.num_layers + len(config.moe_layers) * config.num_experts
    of_rank = len(config.moe_layers) * config.num_experts / (layout.pp * layout.ep)
    return {
        "parameters_total": _derived(total_parameters(config), "1", "embedding and head included"),
        "parameters_active": _derived(active_parameters(config), "1", f"top-{config.top_k} of {config.num_experts}"),
        "parameters_per_rank": _derived(max(held), "1", f"the largest rank; {min(held):,} the smallest"),
        "modules_per_gpu": _derived(
            modules / layout.world_size,
            "1",
            f"{modules} modules / {layout.world_size} GPUs on average; each has {of_rank:g} whole experts / etp "
            f"{layout.etp} and a 1/{layout.tp} of attention in {config.num_layers / layout.pp:g} layers",
        ),
    }


def _memory(found: Derived) -> dict[str, Quantity]:
    """Each category on the pipeline rank that has most of it, and the total on the rank that has most in all."""
    layout, cluster, here = found.step.layout, found.cluster, f"cluster {found.cluster.name}"
    reserved, available = (source_of_figures(cluster, name) for name in ("reserved_bytes", "memory_bytes"))
    at_most = Memory(*(max(sizes) for sizes in zip(*found.memories, strict=True)))
    most = max(found.memories, key=lambda of: of.total)
    keeps = max(range(layout.pp), key=lambda rank: found.memories[rank].activations)
    flying = f"pp {keeps}: {' and '.join(map(_in_words, found.in_flight[keeps].items()))}, storage by storage"
    of_most = f"the largest rank: {(most.total - most.framework) / 1e9:.2f} GB derived, the framework's "
    of_most += f"{most.framework / 1e9:.1f} GB {reserved}"
    return {
        "weight_bytes": _derived(at_most.weights, "B", _weights(found)),
        "gradient_bytes": _derived(at_most.gradients, "B", "as wide as the weights"),
        "optimizer_bytes": _derived(at_most.optimizer, "B", "Adam's two moments, each as wide as a weight"),
        "state_bytes": _derived(
            max(of.weights + of.gradients + of.optimizer for of in found.memories), "B", "weights, gradients, optimizer"
        ),
        "activation_bytes": _derived(at_most.activations, "B", flying),
        "logits_bytes": _derived(at_most.logits, "B", "on the last stage, of each microbatch in flight, fp32"),
        "recomputation_bytes": _derived(at_most.recomputation, "B", f"recompute {layout.recompute}: one layer's"),
        "buffer_bytes": _derived(at_most.buffers, "B", "all-to-all rows, messages, flat gradients"),
        "framework_bytes": Quantity(at_most.framework, "B", reserved, here),
        "memory_bytes": Quantity(most.total, "B", source_of_results(cluster, "reserved_bytes"), of_most),
        "memory_available": Quantity(cluster.memory_bytes, "B", available, here),
    }


def _weights(found: Derived) -> str:
    step, most = found.step, max(found.parameters)
    width = width_of(step.precision).weight
    said = f"{most:,} parameters x {width} B, as {step.precision} keeps them"
    said += f"; of 2 B {most * 2 / 1e6:.0f} MB" if width > 2 else ""
    return said + ("; and whole for the step" if step.layout.dp_mode == "shard" else "")


def _in_words(of_stage: tuple[int, InFlight]) -> str:
    """A stage, and its microbatches in flight at their peak."""
    stage, moment = of_stage
    rest = f", {moment.second_half} of them for their weights' half alone" if moment.second_half else ""
    return f"{moment.all} microbatches of stage {stage} in flight{rest}"


def _split(found: Derived) -> dict[str, Quantity]:
    config, layout = found.step.config, found.step.layout
    largest = max(len(part.layers) for part in found.step.parts)
    in_turn = f"a token passes every layer in turn, whatever the stages; a stage holds {largest}"
    schedule = schedule_of(layout)
    closed, formula = schedule.bubble(layout), f"no closed form is known here of {layout.schedule}"
    if closed is not None:
        sizes = f"p={layout.pp}, v={layout.virtual_stages}, m={layout.microbatches}"
        formula = f"{schedule.bubble_formula} with {sizes}, even stages"
    return {
        "layers_per_stage": _derived(largest, "1", "the largest stage"),
        "layers_per_rank": _derived(
            max(sum(len(part.layers) for part in found.step.parts_on(rank)) for rank in range(layout.pp)),
            "1",
            f"the pipeline rank that has most; {layout.virtual_stages} stage(s) on it",
        ),
        "sequential_layers": _derived(config.num_layers, "1", in_turn),
        "attention_parallelization": _derived(layout.tp, "1", "heads over tp"),
        "expert_parallelization": _derived(layout.ep * layout.etp, "1", "experts over ep, slices over etp"),
        "bubble_closed_form": _derived(closed, "1", formula),
    }


def _sent(found: Derived) -> dict[str, Quantity]:
    between = [
        sum(sent.bytes for sent in of_rank if transfer_link(sent, found.step, found.cluster) == "inter")
        for of_rank in found.transfers
    ]
    busiest = found.transfers.index(found.busiest)
    most = max(range(len(between)), key=between.__getitem__)
    crossing = f"of pp {busiest}'s, over groups that span nodes and to stages on another"
    crossing += f"; pp {most} sends most so, {between[most] / 1e6:.3g} MB" if most != busiest else ""
    placed = source_of_results(found.cluster, "gpus_per_node")
    return {
        "communication_bytes": _derived(
            sum(sent.bytes for sent in found.busiest), "B", f"sent by the busiest rank, of pp {busiest}, in a step"
        ),
        "inter_node_bytes": Quantity(between[busiest], "B", placed, crossing),
    }


def _work(found: Derived) -> dict[str, Quantity]:
    step, config = found.step, found.step.config
    tokens = step.sequences * step.seq_len
    imbalance = expected_imbalance(tokens, config.num_experts, config.top_k) if config.moe_layers else 1.0
    load = f"mean over largest load of {tokens} tokens routed at random, top-{config.top_k} of {config.num_experts}: "
    flops = train_flops_per_token(config, step.seq_len) * step.batch * step.seq_len * step.accumulate
    return {
        "experts_active": _derived(1.0, "1", "every expert's rank computes in every layer that has experts"),
        "expert_utilization": Quantity(1 / imbalance, "1", "assumed", f"{load}max/mean {imbalance:.2f}"),
        "flops_per_step": _derived(flops, "FLOP", "forward and twice that backward; attention over the full sequence"),
    }


# -- times: value, unit, derivation ---------------------------------------------------------------------------------


def _speed(found: Derived, flops: float) -> dict[str, tuple[float, str, str]]:
    step, cluster, layout, seconds = found.step, found.cluster, found.step.layout, found.step_seconds
    tokens = step.batch * step.seq_len * step.accumulate
    rate = cluster.peak(workload(step).arithmetic)
    mfu = flops / (seconds * rate * layout.world_size)
    whole = f"pipeline {found.timeline.span:.3g} s, gradients and optimizer; cluster {cluster.name}"
    return {
        "step_time_s": (seconds, "s", whole),
        "tokens_per_second": (tokens / seconds, "tokens/s", f"{tokens:,} tokens a step"),
        "tokens_per_second_per_gpu": (
            tokens / seconds / layout.world_size,
            "tokens/s",
            f"{tokens:,} tokens a step, {layout.world_size} GPUs",
        ),
        "flops_per_gpu": (flops / (seconds * layout.world_size), "FLOP/s", "model FLOPs of a step, by GPU"),
        "mfu": (mfu, "1", f"model FLOPs over {layout.world_size} x {rate:.3g} FLOP/s"),
        "hfu": (mfu * (1 + _computed_again(step)), "1", "recomputed forwards counted"),
    }


def _computed_again(step: Step) -> float:
    """Recomputed FLOPs as a fraction of the step's: the forward, a third of the step, without the head."""
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


def _against_one(found: Derived) -> dict[str, tuple[float, str, str]]:
    """Ratios against one GPU that computes the same batch at once."""
    alone, cluster = replace(found.step, layout=ParallelLayout()), found.cluster
    latency, seconds = found.forward.span, found.step_seconds
    work, by = workload(alone), f"cluster {found.cluster.name}"
    stage = stage_durations(work, alone.layout, cluster)[0]
    of_step = alone.accumulate * stage.total + optimizer_seconds(work, alone.layout, cluster)
    same = f"against {stage.forward:.3g} s for the same batch on one GPU; {by}"
    gain = f"step of {of_step:.3g} s on one GPU against {seconds:.3g} s; {by}"
    return {
        "latency_reduction": (1 - latency / stage.forward, "1", same),
        "throughput_gain": (of_step / seconds, "1", gain),
    }
