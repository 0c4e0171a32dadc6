"""The known peaks of devices."""

import pytest

from project.spec.precision import arithmetic, peak_flops


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.5),
        ("NVIDIA B200", 2250),
    ],
)
def test_the_half_precision_peaks_of_known_devices(name, teraflops):
    assert peak_flops(name, "half") == pytest.approx(teraflops * 1e12)


def test_an_unknown_device_has_no_peak():
    assert peak_flops("AMD EPYC 9004", "half") is None


def test_single_precision_uses_tensor_cores_only_where_allowed():
    assert arithmetic("32-true", "highest") == "fp32"
    assert arithmetic("32-true", "high") == "tf32"
    assert arithmetic("bf16-mixed", "highest") == arithmetic("16-mixed", "highest") == "half"
