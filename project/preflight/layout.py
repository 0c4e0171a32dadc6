"""Faults of the sections `model` and `parallel`, alone, together, and with the batch; of a schedule's file; and of the
claims that are made about a layout."""

from collections.abc import Iterator, Mapping
from typing import Any

from project.planner.config import claims_path, cluster_of, step_of
from project.planner.document.claims import claim_faults
from project.planner.document.derived import derive
from project.planner.document.quantities import quantities
from project.spec.fault import Fault
from project.spec.layout import ParallelLayout
from project.spec.legality.layouts import layout_faults
from project.spec.schedules.file import is_schedule_file
from project.spec.schedules.file_faults import schedule_file_faults
from project.spec.sections import layout_of, model_of, unknown_keys


def model_and_layout_faults(config: Mapping[str, Any]) -> list[Fault]:
    layout, model, data = layout_of(config["parallel"]), model_of(config["model"]), config["data"]
    return [
        *unknown_keys("parallel", config["parallel"]),
        *unknown_keys("model", config["model"]),
        *layout_faults(layout, model, data["batch_size"], data["seq_len"]),
        *_schedule_faults(layout),
    ]


def document_faults(config: Any) -> Iterator[Fault]:
    """Faults of the file of claims that `document` names, for a configuration whose layout and cluster have none: a
    claim names a quantity of its plan."""
    if config.get("document"):
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
