"""A run whose folder the report's pages are made of, written by the callbacks themselves."""

import json
from pathlib import Path

from project.callbacks.expert_metrics import ExpertMetrics
from project.callbacks.first_steps import ActivationPeaks, Communication, MemoryCategories
from project.callbacks.step_metrics import StepMetrics
from project.callbacks.summary import RunSummary
from project.callbacks.trace import Trace
from project.loggers import csv_only
from project.planner.timeline import simulate
from project.run_folder import read_summary, write_summary
from project.spec.layout import ParallelLayout
from project.spec.schedules.order import order_of
from tests.harness import training
from tests.harness.case import Case

CASE = Case(ParallelLayout(pp=2, tp=2, ep=2, microbatches=4), steps=8)
CLAIM = {
    **{"claim": "~2 GB <a GPU>", "quantity": "weight_bytes", "unit": "B", "claimed": 2e9, "found": 117493760},
    **{"verdict": "fails", "by": 0.05874688, "difference": -1882506240.0, "derivation": "arithmetic"},
}
CONFIG = "experiment_name: </script><b>bold</b>\nmodel:\n  num_layers: 4\n"


def write_run_folder(rank: int, world_size: int, folder: str) -> None:
    """Trains on this rank, with two validations of one batch."""
    callbacks = [
        *(Communication(), ActivationPeaks(), StepMetrics(), Trace(folder, first=2, last=2)),
        *(MemoryCategories(), ExpertMetrics(), RunSummary(folder)),
    ]
    validation = {"val_check_interval": 4, "check_val_every_n_epoch": None, "limit_val_batches": 1}
    logger = csv_only(folder)
    training.run(rank, world_size, CASE, *callbacks, validate=True, logger=logger, **validation)


def write_plan(folder: Path) -> None:
    """Adds a plan to a run's folder, by which a step takes half of what it took."""
    summary = read_summary(folder)
    assert summary is not None
    timeline = simulate(order_of(CASE.layout), lambda _, kind: 0.01 if kind == "F" else 0.02, lambda *_: 0.001)
    planned = {"step_time_s": summary["step_time_s"] / 2, "bubble": timeline.bubble}
    write_summary(folder, summary | {"planned": planned})
    plan = {
        "timeline": [
            {
                **{"rank": one.rank, "stage": one.action.stage, "action": one.action.kind},
                **{"microbatch": one.action.microbatch, "start_s": one.start, "end_s": one.end},
            }
            for one in timeline.actions
        ],
        "ranks": [rank | {"node": 0, "gpu": rank["rank"], "memory": {"weights": 2**20}} for rank in summary["ranks"]],
        "communication": {"tp": {"all_gather": {"calls": 3, "bytes": 1e6, "seconds": 0.001, "link": "intra"}}},
        "claims": [CLAIM],
    }
    (folder / "plan.json").write_text(json.dumps(plan))
