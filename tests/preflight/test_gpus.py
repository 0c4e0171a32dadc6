"""GPUs that cannot be used, or not together: one sentence each, before anything is started."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from project.command_line.check import check
from project.commands.plan.command import PLAN
from project.engine.host import count_gpus, torch_build
from project.preflight.gpus import Build, Card, Driver, Hardware, Silence, has_code_for, visible

Say = Callable[..., str]
ON_TWO = ("parallel=single", "parallel.tp=2", "trainer.accelerator=gpu")
BUILD = Build("2.13.0+cu130", "13.0", nccl=True)
SILENT = Silence("libnvidia-ml.so.1 (NVML), which comes with it, is missing")
OLDER = {"cuda": "12.4"}
H100 = tuple(Card(index, f"GPU-{index}abc", "NVIDIA H100 80GB HBM3") for index in range(4))


def hardware(tmp_path: Path, *cards: Card, cuda: str = "13.0", build: Build = BUILD, answers: bool = True) -> Hardware:
    (tmp_path / "dev").mkdir(exist_ok=True)
    (tmp_path / "dev" / "nvidia0").touch()
    driver = Driver("580.65.06", cuda, cards or H100)
    return Hardware(lambda: build, lambda: driver if answers else SILENT, tmp_path / "dev")


@pytest.mark.parametrize(
    ("changes", "environ", "said"),
    [
        ({"cuda": "12.4"}, {}, "the driver (580.65.06) runs CUDA 12.4 and older, but torch 2.13.0+cu130 was built for"),
        ({"build": Build("2.13.0+cpu", None, nccl=False)}, {}, "torch 2.13.0+cpu was built without CUDA; install a"),
        ({}, {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES='' leaves none of the GPUs 0,1,2,3; unset it, or"),
        ({}, {"CUDA_VISIBLE_DEVICES": "-1"}, "CUDA_VISIBLE_DEVICES='-1' leaves none of the GPUs"),
        ({}, {"CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES='7' leaves none of the GPUs"),
        ({"answers": False}, {}, "a GPU is present, but its driver does not answer: libnvidia-ml.so.1 (NVML)"),
        ({}, {"CUDA_VISIBLE_DEVICES": "0,0"}, "CUDA_VISIBLE_DEVICES='0,0' leaves none of the GPUs"),
        (
            {"build": Build("", None, nccl=False, broken="libnccl.so.2: cannot open shared object file")},
            {},
            "torch cannot be imported: libnccl.so.2: cannot open shared object file; install it anew",
        ),
        ({}, {}, "torch finds no GPU, though the driver has some"),
    ],
)
def test_why_no_gpu_can_be_used_is_said(
    changes: dict, environ: dict[str, str], said: str, complaint: Say, accepted: Say, tmp_path: Path
) -> None:
    there = hardware(tmp_path, **changes)
    fault = complaint(*ON_TWO, environ=environ, gpus=0, hardware=there)
    assert "the config has 1 fault" in fault
    assert f"trainer.accelerator=gpu: {said}" in fault
    warned = accepted(*ON_TWO[:-1], environ=environ, gpus=0, hardware=there)
    assert said in " ".join(warned.split()), "accelerator=auto must not leave a GPU idle without a word"


MIXED = (*H100[:1], Card(1, "GPU-x", "NVIDIA T1000"), *H100[2:])
SLICED = (*H100[:1], Card(1, "GPU-x", "NVIDIA H100 80GB HBM3", slices=7))


@pytest.mark.parametrize(
    ("cards", "changes", "said"),
    [
        (
            H100,
            {"build": Build("2.13.0+cu130", "13.0", nccl=False)},
            "torch 2.13.0+cu130 has no NCCL, which ranks on GPUs need",
        ),
        (SLICED, {}, "GPU 1 is split into MIG slices, which NCCL cannot connect; switch MIG off"),
        (MIXED, {}, "the GPUs are of 2 kinds (NVIDIA H100 80GB HBM3: 0,2,3; NVIDIA T1000: 1), of which the slowest"),
        (H100, {"answers": False}, "the driver does not answer: libnvidia-ml.so.1 (NVML), which"),
        (H100, OLDER, "the driver (580.65.06) runs CUDA 12.4 and older, but torch 2.13.0+cu130 was built for CUDA 13"),
        (
            H100[:2],
            {"build": BUILD._replace(architectures=("sm_100", "sm_120"))},
            "torch 2.13.0+cu130 has no code for NVIDIA H100 80GB HBM3, of compute capability 9.0; it has for sm_100",
        ),
    ],
)
def test_gpus_that_cannot_work_together_are_refused(
    cards: tuple[Card, ...], changes: dict, said: str, complaint: Say, tmp_path: Path
) -> None:
    fault = complaint(*ON_TWO, gpus=len(cards), hardware=hardware(tmp_path, *cards, **changes))
    assert "the config has 1 fault" in fault
    assert f"trainer.accelerator=gpu: {said}" in fault


def test_only_the_gpus_that_are_used_need_to_go_together(accepted: Say, tmp_path: Path) -> None:
    assert accepted(*ON_TWO, gpus=4, hardware=hardware(tmp_path, *H100)) == ""
    by_address = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0,2"}
    assert accepted(*ON_TWO, environ=by_address, gpus=2, hardware=hardware(tmp_path, *MIXED)) == ""
    assert accepted("parallel=single", "trainer.accelerator=gpu", gpus=4, hardware=hardware(tmp_path, *MIXED)) == ""
    assert accepted("parallel=single", "trainer.accelerator=gpu", gpus=1, hardware=hardware(tmp_path, SLICED[1])) == ""


@pytest.mark.parametrize(
    "environ", [{}, {"CUDA_VISIBLE_DEVICES": "0,2"}, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0,1"}]
)
def test_numbers_that_may_mean_other_cards_are_refused(environ: dict[str, str], complaint: Say, tmp_path: Path) -> None:
    """By itself CUDA numbers the quickest card first, and the driver by PCI address."""
    said = complaint(*ON_TWO, environ=environ, gpus=4, hardware=hardware(tmp_path, *MIXED))
    assert "as with CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=0,2,3, or use cpu" in said


def test_one_rank_needs_a_slice_where_the_card_is_to_have_some(complaint: Say, tmp_path: Path) -> None:
    bare = hardware(tmp_path, Card(0, "GPU-0", "NVIDIA H100", slices=0))
    assert "GPU 0 is in MIG mode and has no slice" in complaint("trainer.accelerator=gpu", gpus=1, hardware=bare)


def test_cards_that_are_hidden_are_counted_with_those_that_are_too_few(complaint: Say, tmp_path: Path) -> None:
    said = complaint(*ON_TWO, environ={"CUDA_VISIBLE_DEVICES": "1,9"}, gpus=1, hardware=hardware(tmp_path, *H100))
    assert "but 1 is present (CUDA_VISIBLE_DEVICES=1,9 leaves 1 of 4); use" in said


@pytest.mark.parametrize(
    ("capability", "built", "found"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_80", "sm_90"], True),
        ((9, 0), ["sm_90a"], True),
        ((12, 1), ["sm_100", "sm_120"], True),
        ((7, 0), ["sm_75"], False),
        ((13, 0), ["sm_120"], False),
        ((13, 0), ["sm_120", "compute_120"], True),
        ((6, 1), [], True),
    ],
)
def test_a_card_needs_code_of_its_major_capability(capability: tuple[int, int], built: list[str], found: bool) -> None:
    assert has_code_for(capability, built) is found


def test_recomputation_by_memory_needs_the_cluster_of_these_gpus(complaint: Say, accepted: Say, tmp_path: Path) -> None:
    some = (*ON_TWO, "parallel.recompute=auto")
    said = complaint(*some, gpus=4, hardware=hardware(tmp_path, *H100))
    assert "parallel.recompute=auto: goes by the memory" in said
    assert "those of cpu_here are processors; name the cluster of these GPUs, as in cluster=h100_8x" in said
    assert accepted(*some, "cluster=h100_8x", gpus=4, hardware=hardware(tmp_path, *H100)) == ""


def test_calibrating_asks_the_same_of_the_gpus(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = ["calibrate=true", f"hydra.run.dir={tmp_path}"]
    with pytest.raises(SystemExit) as ended:
        check(argv, PLAN, {}, gpus=lambda: 4, hardware=hardware(tmp_path, **OLDER))
    assert ended.value.code == 2
    assert "calibrate=true: the driver (580.65.06) runs CUDA 12.4" in " ".join(capsys.readouterr().err.split())
    check(argv, PLAN, {}, gpus=lambda: 4, hardware=hardware(tmp_path))
    check(argv, PLAN, {}, gpus=lambda: 0, hardware=hardware(tmp_path, **OLDER))


def test_a_torch_that_cannot_be_imported_finds_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("project.engine.host._DRIVERS", ("/dev/null",))
    monkeypatch.setitem(sys.modules, "torch", None)
    assert count_gpus() == 0
    assert "torch" in (torch_build().broken or "")


def test_a_slice_is_counted_without_starting_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rank could be forked afterwards."""
    import torch

    monkeypatch.setattr("project.engine.host._DRIVERS", ("/dev/null",))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1,MIG-2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: pytest.fail("starts CUDA"))
    assert count_gpus() == 1


def test_ranks_that_torchrun_starts_need_no_nvml(accepted: Say, tmp_path: Path) -> None:
    environ = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    assert accepted(*ON_TWO, environ=environ, gpus=2, hardware=hardware(tmp_path, answers=False)) == ""


def test_gpus_are_named_by_index_or_by_the_beginning_of_their_uuid() -> None:
    indices = lambda named: [card.index for card in visible(H100, named)]  # noqa: E731
    assert indices(None) == [0, 1, 2, 3]
    assert indices("2,GPU-0") == [2, 0]
    assert indices("1,9,2") == [1], "as CUDA reads it: up to the first that is none"
    assert indices("") == []


def test_what_is_slow_on_gpus_is_warned_of(accepted: Say, tmp_path: Path) -> None:
    there = hardware(tmp_path, *H100)
    assert "grouped product" in accepted(*ON_TWO, "trainer.precision=32-true", gpus=4, hardware=there)
    assert "grouped product" in accepted(*ON_TWO, "trainer.precision=16-mixed", gpus=4, hardware=there)
    assert accepted(*ON_TWO, "trainer.precision=bf16-mixed", gpus=4, hardware=there) == ""
    a100 = [Card(index, f"GPU-{index}a", "NVIDIA A100-SXM4-80GB", capability=(8, 0)) for index in range(4)]
    warned = accepted(*ON_TWO, "trainer.precision=bf16-mixed", gpus=4, hardware=hardware(tmp_path, *a100))
    assert "on NVIDIA A100-SXM4-80GB each call waits for the host" in " ".join(warned.split())


def test_groups_that_span_nodes_are_warned_of(accepted: Say, tmp_path: Path) -> None:
    asked = (
        "+experiment=tp4_ep4_pp4",
        "trainer.accelerator=gpu",
        "trainer.precision=bf16-mixed",
        "trainer.num_nodes=8",
    )
    environ = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "0", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "2"}
    there = hardware(tmp_path, *H100 * 2)
    warned = " ".join(accepted(*asked, "trainer.num_nodes=8", environ=environ, gpus=2, hardware=there).split())
    assert "parallel.tp=4: its groups span nodes of 2 ranks each" in warned
    assert "parallel.ep=4: its groups span nodes of 2 ranks each" in warned
    two = {**environ, "LOCAL_WORLD_SIZE": "8"}
    assert (
        accepted(*asked[:-1], "trainer.num_nodes=2", environ=two, gpus=8, hardware=hardware(tmp_path, *H100 * 2)) == ""
    )
