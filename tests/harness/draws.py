"""How many examples a fuzz draws, and how."""

from hypothesis import HealthCheck, Phase, settings


def settled(examples: int) -> settings:
    """Settings for so many examples, the same ones each time. A failure is shown as it was drawn: to find a shorter one
    would take minutes."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
