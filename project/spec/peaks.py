"""The rate at which a device could multiply, at best: what MFU is a fraction of.

Dense figures, without sparsity, in FLOP/s per device. Sources: NVIDIA's data sheets "A100 Tensor Core GPU" (2021),
"H100 Tensor Core GPU" (2024), "H200 Tensor Core GPU" (2024) and "DGX B200" (2024, an eighth of the system's). They
print the tensor core rates with sparsity, which doubles them, except the A100's.
"""

from typing import Literal, NamedTuple

Arithmetic = Literal["half", "tf32", "fp32"]


class Peak(NamedTuple):
    """`half` is the rate of both bf16 and fp16."""

    half: float
    tf32: float
    fp32: float


# Looked up by the first name that the device's name contains, so the more particular come first.
PEAKS = {
    "B200": Peak(half=2250e12, tf32=1125e12, fp32=75e12),
    "H200 NVL": Peak(half=835.5e12, tf32=417.5e12, fp32=60e12),
    "H200": Peak(half=989.5e12, tf32=494.5e12, fp32=67e12),
    "H100 NVL": Peak(half=835.5e12, tf32=417.5e12, fp32=60e12),
    "H100 PCIe": Peak(half=756e12, tf32=378e12, fp32=51e12),
    "H100": Peak(half=989.5e12, tf32=494.5e12, fp32=67e12),
    "A100": Peak(half=312e12, tf32=156e12, fp32=19.5e12),
}


def arithmetic(precision: str, matmul_precision: str) -> Arithmetic:
    """`precision` as Lightning names it, `matmul_precision` as `torch.get_float32_matmul_precision()`."""
    if precision.startswith(("16", "bf16")):
        return "half"
    return "fp32" if matmul_precision == "highest" else "tf32"


def peak_flops(device_name: str, kind: Arithmetic) -> float | None:
    """FLOP/s of one device; None for a device that the table lacks, every CPU among them."""
    for name, peak in PEAKS.items():
        if name in device_name:
            return getattr(peak, kind)
    return None
