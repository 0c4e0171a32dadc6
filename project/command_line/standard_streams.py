"""Standard streams that are closed when a command starts."""

import os
import sys


def open_standard_streams() -> None:
    """Lets what is closed among standard input, output and error lead to nothing: the next file that is opened would
    take its place, and get what is shown."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for the program's life
