"""A number is said in one way everywhere: three digits, in decimal units."""

import pytest

from project.spec.units import number


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (None, "B", "-"),
        (0, "B", "0 B"),
        (999, "B", "999 B"),
        (1234, "B", "1.23 kB"),
        (999_600, "B", "1 MB"),
        (12.34e9, "B", "12.3 GB"),
        (5e15, "B", "5,000 TB"),
        (-2.5e9, "B", "-2.5 GB"),
        (0.0593, "s", "59.3 ms"),
        (0.99961, "s", "1 s"),
        (3600, "s", "3,600 s"),
        (0, "s", "0 s"),
        (3.05e12, "FLOP", "3.05 TFLOP"),
        (4600832, "1", "4,600,832"),
        (-1.8466758519763318, "1", "-1.85"),
        (34567.8, "tokens/s", "34,568 tokens/s"),
    ],
)
def test_a_number_is_said_in_its_unit(value: float | None, unit: str, said: str) -> None:
    assert number(value, unit) == said
