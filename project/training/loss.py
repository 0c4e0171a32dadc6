"""The language-modelling loss."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor


def cross_entropy(logits_BSV: Tensor, targets_BS: Tensor) -> Tensor:
    """Returns the mean cross-entropy over tokens, in at least fp32. Where the vocabulary is cut over ranks the logits
    are a DTensor and torch computes it vocabulary-parallel: the caller is inside `loss_parallel`."""
    wide = torch.promote_types(logits_BSV.dtype, torch.float32)
    loss = F.cross_entropy(logits_BSV.flatten(0, 1).to(wide), targets_BS.flatten())
    return loss.to_local() if isinstance(loss, DTensor) else loss
