"""A plan names modules; a row that names none is a mistake."""

import pytest
import torch

from project.engine.plan import ReplicatedWeights, check_plan, matches
from project.engine.transformer_plan import transformer_plan
from project.model.transformer import Transformer
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig


def model(**changes: int) -> Transformer:
    with torch.device("meta"):
        return Transformer(ModelConfig(num_layers=2, d_model=16, d_ff=16, vocab_size=32, **changes))


def test_a_star_in_a_plan_matches_within_one_level() -> None:
    assert matches("layers.*.moe", "layers.11.moe")
    assert not matches("layers.*", "layers.1.moe")
    assert not matches("layers.*.moe", "layers.1.moe_norm")


@pytest.mark.parametrize("ep", [1, 4])
@pytest.mark.parametrize("shared", [0, 1])
@pytest.mark.parametrize("dense", [0, 1, 2])
def test_every_parameter_is_covered_by_the_transformer_s_plan(ep: int, shared: int, dense: int) -> None:
    whole = model(num_shared_experts=shared, num_dense_layers=dense)
    plan = transformer_plan(ParallelLayout(tp=4, ep=ep), whole.config)
    check_plan(plan, whole)
    owners = {name.rpartition(".")[0] for name, _ in whole.named_parameters()}
    assert [owner for owner in owners if not any(matches(row, owner) for row in plan)] == []


def test_a_row_of_a_plan_that_matches_nothing_is_an_error_that_names_it() -> None:
    plan = {"norm": ReplicatedWeights(), "layers.*.mlp": ReplicatedWeights()}
    with pytest.raises(ValueError, match=r"match no module: layers\.\*\.mlp; modules: .*layers\.\*\.moe"):
        check_plan(plan, model())
