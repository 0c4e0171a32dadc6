"""The Trainer's metrics of the present step, before Lightning gives them to the loggers."""

from typing import Any

import lightning.pytorch as L


def logs_this_step(trainer: L.Trainer) -> bool:
    """Tells whether the present step is one of every `log_every_n_steps`."""
    return trainer._logger_connector.should_update_logs


def row_to_be_logged(trainer: L.Trainer) -> dict[str, Any] | None:
    """Returns the metrics that Lightning will log when the callbacks of the present batch are done; None outside of a
    batch, and in a step that is not logged."""
    connector = trainer._logger_connector
    in_a_batch = connector._first_loop_iter is not None
    return dict(connector.metrics["log"]) if in_a_batch and connector.should_update_logs else None


def accumulates_on(trainer: L.Trainer) -> bool:
    """Tells whether the present batch is not the last of its optimizer step, so that its gradients wait for others."""
    return trainer.fit_loop._should_accumulate()
