"""A precision in numbers: the bytes of what a run keeps and computes under it, and the FLOP/s of a device at best."""

from typing import Literal, NamedTuple, get_args

Precision = Literal["32-true", "bf16-mixed", "bf16-true", "16-mixed", "64-true"]
Asked = Literal["auto", Precision]
PRECISIONS: tuple[str, ...] = get_args(Precision)
Arithmetic = Literal["half", "tf32", "fp32"]
FLOAT, DOUBLE, INT64, INT32, BOOL = 4, 8, 8, 4, 1


def settled(asked: str, on_gpus: bool) -> str:
    """The precision that `auto` stands for: bf16-mixed on GPUs, fp32 on processors; any other as it is."""
    if asked != "auto":
        return asked
    return "bf16-mixed" if on_gpus else "32-true"


class Width(NamedTuple):
    """Bytes of a number, as the strategy and the model keep it.

    weight: of a weight, its gradient and each of Adam's two moments; of the residual stream between the layers and of
        messages between stages.
    compute: of what goes into a matrix product.
    wide: of what is computed in at least fp32 (norms, router, loss).
    """

    weight: int
    compute: int
    wide: int

    @property
    def casts(self) -> bool:
        """Under autocast each matrix product copies its weights to `compute`, once a microbatch."""
        return self.compute < self.weight

    @property
    def widens(self) -> bool:
        """In half precision throughout, norms and router copy their inputs and weights to fp32."""
        return self.weight < self.wide


WIDTHS = {
    "32-true": Width(weight=4, compute=4, wide=4),
    "bf16-true": Width(weight=2, compute=2, wide=4),
    "bf16-mixed": Width(weight=4, compute=2, wide=4),
    "16-mixed": Width(weight=4, compute=2, wide=4),
    "64-true": Width(weight=8, compute=8, wide=8),
}


def width_of(precision: str) -> Width:
    return WIDTHS[precision]


class Peak(NamedTuple):
    """Dense FLOP/s of one device, without sparsity; `half` holds for bf16 and for fp16."""

    half: float
    tf32: float
    fp32: float


# Sources: NVIDIA's data sheets "A100 Tensor Core GPU" (2021), "H100 Tensor Core GPU" (2024), "H200 Tensor Core GPU"
# (2024) and "DGX B200" (2024, an eighth of the system's). They print the tensor core rates with sparsity, which doubles
# them, except the A100's. The first name that a device's name contains counts: the more particular come first.
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
