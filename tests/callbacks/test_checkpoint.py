"""A checkpoint says that a step is over: by then the step has its row in `metrics.csv`, and stays with it."""

from pathlib import Path

import lightning.pytorch as L

from project.callbacks.checkpoint import Checkpoint
from project.observe.metrics_file import read_rows


def test_a_step_has_its_row_before_its_checkpoint_is_begun(fit, tmp_path: Path, monkeypatch) -> None:
    found = {}

    def look(trainer: L.Trainer, filepath: str, *rest: object) -> None:
        found[Path(filepath).stem] = read_rows(tmp_path / "metrics.csv")

    monkeypatch.setattr(L.Trainer, "save_checkpoint", look)
    every_step = Checkpoint(tmp_path / "checkpoints", "{step}", every_n_train_steps=1, save_top_k=-1)
    fit(every_step, steps=3, enable_checkpointing=True)
    rows = read_rows(tmp_path / "metrics.csv")
    assert list(found) == ["step=1", "step=2", "step=3"]
    for step, row in enumerate(rows, 1):
        last = found[f"step={step}"][-1]
        assert (last["step"], last["train/loss"]) == (str(step), row["train/loss"])
        lightning_s = [key for key in row if not key.startswith(("expert_load/", "router_entropy/", "val/"))]
        lightning_s.remove("train/expert_imbalance_worst_layer")  # as those: joins the row when the next step begins
        assert {key: last[key] for key in lightning_s} == {key: row[key] for key in lightning_s}


def test_a_saved_state_makes_a_run_remove_nothing_but_checkpoints_in_its_own_folder(tmp_path: Path) -> None:
    own = tmp_path / "run/checkpoints"
    callback, trainer = Checkpoint(own, "{step}"), L.Trainer(logger=False, enable_checkpointing=False)
    callback.dirpath = str(own)
    for folder in (own / "step=1.ckpt", own / "notes", tmp_path / "other/step=2.ckpt"):
        folder.mkdir(parents=True)
    for checkpoint in (own / "step=1.ckpt", tmp_path / "other/step=2.ckpt"):
        (checkpoint / "manifest.json").write_text("{}")
    (own / "link.ckpt").symlink_to(tmp_path / "other/step=2.ckpt")
    named = {
        own / "step=1.ckpt": True,
        own / "notes": False,
        own / "link.ckpt": False,
        own / "../../other/step=2.ckpt": False,
        tmp_path / "other/step=2.ckpt": False,
        own: False,
        own / "..": False,
    }
    found = {path: callback.is_to_be_removed(trainer, str(path), str(own / "step=3.ckpt")) for path in named}
    assert found == named
