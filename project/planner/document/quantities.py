"""The document's counts, each with where it is from (`project.planner.machine.source`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from project.planner.cost.parameters import parameters_on
from project.planner.cost.routing import expected_imbalance
from project.planner.cost.transfer_time import link
from project.planner.machine.source import source_of_figures, source_of_results
from project.planner.memory.memory import Memory
from project.spec.cost import active_parameters, total_parameters, train_flops_per_token
from project.spec.precision import width_of
from project.spec.schedules.in_flight import InFlight
from project.spec.schedules.table import schedule_of

if TYPE_CHECKING:
    from project.planner.document.derive import Derived


class Quantity(NamedTuple):
    """`source` is derived, assumed or measured; `how` one line. None is what cannot be known."""

    value: float | None
    unit: str
    source: str
    how: str


def derived(value: float | None, unit: str, how: str) -> Quantity:
    return Quantity(value, unit, "derived", how)


def counts(found: Derived) -> dict[str, Quantity]:
    return {**_gpus(found), **_parameters(found), **_memory(found), **_split(found), **_sent(found), **_work(found)}


def _gpus(found: Derived) -> dict[str, Quantity]:
    layout, cluster = found.step.layout, found.cluster
    available = source_of_figures(cluster, "nodes", "gpus_per_node")
    return {
        "gpus_used": derived(layout.world_size, "1", f"pp {layout.pp} x dp {layout.dp} x tp {layout.tp}"),
        "gpus_available": Quantity(cluster.gpus, "1", available, f"cluster {cluster.name}"),
    }


def _parameters(found: Derived) -> dict[str, Quantity]:
    config, layout = found.step.config, found.step.layout
    held = _held(found)
    modules = config.num_layers + len(config.moe_layers) * config.num_experts
    of_rank = len(config.moe_layers) * config.num_experts / (layout.pp * layout.ep)
    return {
        "parameters_total": derived(total_parameters(config), "1", "embedding and head included"),
        "parameters_active": derived(active_parameters(config), "1", f"top-{config.top_k} of {config.num_experts}"),
        "parameters_per_rank": derived(max(held), "1", f"the largest rank; {min(held):,} the smallest"),
        "modules_per_gpu": derived(
            modules / layout.world_size,
            "1",
            f"{modules} modules / {layout.world_size} GPUs on average; each has {of_rank:g} whole experts / etp "
            f"{layout.etp} and a 1/{layout.tp} of attention in {config.num_layers / layout.pp:g} layers",
        ),
    }


def _held(found: Derived) -> list[int]:
    """Parameters of each pipeline rank."""
    step = found.step
    return [parameters_on(step.config, step.layout, rank, step.seq_len).total for rank in range(step.layout.pp)]


def _memory(found: Derived) -> dict[str, Quantity]:
    """Of each category that of the rank with most of it."""
    layout, reserved = found.step.layout, f"cluster {found.cluster.name}"
    at_most = Memory(*(max(sizes) for sizes in zip(*found.memories, strict=True)))
    most = max(found.memories, key=lambda of: of.total)
    keeps = max(range(layout.pp), key=lambda rank: found.memories[rank].activations)
    flying = f"pp {keeps}: {' and '.join(map(in_words, found.in_flight[keeps].items()))}, storage by storage"
    of_most = f"the largest rank: {(most.total - most.framework) / 1e9:.2f} GB derived, the framework's "
    of_most += f"{most.framework / 1e9:.1f} GB {source_of_figures(found.cluster, 'reserved_bytes')}"
    return {
        "weight_bytes": derived(at_most.weights, "B", _weights(found)),
        "gradient_bytes": derived(at_most.gradients, "B", "as wide as the weights"),
        "optimizer_bytes": derived(at_most.optimizer, "B", "Adam's two moments, each as wide as a weight"),
        "activation_bytes": derived(at_most.activations, "B", flying),
        "logits_bytes": derived(at_most.logits, "B", "on the last stage, of each microbatch in flight, fp32"),
        "recomputation_bytes": derived(at_most.recomputation, "B", f"recompute {layout.recompute}: one layer's"),
        "buffer_bytes": derived(at_most.buffers, "B", "all-to-all rows, messages, flat gradients"),
        "framework_bytes": Quantity(
            at_most.framework, "B", source_of_figures(found.cluster, "reserved_bytes"), reserved
        ),
        "memory_bytes": Quantity(most.total, "B", source_of_results(found.cluster, "reserved_bytes"), of_most),
        "memory_available": Quantity(
            found.cluster.memory_bytes,
            "B",
            source_of_figures(found.cluster, "memory_bytes"),
            f"cluster {found.cluster.name}",
        ),
    }


def _weights(found: Derived) -> str:
    step, most = found.step, max(_held(found))
    width = width_of(step.precision).weight
    said = f"{most:,} parameters x {width} B, as {step.precision} keeps them"
    said += f"; of 2 B {most * 2 / 1e6:.0f} MB" if width > 2 else ""
    return said + ("; and whole for the step" if step.layout.dp_mode == "shard" else "")


def in_words(of_stage: tuple[int, InFlight]) -> str:
    """A stage, and when it has most in flight."""
    stage, moment = of_stage
    rest = f", {moment.second_half} of them for their weights' half alone" if moment.second_half else ""
    return f"{moment.all} microbatches of stage {stage} in flight{rest}"


def _split(found: Derived) -> dict[str, Quantity]:
    config, layout = found.step.config, found.step.layout
    largest = max(len(part.layers) for part in found.step.parts)
    in_turn = f"a token passes every layer in turn, whatever the stages; a stage holds {largest}"
    closed, formula = schedule_of(layout).bubble(layout), f"no closed form is known here of {layout.schedule}"
    if closed is not None:
        formula = f"(p-1)/(vm+p-1) with p={layout.pp}, v={layout.virtual_stages}, m={layout.microbatches}, even stages"
    return {
        "layers_per_stage": derived(largest, "1", "the largest stage"),
        "sequential_layers": derived(config.num_layers, "1", in_turn),
        "attention_parallelization": derived(layout.tp, "1", "heads over tp"),
        "expert_parallelization": derived(layout.ep * layout.etp, "1", "experts over ep, slices over etp"),
        "bubble_closed_form": derived(closed, "1", formula),
    }


def _sent(found: Derived) -> dict[str, Quantity]:
    between = [
        sum(sent.bytes for sent in of_rank if link(sent, found.step, found.cluster) == "inter")
        for of_rank in found.transfers
    ]
    busiest = found.transfers.index(found.busiest)
    most = max(range(len(between)), key=between.__getitem__)
    crossing = f"of pp {busiest}'s, over groups that span nodes and to stages on another"
    crossing += f"; pp {most} sends most so, {between[most] / 1e6:.3g} MB" if most != busiest else ""
    return {
        "communication_bytes": derived(
            sum(sent.bytes for sent in found.busiest), "B", f"sent by the busiest rank, of pp {busiest}, in a step"
        ),
        "inter_node_bytes": Quantity(
            between[busiest], "B", source_of_results(found.cluster, "gpus_per_node"), crossing
        ),
    }


def _work(found: Derived) -> dict[str, Quantity]:
    step, config = found.step, found.step.config
    tokens = step.sequences * step.seq_len
    imbalance = expected_imbalance(tokens, config.num_experts, config.top_k) if config.moe_layers else 1.0
    load = f"mean over largest load of {tokens} tokens routed at random, top-{config.top_k} of {config.num_experts}: "
    flops = train_flops_per_token(config, step.seq_len) * step.batch * step.seq_len * step.accumulate
    return {
        "experts_active": derived(1.0, "1", "every expert's rank computes in every layer that has experts"),
        "expert_utilization": Quantity(1 / imbalance, "1", "assumed", f"{load}max/mean {imbalance:.2f}"),
        "flops_per_step": derived(flops, "FLOP", "forward and twice that backward; attention over the full sequence"),
    }
