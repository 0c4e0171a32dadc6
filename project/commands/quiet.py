"""Lightning's remarks, kept off the terminal."""

import logging
import warnings


def quiet() -> None:
    """Sends Lightning's remarks to the run's log, and drops the warnings of its own code."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.* is deprecated")
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")  # of callbacks left out
    warnings.filterwarnings("ignore", message="The dirpath has changed from")  # which is what resuming elsewhere is
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")  # a resumed run's is
