"""What a claim's verdict says."""

import pytest

from project.planner.document.claims import check
from project.planner.document.performance_sheets import verdict
from project.planner.document.quantities import Quantity


@pytest.mark.parametrize(
    ("claimed", "value", "unit", "said"),
    [
        (0, 52.5e6, "B", "fails by 52.5 MB"),
        (2e9, 0, "B", "fails by 2 GB"),
        (0, 3, "1", "fails by 3"),
        (-1, 3, "1", "fails by 4"),
        (2, 8, "1", "fails: 4x"),
        (2e9, 1e9, "B", "fails: 1/2"),
    ],
)
def test_a_failed_claim_says_by_how_much_also_where_there_is_no_factor(
    claimed: float, value: float, unit: str, said: str
) -> None:
    claim = {"claim": "x", "quantity": "q", "relation": "equal", "claimed": claimed}
    (checked,) = check([claim], {"q": Quantity(value, unit, "derived", "arithmetic")})
    assert checked["difference"] == value - claimed
    assert verdict(checked) == said
