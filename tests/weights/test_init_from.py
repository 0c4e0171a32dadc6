"""Training begins with weights that another has trained, under any layout."""

from pathlib import Path
from typing import Any

import pytest
import torch

from project.parallel.layout import ParallelLayout
from project.training.module import MoEModule
from project.training.optimizer import OptimizerConfig
from project.weights.matrices import matrices
from project.weights.source import open_weights
from tests.parity.training import Case, Observer, Outcome, batches, loader, merged, trainer
from tests.ranks import RankPools
from tests.weights.mixtral import CONFIG, transformers

LAYOUTS = {
    "one rank": ParallelLayout(),
    "tp2 x ep2 x pp2": ParallelLayout(pp=2, tp=2, ep=2, microbatches=2),
    "sharded replicas, etp": ParallelLayout(dp=2, tp=2, ep=2, etp=2, dp_mode="shard"),
}


def fit(rank: int, world_size: int, case: Case, source: Path) -> Outcome:
    observer = Observer()
    weights = open_weights(source)
    module = MoEModule(weights.config, OptimizerConfig(warmup_steps=1), weights=weights)
    trainer(rank, world_size, case, max_steps=case.steps, callbacks=[observer]).fit(module, loader(case, rank))
    return observer.outcome


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_what_transformers_saves_trains(layout: ParallelLayout, saved_by_transformers: Path, ranks: RankPools) -> None:
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
