"""`plan.json`, and the figures of it that a run's summary has too."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from project.planner.cost.parameters import parameters_on
from project.planner.cost.transfer import by_axis
from project.planner.cost.transfer_time import link, seconds
from project.planner.document.derive import Derived
from project.planner.machine.source import source_of_figures, source_of_results
from project.planner.memory.activations import activation_peaks
from project.run_folder import layout_entry
from project.spec.placement import stages_of
from project.spec.schedules.order import order_of


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
        "messages": [hop._asdict() | {"source": found.seconds_source} for hop in found.hops],
        "timeline": [
            {
                "rank": timed.rank,
                "stage": timed.action.stage,
                "action": timed.action.kind,
                "microbatch": timed.action.microbatch,
                "start_s": timed.start,
                "end_s": timed.end,
                "source": found.seconds_source,
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
    entry = {
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
        "in_flight": [
            {"stage": stage, "microbatches": moment.all, "of_them_for_weights_alone": moment.second_half}
            for stage, moment in found.in_flight[at.pp].items()
        ],
    }
    placed, framework = (
        source_of_results(found.cluster, "gpus_per_node"),
        source_of_figures(found.cluster, "reserved_bytes"),
    )
    of_memory = dict.fromkeys(found.memories[at.pp]._fields, "derived") | {"framework": framework}
    return {**entry, "source": dict.fromkeys(entry, "derived") | {"node": placed, "gpu": placed, "memory": of_memory}}


def communication(found: Derived) -> dict[str, dict[str, dict[str, Any]]]:
    """Of the rank that sends most. Where an entry's calls use several links its `link` is the slowest."""
    table = by_axis(found.busiest)
    source = {"calls": "derived", "bytes": "derived", "seconds": found.seconds_source}
    source["link"] = source_of_results(found.cluster, "gpus_per_node")
    for transfer in found.busiest:
        entry = table[transfer.group.axis][transfer.collective]
        spent = transfer.calls * seconds(transfer, found.step, found.cluster)
        here = link(transfer, found.step, found.cluster)
        entry["seconds"] = entry.get("seconds", 0.0) + spent
        entry["link"] = "inter" if "inter" in (here, entry.get("link")) else here
        entry["source"] = source
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
        "activation_bytes_peak_per_stage": activation_peaks(step, order_of(layout)),
        "communication": by_axis(found.busiest),
    }
