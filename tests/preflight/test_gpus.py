"""GPUs that cannot be used, or not together: one sentence each, before anything is started."""

from collections.abc import Callable
from pathlib import Path

import pytest

from project.preflight.gpus import Build, Card, Driver, Hardware, driver_of, visible

Say = Callable[..., str]
ON_TWO = ("parallel=single", "parallel.tp=2", "trainer.accelerator=gpu")
BUILD = Build("2.13.0+cu130", "13.0", nccl=True)
H100 = tuple(Card(index, f"GPU-{index}abc", "NVIDIA H100 80GB HBM3") for index in range(4))
REPORT = b"""<?xml version="1.0" ?>
<nvidia_smi_log>
  <driver_version>580.65.06</driver_version>
  <cuda_version>13.0</cuda_version>
  <attached_gpus>2</attached_gpus>
  <gpu id="00000000:1A:00.0"><product_name>NVIDIA H100</product_name><uuid>GPU-1</uuid>
    <mig_mode><current_mig>Enabled</current_mig></mig_mode></gpu>
  <gpu id="00000000:1B:00.0"><product_name>NVIDIA A100</product_name><uuid>GPU-2</uuid>
    <mig_mode><current_mig>N/A</current_mig></mig_mode></gpu>
</nvidia_smi_log>"""


def hardware(tmp_path: Path, *cards: Card, cuda: str = "13.0", build: Build = BUILD, answers: bool = True) -> Hardware:
    (tmp_path / "dev").mkdir(exist_ok=True)
    (tmp_path / "dev" / "nvidia0").touch()
    driver = Driver("580.65.06", cuda, cards or H100)
    return Hardware(lambda: build, lambda: driver if answers else None, tmp_path / "dev")


def test_a_driver_s_report_says_its_version_and_its_cards() -> None:
    cards = (Card(0, "GPU-1", "NVIDIA H100", in_slices=True), Card(1, "GPU-2", "NVIDIA A100"))
    assert driver_of(REPORT) == Driver("580.65.06", "13.0", cards)


@pytest.mark.parametrize(
    ("changes", "environ", "said"),
    [
        ({"cuda": "12.4"}, {}, "the driver (580.65.06) runs CUDA 12.4 and older, but torch 2.13.0+cu130 was built for"),
        ({"build": Build("2.13.0+cpu", None, nccl=False)}, {}, "torch 2.13.0+cpu was built without CUDA; install a"),
        ({}, {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES='' leaves none of the GPUs 0,1,2,3; unset it, or"),
        ({}, {"CUDA_VISIBLE_DEVICES": "-1"}, "CUDA_VISIBLE_DEVICES='-1' leaves none of the GPUs"),
        ({}, {"CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES='7' leaves none of the GPUs"),
        ({"answers": False}, {}, "a GPU is present, but its driver does not answer: `nvidia-smi` says why"),
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
SLICED = (*H100[:1], Card(1, "GPU-x", "NVIDIA H100 80GB HBM3", in_slices=True))


@pytest.mark.parametrize(
    ("cards", "changes", "said"),
    [
        (H100, {"build": Build("2.13.0+cu130", "13.0", nccl=False)}, "torch 2.13.0+cu130 has no NCCL, which 2 ranks"),
        (SLICED, {}, "GPU 1 is split into MIG slices, which NCCL cannot connect; switch MIG off"),
        (MIXED, {}, "the GPUs are of 2 kinds (NVIDIA H100 80GB HBM3: 0; NVIDIA T1000: 1), of which the slowest"),
        (H100, {"answers": False}, "NVML does not answer (`nvidia-smi` says why), and to count the GPUs without it"),
    ],
)
def test_gpus_that_cannot_work_together_are_refused(
    cards: tuple[Card, ...], changes: dict, said: str, complaint: Say, tmp_path: Path
) -> None:
    fault = complaint(*ON_TWO, gpus=len(cards), hardware=hardware(tmp_path, *cards, **changes))
    assert "the config has 1 fault" in fault
    assert f"trainer.accelerator=gpu: {said}" in fault


def test_only_the_gpus_that_are_used_need_to_go_together(accepted: Say, tmp_path: Path) -> None:
    accepted(*ON_TWO, gpus=4, hardware=hardware(tmp_path, *H100))
    accepted(*ON_TWO, environ={"CUDA_VISIBLE_DEVICES": "0,2"}, gpus=2, hardware=hardware(tmp_path, *MIXED))
    accepted("parallel=single", "trainer.accelerator=gpu", gpus=4, hardware=hardware(tmp_path, *MIXED))
    accepted("parallel=single", "trainer.accelerator=gpu", gpus=1, hardware=hardware(tmp_path, SLICED[1]))


def test_ranks_that_torchrun_starts_need_no_nvml(accepted: Say, tmp_path: Path) -> None:
    environ = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    accepted(*ON_TWO, environ=environ, gpus=2, hardware=hardware(tmp_path, answers=False))


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
