"""Tokens from a random Markov chain: they need no files, can be learned, and the least possible loss is known."""

import numpy as np
import numpy.typing as npt

from project.spec.fault import Fault

# Probabilities of a token's possible successors. The first is likely, so that there is something to learn; the others
# are not, so that a perfect model still has a loss.
SUCCESSOR_ODDS = (0.7, 0.15, 0.1, 0.05)
MOST_STATES = 256
ENTROPY = float(-sum(p * np.log(p) for p in SUCCESSOR_ODDS))
"""Entropy of a token given the one before, in nats: the loss that a perfect model approaches."""


class SyntheticCorpus:
    """The size and the seed of synthetic data: `num_tokens` for training, a twentieth of that for validation (at least
    a few batches)."""

    name = "synthetic"
    key = "data.num_tokens"

    def __init__(self, num_tokens: int = 1_000_000, seed: int = 0) -> None:
        self.num_tokens = self.value = num_tokens
        self.seed = seed

    def faults(self) -> list[Fault]:
        if isinstance(self.num_tokens, int) and self.num_tokens >= 1:
            return []
        return [Fault(self.key, self.num_tokens, "must be a whole number of at least 1")]


class MarkovWindows:
    """Windows of `[seq_len + 1]` int64 tokens below `vocab_size`.

    Item `i` is a function of (`seed`, `stream`, `i`) alone. The chain is a function of `seed` and `vocab_size`, so
    training and validation share it. At most `MOST_STATES` tokens occur, spread over the vocabulary: with thousands, a
    short run would see each too seldom.
    """

    def __init__(self, num_tokens: int, seq_len: int, vocab_size: int, seed: int, stream: int) -> None:
        self._length = max(0, (num_tokens - 1) // seq_len)
        self._seq_len = seq_len
        self._key = (seed, stream)
        rng = np.random.default_rng((seed, vocab_size))
        states = np.sort(rng.permutation(vocab_size)[:MOST_STATES])
        # Rotations of one permutation, so that a token's successors are distinct and all tokens equally frequent.
        shuffled = rng.permutation(states)
        successors = np.stack([np.roll(shuffled, shift) for shift in range(len(SUCCESSOR_ODDS))], axis=1)
        self._states = states
        self._successors: dict[int, list[int]] = dict(zip(states.tolist(), successors.tolist(), strict=True))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> npt.NDArray[np.int64]:
        if not 0 <= index < self._length:
            raise IndexError(index)
        rng = np.random.default_rng((*self._key, index))
        token = int(rng.choice(self._states))
        choices = rng.choice(len(SUCCESSOR_ODDS), size=self._seq_len, p=SUCCESSOR_ODDS).tolist()
        window = [token]
        for choice in choices:
            token = self._successors[token][choice]
            window.append(token)
        return np.array(window, dtype=np.int64)
