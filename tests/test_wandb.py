"""The records that W&B gets of a run, read back by wandb's reader from the file of an offline run."""

import json
import signal
import sys
from pathlib import Path

import pytest

from project.loggers import FLUSHED_AFTER_S
from tests.harness.command import MOMENT, ONE_CORE, TRAIN, environment, run, summary
from tests.harness.paths import ROOT
from tests.harness.wandb_file import of_type, records
from tests.harness.wandb_file import summary as wandb_summary

COMMAND = [*ONE_CORE, *TRAIN, *MOMENT]
OFFLINE = ["logger=wandb", "logger.offline=true"]
IN_ENVIRONMENT, IN_FILE = "a" * 20 + "0123456789abcdef0123", "b" * 20 + "fedcba98765432100123"  # as keys look


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two ranks with two validations, resumed for two steps more with `verbosity=quiet`."""
    folder = tmp_path_factory.mktemp("wandb")
    (folder / ".env").write_text(f"WANDB_API_KEY={IN_FILE}\n")
    command = [*COMMAND, *OFFLINE, "model.num_layers=2", "parallel.pp=2", "parallel.microbatches=2"]
    steps = ["trainer.val_check_interval=2", f"hydra.run.dir={folder / 'run'}", "logger.artifacts=true"]
    keys = {"WANDB_API_KEY": IN_ENVIRONMENT}
    first = run(*steps, "trainer.max_steps=4", command=command, cwd=folder, env=environment(**keys))
    second = run(
        *steps, "trainer.max_steps=6", "resume=auto", "verbosity=quiet", command=command, cwd=folder, env=environment()
    )
    assert second.stdout + second.stderr == ""
    (folder / "run/terminal.txt").write_text(first.stdout + first.stderr)
    return folder / "run"


@pytest.fixture(scope="module")
def written(folder: Path) -> list[dict]:
    return records(files(folder)[0])


def test_wandb_gets_the_config_and_the_run_s_project_name_and_tags(folder: Path, written: list[dict]) -> None:
    told = of_type(written, "run")[0]
    assert (told["project"], told["display_name"]) == ("moe-parallel", "single")
    assert told["tags"] == ["tiny", "pp2_dp1_tp1_ep1_etp1", "single"]
    config = told["config"]["update"]
    assert (config["parallel"]["pp"], config["trainer"]["max_steps"]) == (2, 4)


def test_wandb_scalars_have_the_step_for_their_axis_and_a_summary_that_makes_sense(written: list[dict]) -> None:
    history = [record["item"] for record in of_type(written, "history")]
    rows = [row for row in history if "train/loss" in row]
    assert [row["trainer/global_step"] for row in rows] == [1, 2, 3, 4]
    promised = {"train/aux_loss", "train/grad_norm", "train/tokens_per_second", "train/step_time_s"}
    assert promised <= rows[0].keys()
    assert [row["trainer/global_step"] for row in history if "val/loss" in row] == [2, 4]
    defined = {metric.get("name", metric.get("glob_name")): metric for metric in of_type(written, "metric")}
    assert defined["*"]["step_metric"] == "trainer/global_step"
    assert defined["train/loss"]["summary"] == {"min": True, "last": True}
    losses = [row["train/loss"] for row in rows]
    assert wandb_summary(written)["train/loss"] == {"min": min(losses), "last": losses[-1]}


def test_one_wandb_run_has_every_rank_s_step_time_and_memory(written: list[dict]) -> None:
    rows = [record["item"] for record in of_type(written, "history") if "step_time_s/rank_0" in record["item"]]
    assert len(rows) == 4
    assert all(row["step_time_s/rank_1"] > 0 and row["memory/rank_1"] > 2**20 for row in rows)


def test_wandb_gets_figures_at_each_validation(folder: Path, written: list[dict]) -> None:
    rows = [record["item"] for record in of_type(written, "history") if "figures/pipeline.path" in record["item"]]
    assert [row["trainer/global_step"] for row in rows] == [2, 4]
    for name in ("expert_load", "pipeline", "rank_map"):
        assert rows[-1][f"figures/{name}._type"] == "plotly-file"
        figure = json.loads((files(folder)[0].parent / "files" / rows[-1][f"figures/{name}.path"]).read_text())
        assert figure["data"], name


def test_wandb_s_figures_equal_summary_json_s(folder: Path) -> None:
    found = wandb_summary(records(files(folder)[1]))
    told = summary(folder)
    assert found["result/val_loss"] == told["val_loss"]
    assert found["result/time_to_first_step_s"] == told["time_to_first_step_s"]
    assert found["result/peak_memory_bytes"] == max(told["peak_memory_bytes_per_rank"])


def test_a_finished_wandb_run_has_exit_code_0(written: list[dict]) -> None:
    assert of_type(written, "exit")[0].get("exit_code", 0) == 0


def test_checkpoints_become_wandb_artifacts_where_asked_for(written: list[dict]) -> None:
    kept = [artifact for artifact in of_type(written, "artifact") if artifact["type"] == "model"]
    assert len(kept) == 2
    assert any(entry["path"].endswith(".safetensors") for entry in kept[0]["manifest"]["contents"])


def test_a_resumed_run_goes_on_in_the_same_wandb_run(folder: Path) -> None:
    first, second = (of_type(records(file), "run")[0] for file in files(folder))
    assert first["run_id"] == second["run_id"] == (folder / "wandb/run_id").read_text().strip()
    steps = [record["item"].get("trainer/global_step") for record in of_type(records(files(folder)[1]), "history")]
    assert set(steps) == {5, 6}


def test_no_wandb_key_is_in_any_file_of_the_run(folder: Path) -> None:
    """The files include the `.wandb` files and what the terminal showed."""
    held = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in held)
    assert any(path.name == "terminal.txt" for path in held)
    for path in held:
        content = path.read_bytes()
        assert IN_ENVIRONMENT.encode() not in content, path
        assert IN_FILE.encode() not in content, path


def test_a_wandb_key_in_the_env_file_is_found(tmp_path: Path) -> None:
    """The script reads `.env` itself, without make."""
    (tmp_path / ".env").write_text(f"WANDB_API_KEY={IN_FILE}\n")
    done = run("--cfg", "job", "--package", "task", "task=${oc.env:WANDB_API_KEY}", cwd=tmp_path)
    assert done.stdout.strip() == IN_FILE


def test_a_wandb_file_left_by_kill_9_is_read_up_to_its_end(tmp_path: Path) -> None:
    dies = ["+callbacks.dies._target_=tests.harness.failures.Dies", "+callbacks.dies.microbatches=2"]
    dies += ["+callbacks.dies.unless=/nowhere", "+callbacks.dies.batch=5", "parallel.microbatches=2"]
    dies += [f"+callbacks.dies.after_s={2 * FLUSHED_AFTER_S}"]
    run(*OFFLINE, *dies, "trainer.max_steps=9", f"hydra.run.dir={tmp_path}", command=COMMAND, status=1)
    assert signal.SIGKILL.name in summary(tmp_path)["error"]
    found = records(files(tmp_path)[0])
    steps = {record["item"].get("trainer/global_step") for record in of_type(found, "history")}
    assert steps >= {1, 2, 3, 4}


def test_the_wandb_workspace_shows_what_is_logged(folder: Path, written: list[dict]) -> None:
    """Every key of every panel is logged; planned figures and MFU are not available on every machine."""
    pytest.importorskip("wandb_workspaces")
    script = [sys.executable, str(ROOT / "project/dashboard.py")]
    size = ["--layers=2", "--experts=4", "--ranks=2"]
    view = json.loads(run("somebody", "--print", *size, command=script, cwd=folder).stdout)
    sections = view["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == ["Layout comparison", "Expert health", "Pipeline", "System"]
    asked = {key for section in sections for panel in section["panels"] for key in keys_of(panel["config"])}
    history = {key for record in of_type(written, "history") for key in record["item"]}
    logged = history | wandb_summary(written).keys() | {key.rpartition(".")[0] for key in history}
    config = of_type(written, "run")[0]["config"]["update"]
    logged |= {f"parallel.{key}" for key in config["parallel"]}
    assert {key for key in asked - logged if not key.startswith("planned/")} == {"train/mfu"}


def test_without_a_key_the_wandb_workspace_is_not_sent(folder: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "project/dashboard.py")]
    assert "WANDB_API_KEY" in run("somebody", command=script, cwd=tmp_path, status=2).stderr


def keys_of(panel: dict) -> set[str]:
    columns = [column["accessor"].partition(":")[2].replace(".value", "") for column in panel.get("columns") or ()]
    axes = [panel.get(axis) or "" for axis in ("xAxis", "yAxis")]
    found = [*(panel.get("metrics") or ()), *(panel.get("mediaKeys") or ()), *columns, *axes]
    return {key.removeprefix("summary:") for key in found if key}
