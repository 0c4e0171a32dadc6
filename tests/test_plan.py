"""`project/plan.py` from outside."""

import json
import shlex
import sys
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from project.command_line.check import check
from project.commands.plan.command import PLAN
from project.configs import CONFIGS
from project.planner.config import plan_of
from tests.harness.command import run
from tests.harness.paths import ROOT

PLAN_PY = [sys.executable, str(ROOT / "project/plan.py")]
WITHOUT_TORCH = """
import sys
from project import plan
plan.main()
slow = {"torch", "lightning", "wandb", "transformers"} & sys.modules.keys()
assert not slow, slow
"""


def test_plan_py_derives_the_document_without_importing_torch(tmp_path: Path) -> None:
    arguments = ["+experiment=tp4_ep4_pp4", f"hydra.run.dir={tmp_path}"]
    done = run(*arguments, command=[sys.executable, "-c", WITHOUT_TORCH])
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["cluster"] == "h100_2x8"
    assert len(plan["claims"]) == 17
    assert "| Throughput x3 |" in (tmp_path / "plan.md").read_text()
    for title in ("Ranks", "Memory", "Communication", "Pipeline", "Claims"):
        assert title in done.stdout


def told(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    with pytest.raises(SystemExit) as end:
        check(overrides, PLAN, {})
    assert end.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["parallel.tp=3"], "parallel.tp=3: does not divide model.num_heads=8"),
        (["cluster.nodes=0"], "cluster.nodes=0: must be a whole number of at least 1"),
        (["cluster.intra.achieved=2"], "cluster.intra.achieved=2"),
        (["+experiment=tp4_ep4_pp4", "cluster=h100_8x"], "has 8 GPUs, but pp4 x dp1 x tp4"),
        (["trainer.precision=8bit"], "trainer.precision=8bit: is not known"),
        (["document=nothing"], "configs/claims/nothing.yaml: does not exist"),
        (["compare=nowhere"], "compare=nowhere: is no run folder"),
    ],
)
def test_plan_py_refuses_bad_input_with_what_would_do(
    capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    assert message in told(capsys, *overrides)


def test_a_layout_that_holds_too_much_is_told_by_how_much_and_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    error = told(capsys, "+experiment=tp4_ep4_pp4", "model.d_ff=131072", "model.num_experts=32")
    assert "needs " in error
    assert " more than the 85.9 GB that a device of h100_2x8 has; nearest that fits, on 32 GPUs: " in error
    assert "parallel.pp=" in error


def test_a_search_prints_commands_that_a_shell_reads(tmp_path: Path) -> None:
    """The commands repeat what was typed, and the asked layout has the document's memory and time."""
    typed = ["+experiment=tp4_ep4_pp4", 'experiment_name="my run"', "search=true"]
    done = run(*typed, f"hydra.run.dir={tmp_path}", command=PLAN_PY)
    found = json.loads((tmp_path / "search.json").read_text())
    line = found["best"][0]["command"]
    assert f"1 {line}\n" in done.stdout
    words = shlex.split(line)
    assert words[:4] == ["python", "project/train.py", "+experiment=tp4_ep4_pp4", 'experiment_name="my run"']
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = hydra.compose("plan", ["+experiment=tp4_ep4_pp4", "experiment_name=one"])
    quantities = plan_of(OmegaConf.to_container(cfg, resolve=True)).quantities
    assert found["asked"]["memory"] == quantities["memory_bytes"].value
    assert found["asked"]["seconds"] == pytest.approx(quantities["step_time_s"].value)


def test_where_nothing_fits_a_search_tells_what_holds_least(tmp_path: Path) -> None:
    typed = ["+experiment=tp4_ep4_pp4", "search=true", "cluster.memory_bytes=4.3e9", f"hydra.run.dir={tmp_path}"]
    done = run(*typed, command=PLAN_PY, status=2)
    error = " ".join(done.stderr.split())
    assert "no layout of its 16 GPUs fits: the smallest needs 4.52 GB, 218 MB more than the 4.3 GB it may" in error
    assert "nearest parallel.pp=2 parallel.dp=1 parallel.tp=8 parallel.ep=4 parallel.etp=2" in error
