"""Checkpoints of earlier versions resume. Each is kept as it was written, at the commit that its folder names."""

import shutil
from pathlib import Path

import pytest

from tests.harness.command import losses, run

MADE = Path(__file__).parent / "made_at_3bf299f"
"""Two steps of the run below, saved by pp2 x tp2 x ep2."""
RUN = (
    *("+experiment=tp2_ep2_pp2", "data=synthetic", "logger=csv", "model=tiny", "model.num_layers=2"),
    *("model.d_model=16", "model.num_heads=4", "model.num_kv_heads=2", "model.head_dim=4", "model.d_ff=16"),
    *("model.vocab_size=64", "model.max_seq_len=32", "data.seq_len=32", "parallel.microbatches=4"),
    *("trainer.max_steps=4", "trainer.limit_val_batches=1"),
)
LOSSES = [4.163091540336609, 4.1429890394210815]
"""Losses of steps 3 and 4 as that commit computed them on an AVX-512 machine; others may round the last bits
differently."""


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    shutil.copytree(MADE / "step=2.ckpt", tmp_path / "run" / "checkpoints" / "step=2.ckpt")
    return tmp_path / "run"


@pytest.mark.parametrize("layout", [(), ("parallel.pp=1", "parallel.tp=1", "parallel.ep=1")], ids=["same", "one rank"])
def test_a_run_of_3bf299f_resumes_under_its_own_layout_and_another(run_folder: Path, layout: tuple[str, ...]) -> None:
    on = run_folder.parent / "on"
    run(*RUN, *layout, f"resume={run_folder}", f"hydra.run.dir={on}")
    assert [float(loss) for loss in losses(on)] == pytest.approx(LOSSES, rel=1e-5)


def test_resume_auto_finds_a_checkpoint_of_3bf299f(run_folder: Path) -> None:
    run(*RUN, "resume=auto", f"hydra.run.dir={run_folder}")
    assert [float(loss) for loss in losses(run_folder)] == pytest.approx(LOSSES, rel=1e-5)
