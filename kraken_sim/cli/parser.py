"""How the command line reads its arguments: argparse, with suggestions for misspelt choices."""

from __future__ import annotations

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """argparse that suggests the choice that was meant; a bad argument ends with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with usage and message on standard error."""
        if "invalid choice: " in message:
            from kraken_sim.errors import closest

            word = message.split("invalid choice: '")[-1].split("'")[0]
            choices = [part.strip(" ')") for part in message.split("choose from ")[-1].split(",")]
            if (guess := closest(word, choices)) is not None:
                message += f"; did you mean {guess!r}?"
        super().error(message)


def add_outputs(parser: Parser) -> None:
    """`--json` and `--html`, as most verbs have them; `output.write_outputs` serves them."""
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON; - for standard output, no tables")
    parser.add_argument("--html", metavar="FILE", help="write a report that opens in any browser")
