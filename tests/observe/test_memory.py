"""Memory of this process."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from project.observe.memory import GPU_MEMORY, gpu_memory_bytes, peak_memory_bytes, proportional_set_bytes


def test_peak_memory_is_at_least_what_is_resident_now():
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert peak_memory_bytes(torch.device("cpu")) >= 0.95 * resident


def test_peak_memory_does_not_fall():
    before = peak_memory_bytes(torch.device("cpu"))
    block = torch.ones(2**24)
    assert peak_memory_bytes(torch.device("cpu")) >= before
    del block


def test_the_proportional_set_size_is_no_larger_than_peak_memory():
    assert 0 < proportional_set_bytes() <= peak_memory_bytes(torch.device("cpu"))


def test_a_gpu_s_memory_is_told_as_allocated_reserved_and_the_device_s_own():
    cuda = SimpleNamespace(
        mem_get_info=lambda device: (30, 80),
        max_memory_allocated=lambda device: 20,
        max_memory_reserved=lambda device: 40,
    )
    found = gpu_memory_bytes(torch.device("cuda", 0), cuda)
    assert found is not None
    assert dict(zip(GPU_MEMORY, found, strict=True)) == {"allocated": 20, "reserved": 40, "device": 50}
    assert gpu_memory_bytes(torch.device("cpu"), cuda=None) is None


@pytest.mark.gpu
def test_a_real_gpu_s_memory_is_no_smaller_than_what_it_contains():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    block = torch.ones(2**28, device="cuda")
    found = gpu_memory_bytes(block.device)
    assert found is not None
    allocated, reserved, device = found
    assert block.nbytes <= allocated <= reserved <= device
