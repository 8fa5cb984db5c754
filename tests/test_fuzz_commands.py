"""Whatever command line comes in: an exit code and a message in our words, and soon."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from fuzz_files import LLAMA, RICH, SMALL, SWEEP, examples_of
from fuzz_promise import check_words, kept, run_command
from fuzz_settings import examples
from fuzz_trees import TEXTS, written
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim.cli import VERBS, build_parser

OUTPUTS: Final = (
    "out.json",
    "out.html",
    "",
    ".",
    "no/such/folder/x",
    "x" * 300,
    "a\0b",
    "[red]x",
    "/nonexistent/x",
    "\x1b[2J",
    "config.json",
    "machine.yaml",
    "measured.jsonl",
)
NAMES: Final = (
    "small.yaml",
    "small.yaml",
    "rich.yaml",
    "sweep.yaml",
    "config.json",
    "measured.jsonl",
    "measured.jsonl#1",
    "trace.json",
    "times.txt",
    "machine.yaml",
    "request.yaml",
    "kraken-6.7b-on-two-h200",
    "h200-sxm-x2",
    "kraken-6.7b",
    "..",
)
NUMERALS: Final = (
    "0",
    "1",
    "2",
    "8",
    "-1",
    "1.5",
    "1e9",
    "9" * 400,
    "nan",
    "inf",
    "1K",
    "64K",
    "8M",
    "-3K",
    "",
    "٣",
    "x",
)
WORDS: Final = (
    "ring",
    "tree",
    "ll",
    "simple",
    "nccl",
    "custom",
    "p2p",
    "shm",
    "half",
    "float",
    "all_reduce",
    "all_gather",
    "fastest",
    "send_recv",
    "scenario",
    "profile",
    "125M",
    "1.3B",
    "=",
    "a=b",
    "op=all_gather",
    "2.27",
    "2.x",
)


def verbs() -> list[tuple[str, ...]]:
    return [
        *((verb,) for verb in VERBS if verb not in ("paper", "profiles", "explore")),
        *(("profiles", verb) for verb in ("list", "show", "check", "new")),
        *(("explore", verb) for verb in ("degree", "channels", "interconnect")),
        ("explore",),
        ("profiles",),
        ("nonsense",),
        ("explore", "\x1b[0m"),
        ("paper", "--grid"),
        (),
    ]


@functools.cache
def options_of(verb: tuple[str, ...]) -> dict[str, bool]:
    """The options that a verb has, and whether they take a value."""
    parser: Any = build_parser(verb)
    for word in verb:
        inner = parser._subparsers and parser._subparsers._group_actions[0].choices
        if not inner or word not in inner:
            return {"--html": True}
        parser = inner[word]
    return {
        name: action.nargs != 0
        for action in parser._actions
        for name in action.option_strings
        if name not in ("-h", "--help", "--cluster")
    }


def value_of(option: str) -> st.SearchStrategy[str]:
    if option in ("--json", "--html", "--out", "--trace"):
        return st.sampled_from(OUTPUTS)
    if option == "--jobs":
        return st.sampled_from(("1", "1", "0", "-1", "x", "1.5"))
    texts = tuple(text for text in TEXTS if len(text) < 500 or option in ("--where", "--name"))
    return st.sampled_from((*NAMES, *NUMERALS, *WORDS)) | st.sampled_from(texts)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A verb, what it asks for and some of its options, with values right and wrong."""
    verb = draw(st.sampled_from(verbs()))
    words = list(verb)
    if draw(st.integers(0, 9)) > 0:
        words.append(draw(st.sampled_from(NAMES) | st.sampled_from(WORDS) | st.sampled_from(TEXTS)))
    if verb == ("collective",):
        words[1:] = [
            draw(st.sampled_from(("all_reduce", "all_gather", "send_recv", "x"))),
            "--hardware",
            "h200-sxm-x2",
            "-e",
            "1M",
        ]
    if verb == ("diff-trace",) and draw(st.booleans()):
        words[1:] = ["small.yaml", draw(st.sampled_from(("trace.json", "measured.jsonl", *NAMES)))]
    options = options_of(verb) or {"-x": False}
    for option in draw(st.lists(st.sampled_from(sorted(options)), max_size=3)):
        words.append(option)
        if options[option] and draw(st.integers(0, 9)) > 0:
            words.append(draw(value_of(option)))
    return words


@given(words=command_lines())
@examples(60)
def test_a_command_line_ends_with_an_exit_code_and_a_message(words: list[str]) -> None:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for name, content in files_for_commands().items():
                Path(name).write_text(content, encoding="utf-8")
            answer = kept(lambda: run_command(words))
            changed = [name for name, text in files_for_commands().items() if Path(name).read_bytes() != text.encode()]
        finally:
            os.chdir(before)
    assert isinstance(answer, tuple)
    code, out, err = answer
    assert code in (0, 2, 3), (code, out, err)
    assert "\x1b" not in out + err
    assert not changed or "--force" in words, changed
    if code and words:  # no command is answered by the help
        check_words(err or out)


@functools.cache
def files_for_commands() -> dict[str, str]:
    texts = examples_of()
    return {
        "small.yaml": written(SMALL),
        "rich.yaml": written(RICH),
        "sweep.yaml": written(SWEEP),
        "config.json": written(LLAMA),
        "measured.jsonl": texts["measurements"][0],
        "trace.json": texts["trace"][0],
        "times.txt": texts["times"][0],
        "machine.yaml": texts["datasheet"][1],
        "request.yaml": texts["purchase"][0],
    }
