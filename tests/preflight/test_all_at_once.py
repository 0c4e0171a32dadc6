from collections.abc import Callable

from project.command_line.check import check
from project.commands.train.command import TRAIN


def test_preflight_lists_all_faults_of_all_kinds_at_once(complaint: Callable[..., str]) -> None:
    said = complaint(
        *("parallel.tp=3", "parallel.pp=9", "data.batch_size=7", "trainer.precision=fp8", "model.top_kk=1"),
        *("data=text", "data.files=[nowhere.txt]", "resume=nowhere.ckpt", "trainer.max_steps=none"),
        "hydra.run.dir=/dev/null/run",
    )
    assert "the config has 10 faults" in said  # nine microbatches are missing, too
    for key in ("tp=3", "pp=9", "microbatches=8", "batch_size=7", "fp8", "top_kk", "data.files", "resume", "max_steps"):
        assert key in said
    assert "hydra.run.dir=/dev/null/run" in said


def test_one_process_of_a_machine_reports_the_faults(complaint: Callable[..., str], monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert complaint("parallel.tp=3", environ={"LOCAL_RANK": "1"}) == ""
    assert "parallel.tp=3" in complaint("parallel.tp=3", environ={"LOCAL_RANK": "0"})


def test_preflight_leaves_questions_to_hydra_alone() -> None:
    for question in (["--help"], ["--hydra-help"], ["--cfg", "job"], ["--info", "config"], ["-sc"]):
        check(["parallel.tpp=3", *question], TRAIN, {})


def test_preflight_leaves_hydra_as_it_was() -> None:
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    check(["data=synthetic"], TRAIN, {})
    assert not GlobalHydra.instance().is_initialized()
    assert not HydraConfig.initialized()
