"""The config against the machine's GPUs and the launcher's processes."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from project.engine.host import count_gpus
from project.preflight.speed import half_precision_warnings

Say = Callable[..., str]
LAYOUT = "+experiment=tp4_ep4_pp4"
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "0"}


@pytest.mark.parametrize("accelerator", ["auto", "cuda", "gpu"])
def test_more_ranks_than_gpus_are_refused_with_what_would_do(accelerator: str, complaint: Say) -> None:
    fault = complaint(LAYOUT, f"trainer.accelerator={accelerator}", gpus=4)
    assert f"trainer.accelerator={accelerator}: 16 ranks" in fault
    assert "4 are present" in fault
    assert "parallel.pp=1 parallel.tp=4 parallel.ep=4" in fault
    assert fault.endswith("; or trainer.accelerator=cpu")


def test_a_legal_layout_for_as_many_of_the_gpus_as_possible_is_offered(complaint: Say) -> None:
    assert "legal for 7: parallel.pp=7 parallel.tp=1 parallel.ep=1" in complaint(LAYOUT, gpus=7)
    said = complaint(LAYOUT, "model.num_layers=5", gpus=7)
    assert "legal for 6: parallel.pp=3 parallel.tp=2 parallel.ep=2" in said


def test_preflight_counts_the_gpus_of_all_nodes(complaint: Say, accepted: Say) -> None:
    two_nodes = {**TORCHRUN, "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}
    accepted(LAYOUT, "trainer.num_nodes=2", environ={"NODE_RANK": "0"}, gpus=8)
    accepted(LAYOUT, environ=two_nodes, gpus=8)
    accepted(LAYOUT, environ={"SLURM_NTASKS": "16", "SLURM_NNODES": "2"}, gpus=8)
    assert "8 are present" in complaint(LAYOUT, environ=two_nodes, gpus=4)


def test_the_cpu_has_room_for_all_ranks(accepted: Say) -> None:
    assert accepted(LAYOUT, gpus=0) == ""
    assert accepted(LAYOUT, "trainer.accelerator=cpu", gpus=1) == ""


def test_training_on_gpus_is_refused_where_there_are_none(complaint: Say) -> None:
    said = complaint("trainer.accelerator=cuda", gpus=0)
    assert "trainer.accelerator=cuda: no GPU is present; nearest trainer.accelerator=cpu" in said


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({**TORCHRUN, "WORLD_SIZE": "8"}, "torchrun started 8 (WORLD_SIZE=8)"),
        ({"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "train"}, "srun started 8 (SLURM_NTASKS=8)"),
        ({"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "bash"}, None),
        ({"WORLD_SIZE": "8"}, None),  # left over from somewhere: no launcher set it
        ({**TORCHRUN, "WORLD_SIZE": "16"}, None),
    ],
)
def test_a_launcher_that_started_another_number_of_ranks_is_contradicted(
    environ: dict[str, str], named: str | None, complaint: Say, accepted: Say
) -> None:
    if named is None:
        accepted(LAYOUT, environ=environ)
    else:
        said = complaint(LAYOUT, environ=environ)
        assert named in said
        assert "parallel.pp=2 parallel.tp=4 parallel.ep=4" in said


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"RANK": "1"}, "RANK=1: is left over from somewhere"),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_JOB_NAME": "bash"}, "SLURM_PROCID=3: is left over"),
        ({"SLURM_PROCID": "y"}, "SLURM_PROCID=y: must be a whole number"),
        ({"MASTER_PORT": "abc"}, "MASTER_PORT=abc: must be a whole number"),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT=99999: must be a port, at most 65535"),
        ({**TORCHRUN, "WORLD_SIZE": "-1"}, "WORLD_SIZE=-1: must be a whole number"),
        ({**TORCHRUN, "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "x"}, "LOCAL_WORLD_SIZE=x: must be a whole number"),
        ({"SLURM_NTASKS": "16", "SLURM_NNODES": "2-4"}, "SLURM_NNODES=2-4: must be a whole number"),
    ],
)
def test_a_launcher_s_variables_that_say_nothing_sound_are_named(
    environ: dict[str, str], said: str, complaint: Say
) -> None:
    assert said in complaint(LAYOUT, environ=environ)


@pytest.mark.parametrize("environ", [{"RANK": "0"}, {"WORLD_SIZE": "8"}, {"MASTER_PORT": "29500"}, {"NODE_RANK": "1"}])
def test_variables_that_change_nothing_are_accepted(environ: dict[str, str], accepted: Say) -> None:
    assert accepted(LAYOUT, environ=environ) == ""


@pytest.mark.parametrize(
    ("precision", "flags", "warned"),
    [
        ("32-true", "sse2", False),
        ("bf16-mixed", "sse2 avx512f", True),
        ("bf16-true", "avx512f avx512_bf16", False),
        ("bf16-true", "amx_bf16", False),
        ("16-mixed", "avx512_bf16", True),
        ("16-mixed", "avx512_fp16", False),
    ],
)
def test_half_precision_without_instructions_for_it_is_warned_of(
    precision: str, flags: str, warned: bool, tmp_path: Path
) -> None:
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n")
    found = half_precision_warnings(precision, cpu_info)
    assert len(found) == warned
    if warned:
        assert "slower than in fp32" in found[0]
        assert "hundred times" in found[0]


def test_half_precision_on_a_gpu_needs_no_warning(accepted: Say) -> None:
    assert "instructions" not in accepted("trainer.precision=16-mixed", gpus=1)
    assert accepted("trainer.precision=bf16-mixed", gpus=1) == ""


def test_without_a_driver_no_gpu_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("project.engine.host._DRIVERS", ())
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would be an error
    assert count_gpus() == 0
