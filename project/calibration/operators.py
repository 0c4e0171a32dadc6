"""The cost of an operator to the host of a GPU, as the planner counts operators.

The planner's `launch_s` stands for all that lies between two kernels of a trained layer: Python, dispatch, autograd and
the allocator, a few times what a bare launch takes. So it is measured on the layers themselves, forward and backward,
so narrow that their kernels are shorter than their launches.
"""

from functools import partial

import torch
from torch import Tensor

from project.calibration import rates
from project.model.balance import Balancing
from project.model.init import reset_buffers
from project.model.transformer import Transformer
from project.planner.cost.work import layer
from project.spec.layer.implementation import ours
from project.spec.layer.operation import Shape
from project.spec.model import ModelConfig

FEW, MANY = 1, 5  # layers
SEQUENCES, LENGTH = 2, 32
NARROW = ModelConfig(
    num_layers=MANY, d_model=64, num_heads=4, num_kv_heads=4, head_dim=16, d_ff=64, num_experts=4, max_seq_len=LENGTH
)


def operator_seconds(device: torch.device) -> float:
    """Seconds from one operator to the next: what a layer more takes, over the operators of a layer's table. Wall-clock
    time on a GPU, CPU time on a core."""
    few, many = (rates.seconds(forward_and_backward(layers, device), device) for layers in (FEW, MANY))
    return max(many - few, 0.0) / ((MANY - FEW) * operators_of_a_layer())


def operators_of_a_layer() -> int:
    """Operators of a layer's forward and backward, as the planner counts them."""
    passed = layer(NARROW, ours("32-true"), Shape(SEQUENCES, LENGTH), True)
    return sum(work.launches for work in (passed.forward, passed.inputs, passed.weights))


def forward_and_backward(layers: int, device: torch.device) -> partial[None]:
    """Returns the call, in fp32: autocast's copies are no operators of the table."""
    part = Transformer(NARROW, range(layers), first=False, last=False).to(device)
    reset_buffers(part)
    with torch.no_grad():
        for weight in part.parameters():
            weight.normal_(std=0.02)
    x_BSD = torch.randn(SEQUENCES, LENGTH, NARROW.d_model, device=device, requires_grad=True)
    return partial(_forward_and_backward, part, x_BSD)


def _forward_and_backward(part: Transformer, x_BSD: Tensor) -> None:
    out_BSD = part(x_BSD, Balancing())
    out_BSD.backward(out_BSD.detach())
