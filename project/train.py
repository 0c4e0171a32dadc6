"""Train: `python project/train.py +experiment=tp4_ep4_pp4 model=small trainer.max_steps=60`.

Composes the configuration, checks it whole, and hands over.
"""

import os
import sys
from pathlib import Path

import hydra
from dotenv import find_dotenv, load_dotenv
from omegaconf import DictConfig

from project import command_line
from project.command_line.verbatim import verbatim

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
def run(cfg: DictConfig) -> float | tuple[float | None, ...] | None:
    from hydra.core.hydra_config import HydraConfig

    from project.training.run import train

    return train(cfg, Path(HydraConfig.get().runtime.output_dir))


# Ranks that torchrun or SLURM started compose for themselves; the first alone has a run folder.
FOLLOWER = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra.job_logging.handlers.file.filename=/dev/null"]


def main() -> None:
    load_dotenv(find_dotenv(usecwd=True))  # what the environment has already stays
    sys.argv[1:] = verbatim(sys.argv[1:], paths=["resume", "init_from"])
    command_line.check(sys.argv[1:], CONFIGS, "train", os.environ)
    if not command_line.leads(os.environ):
        sys.argv += FOLLOWER
    run()


if __name__ == "__main__":
    main()
