"""Lightning does what `project.compat` relies on; each message says which of our features would go wrong."""

import inspect
import random
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.plugins import Precision
from lightning.pytorch.strategies import ModelParallelStrategy

from project.compat import lightning_internals


def trainer(folder: Path, **options) -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "num_sanity_val_steps": 0}
    once = {"max_epochs": 1, "limit_train_batches": 4, "limit_val_batches": 0}
    return L.Trainer(accelerator="cpu", devices=1, default_root_dir=folder, **(quiet | once | options))


class AtEachBatch(Callback):
    """What `ask` returns at the end of each batch."""

    def __init__(self, ask) -> None:
        self.ask, self.answers = ask, []

    def on_train_batch_end(self, trainer, module, *args) -> None:
        self.answers.append(self.ask(trainer))


class Logging(BoringModel):
    def training_step(self, batch, batch_idx):
        self.log("number", float(batch_idx))
        return super().training_step(batch, batch_idx)


# -- logging ----------------------------------------------------------------------------------------------------------


def test_the_row_of_a_step_is_known_before_it_is_logged(tmp_path: Path) -> None:
    each = AtEachBatch(lambda trainer: (lightning_internals.logs_this_step(trainer), row(trainer)))
    trainer(tmp_path, callbacks=[each], log_every_n_steps=2).fit(Logging())
    assert each.answers == [(False, None), (True, {"number": 1.0}), (False, None), (True, {"number": 3.0})], (
        "a run killed at a checkpoint would leave no row in metrics.csv for its last step"
    )


def row(trainer: L.Trainer) -> dict[str, float] | None:
    metrics = lightning_internals.row_to_be_logged(trainer)
    return None if metrics is None else {name: float(value) for name, value in metrics.items()}


def test_there_is_no_row_outside_of_a_batch(tmp_path: Path) -> None:
    assert lightning_internals.row_to_be_logged(trainer(tmp_path)) is None


def test_a_batch_knows_whether_its_step_has_more(tmp_path: Path) -> None:
    each = AtEachBatch(lightning_internals.accumulates_on)
    trainer(tmp_path, callbacks=[each], accumulate_grad_batches=3).fit(BoringModel())
    assert each.answers == [True, True, False, False], "a checkpoint would be saved halfway through a step"


# -- checkpoints ------------------------------------------------------------------------------------------------------


class Recorded(lightning_internals.OpenModelCheckpoint):
    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.steps: list[str] = []

    def save(self, trainer, path) -> None:
        self.steps.append("save")
        super().save(trainer, path)

    def save_monitored(self, trainer, monitored) -> None:
        self.steps.append("save_monitored")
        super().save_monitored(trainer, monitored)

    def save_last_one(self, trainer, monitored) -> None:
        self.steps.append("save_last_one")
        super().save_last_one(trainer, monitored)

    def is_to_be_removed(self, trainer, previous, current) -> bool:
        self.steps.append("is_to_be_removed")
        return super().is_to_be_removed(trainer, previous, current)

    def link(self, trainer, path, link) -> None:
        self.steps.append("link")
        super().link(trainer, path, link)


def test_each_step_of_saving_can_be_replaced(tmp_path: Path) -> None:
    each = Recorded(
        dirpath=tmp_path / "checkpoints", monitor="step", mode="max", save_last="link", every_n_train_steps=2
    )
    trainer(tmp_path, callbacks=[each]).fit(BoringModel())
    assert each.steps[:4] == ["save_monitored", "save", "save_last_one", "link"], (
        "checkpoints would not be written while training goes on"
    )
    assert "is_to_be_removed" in each.steps, "every restart would leave a checkpoint behind"
    assert (tmp_path / "checkpoints" / "last.ckpt").is_symlink(), "resume=auto would find no last checkpoint"


def test_saving_can_be_asked_for(tmp_path: Path) -> None:
    each = Recorded(dirpath=tmp_path / "checkpoints", save_last="link", every_n_train_steps=100)
    at = AtEachBatch(lambda trainer: save(each, trainer) if trainer.global_step == 3 else None)
    trainer(tmp_path, callbacks=[at, each]).fit(BoringModel())
    assert at.answers[2] == (False, {"epoch", "step"}, 3, True), "a run that is told to stop would not be saved"
    assert len(list((tmp_path / "checkpoints").glob("epoch*"))) == 0, "old checkpoints would not be removed"


def save(each: Recorded, trainer: L.Trainer) -> tuple[bool, set[str], int, bool]:
    skips, monitored = each.skips_saving(trainer), each.monitored(trainer)
    each.save_best(trainer, monitored)
    each.save_last_one(trainer, monitored)
    each.remove(trainer, each.best_model_path)
    return skips, set(monitored), each.saved_at_step, each.skips_saving(trainer)


# -- strategy ---------------------------------------------------------------------------------------------------------


class Launched(lightning_internals.LaunchedStrategy):
    def new_launcher(self) -> lightning_internals.ForkingLauncher:
        return lightning_internals.ForkingLauncher(self)


def test_the_trainer_starts_ranks_by_our_launcher(tmp_path: Path) -> None:
    launcher = trainer(tmp_path, strategy=Launched()).strategy.launcher
    assert type(launcher) is lightning_internals.ForkingLauncher, "ranks would be started as subprocesses"


def test_the_trainer_asks_the_strategy_for_its_precision_by_a_private_attribute(tmp_path: Path) -> None:
    strategy = ModelParallelStrategy()
    assert strategy._precision_plugin is None, "the Trainer's precision would be refused"
    mine = Precision()
    strategy.precision_plugin = mine
    assert strategy._precision_plugin is mine
    assert trainer(tmp_path, strategy=strategy).precision_plugin is mine, "16-mixed and 64-true would not be possible"


def test_what_setting_up_a_strategy_does_is_what_ours_needs() -> None:
    text = inspect.getsource(ModelParallelStrategy.setup)
    for part in ("accelerator.setup", "model_to_device", "setup_optimizers", "setup_precision_plugin"):
        assert part in text, "the strategy leaves its setup to Lightning's"


def test_signal_handlers_are_ours_while_fitting_and_put_back_afterwards(tmp_path: Path) -> None:
    def mine(number, frame) -> None: ...

    class Ours(Callback):
        def setup(self, trainer, module, stage) -> None:
            def register() -> None:
                signal.signal(signal.SIGUSR1, mine)

            lightning_internals.replace_signal_handlers(trainer, register)

    before, during = signal.getsignal(signal.SIGUSR1), AtEachBatch(lambda trainer: signal.getsignal(signal.SIGUSR1))
    of_lightning = signal.getsignal(signal.SIGTERM)
    terms = AtEachBatch(lambda trainer: signal.getsignal(signal.SIGTERM))
    trainer(tmp_path, callbacks=[Ours(), during, terms]).fit(BoringModel())
    assert set(during.answers) == {mine}, "a signal would not end the run after its batch"
    assert set(terms.answers) == {of_lightning}, "Lightning would save where the signal finds a rank"
    assert signal.getsignal(signal.SIGUSR1) == before, "handlers would outlive the run"


def test_lightning_asks_the_ranks_for_signals_where_it_is_told_not_to(tmp_path: Path) -> None:
    with_own = trainer(tmp_path)
    lightning_internals.replace_signal_handlers(with_own, lambda: None)
    loop = type(with_own.fit_loop.epoch_loop)
    assert callable(loop._broadcast_sigterm_tensor), "each batch would begin with a collective and a wait"
    assert "self._broadcast_sigterm_tensor()" in inspect.getsource(loop.advance)
    assert with_own.fit_loop.epoch_loop._broadcast_sigterm_tensor() is None


def test_ranks_are_connected_by_their_environment(tmp_path: Path) -> None:
    """In a process of its own, which has no process group yet."""
    script = """
import torch.distributed as dist
from datetime import timedelta
from lightning.fabric.plugins.environments import LightningEnvironment
from project.compat.lightning_internals import connect_ranks
options = {"timeout": timedelta(seconds=9), "device_id": None, "store": dist.HashStore()}
connect_ranks(LightningEnvironment(), "gloo", **options)
connect_ranks(LightningEnvironment(), "gloo", **options)
print(dist.get_world_size(), dist.get_backend())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "gloo"], "no rank would find the others"


def test_the_generators_go_on_where_they_were() -> None:
    state = lightning_internals.random_state(torch.device("cpu"))
    drawn = (random.random(), torch.rand(3).tolist())
    lightning_internals.set_random_state(state, torch.device("cpu"))
    assert (random.random(), torch.rand(3).tolist()) == drawn, "a resumed run would drop out and sample otherwise"
    assert set(state) == {"torch", "python", "numpy"}, "checkpoints of before would not resume"


@pytest.mark.parametrize(
    ("saved", "restored"),
    [("own", "own"), (["of 0", "of 1"], "of 1"), (["of 0"], None)],
    ids=["this rank's", "of all GPUs, as before", "of fewer GPUs, as before"],
)
def test_a_rank_s_gpu_goes_on_where_it_was_however_many_gpus_there_are(
    saved: object, restored: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: f"of {device.index}")
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: asked.append((state, device.index)))
    gpu = torch.device("cuda", 1)
    state = lightning_internals.random_state(gpu)
    assert state["torch.cuda"] == "of 1", "a state of each visible GPU would start CUDA on all of them"
    lightning_internals.set_random_state(state | {"torch.cuda": saved}, gpu)
    assert asked == ([(restored, 1)] if restored else [])


def test_hooks_and_clipping_come_between_backward_and_the_step(tmp_path: Path) -> None:
    calls: list[str] = []

    class Clipping(Precision):
        def optimizer_step(self, optimizer, model, closure, **kwargs):
            result = closure()
            lightning_internals.before_optimizer_step(self, model, optimizer)
            optimizer.step(**kwargs)
            return result

        def clip_gradients(self, optimizer, clip_val=0.0, gradient_clip_algorithm=None) -> None:
            calls.append(f"clip {clip_val}")

    class Model(BoringModel):
        def on_before_optimizer_step(self, optimizer) -> None:
            calls.append("hook of the module")

    class Hook(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
            calls.append("hook of the callback")

    options = {"plugins": [Clipping()], "callbacks": [Hook()], "limit_train_batches": 1, "gradient_clip_val": 0.5}
    trainer(tmp_path, **options).fit(Model())
    assert calls == ["hook of the callback", "hook of the module", "clip 0.5"], "gradients would not be clipped"


# -- launcher ---------------------------------------------------------------------------------------------------------


def test_the_parent_takes_over_what_rank_0_tells(tmp_path: Path) -> None:
    run, parent = (
        trainer(tmp_path / name, strategy=Launched(), enable_checkpointing=True) for name in ("run", "parent")
    )
    launcher = run.strategy.launcher
    run.checkpoint_callback.best_model_path = "best"
    run.callback_metrics["loss"] = torch.tensor(2.0)
    output = launcher.rank_zero_output(run, "result")
    launcher.adopt(output, parent)
    told = (
        output.trainer_results,
        parent.checkpoint_callback.best_model_path,
        parent.state,
        dict(run.callback_metrics),
    )
    assert told == ("result", "best", run.state, {"loss": torch.tensor(2.0)}), "fit would return nothing to its caller"
    assert dict(parent.callback_metrics) == {"loss": torch.tensor(2.0)}, "trainer.callback_metrics would be empty"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_fork_for_gpus_after_cuda_was_used_is_refused(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    strategy = Launched()
    strategy.cluster_environment = LightningEnvironment()
    strategy.parallel_devices = [torch.device(device, 0)]
    refuses = pytest.raises(RuntimeError, match="CUDA was used") if device == "cuda" else nullcontext()
    with refuses:
        lightning_internals.ForkingLauncher(strategy).check_cuda_is_untouched()


def test_no_predictions_are_promised_of_ranks_that_end(tmp_path: Path) -> None:
    from lightning.pytorch.loops import prediction_loop

    text = inspect.getsource(prediction_loop)
    kind = lightning_internals.ForkingLauncher.__mro__[1].__name__
    assert f"isinstance(self.trainer.strategy.launcher, {kind})" in text, "the launcher need not be of Lightning's kind"


# -- Weights & Biases -------------------------------------------------------------------------------------------------


def test_a_run_that_has_not_begun_can_be_made_part_of_another(tmp_path: Path) -> None:
    logger = lightning_internals.OpenWandbLogger(save_dir=tmp_path, project="p", offline=True)
    assert logger.begun is None, "the run would begin before ranks are forked"
    assert {"anonymous", "project", "dir"} <= set(logger.init_arguments), "wandb would warn of `anonymous`"
    logger.go_on_with("abc")
    assert (logger.init_arguments["id"], logger.version) == ("abc", "abc"), "a resumed run would be a second one"
    assert logger.let_go() is None


def test_a_run_is_let_go_before_the_process_ends(tmp_path: Path) -> None:
    class Run:
        id = "abc"

    run = Run()
    logger = lightning_internals.OpenWandbLogger(save_dir=tmp_path, offline=True)
    logger._experiment = run
    assert logger.begun is run
    assert (logger.let_go(), logger.begun, logger.init_arguments["id"]) == (run, None, "abc"), "runs would not finish"
