"""The optional extras, Optuna's sweeper and submitit's launchers, with jobs that train nothing."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from project.command_line.command import register_resolvers
from project.configs import CONFIGS
from tests.harness.script import script_of, sweep_script

SCRIPT = script_of("""
from project.command_line.refusal import InvalidConfig
from project.run_folder import layout_entry, write_summary
from project.spec.figures import objective
from project.spec.sections import layout_of

folder = HydraConfig.get().runtime.output_dir
try:
    check_job(cfg, TRAIN, os.environ)
except InvalidConfig as error:
    write_summary(folder, {"status": "failed", "error": str(error)})
    raise
layout = layout_of(cfg.parallel)
speed = 1000.0 * layout.microbatches
summary = {"status": "completed", "layout": layout_entry(layout), "tokens_per_second": speed, "val_loss": 2.5}
write_summary(folder, summary)
return objective(summary, cfg.objective)
""")


def results(folder: Path) -> SimpleNamespace:
    return SimpleNamespace(**OmegaConf.to_container(OmegaConf.load(folder / "sweep/optimization_results.yaml")))


def test_optuna_maximizes_an_objective_that_should_be_large(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    study = ["+sweep=optuna", "hydra.sweeper.n_trials=6", "objective=tokens_per_second"]
    done = sweep_script(tmp_path, SCRIPT, *study, "parallel.microbatches=choice(3,4)")
    assert done.returncode == 1, done.stderr  # 3 does not divide the batch: a failed trial, and the study went on
    assert results(tmp_path).best_params == {"parallel.microbatches": 4}
    assert results(tmp_path).best_value == 4000.0
    assert "parallel.microbatches=1, 2, 4 or 8 would do" in " ".join(done.stderr.split())
    assert "of 6 jobs completed" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_optuna_whose_jobs_all_fail_ends_without_a_traceback(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    study = ["+sweep=optuna", "hydra.sweeper.n_trials=2", "objective=tokens_per_second"]
    done = sweep_script(tmp_path, SCRIPT, *study, "parallel.microbatches=choice(3,5)")
    assert done.returncode == 1
    assert "No job was completed, so that none is the best." in done.stderr
    assert "0 of 2 jobs completed" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_optuna_weighs_several_objectives(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    study = ["hydra.sweeper.n_trials=3", "objective=[tokens_per_second,val_loss]", "parallel.microbatches=choice(1,2)"]
    done = sweep_script(tmp_path, SCRIPT, "+sweep=optuna", *study)
    assert done.returncode == 0, done.stderr
    assert "Directions: ['maximize', 'minimize']" in done.stdout
    assert all(solution["values"][1] == 2.5 for solution in results(tmp_path).solutions)


def test_submitit_runs_the_jobs_of_a_sweep_over_layouts(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    layouts = ["+sweep=layouts", "sweep.world_size=2", "sweep.ep=1", "sweep.etp=1"]
    done = sweep_script(tmp_path, SCRIPT, *layouts, "hydra/launcher=submitit_local")
    assert done.returncode == 0, done.stderr
    assert "3 of 3 jobs completed" in done.stdout
    for layout in ("pp2", "dp2", "tp2"):
        assert f" {layout} " in done.stdout


def test_a_slurm_job_has_a_task_and_a_gpu_for_each_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitit = pytest.importorskip("submitit")
    register_resolvers()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "srun").write_text("")  # submitit asks whether there is one
    (tmp_path / "srun").chmod(0o755)
    with initialize_config_dir(str(CONFIGS), version_base="1.3", job_name="train"):
        overrides = ["+experiment=tp4_ep4_pp4", "+sweep=slurm", "trainer.num_nodes=2", "hydra.launcher.partition=gpus"]
        cfg = compose("train", overrides, return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
    asked = OmegaConf.to_container(cfg.hydra.launcher, resolve=False)
    keys = ("nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task", "timeout_min", "partition")
    values = {key: cfg.hydra.launcher[key] for key in keys}
    assert asked["_target_"].endswith("SlurmLauncher")
    executor = submitit.SlurmExecutor(folder=tmp_path)
    executor.update_parameters(
        **{"time" if key == "timeout_min" else key.replace("tasks_per", "ntasks_per"): v for key, v in values.items()}
    )
    script = executor._make_submission_file_text("python -c pass", "1")
    for line in ("--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--partition=gpus", "--time=60"):
        assert f"#SBATCH {line}" in script
