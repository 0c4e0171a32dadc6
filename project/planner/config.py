"""Reads a step, a cluster and a plan from a configuration of `project/train.py` or `project/plan.py`."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from project.configs import CONFIGS
from project.documents.entry import document_entry
from project.documents.reading import read_document
from project.documents.statements import is_document
from project.planner.document.claims import read_claims
from project.planner.document.comparison import planned_figures
from project.planner.document.plan import Plan, as_json, make_plan
from project.planner.machine.cluster import Cluster
from project.planner.machine.cluster_file import cluster_faults, read_cluster
from project.planner.machine.this_host import DamagedCalibration, with_calibration
from project.planner.recompute import with_least_recomputation
from project.planner.step import Step
from project.run_folder import write_atomically
from project.spec.fault import Fault, said
from project.spec.precision import settled
from project.spec.sections import layout_of, model_of

Config = Mapping[str, Any]
"""A configuration as plain values, with interpolations resolved."""


def step_of(config: Config) -> Step:
    """Returns the step of a configuration. The cluster settles what is `auto`: the precision by the kind of its devices
    (one without multiprocessors is a processor), recomputation by their memory."""
    trainer, data = config["trainer"], config["data"]
    precision = trainer["precision"]
    if precision == "auto":
        precision = settled(precision, on_gpus=cluster_of(config).multiprocessors > 1)
    step = Step(
        model_of(config["model"]),
        layout_of(config["parallel"]),
        data["batch_size"],
        data["seq_len"],
        precision,
        trainer["accumulate_grad_batches"],
    )
    return with_least_recomputation(step, cluster_of(config)) if step.layout.recompute == "auto" else step


def cluster_of(config: Config) -> Cluster:
    """Builds the cluster of a configuration; one that stands for this machine has the figures of its calibration."""
    return read_cluster(with_calibration(config["cluster"], os.environ))


def cluster_faults_of(config: Config) -> list[Fault]:
    """Lists everything that is wrong with the cluster of a configuration and, where it stands for this machine, with
    its calibration."""
    try:
        return cluster_faults(with_calibration(config["cluster"], os.environ))
    except DamagedCalibration as error:
        return [Fault("cluster", said(config["cluster"]["name"]), str(error))]


def claims_path(document: str) -> Path:
    """Path of a file of claims: that of this name in configs/claims, or else `document` itself, whatever its suffix, if
    it is there or can be no name."""
    named, path = CONFIGS / "claims" / f"{document}.yaml", Path(document).expanduser()
    return path if not named.is_file() and (path.exists() or path.suffix or "/" in document) else named


def plan_of(config: Config) -> Plan:
    """Makes the plan of a configuration, and checks the claims that `config["document"]` names: a file of claims, or a
    strategy document in Markdown."""
    document = str(config.get("document") or "")
    if is_document(document):
        read = read_document(Path(document).expanduser())
        plan = make_plan(step_of(config), cluster_of(config), read.claims)
        settled_now = {**config, "trainer": {**config["trainer"], "precision": plan.derived.step.precision}}
        return replace(plan, document=document_entry(read, settled_now, as_json(plan)["ranks"]))
    claims = read_claims(claims_path(document)) if document else []
    return make_plan(step_of(config), cluster_of(config), claims)


def write_json(plan: Plan, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "plan.json", json.dumps(as_json(plan), allow_nan=False) + "\n")


def write_plan(config: Config, folder: Path) -> dict[str, Any]:
    """Writes `plan.json` into a run's folder; returns the planned figures under the names of the run's summary."""
    found = plan_of(config)
    write_json(found, folder)
    return planned_figures(found)
