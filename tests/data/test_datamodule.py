"""The datamodule's batches depend on the seed and the step alone, also across a resume, an epoch and a layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from project.data.corpus import CorpusError
from project.data.datamodule import TokenDataModule
from project.data.synthetic import SyntheticCorpus
from project.data.text import TextCorpus
from tests.harness.trainer import cpu_trainer

Make = Callable[..., TokenDataModule]


class Recorder(LightningModule):
    """A model of one parameter that remembers the batches it was trained on, and fails at one if told to."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[list[int]]] = []
        self.validated: list[list[list[int]]] = []
        self.fail_at = fail_at

    def training_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if len(self.seen) == self.fail_at:
            raise RuntimeError("told to fail")
        self.seen.append(batch["tokens"].tolist())
        return self.weight * batch["targets"].float().mean()

    def validation_step(self, batch: dict[str, torch.Tensor]) -> None:
        self.validated.append(batch["tokens"].tolist())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, **options: Any) -> Trainer:
    return cpu_trainer(default_root_dir=folder, **({"max_epochs": -1, "limit_val_batches": 0} | options))


def seen(folder: Path, datamodule: TokenDataModule, steps: int, **options: Any) -> list[list[list[int]]]:
    model = Recorder()
    trainer(folder, max_steps=steps, **options).fit(model, datamodule)
    return model.seen


def test_a_target_is_the_token_after(make_datamodule: Make) -> None:
    datamodule = make_datamodule()
    datamodule.prepare()
    batch = next(iter(datamodule.train_dataloader()))
    assert batch["tokens"].shape == batch["targets"].shape == (4, 16)
    assert batch["tokens"].dtype == batch["targets"].dtype == torch.int64
    assert torch.equal(batch["tokens"][:, 1:], batch["targets"][:, :-1])
    assert batch["tokens"].max() < 300


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("steps_before", [3, 5, 10])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(
    make_datamodule: Make, tmp_path: Path, steps_before: int, workers: int
) -> None:
    """Resumes in the middle of an epoch of 5 batches, and at its end."""
    options: dict[str, Any] = {"limit_train_batches": 5}
    whole = seen(tmp_path, make_datamodule(), 14, **options)

    interrupted = trainer(tmp_path, max_steps=steps_before, **options)
    first = Recorder()
    interrupted.fit(first, make_datamodule(num_workers=workers))
    interrupted.save_checkpoint(tmp_path / "resume.ckpt")

    second = Recorder()
    resumed = trainer(tmp_path, max_steps=14, **options)
    resumed.fit(second, make_datamodule(num_workers=workers), ckpt_path=tmp_path / "resume.ckpt")
    assert first.seen + second.seen == whole


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # the resumed run saves nothing
def test_a_checkpoint_taken_between_steps_resumes_there(make_datamodule: Make, tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=3, save_top_k=-1)
    whole = seen(tmp_path, make_datamodule(), 8, callbacks=[checkpoint], enable_checkpointing=True)
    model = Recorder()
    resumed = trainer(tmp_path, max_steps=8)
    resumed.fit(model, make_datamodule(), ckpt_path=tmp_path / "saved" / "step=3.ckpt")
    assert model.seen == whole[3:]


def test_the_batch_of_a_step_that_failed_is_not_counted(make_datamodule: Make, tmp_path: Path) -> None:
    datamodule = make_datamodule()
    failing = trainer(tmp_path, max_steps=8)
    with pytest.raises(RuntimeError, match="told to fail"):
        failing.fit(Recorder(fail_at=4), datamodule)
    assert datamodule.state_dict()["position"] == 4


def test_a_second_fit_starts_over(make_datamodule: Make, tmp_path: Path) -> None:
    datamodule = make_datamodule()
    assert seen(tmp_path, datamodule, 4) == seen(tmp_path, datamodule, 4)


def test_an_epoch_shorter_than_a_pass_goes_on_where_the_last_one_ended(make_datamodule: Make, tmp_path: Path) -> None:
    assert seen(tmp_path, make_datamodule(), 9, limit_train_batches=2) == seen(tmp_path, make_datamodule(), 9)


def test_overfitting_repeats_the_same_batches(make_datamodule: Make, tmp_path: Path) -> None:
    batches = seen(tmp_path, make_datamodule(), 6, overfit_batches=2, check_val_every_n_epoch=None)
    assert batches[:2] == batches[2:4] == batches[4:]
    assert batches[0] != batches[1]


def test_replicas_share_the_global_batch(
    make_datamodule: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = seen(tmp_path, make_datamodule(), 3)
    parts = []
    for rank in range(2):
        replicas = {"num_replicas": 2, "rank": rank}
        monkeypatch.setattr(Trainer, "distributed_sampler_kwargs", replicas)
        parts.append(seen(tmp_path, make_datamodule(), 3))
    assert [first + second for first, second in zip(*parts, strict=True)] == whole


def test_validation_is_the_same_every_time(make_datamodule: Make, tmp_path: Path) -> None:
    model = Recorder()
    options: dict[str, Any] = {"limit_val_batches": 3, "val_check_interval": 2, "enable_checkpointing": False}
    trainer(tmp_path, max_steps=4, check_val_every_n_epoch=None, **options).fit(model, make_datamodule())
    assert len(model.validated) == 6
    assert model.validated[:3] == model.validated[3:]
    assert not [row for batch in model.validated for row in batch if row in model.seen[0]]


def test_only_full_batches_are_given(make_datamodule: Make) -> None:
    datamodule = make_datamodule()
    loader = datamodule.val_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) >= 1
    assert {batch["tokens"].shape for batch in batches} == {(4, 16)}


@pytest.mark.parametrize("option", [{"seed": 9}, {"batch_size": 2}])
def test_going_on_with_another_order_is_said(make_datamodule: Make, option: dict[str, int]) -> None:
    state = make_datamodule().state_dict()
    with pytest.warns(UserWarning, match=f"{next(iter(option))} . -> {next(iter(option.values()))}"):
        make_datamodule(**option).load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 5000}, r"tokens for training, but one batch needs 80001 .*data.batch_size=5000 x"),
        (
            {"batch_size": 64, "seq_len": 128},
            r"tokens for validation, but one batch needs 8193 .*raise data.val_fraction",
        ),
    ],
)
def test_a_corpus_shorter_than_one_batch_is_refused(
    make_datamodule: Make, options: dict[str, int], message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        make_datamodule(**options).prepare()


def test_synthetic_data_need_no_cache(tmp_path: Path) -> None:
    datamodule = TokenDataModule(
        SyntheticCorpus(10_000), seq_len=16, batch_size=4, vocab_size=50, cache_dir=str(tmp_path / "cache")
    )
    assert len(seen(tmp_path, datamodule, 3)) == 3
    assert not (tmp_path / "cache").exists()


def test_a_misspelt_option_is_refused(text_files: Path) -> None:
    corpus = TextCorpus(str(text_files / "*.txt"))
    with pytest.raises(TypeError, match="knows batchsize"):
        TokenDataModule(corpus, seq_len=16, batch_size=4, vocab_size=300, batchsize=8)
