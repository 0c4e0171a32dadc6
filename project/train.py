"""Train: `python project/train.py +experiment=tp4_ep4_pp4 model=small trainer.max_steps=60`.

Composes the configuration, checks it whole, and hands over.
"""

import os
import sys
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from project import command_line

STARTED = time.time()
CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
def run(cfg: DictConfig) -> float | None:
    from hydra.core.hydra_config import HydraConfig

    from project.training.run import train

    return train(cfg, Path(HydraConfig.get().runtime.output_dir), STARTED)


def main() -> None:
    command_line.check(sys.argv[1:], CONFIGS, "train", os.environ)
    run()


if __name__ == "__main__":
    main()
