"""Options that say the fields of a scenario: one list for every verb that asks about one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kraken_sim.cli.completers import complete

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection


@dataclass(frozen=True, slots=True)
class Setting:
    """An option that says a field of a scenario."""

    option: str
    metavar: str
    path: str
    text: str
    is_text: bool = True
    """Its value is text as it stands; otherwise it is read as a file's values are."""

    @property
    def name(self) -> str:
        """Where argparse puts it."""
        return self.option.removeprefix("--").replace("-", "_")


SETTINGS: Final = (
    Setting("--model", "MODEL", "model", "a preset such as 6.7B, or the path of a Hugging Face config.json"),
    Setting("--hardware", "PROFILE", "hardware", "a machine: a profile's name, or its file"),
    Setting("--architecture", "KIND", "architecture", "standard, parallel, kraken, ladder, ... or a YAML file"),
    Setting("--num-devices", "N", "num_devices", "devices used (default: all of the machine)", is_text=False),
    Setting("--placement", "GPUS", "placement", "the GPU of each rank, such as 0,1,4,5"),
    Setting("--phase", "PHASE", "phase", "prefill, decode or generate"),
    Setting("--batch-size", "N", "batch_size", "sequences", is_text=False),
    Setting("--context-length", "TOKENS", "context_length", "tokens of a prompt, or of a cache", is_text=False),
    Setting("--output-length", "TOKENS", "output_length", "tokens that are generated", is_text=False),
    Setting("--prefix-length", "TOKENS", "prefix_length", "tokens that are cached already", is_text=False),
    Setting("--dtype", "TYPE", "dtype", "float16, bfloat16 or float32"),
    Setting("--quantization", "FORMAT", "quantization", "fp8, fp8_block, nvfp4 or null", is_text=False),
    Setting("--kv-cache-dtype", "TYPE", "kv_cache_dtype", "auto or float8"),
    Setting("--launch", "HOW", "runtime.launch", "graph or eager"),
    Setting("--kernels", "SET", "runtime.kernels", "whose small kernels run: pytorch, compiled, serving, ..."),
    Setting("--load", "LOAD", "runtime.load", "sustained or rested"),
)
"""Fields that people change, under the names that they have in a file."""


def add_question(
    parser: argparse.ArgumentParser, *, without: Collection[str] = (), several: Collection[str] = (), file: str = ""
) -> None:
    """SCENARIO, the options of `SETTINGS` and `--set`.

    Args:
        parser: of the verb.
        without: options that the verb does not have, or means otherwise.
        several: options that take more than one value, each a question of its own.
        file: what the help says of SCENARIO.
    """
    what = file or "a scenario's file, the name of one that ships, or - for standard input; none with options alone"
    complete(parser.add_argument("scenario", metavar="SCENARIO", nargs="?", help=what), "scenarios")
    group = parser.add_argument_group("fields of the scenario, alone or on top of the file's")
    settings = [setting for setting in SETTINGS if setting.option not in without]
    for setting in settings:
        many = "+" if setting.option in several else None
        action = group.add_argument(setting.option, metavar=setting.metavar, nargs=many, help=setting.text)
        complete(action, setting.path)
    parser.set_defaults(settings=settings)
    add_set(group)


def add_set(parser: argparse._ActionsContainer) -> None:
    """`--set`, for any field of a file."""
    text = "any field, by its dotted path, such as runtime.collective.channels=8; may be repeated"
    parser.add_argument("--set", metavar="PATH=VALUE", action="append", default=[], dest="changes", help=text)


def add_request(parser: argparse.ArgumentParser, what: str) -> None:
    """REQUEST and `--set`."""
    text = f"{what}: a file, the name of one that ships, or - for standard input"
    complete(parser.add_argument("request", metavar="REQUEST", help=text), "scenarios")
    add_set(parser)
