"""The model is Mixtral: same weights in `transformers`' MixtralForCausalLM, same logits, loss and gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from project.model.transformer import Balancing, Transformer
from project.training.split_transformer import cross_entropy
from tests.harness.case import initialized
from tests.harness.mixtral import CONFIG, as_saved, gradients_as_saved, mixtral
from tests.harness.outcome import relative


@pytest.fixture(scope="module")
def both() -> tuple[Transformer, Any, Tensor, Tensor]:
    ours = initialized(CONFIG)
    theirs = mixtral(CONFIG, {name: parameter.detach() for name, parameter in ours.named_parameters()})
    text = torch.randint(0, CONFIG.vocab_size, (2, 33), generator=torch.Generator().manual_seed(0))
    return ours, theirs, text[:, :-1], text[:, 1:]


def test_logits_equal_transformers_mixtral(both) -> None:
    ours, theirs, tokens, _ = both
    assert relative(ours(tokens), theirs(input_ids=tokens).logits) <= 1e-5


def test_loss_and_every_gradient_equal_transformers_mixtral(both) -> None:
    ours, theirs, tokens, targets = both
    ours.zero_grad()
    theirs.zero_grad()
    loss = cross_entropy(ours(tokens, Balancing(penalty_scale=0.0)), targets)
    logits = theirs(input_ids=tokens).logits
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    gradients = as_saved({name: parameter.grad for name, parameter in ours.named_parameters()})
    theirs_by_name = gradients_as_saved(theirs)
    assert gradients.keys() == theirs_by_name.keys()
    errors = {name: relative(gradients[name], gradient) for name, gradient in theirs_by_name.items()}
    assert max(errors.values()) <= 1e-5, errors
