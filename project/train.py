"""Train: `python project/train.py +experiment=tp4_ep4_pp4 model=small trainer.max_steps=60`.

Composes the configuration, checks it whole, and hands over.
"""

import os
import sys
from pathlib import Path

import hydra
from dotenv import find_dotenv, load_dotenv
from omegaconf import DictConfig

from project.command_line.check import checked, stand_somewhere
from project.command_line.refusal import leads, shows_progress
from project.commands.lost_output import output_may_be_lost
from project.commands.train.command import TRAIN
from project.configs import CONFIGS
from project.engine.host import let_threads_sleep

# Ranks that torchrun or SLURM started compose for themselves; the first alone has a run folder.
FOLLOWER = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra.job_logging.handlers.file.filename=/dev/null"]


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=TRAIN.name)
def run(cfg: DictConfig) -> float | tuple[float | None, ...] | None:
    from hydra.core.hydra_config import HydraConfig

    if "torch" not in sys.modules and shows_progress(cfg, os.environ):
        print("The configuration is sound. Loads torch and Lightning.", flush=True)
    from project.commands.train.run import train

    with output_may_be_lost():
        return train(cfg, Path(HydraConfig.get().runtime.output_dir))


def main() -> None:
    stand_somewhere()
    load_dotenv(find_dotenv(usecwd=True))  # variables that the environment has already stay as they are
    let_threads_sleep(os.environ)
    sys.argv[1:] = checked(sys.argv[1:], TRAIN, os.environ)
    if not leads(os.environ):
        sys.argv += FOLLOWER
    run()


if __name__ == "__main__":
    main()
