"""Synthetic tokens can be learned down to a known loss, and are the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest

from project.data.synthetic import ENTROPY, MOST_STATES, MarkovWindows, SyntheticCorpus


def windows(stream: int = 0, seed: int = 0, vocab_size: int = 1000) -> MarkovWindows:
    return MarkovWindows(200_000, 128, vocab_size, seed, stream)


def test_synthetic_tokens_are_predicted_by_counting_pairs() -> None:
    counts = np.full((1000, 1000), 1e-3)
    for window in windows(stream=0):  # type: ignore[attr-defined]
        np.add.at(counts, (window[:-1], window[1:]), 1)
    chances = counts / counts.sum(axis=1, keepdims=True)
    held_out = windows(stream=1)
    losses = [-np.log(chances[w[:-1], w[1:]]).mean() for w in (held_out[i] for i in range(100))]
    assert np.mean(losses) == pytest.approx(ENTROPY, rel=0.05)
    assert np.log(MOST_STATES) > 5 * ENTROPY


def test_a_synthetic_window_is_a_function_of_its_index() -> None:
    assert windows()[5].tolist() == windows()[5].tolist()
    assert windows()[5].tolist() != windows()[6].tolist()
    assert windows(stream=1)[5].tolist() != windows()[5].tolist()
    assert windows(seed=1)[5].tolist() != windows()[5].tolist()


@pytest.mark.parametrize("vocab_size", [1, 2, 5, 300])
def test_synthetic_tokens_stay_below_the_vocabulary(vocab_size: int) -> None:
    window = windows(vocab_size=vocab_size)[0]
    assert window.shape == (129,)
    assert window.dtype == np.int64
    assert 0 <= window.min() <= window.max() < vocab_size


def test_there_are_as_many_synthetic_windows_as_tokens_allow() -> None:
    assert len(MarkovWindows(129, 128, 10, 0, 0)) == 1
    with pytest.raises(IndexError):
        MarkovWindows(129, 128, 10, 0, 0)[1]


def test_a_synthetic_corpus_without_tokens_is_a_fault() -> None:
    assert SyntheticCorpus(0).faults()[0].key == "data.num_tokens"
