"""The model is one of each family's: same weights in `transformers`' model of that family, same logits, loss and
gradients; and it is that under every layout."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from project.model.init import generator
from project.model.transformer import Balancing, Transformer
from project.planner.memory.peak import activation_peaks
from project.planner.step import Step
from project.spec.layout import ParallelLayout
from project.training.split_transformer import cross_entropy
from tests.harness.case import Case, initialized
from tests.harness.measured import peaks_of
from tests.harness.of_transformers import FAMILIES, as_saved, gradients_as_saved, theirs_of
from tests.harness.oracle import expected
from tests.harness.outcome import TOLERANCE, check_step, relative
from tests.harness.ranks import RankPools
from tests.harness.training import train


@pytest.fixture(scope="module", params=FAMILIES)
def both(request: pytest.FixtureRequest) -> tuple[Transformer, Any, Tensor, Tensor]:
    config = FAMILIES[request.param]
    ours = initialized(config)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if parameter.ndim == 1:  # else they are ones, and a norm that is left out is not seen
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator(0, name)))
    theirs = theirs_of(config, {name: parameter.detach() for name, parameter in ours.named_parameters()})
    assert theirs.config.model_type == request.param
    text = torch.randint(0, config.vocab_size, (2, 33), generator=torch.Generator().manual_seed(0))
    return ours, theirs, text[:, :-1], text[:, 1:]


def test_logits_equal_transformers(both) -> None:
    ours, theirs, tokens, _ = both
    assert relative(ours(tokens), theirs(input_ids=tokens).logits) <= 1e-5


def test_loss_and_every_gradient_equal_transformers(both) -> None:
    ours, theirs, tokens, targets = both
    ours.zero_grad()
    theirs.zero_grad()
    loss = cross_entropy(ours(tokens, Balancing(penalty_scale=0.0)), targets)
    logits = theirs(input_ids=tokens).logits
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    gradients = as_saved(ours.config, {name: parameter.grad for name, parameter in ours.named_parameters()})
    theirs_by_name = gradients_as_saved(theirs)
    assert gradients.keys() == theirs_by_name.keys()
    errors = {name: relative(gradients[name], gradient) for name, gradient in theirs_by_name.items()}
    assert max(errors.values()) <= 1e-5, errors


LAYOUTS = {
    "tp2_ep2_pp2": ParallelLayout(pp=2, tp=2, ep=2, microbatches=4, recompute="selective"),
    "tp2 etp2 in shards of replicas": ParallelLayout(dp=2, tp=2, etp=2, dp_mode="shard", microbatches=2),
    "ZBVZeroBubble": ParallelLayout(pp=2, virtual_stages=2, schedule="ZBVZeroBubble", microbatches=4),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_s_loss_and_gradients_are_one_rank_s_under_other_layouts(
    ranks: RankPools, family: str, layout: str
) -> None:
    model = replace(FAMILIES[family], num_layers=4, num_dense_layers=4 if FAMILIES[family].num_dense_layers else 0)
    dense = replace(LAYOUTS[layout], ep=1, etp=1)
    case = Case(LAYOUTS[layout] if model.moe_layers else dense, model)
    check_step(train(ranks, case, initial=True), expected(ranks, case), TOLERANCE["32-true"])


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("family", ["qwen3_moe", "qwen3", "olmoe", "qwen2_moe"])
def test_the_planner_knows_the_bytes_that_a_family_keeps(
    ranks: RankPools, family: str, precision: str, recompute: str
) -> None:
    model = replace(FAMILIES[family], num_layers=4, num_dense_layers=4 if FAMILIES[family].num_dense_layers else 0)
    layout = ParallelLayout(pp=2, tp=2, ep=2 if model.moe_layers else 1, microbatches=4, recompute=recompute)
    case = Case(layout, model, precision=precision, steps=2)
    step = Step(model, layout, case.batch, case.seq_len, precision)
    assert activation_peaks(step) == ranks.run(4, peaks_of, case)[0]
