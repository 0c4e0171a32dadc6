"""How many threads a rank computes with, and how they wait."""

import pytest

from project.engine import host


@pytest.mark.parametrize(
    ("environ", "threads"),
    [
        ({}, 4),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "none"}, 4),  # torchrun's own default
        ({"OMP_NUM_THREADS": "2", "TORCHELASTIC_RUN_ID": "none"}, 2),
        ({"OMP_NUM_THREADS": ""}, 4),
        ({"OMP_NUM_THREADS": "4,2"}, 4),  # a list for nested teams
    ],
)
def test_a_rank_has_the_threads_that_were_asked_for_else_its_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], threads: int
) -> None:
    monkeypatch.setattr(host, "available_cores", lambda: 16)
    assert host.threads_of_a_rank(4, environ) == threads


def test_more_ranks_than_cores_have_one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "available_cores", lambda: 2)
    assert host.threads_of_a_rank(16, {}) == 1


@pytest.mark.parametrize("said", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}])
def test_waiting_threads_sleep_unless_somebody_said_how_they_wait(said: dict[str, str]) -> None:
    environ: dict[str, str] = {}
    host.let_threads_sleep(environ)
    assert environ == {"GOMP_SPINCOUNT": "1000"}
    asked = dict(said)
    host.let_threads_sleep(asked)
    assert asked == said
