"""Faults of the sections `model` and `parallel`, alone, together, and with the batch; of a schedule's file; and of the
claims that are made about a layout."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from project.documents.statements import is_document
from project.planner.config import claims_path, cluster_of, step_of
from project.planner.document.claims import claim_faults
from project.planner.document.derived import derive
from project.planner.document.quantities import quantities
from project.planner.memory.peak import Ranks
from project.spec.cost import total_parameters
from project.spec.fault import Fault
from project.spec.layout import ParallelLayout
from project.spec.legality.layouts import layout_faults
from project.spec.model import ModelConfig
from project.spec.schedules.file import is_schedule_file
from project.spec.schedules.file_faults import schedule_file_faults
from project.spec.sections import layout_of, model_of, unknown_keys
from project.spec.units import number

MOST_LAYERS = 1000
MOST_RANKS = 1 << 20
MOST_ACTIONS = 200_000


def model_and_layout_faults(config: Mapping[str, Any]) -> list[Fault]:
    layout, model, data = layout_of(config["parallel"]), model_of(config["model"]), config["data"]
    if too_large := list(_size_faults(layout, model)):
        return too_large
    return [
        *unknown_keys("parallel", config["parallel"]),
        *unknown_keys("model", config["model"]),
        *layout_faults(layout, model, data["batch_size"], data["seq_len"]),
        *_schedule_faults(layout),
    ]


def _size_faults(layout: ParallelLayout, model: ModelConfig) -> Iterator[Fault]:
    """Faults of sizes that no check or plan would come to an end with in a minute."""

    def above(value: object, most: int) -> bool:
        return type(value) is int and value > most

    if above(model.num_layers, MOST_LAYERS):
        message = f"is more than the {MOST_LAYERS} that are planned and divided over stages; nearest {MOST_LAYERS}"
        yield Fault("model.num_layers", model.num_layers, message)
    for name in ("pp", "dp", "tp", "ep", "etp", "virtual_stages"):
        if above(degree := getattr(layout, name), MOST_RANKS):
            yield Fault(f"parallel.{name}", degree, f"is more than {MOST_RANKS} ranks; nearest {MOST_RANKS}")
    counts = (layout.pp, layout.virtual_stages, layout.microbatches)
    if all(type(count) is int and count > 0 for count in counts) and above(prod(counts), MOST_ACTIONS):
        most = max(MOST_ACTIONS // (layout.pp * layout.virtual_stages), 1)
        message = (
            f"makes {prod(counts)} actions of all stages (pp x virtual_stages x microbatches), more than the "
            f"{MOST_ACTIONS} that a schedule may have; nearest {most}"
        )
        yield Fault("parallel.microbatches", layout.microbatches, message)


def memory_faults(config: Any, room: float) -> Iterator[Fault]:
    """The fault of a model whose weights, gradients and optimizer alone need more than `room`, the bytes of this
    machine, on the ranks that run on it; for a configuration that has no other faults."""
    step, nodes = step_of(config), config["trainer"]["num_nodes"]
    ranks, layout = Ranks(step), step.layout
    held = [ranks.memory(rank, 0) for rank in range(layout.pp)]
    needed = sum(one.weights + one.gradients + one.optimizer for one in held) * layout.dp * layout.tp // nodes
    if needed > room:
        yield Fault(
            "model",
            f"{total_parameters(step.config):,} parameters",
            f"weights, gradients and optimizer need {number(needed, 'B')} on the {layout.world_size // nodes} ranks of "
            f"this machine, {number(needed - room, 'B')} more than the {number(room, 'B')} that it has; a smaller "
            "model, parallel.dp_mode=shard, or more machines",
        )


def document_faults(config: Any) -> Iterator[Fault]:
    """Faults of the file of claims that `document` names, for a configuration whose layout and cluster have none: a
    claim names a quantity of its plan."""
    if config.get("document") and not is_document(config["document"]):
        known = quantities(derive(step_of(config), cluster_of(config)))
        yield from claim_faults("document", claims_path(str(config["document"])), known)


def _schedule_faults(layout: ParallelLayout) -> Iterator[Fault]:
    """Faults of the CSV file that `parallel.schedule` names; none where the layout's own numbers are unusable, for
    those are faults already."""
    counts = (layout.pp, layout.virtual_stages, layout.microbatches)
    if not isinstance(layout.schedule, str) or not is_schedule_file(layout.schedule):
        return
    if all(type(count) is int and count > 0 for count in counts):
        found = schedule_file_faults(layout.schedule, layout)
        if found:
            yield Fault("parallel.schedule", layout.schedule, "; ".join(found))
