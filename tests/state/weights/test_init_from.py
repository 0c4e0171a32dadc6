"""Training begins with weights that another has trained, under any layout."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from project.commands.train.starting_point import initial_weights
from project.spec.layout import ParallelLayout
from project.state.weights.source import open_weights
from project.state.weights.weights import matrices
from project.training.module import MoEModule
from project.training.optimizer import OptimizerConfig
from tests.harness.a_run import CASE, Run, train
from tests.harness.case import Case, batches
from tests.harness.of_transformers import CONFIG, transformers
from tests.harness.outcome import Outcome, merged
from tests.harness.ranks import RankPools
from tests.harness.trainer import trainer
from tests.harness.training import Observer, loader

LAYOUTS = {
    "one rank": ParallelLayout(),
    "tp2 x ep2 x pp2": ParallelLayout(pp=2, tp=2, ep=2, microbatches=2),
    "sharded replicas, etp": ParallelLayout(dp=2, tp=2, ep=2, etp=2, dp_mode="shard"),
}


def fit(rank: int, world_size: int, case: Case, source: Path) -> Outcome:
    observer = Observer(initial=True)
    module = MoEModule(case.model, OptimizerConfig(warmup_steps=1), weights=open_weights(source))
    trainer(rank, world_size, case, max_steps=case.steps, callbacks=[observer]).fit(module, loader(case, rank))
    return observer.outcome


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_weights_that_transformers_saved_train(
    layout: ParallelLayout, saved_by_transformers: Path, ranks: RankPools
) -> None:
    case = Case(layout, CONFIG, steps=2)
    outcome = merged(ranks.run(layout.world_size, fit, case, saved_by_transformers))
    batch = batches(case)[0]
    theirs: Any = transformers.MixtralForCausalLM.from_pretrained(saved_by_transformers)
    with torch.no_grad():
        wanted = theirs(input_ids=batch["tokens"], labels=batch["targets"], shift_labels=batch["targets"]).loss
    assert outcome.losses[0] == pytest.approx(wanted.item(), rel=1e-5)
    weights = open_weights(saved_by_transformers)
    for name, index, _ in matrices(CONFIG):
        initial, final = (of[name] if index is None else of[name][index] for of in (outcome.initial, outcome.final))
        assert torch.equal(initial, weights.read(name, index)), name
        assert not torch.equal(initial, final), name


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_run_s_weights_begin_another_run_under_another_layout(
    layout: ParallelLayout, a_run: Run, ranks: RankPools
) -> None:
    outcome = merged(ranks.run(layout.world_size, fit, Case(layout, CASE.model, steps=1), a_run.folder))
    assert outcome.initial.keys() == a_run.tensors.keys()
    assert all(torch.equal(outcome.initial[name], tensor) for name, tensor in a_run.tensors.items())


def test_init_from_copies_the_expert_biases_too(ranks: RankPools, tmp_path: Path) -> None:
    model = replace(CASE.model, expert_balance="bias", bias_update_rate=0.1)
    trained = train(tmp_path, ranks, replace(CASE, model=model, steps=3))
    biases = {name: tensor for name, tensor in trained.tensors.items() if name.endswith("expert_bias")}
    assert len(biases) == 3
    assert all(bias.abs().max() > 0.05 for bias in biases.values())
    case = Case(ParallelLayout(), replace(model, bias_update_rate=0.0))
    (outcome,) = ranks.run(1, fit, case, tmp_path)
    assert all(torch.equal(outcome.biases[name], bias) for name, bias in biases.items())


def test_init_from_a_damaged_checkpoint_is_refused(
    a_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkpoint,) = (a_run.folder / "checkpoints").glob("step=*.ckpt")
    damaged = shutil.copytree(checkpoint, tmp_path / "damaged.ckpt")
    file = damaged / "weights-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit) as ended:
        initial_weights(str(damaged), None)
    assert ended.value.code == 2
    assert f"{file}: is damaged" in " ".join(capsys.readouterr().err.split())


def test_init_from_warns_of_another_tokenizer(a_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    initial_weights(str(a_run.folder), tmp_path / "tokenizer.json")
    assert f"data.tokenizer={a_run.folder}/tokenizer.json" in " ".join(capsys.readouterr().err.split())
    initial_weights(str(a_run.folder), a_run.folder / "tokenizer.json")
    assert capsys.readouterr().err == ""
