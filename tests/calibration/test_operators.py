"""A GPU's `launch_s` is the host's time for an operator of a trained layer, as the planner counts them."""

from collections.abc import Callable

import pytest
import torch

from project.calibration import operators, rates
from project.model.transformer import Transformer

CPU = torch.device("cpu")


def test_an_operator_of_a_layer_costs_more_than_a_bare_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "LEAST_S", 0.005)
    assert operators.operator_seconds(CPU) > 2 * rates.launch_seconds(CPU)


def test_the_seconds_of_an_operator_give_back_the_seconds_of_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of 1.5 ms each beside 4 ms that are no layer's."""

    def seconds(call: Callable[[], None], device: torch.device) -> float:
        part = call.args[0]  # type: ignore[attr-defined]
        assert isinstance(part, Transformer)
        return 4e-3 + 1.5e-3 * len(part.layers)

    monkeypatch.setattr(rates, "seconds", seconds)
    found = operators.operator_seconds(CPU)
    assert found * operators.operators_of_a_layer() == pytest.approx(1.5e-3)


def test_layers_are_trained_whole() -> None:
    call = operators.forward_and_backward(2, CPU)
    call()
    assert all(weight.grad is not None for weight in call.args[0].parameters())


@pytest.mark.gpu
def test_a_gpu_s_operator_takes_several_bare_launches() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda", 0)
    assert rates.launch_seconds(device) < operators.operator_seconds(device) < 100e-6
