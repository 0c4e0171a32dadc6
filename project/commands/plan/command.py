"""`project/plan.py` as a record: the checks of its configuration, and the words of its help."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Strict

from project.command_line.command import Command, Config
from project.documents.statements import is_document
from project.planner.config import cluster_faults_of, cluster_of, step_of
from project.planner.machine.this_host import is_calibrated
from project.planner.memory.peak import peak
from project.planner.search.candidate import Objective
from project.planner.search.outcome import Outcome
from project.planner.search.space import nearest_fitting, overrides
from project.preflight.gpus import gpu_set_faults
from project.preflight.layout import document_faults, model_and_layout_faults
from project.preflight.machine import Surroundings, folder_faults
from project.preflight.settings import Trainer
from project.run_folder import read_summary
from project.spec.fault import Fault, said
from project.spec.record import Must, record_faults
from project.spec.units import number
from project.spec.untrusted import Unreadable

_NEEDED = (
    *("model", "parallel", "cluster", "data.batch_size", "data.seq_len"),
    *("trainer.precision", "trainer.accumulate_grad_batches", "search", "calibrate", "objective", "strict"),
)
_OF_TRAINER = ("precision", "accumulate_grad_batches")  # the keys of the section that a plan reads


class Choices(BaseModel):
    search: Annotated[bool, Strict(), Must("true or false")]
    strict: Annotated[bool, Strict(), Must("true or false")]
    calibrate: Annotated[bool, Strict(), Must("true or false")]
    objective: Objective


def faults(config: Config, around: Surroundings) -> list[Fault]:
    """Faults of the layout, the cluster and the trainer together; where there are none, those of the claims, and then
    whether the layout fits. A strategy document's layout may be illegal, or not fit: its claims are told all the same.
    """
    places = list(folder_faults("hydra.run.dir", around.run_folder))
    if config.get("compare") is not None:
        return [*_compared(config["compare"]), *places]
    found = list(record_faults(Choices, "", config))
    if config.get("calibrate") is True and not found:
        return [*_not_measurable(around), *places]
    if found:
        return [*found, *places]
    of_document = is_document(config.get("document")) and config["search"] is not True
    found = [
        *([] if of_document else model_and_layout_faults(config)),
        *cluster_faults_of(config),
        *record_faults(Trainer, "trainer", {key: config["trainer"][key] for key in _OF_TRAINER}),
        *places,
    ]
    if found or of_document or config["search"] is True:  # a search is for other layouts, whatever this one needs
        return found
    return list(_too_few(config)) or list(document_faults(config)) or list(_too_large(config))


def _not_measurable(around: Surroundings) -> Iterator[Fault]:
    """The fault of GPUs that cannot be measured, which calibrating would do where there are any."""
    if gpus := around.gpus():
        for fault in gpu_set_faults("auto", gpus, True, around.hardware, around.environ):
            yield Fault(
                "calibrate", "true", f"{fault.message}; for this: CUDA_VISIBLE_DEVICES= measures the processors"
            )


def nothing_fits(outcome: Outcome) -> Fault:
    """The fault of a cluster for which a search found no layout that fits."""
    cluster, nearest = outcome.cluster, outcome.nearest
    room, gpus = cluster.memory_per_rank(cluster.gpus), cluster.gpus
    if nearest is None:
        return Fault("cluster", cluster.name, f"no layout of its {gpus} GPUs is legal for this model and batch")
    over = (
        f"{number(nearest.memory, 'B')}, {number(nearest.memory - room, 'B')} more than the {number(room, 'B')} it may"
    )
    reason = f"no layout of its {gpus} GPUs fits: the smallest needs {over}; nearest {overrides(nearest.layout)}"
    return Fault("cluster", cluster.name, reason)


def _compared(folder: Any) -> Iterator[Fault]:
    try:
        summary = read_summary(folder) if isinstance(folder, str) and Path(folder).is_dir() else None
    except Unreadable as error:
        yield Fault("compare", said(folder), str(error))
        return
    if summary is None:
        yield Fault("compare", said(folder), "is no run folder: it has no summary.json")
    elif not summary.get("planned"):
        yield Fault("compare", said(folder), "has nothing that was planned: summary.json's `planned` is empty")


def _too_few(config: Any) -> Iterator[Fault]:
    layout, cluster = step_of(config).layout, cluster_of(config)
    if layout.world_size > cluster.gpus:
        nodes = -(-layout.world_size // cluster.gpus_per_node)
        yield Fault(
            "cluster",
            cluster.name,
            f"has {cluster.gpus} GPUs, but {layout} needs {layout.world_size}; cluster.nodes={nodes} would do",
        )


def _too_large(config: Any) -> Iterator[Fault]:
    step, cluster = step_of(config), cluster_of(config)
    reserved = int(cluster.reserved_bytes)
    room, held = cluster.memory_per_rank(step.layout.world_size), peak(step, reserved)
    if held <= room:
        return
    near = nearest_fitting(step, reserved, room)
    remedy = "no legal layout on up to 64 times the ranks fits"
    if near:
        more = f", on {near.world_size} GPUs" if near.world_size > cluster.gpus else ""
        remedy = f"nearest that fits{more}: {overrides(near)}"
    yield Fault(
        "parallel",
        str(step.layout),
        f"needs {number(held, 'B')} on its largest rank, {number(held - room, 'B')} more than the "
        f"{number(room, 'B')} that a device of {cluster.name} has; {remedy}",
    )


def warnings(config: Config, around: Surroundings) -> list[str]:
    """The warning of a machine's figures that nobody measured on it."""
    if config.get("compare") is not None or config["calibrate"] or is_calibrated(config["cluster"], around.environ):
        return []
    name = config["cluster"]["name"]
    return [
        f"cluster={name}: this machine has not been calibrated, so its figures are assumed, and those of another "
        "machine; python project/plan.py calibrate=true measures it"
    ]


PLAN = Command(
    name="plan",
    needed=_NEEDED,
    faults=faults,
    warnings=warnings,
    purpose="Derives the strategy document of a layout, and checks its claims.",
    example="+experiment=tp4_ep4_pp4 cluster=h100_2x8",
    groups=("model", "parallel", "experiment", "data", "trainer", "cluster"),
    paths=("compare", "document"),
    reads_documents=True,
)
