"""One default of precision: bf16-mixed on GPUs, fp32 on processors, for a plan as for training."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from project.command_line.composition import compose_or_explain
from project.configs import CONFIGS
from project.planner.config import step_of
from project.preflight.machine import Surroundings, with_precision
from project.training.trainer import settle_precision
from tests.preflight.conftest import NOTHING


def composed(command: str, *overrides: str) -> Any:
    return compose_or_explain(CONFIGS, command, list(overrides)).cfg


@pytest.mark.parametrize("command", ["train", "generate"])
@pytest.mark.parametrize(
    ("accelerator", "gpus", "precision"),
    [("auto", 0, "32-true"), ("cpu", 4, "32-true"), ("auto", 4, "bf16-mixed"), ("cuda", 4, "bf16-mixed")],
)
def test_the_check_and_the_run_settle_the_same_precision(
    command: str, accelerator: str, gpus: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = composed(command, f"trainer.accelerator={accelerator}")
    around = Surroundings({}, lambda: gpus, NOTHING)
    plain: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, ["trainer"]), resolve=True)
    assert plain["trainer"]["precision"] == "auto"
    assert with_precision(plain, around)["trainer"]["precision"] == precision
    monkeypatch.setattr("project.training.trainer.count_gpus", lambda: gpus)
    settle_precision(cfg)
    assert cfg.trainer.precision == precision


def test_a_precision_that_is_asked_for_stays() -> None:
    cfg = composed("train", "trainer.precision=16-mixed", "trainer.accelerator=cuda")
    settle_precision(cfg)
    assert cfg.trainer.precision == "16-mixed"


@pytest.mark.parametrize(("cluster", "precision"), [("h100_2x8", "bf16-mixed"), ("cpu_here", "32-true")])
def test_a_plan_is_in_the_precision_that_its_cluster_would_train_in(cluster: str, precision: str) -> None:
    keys = ["model", "parallel", "data", "trainer", "cluster", "seed"]
    plain: Any = OmegaConf.to_container(
        OmegaConf.masked_copy(composed("plan", f"cluster={cluster}"), keys), resolve=True
    )
    assert step_of(plain).precision == precision


def test_no_command_has_a_default_of_its_own() -> None:
    assert all("precision:" not in (CONFIGS / f"{command}.yaml").read_text() for command in ("plan", "train"))


def test_the_document_s_experiment_has_the_checkpointing_that_its_document_asks_for() -> None:
    for command in ("train", "plan"):
        assert composed(command, "+experiment=tp4_ep4_pp4").parallel.recompute == "selective"
    assert composed("train").parallel.recompute == "none"
