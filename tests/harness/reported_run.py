"""A run whose folder the report's pages are made of, written by the callbacks themselves."""

from project.callbacks.expert_metrics import ExpertMetrics
from project.callbacks.first_steps import ActivationPeaks, Communication, MemoryCategories
from project.callbacks.step_metrics import StepMetrics
from project.callbacks.summary import RunSummary
from project.callbacks.trace import Trace
from project.loggers import csv_only
from project.spec.layout import ParallelLayout
from tests.harness import training
from tests.harness.case import Case

CASE = Case(ParallelLayout(pp=2, tp=2, ep=2, microbatches=4), steps=8)
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
