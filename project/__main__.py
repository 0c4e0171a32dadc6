"""The installed command, `moe-parallel SUBCOMMAND ...` or `python -m project SUBCOMMAND ...`: each subcommand is the
script of that name in a checkout, and works from any folder."""

import importlib
import sys

from project.spec.fault import legal

COMMANDS = {
    "train": ("project.train", "train a model under a parallel layout"),
    "plan": ("project.plan", "derive a layout's strategy document, check its claims, search, calibrate"),
    "generate": ("project.generate", "continue a text with a checkpoint"),
    "convert": ("project.commands.convert", "convert weights from and to Hugging Face's folders"),
    "report": ("project.commands.report", "make a run's or a sweep's report.html again"),
    "dashboard": ("project.dashboard", "make a workspace of Weights & Biases"),
}
"""Subcommands: the module whose `main` runs it, and what it does."""
_FAULTY = 2


def main() -> None:
    """Runs the subcommand that the command line names first; ends with status 2 where it names none that there is."""
    name, *rest = sys.argv[1:] or [""]
    if name in ("-h", "--help"):
        print(usage())
        return
    if name not in COMMANDS:
        print(f"{usage()}\n\n{name}: there is no such subcommand; {legal(name, list(COMMANDS))}", file=sys.stderr)
        raise SystemExit(_FAULTY)
    sys.argv = [f"{sys.argv[0]} {name}", *rest]
    importlib.import_module(COMMANDS[name][0]).main()


def usage() -> str:
    lines = (f"  {name:10} {purpose}" for name, (_, purpose) in COMMANDS.items())
    return "\n".join(["moe-parallel SUBCOMMAND [ARGUMENTS]; SUBCOMMAND --help says more", "", *lines])


if __name__ == "__main__":
    main()
