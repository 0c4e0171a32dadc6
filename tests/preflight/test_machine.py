"""What the machine and the launcher have decided, against what the config asks for."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from project import preflight
from project.command_line.composition import compose_or_explain
from project.preflight.half_precision import half_precision_warnings
from tests.preflight.conftest import CONFIGS

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "0"}


def config(*overrides: str) -> DictConfig:
    overrides = ("experiment_name=x", "logger.run_folder=x", "logger=csv", "callbacks={}", "data=synthetic", *overrides)
    cfg = compose_or_explain(CONFIGS, "train", overrides).cfg
    del cfg["callbacks"]
    return cfg.copy()


def faults(gpus: int, *overrides: str, environ: dict[str, str] | None = None) -> list[str]:
    cfg = config(*overrides)
    for key in ("hydra",):
        cfg.pop(key, None)
    return [str(fault) for fault in preflight.faults(cfg, environ or {}, gpus=lambda: gpus)]


@pytest.mark.parametrize("accelerator", ["auto", "cuda", "gpu"])
def test_more_ranks_than_gpus_are_refused_with_what_would_do(accelerator: str) -> None:
    (fault,) = faults(4, "+experiment=tp4_ep4_pp4", f"trainer.accelerator={accelerator}")
    assert fault.startswith(f"trainer.accelerator={accelerator}: 16 ranks")
    assert "4 are present" in fault
    assert "parallel.pp=1 parallel.tp=4 parallel.ep=4" in fault
    assert fault.endswith("or trainer.accelerator=cpu")


def test_where_no_layout_fits_the_gpus_fewer_are_named() -> None:
    (fault,) = faults(7, "+experiment=tp4_ep4_pp4")
    assert "legal for 7: parallel.pp=7 parallel.tp=1 parallel.ep=1" in fault
    (fault,) = faults(7, "+experiment=tp4_ep4_pp4", "model.num_layers=5")
    assert "legal for 6: parallel.pp=3 parallel.tp=2 parallel.ep=2" in fault


def test_nodes_multiply_gpus() -> None:
    assert not faults(8, "+experiment=tp4_ep4_pp4", "trainer.num_nodes=2")
    assert not faults(8, "+experiment=tp4_ep4_pp4", environ={**TORCHRUN, "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"})
    assert faults(4, "+experiment=tp4_ep4_pp4", environ={**TORCHRUN, "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"})
    assert not faults(8, "+experiment=tp4_ep4_pp4", environ={"SLURM_NTASKS": "16", "SLURM_NNODES": "2"})


def test_the_cpu_has_room_for_all_ranks() -> None:
    assert not faults(0, "+experiment=tp4_ep4_pp4")
    assert not faults(1, "+experiment=tp4_ep4_pp4", "trainer.accelerator=cpu")


def test_no_gpu_at_all_is_named() -> None:
    (fault,) = faults(0, "trainer.accelerator=cuda")
    assert "no GPU is present" in fault
    assert "trainer.accelerator=cpu" in fault


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
    environ: dict[str, str], named: str | None
) -> None:
    found = faults(0, "+experiment=tp4_ep4_pp4", environ=environ)
    assert len(found) == (named is not None)
    if named is not None:
        assert named in found[0]
        assert "parallel.pp=2 parallel.tp=4 parallel.ep=4" in found[0]


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


def test_a_gpu_needs_no_such_warning() -> None:
    assert preflight.warnings(config("trainer.precision=16-mixed"), gpus=lambda: 1) == []


def test_no_gpu_driver_means_no_torch(complaint: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("project.preflight.gpus._DRIVERS", ())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert "no GPU is present" in complaint("trainer.accelerator=cuda")
