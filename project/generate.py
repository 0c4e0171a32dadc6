"""Generate: `python project/generate.py checkpoint=outputs/train/... prompt="def "`.

Composes the configuration, checks it whole, and hands over.
"""

import os
import sys

import hydra
from omegaconf import DictConfig

from project.command_line.check import checked, stand_somewhere
from project.commands.generate.command import GENERATE
from project.configs import CONFIGS
from project.engine.host import let_threads_sleep


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=GENERATE.name)
def run(cfg: DictConfig) -> None:
    from project.commands.generate.run import generate

    generate(cfg)


def main() -> None:
    stand_somewhere()
    let_threads_sleep(os.environ)
    sys.argv[1:] = checked(sys.argv[1:], GENERATE, os.environ)
    run()


if __name__ == "__main__":
    main()
