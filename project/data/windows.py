"""The samples of training: windows of consecutive tokens, and the batches made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from project.data.token_file import TokenFile


class Windows(Protocol):
    """A map-style dataset; each item is a window of `[seq_len + 1]` int64 tokens."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> npt.NDArray[np.int64]: ...


class TokenWindows:
    """The windows of a token file; they do not overlap, and run across the ends of documents."""

    def __init__(self, tokens: TokenFile, seq_len: int) -> None:
        self._tokens = tokens
        self._seq_len = seq_len

    def __len__(self) -> int:
        return self._tokens.num_windows(self._seq_len)

    def __getitem__(self, index: int) -> npt.NDArray[np.int64]:
        return self._tokens.window(index, self._seq_len)


def collate(windows: Sequence[npt.NDArray[np.int64]]) -> dict[str, torch.Tensor]:
    """Makes a batch of windows: `tokens` and `targets`, int64 `[batch, seq_len]` each. A token's target is the next
    one."""
    window_BS = torch.from_numpy(np.stack(windows))
    return {"tokens": window_BS[:, :-1].contiguous(), "targets": window_BS[:, 1:].contiguous()}
