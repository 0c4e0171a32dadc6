"""Autocast on a GPU widens what it leaves alone on a CPU, `sum` above all. The model's dtypes do not depend on it."""

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from project.model.dispatch import Dropless, weighted_sum

TOKENS, ASSIGNMENTS, WIDTH = 8, 2, 16


def combined(device: str) -> Tensor:
    """What a dispatch makes of its experts' rows in bf16."""
    dispatch = Dropless(4)
    rows_ND, _, order = dispatch(
        torch.empty(TOKENS, WIDTH, device=device, dtype=torch.bfloat16),
        torch.empty(TOKENS, ASSIGNMENTS, device=device, dtype=torch.int64),
    )
    return dispatch.combine(rows_ND, torch.empty(TOKENS, ASSIGNMENTS, device=device), order)


def of_rows(device: str) -> Tensor:
    rows_TAD = torch.empty(TOKENS, ASSIGNMENTS, WIDTH, device=device, dtype=torch.bfloat16)
    return weighted_sum(rows_TAD, torch.empty(TOKENS, ASSIGNMENTS, device=device))


def plain_sum(device: str) -> Tensor:
    return torch.empty(2, 2, device=device, dtype=torch.bfloat16).sum(1)


def dtype_under_autocast(compute: Callable[[str], Tensor], device: str) -> torch.dtype:
    """Without a GPU and without numbers."""
    torch._C._ensureCUDADeviceGuardSet()
    with (
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        FakeTensorMode(),
        torch.no_grad(),
        torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False),
    ):
        return compute(device).dtype


@pytest.mark.parametrize("compute", [of_rows, combined])
def test_a_token_s_rows_are_added_up_in_half_precision_on_either_device(compute: Callable[[str], Tensor]) -> None:
    assert {dtype_under_autocast(compute, device) for device in ("cpu", "cuda")} == {torch.bfloat16}


def test_a_plain_sum_would_be_wider_on_a_gpu() -> None:
    found = [dtype_under_autocast(plain_sum, device) for device in ("cpu", "cuda")]
    assert found == [torch.bfloat16, torch.float32]
