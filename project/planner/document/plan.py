"""The plan: the facts of a step, the quantities that sum them up, and checked claims; as `plan.json` has them."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from project.planner.cost.communication_time import transfer_link, transfer_seconds
from project.planner.cost.traffic import by_axis
from project.planner.document.claims import check
from project.planner.document.derived import Derived, derive
from project.planner.document.quantities import Quantity, quantities
from project.planner.machine.cluster import Cluster
from project.planner.machine.source import source_of_figures, source_of_results
from project.planner.step import Step
from project.run_folder import layout_entry
from project.spec.partition import stages_of


@dataclass(frozen=True)
class Plan:
    """`claims` are checked (`project.planner.document.claims.check`). `document` is what a strategy
    document in Markdown says besides (`project.documents.entry`), None where there is none."""

    derived: Derived
    quantities: dict[str, Quantity]
    claims: list[dict[str, Any]]
    document: dict[str, Any] | None = None


def make_plan(step: Step, cluster: Cluster, claims: Iterable[Mapping[str, Any]] = ()) -> Plan:
    """Derives the plan of a step on a cluster, and checks claims against its quantities."""
    derived = derive(step, cluster)
    found = quantities(derived)
    return Plan(derived, found, check(claims, found))


def as_json(plan: Plan) -> dict[str, Any]:
    """The content of `plan.json`."""
    found = plan.derived
    step, layout = found.step, found.step.layout
    return {
        "layout": layout_entry(layout),
        "cluster": found.cluster.name,
        "model": asdict(step.config),
        "batch": {"batch_size": step.batch, "seq_len": step.seq_len, "accumulate": step.accumulate},
        "precision": step.precision,
        "quantities": {name: of._asdict() for name, of in plan.quantities.items()},
        "ranks": [_rank(found, rank) for rank in range(layout.world_size)],
        "communication": _communication(found),
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
        "claims": plan.claims,
    } | ({"document": plan.document} if plan.document is not None else {})


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
        "parameters": found.parameters[at.pp],
        "memory": found.memories[at.pp]._asdict(),
        "in_flight": [
            {"stage": stage, "microbatches": moment.all, "of_them_for_weights_alone": moment.second_half}
            for stage, moment in found.in_flight[at.pp].items()
        ],
    }
    placed = source_of_results(found.cluster, "gpus_per_node")
    framework = source_of_figures(found.cluster, "reserved_bytes")
    of_memory = dict.fromkeys(found.memories[at.pp]._fields, "derived") | {"framework": framework}
    return {**entry, "source": dict.fromkeys(entry, "derived") | {"node": placed, "gpu": placed, "memory": of_memory}}


def _communication(found: Derived) -> dict[str, dict[str, dict[str, Any]]]:
    """Calls, bytes and seconds of the pipeline rank that sends most, by axis and collective. Where an entry's calls use
    several links, `link` is the slowest."""
    table = by_axis(found.busiest)
    source = {"calls": "derived", "bytes": "derived", "seconds": found.seconds_source}
    source["link"] = source_of_results(found.cluster, "gpus_per_node")
    for transfer in found.busiest:
        entry = table[transfer.group.axis][transfer.collective]
        spent = transfer.calls * transfer_seconds(transfer, found.step, found.cluster)
        here = transfer_link(transfer, found.step, found.cluster)
        entry["seconds"] = entry.get("seconds", 0.0) + spent
        entry["link"] = "inter" if "inter" in (here, entry.get("link")) else here
        entry["source"] = source
    return table
