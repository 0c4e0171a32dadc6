"""A real run's folder, written once a session by the callbacks themselves, and one browser for all pages."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from project.callbacks.activations import ActivationPeaks
from project.callbacks.communication import Communication
from project.callbacks.expert_metrics import ExpertMetrics
from project.callbacks.memory_categories import MemoryCategories
from project.callbacks.step_metrics import StepMetrics
from project.callbacks.summary import RunSummary
from project.callbacks.trace import Trace
from project.loggers import csv_only
from project.spec.layout import ParallelLayout
from tests.harness.browser import Browser, installed
from tests.harness.training import Case, CaseModule, loader, trainer

CASE = Case(ParallelLayout(pp=2, tp=2, ep=2, microbatches=4), steps=8)
CONFIG = "experiment_name: </script><b>bold</b>\nmodel:\n  num_layers: 4\n"


def run(rank: int, world_size: int, folder: str) -> None:
    callbacks = [
        Communication(),
        ActivationPeaks(),
        StepMetrics(),
        Trace(folder, first=2, last=2),
        MemoryCategories(),
        ExpertMetrics(),
        RunSummary(folder),
    ]
    options = {
        "max_steps": CASE.steps,
        "val_check_interval": 4,
        "check_val_every_n_epoch": None,
        "limit_val_batches": 1,
    }
    engine = trainer(rank, world_size, CASE, callbacks=callbacks, logger=csv_only(folder), **options)
    engine.fit(CaseModule(CASE), loader(CASE, rank), loader(CASE, rank))


@pytest.fixture(scope="session")
def run_folder(ranks: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "tp2_ep2_pp2"
    folder.mkdir()
    ranks.run(CASE.layout.world_size, run, str(folder))
    (folder / "config.yaml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not installed():
        pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver")
    profile = tempfile.mkdtemp()
    browser = Browser(profile)
    yield browser
    browser.close()
    shutil.rmtree(profile, ignore_errors=True)
