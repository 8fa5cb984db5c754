"""`kraken-sim completion`: the lines that teach a shell to complete commands, options and names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kraken_sim.cli.streams import put

if TYPE_CHECKING:
    import argparse

    from kraken_sim.cli.parser import Parser

SHELLS: Final = ("bash", "zsh", "fish")

LOAD_COMPDEF: Final = "(( ${+functions[compdef]} )) || { autoload -Uz compinit && compinit -i }\n"
"""For zsh without a framework, which completes nothing before this."""


def add_arguments(parser: Parser) -> None:
    """What may be given."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")
    parser.epilog = (
        'bash: eval "$(kraken-sim completion bash)" in ~/.bashrc; zsh: the same with zsh in ~/.zshrc; '
        "fish: kraken-sim completion fish > ~/.config/fish/completions/kraken-sim.fish"
    )
    parser.set_defaults(handler=_completion)


def _completion(args: argparse.Namespace) -> None:
    """Prints the lines of one shell."""
    from argcomplete.shell_integration import shellcode

    text = shellcode(["kraken-sim"], shell=args.shell)
    if args.shell == "zsh":
        # Its first line is for files on the path of functions, and has to stay the first.
        first, rest = text.split("\n", 1)
        text = f"{first}\n{LOAD_COMPDEF}{rest}"
    put(text)
