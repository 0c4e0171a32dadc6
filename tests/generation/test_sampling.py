"""The distribution of the next token: a softmax at a temperature over the likeliest tokens."""

import torch

from project.generation.module import Sampling

LOGITS = torch.tensor([2.0, 0.5, 1.0, -1.0, 1.5])


def frequencies(sampling: Sampling, draws: int = 20_000) -> torch.Tensor:
    chosen = sampling.choose(LOGITS.expand(draws, -1), sampling.generator())
    return chosen.bincount(minlength=len(LOGITS)) / draws


def test_sampled_tokens_come_as_often_as_their_softmax_says() -> None:
    for temperature in (0.5, 1.0, 2.0):
        wanted = (LOGITS / temperature).softmax(-1)
        assert torch.allclose(frequencies(Sampling(temperature)), wanted, atol=0.02)


def test_top_k_sampling_draws_the_k_likeliest_tokens_alone() -> None:
    wanted = torch.where(LOGITS >= 1.5, LOGITS, float("-inf")).softmax(-1)
    assert torch.allclose(frequencies(Sampling(1.0, top_k=2)), wanted, atol=0.02)
    assert frequencies(Sampling(1.0, top_k=1))[0] == 1
    assert (frequencies(Sampling(1.0, top_k=100)) > 0).all()


def test_temperature_0_chooses_the_likeliest_token() -> None:
    assert frequencies(Sampling(0))[0] == 1


def test_a_seed_fixes_the_sequence_of_sampled_tokens() -> None:
    assert torch.equal(frequencies(Sampling(seed=5), 50), frequencies(Sampling(seed=5), 50))
    assert not torch.equal(frequencies(Sampling(seed=5), 50), frequencies(Sampling(seed=6), 50))
