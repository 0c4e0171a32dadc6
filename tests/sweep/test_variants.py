"""The jobs of `+sweep=...`, run by a script that trains nothing."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from project.command_line.check import check
from project.commands.train.command import TRAIN
from project.spec.layout import ParallelLayout
from project.spec.schedules.table import SCHEDULES
from project.sweep.jobs import jobs as read_jobs
from project.sweep.variants import variant_names
from tests.harness.script import script_of, sweep_script

SCRIPT = script_of("""
check_job(cfg, TRAIN, os.environ)
keys = ("pp", "dp", "tp", "ep", "etp", "schedule", "virtual_stages", "microbatches")
choice = HydraConfig.get().runtime.choices.parallel
print("job", choice, *(cfg.parallel[key] for key in keys), "torch" in sys.modules)
""")


def jobs(folder: Path, *overrides: str) -> list[list[str]]:
    result = sweep_script(folder, SCRIPT, *overrides)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return [line.split()[1:] for line in result.stdout.splitlines() if line.startswith("job pp") or "False" in line]


def test_a_sweep_over_layouts_has_all_legal_ones_of_a_world_size_named_by_their_degrees(tmp_path: Path) -> None:
    """Other keys of the layout apply to each job, and other choices multiply the jobs."""
    found = jobs(tmp_path, "+sweep=layouts", "sweep.world_size=2", "parallel.schedule=GPipe", "seed=1,2")
    assert [job[0] for job in found[::2]] == [job[0] for job in found[1::2]]
    assert [job[0] for job in found[::2]] == [
        *("pp1_dp1_tp2_ep2_etp1_mb8", "pp2_dp1_tp1_ep1_etp1_mb8", "pp1_dp2_tp1_ep1_etp1_mb4"),
        *("pp1_dp1_tp2_ep1_etp1_mb8", "pp1_dp1_tp2_ep1_etp2_mb8", "pp1_dp2_tp1_ep2_etp1_mb4"),
        "pp1_dp2_tp1_ep1_etp2_mb4",
    ]
    assert found[0][1:] == ["1", "1", "2", "2", "1", "GPipe", "1", "8", "False"]


def test_an_experiment_s_layout_gives_the_world_size_and_a_degree_can_be_kept(tmp_path: Path) -> None:
    found = jobs(tmp_path, "+experiment=tp4_ep4_pp4", "+sweep=layouts", "sweep.ep=4", "sweep.etp=1", "sweep.pp=4")
    assert [job[0] for job in found] == [
        *("pp4_dp1_tp4_ep4", "pp4_dp2_tp2_ep4"),
    ]


def test_a_sweep_over_schedules_and_microbatches_multiplies_them(tmp_path: Path) -> None:
    sweep = "+sweep=[schedules,microbatches]"
    found = jobs(tmp_path, sweep, "parallel.pp=4", "parallel.microbatches=4", "data.batch_size=4")
    by_schedule: dict[str, list[str]] = {}
    for job in found:
        by_schedule.setdefault(job[6], []).append(job[8])
    any_number = ["1", "2", "4"]
    assert by_schedule == {
        **{schedule: any_number for schedule in SCHEDULES if schedule != "DualPipeV"},  # which wants eight
        "1F1B": ["4"],
    }


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["+sweep=layouts", "sweep.world_size=13"], "sweep.world_size=13: no layout of the model is legal"),
        (["+sweep=layouts", "sweep.world_size=4", "sweep.tp=3"], "with sweep.tp=3"),
        (["+sweep=schedules", "parallel.pp=99"], "sweep=schedules: no schedule is legal"),
        (["+sweep=microbatches", "parallel.pp=two"], "parallel.pp=two: must be"),
    ],
)
def test_a_sweep_without_a_legal_layout_starts_nothing(overrides: list[str], said: str, tmp_path: Path) -> None:
    result = sweep_script(tmp_path, SCRIPT, *overrides)
    assert result.returncode == 2
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "sweep").exists()


def test_hydra_s_own_ways_of_naming_jobs_and_a_quiet_sweep(tmp_path: Path) -> None:
    result = sweep_script(
        tmp_path, SCRIPT, "-m", "parallel=glob(*,exclude=tp*)", "model.num_layers=range(4,9,4)", "verbosity=quiet"
    )
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[:2] for line in lines] == [["job", choice] for choice in ("pp4", "pp4", "single", "single")]


def test_a_variant_is_named_by_what_sets_it_apart() -> None:
    one = ParallelLayout(pp=2, tp=2, ep=2, microbatches=4)
    assert list(variant_names([one])) == ["pp2_dp1_tp2_ep2"]
    both = [replace(one, schedule="ZBVZeroBubble", virtual_stages=2), one]
    assert list(variant_names(both)) == ["ZBVZeroBubble_v2", "1F1B_v1"]
    assert list(variant_names([one, replace(one, recompute="full")])) == ["recomputenone", "recomputefull"]


def test_a_sweep_says_how_many_jobs_it_has_and_about_how_long_they_take(tmp_path: Path) -> None:
    asked = ["+sweep=layouts", "sweep.world_size=2", "model=tiny", "trainer.max_steps=60", "seed=1,2"]
    said = sweep_script(tmp_path, SCRIPT, *asked).stdout.splitlines()[0]
    assert re.fullmatch(
        r"14 jobs of 60 steps, about [\d.]+ (s|min) by the plan for cpu_here, besides the start of each", said
    )


def test_what_a_sweep_says_that_a_job_sets_can_be_typed(tmp_path: Path) -> None:
    result = sweep_script(tmp_path, SCRIPT, "+sweep=layouts", "sweep.world_size=2", "model=tiny")
    assert result.returncode == 0
    found = [job.row["overrides"] for job in read_jobs(tmp_path / "sweep")]
    assert found[:3] == [
        ["parallel.tp=2", "parallel.ep=2"],
        ["parallel.pp=2"],
        ["parallel.dp=2", "parallel.microbatches=4"],
    ]
    for overrides in found:
        check(["model=tiny", "parallel=single", *overrides], TRAIN, {}, gpus=lambda: 0)
