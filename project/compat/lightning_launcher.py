"""The launcher whose ranks are processes of this program, as Lightning's Trainer knows it."""

from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher, _WorkerOutput

RankZeroOutput = _WorkerOutput
"""What rank 0 tells the parent process at the end: the result of the call, the trainer's state and its metrics."""


class ForkingLauncher(_MultiProcessingLauncher):
    """Base of a launcher that forks the ranks by itself. The Trainer must find one of Lightning's kind: it returns no
    predictions from processes that end, for one."""

    def __init__(self, strategy: ParallelStrategy) -> None:
        super().__init__(strategy, start_method="fork")
        self.strategy = strategy

    def check_cuda_is_untouched(self) -> None:
        """Raises `RuntimeError` if the ranks need GPUs and this process has a CUDA context, which no fork survives.
        Lightning's own check finds that out in the ranks alone."""
        if torch.cuda.is_initialized() and self.strategy.root_device.type == "cuda":
            raise RuntimeError(
                "CUDA was used before the ranks were forked, which then cannot use it: begin with the fit"
            )

    def rank_zero_output(self, trainer: L.Trainer, results: Any) -> RankZeroOutput:
        """Returns what rank 0 tells the parent. Lightning's own also ships the weights; of a model in pieces rank 0
        has but one."""
        best = getattr(trainer.checkpoint_callback, "best_model_path", None)
        return RankZeroOutput(best, None, trainer.state, results, self.get_extra_results(trainer))

    def adopt(self, output: RankZeroOutput, trainer: L.Trainer) -> None:
        """Gives the parent's trainer the state, the metrics and the best checkpoint's path of rank 0."""
        self._recover_results_in_main_process(output, trainer)
