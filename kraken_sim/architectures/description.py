"""A user's own architecture: the layers of a model in a YAML file, in the vocabulary of `wiring`.

    name: ladder-ffn                  # what answers call it
    layers:
      - period:                       # the layers that repeat; each a list of steps in the order of launch
          - - norm: norm_attention
            - attention
            - residual: {name: residual_attention, by: all_reduce_attention}
            ...

A layer has one attention and one FFN, each shared by all devices as in the standard model, or in `each_block` those of
sub-layers with a width of their own (Kraken's), several of which a device may have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BeforeValidator, Field, StrictBool, StrictStr, ValidationError

from kraken_sim.architectures import wiring as wired
from kraken_sim.architectures.architecture import Size
from kraken_sim.architectures.wiring_check import has_sub_layers, num_norms, sub_layer_problems_of, wiring_problems
from kraken_sim.errors import Problem, closest
from kraken_sim.files.model import FileModel, Name, NotEmpty
from kraken_sim.files.problems import as_printed, problems_of
from kraken_sim.files.strict_yaml import read_yaml
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kraken_sim.architectures.wiring import Steps, Wiring, WiringStep


class DescribedExchange(FileModel):
    """A collective of an activation over the devices."""

    name: Name = Field(description="What kernels are called.", examples=["all_reduce_ffn"])
    kind: CollectiveKind = Field(default=CollectiveKind.ALL_REDUCE, description="Which one.", examples=["all_gather"])
    share: Annotated[float, Field(strict=True, gt=0.0, le=1.0)] = Field(
        default=1.0, description="Share of the channels that take part.", examples=[0.5]
    )
    over: wired.Over = Field(
        default=wired.Over.GROUP,
        description="Devices: that share a block, one of each block, or all.",
        examples=["blocks"],
    )


def _said_by_name(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


NamedExchange = Annotated[DescribedExchange, BeforeValidator(_said_by_name)]
"""A collective, or its name alone."""


class _Named(FileModel):
    name: Name = Field(description="What its kernels are called.", examples=["norm_attention"])


class _Nothing(FileModel):
    pass


class _Onto(FileModel):
    onto: StrictBool = Field(default=False, description="Accumulated onto the attention's output.")


class _Residual(FileModel):
    name: Name = Field(description="What the sum is called.", examples=["residual_ffn"])
    by: NamedExchange | None = Field(
        default=None, description="The collective before the sum.", examples=["all_reduce_ffn"]
    )
    norm_only: StrictBool = Field(default=False, description="Only the norm behind it reads the sum.")


class _By(FileModel):
    by: NamedExchange = Field(description="The collective.", examples=["all_reduce_ffn"])


class _SendStream(_By):
    mean: StrictBool = Field(default=False, description="The mean of the residuals, plus the sum of the last outputs.")


class _Take(FileModel):
    of: Name = Field(description="The collective that is waited for.", examples=["all_reduce_ffn"])
    name: Name = Field(description="What the sum is called.", examples=["residual_ffn"])
    layers_back: Annotated[int, Field(strict=True, ge=0, le=1)] = Field(
        default=0, description="1: that of the layer before.", examples=[1]
    )


class _Receive(FileModel):
    of: Name = Field(description="The collective of the streams that is waited for.", examples=["all_reduce"])


@dataclass(frozen=True, slots=True)
class _Word:
    """A step of the file: what may be said of it, which of that may stand alone, and the step it is."""

    form: type[FileModel]
    step: Callable[[Any, int], WiringStep]
    alone: str | None = None


_WORDS: Final = {
    "norm": _Word(_Named, lambda said, _: wired.Normalise(said.name), "name"),
    "attention": _Word(_Nothing, lambda _, __: wired.Attend()),
    "ffn": _Word(_Onto, lambda said, _: wired.FeedForward(said.onto)),
    "residual": _Word(_Residual, lambda said, width: _residual(said, width), "name"),
    "add": _Word(_Named, lambda said, _: wired.Add(said.name), "name"),
    "send": _Word(_By, lambda said, width: wired.Send(_exchange(said.by, width)), "by"),
    "send_stream": _Word(_SendStream, lambda said, width: wired.SendStream(_exchange(said.by, width), said.mean), "by"),
    "begin": _Word(_By, lambda said, width: wired.Begin(_exchange(said.by, width)), "by"),
    "begin_stream": _Word(_By, lambda said, width: wired.BeginStream(_exchange(said.by, width)), "by"),
    "receive": _Word(_Receive, lambda said, _: wired.Receive(said.of), "of"),
    "concat": _Word(_By, lambda said, width: wired.Concat(_exchange(said.by, width)), "by"),
    "take": _Word(_Take, lambda said, _: wired.Take(said.name, said.of, said.layers_back)),
}
"""The steps by their name in files; a definition."""

_PARTS: Final = ("part_0", "part_1")
"""Steps for one half of the tokens each; a definition."""

_EACH_BLOCK: Final = "each_block"
"""Steps for each sub-layer of a device; a definition."""


def _exchange(said: DescribedExchange, width: int) -> wired.Exchange:
    channels = None if said.share == 1.0 else max(1, int(said.share * width))
    return wired.Exchange(said.name, said.over, said.kind, channels)


def _residual(said: _Residual, width: int) -> wired.Residual:
    return wired.Residual(said.name, None if said.by is None else _exchange(said.by, width), said.norm_only)


class DescribedLayers(FileModel):
    """Layers that follow each other."""

    period: Annotated[tuple[list[Any], ...], NotEmpty] = Field(
        description="The layers that repeat, each a list of steps.", examples=["[[{norm: norm_attention}, attention]]"]
    )
    number: Size | None = Field(default=None, description="How many layers; default: all that are left.", examples=[1])


class Description(FileModel):
    """An architecture as a file says it."""

    name: Name = Field(description="What answers call it.", examples=["ladder-ffn"])
    description: StrictStr = Field(default="", description="What a layer is, in a line.")
    layers: Annotated[tuple[DescribedLayers, ...], NotEmpty] = Field(
        description="The model's layers from first to last.", examples=["[{period: [...]}]"]
    )
    end: list[Any] = Field(default_factory=list, description="Steps between the last layer and the final norm.")
    split_tokens: StrictBool = Field(
        default=False, description="The residual of a device is that of its share of the tokens."
    )
    two_parts: StrictBool = Field(default=False, description="The tokens are cut in two: part_0 and part_1.")
    ffn_factor: Annotated[float, Field(strict=True, gt=0.0, le=64.0)] | None = Field(
        default=None, description="Of sub-layers: the FFN's width over theirs; default: the model's.", examples=[2.0]
    )
    private_norms: Annotated[int, Field(strict=True, ge=0)] = Field(
        default=0, description="Norms of a layer whose weights each device has for itself.", examples=[1]
    )


def read_description(path: str) -> Description:
    """An architecture's file, with every step understood.

    Raises:
        InputError: every problem of the file, each at its line.
    """
    document = read_yaml(path)
    problems: list[Problem] = []
    description = None
    try:
        description = Description.model_validate(document.data)
    except ValidationError as error:
        problems = problems_of(error, Description)
    if description is not None:
        wiring = _wiring(description, 1 << 10, problems)
        problems += [] if problems else [*wiring_problems(wiring), *_norm_problems(description, wiring)]
        problems += [] if problems or not has_sub_layers(wiring) else sub_layer_problems_of(wiring)
    if problems or description is None:
        raise document.error(problems)
    return description


def _norm_problems(description: Description, wiring: Wiring) -> Iterator[Problem]:
    norms = num_norms(wiring)
    if description.private_norms > norms:
        message = f"a layer has {norms} norm{'s' if norms != 1 else ''}"
        yield Problem("private_norms", message, description.private_norms, str(norms))


def depth_problem(description: Description, num_layers: int) -> str | None:
    """Why a model of so many layers has not those of a description; None where it has."""
    numbers = [part.number for part in description.layers]
    given = sum(number for number in numbers if number is not None)
    if given > num_layers or (None not in numbers and given < num_layers):
        return f"layers: {given} layers are described, the model has {num_layers}"
    return None


def described_wiring(description: Description, width: int) -> Wiring:
    """The wiring of a description that was read, for a residual of that width."""
    return _wiring(description, width, [])


def _wiring(description: Description, width: int, problems: list[Problem]) -> Wiring:
    """Its wiring for a residual of that width; what is wrong with a step is added to the problems."""
    layers = tuple(
        wired.Layers(
            tuple(
                _steps(steps, f"layers.{run}.period.{index}", width, problems)
                for index, steps in enumerate(part.period)
            ),
            part.number,
        )
        for run, part in enumerate(description.layers)
    )
    end = _steps(description.end, "end", width, problems)
    return wired.Wiring(description.name, layers, end, description.split_tokens, description.two_parts)


def _steps(said: list[Any], path: str, width: int, problems: list[Problem]) -> Steps:
    steps: list[WiringStep] = []
    for index, item in enumerate(said):
        place = f"{path}.{index}"
        key = item if isinstance(item, str) else next(iter(item)) if isinstance(item, dict) and len(item) == 1 else None
        value = item[key] if isinstance(item, dict) and key is not None else None
        if key in (*_PARTS, _EACH_BLOCK) and isinstance(value, list):
            inner = _steps(value, f"{place}.{key}", width, problems)
            plain = tuple(step for step in inner if isinstance(step, wired.BlockStep))
            if len(plain) < len(inner):
                problems.append(Problem(place, f"the steps of {key} are those of one block"))
            steps.append(wired.EachBlock(plain) if key == _EACH_BLOCK else wired.OfPart(_PARTS.index(key), plain))
        elif key in _WORDS:
            steps += _step(str(key), value, place, width, problems)
        else:
            known = [*_WORDS, _EACH_BLOCK, *_PARTS]
            guess = closest(key, known) if isinstance(key, str) else None
            message = f"a step is one of {', '.join(known)}"
            problems.append(Problem(place, message, as_printed(item), "norm: norm_attention", guess))
    return tuple(steps)


def _step(key: str, value: object, place: str, width: int, problems: list[Problem]) -> list[WiringStep]:
    word = _WORDS[key]
    said = {word.alone: value} if word.alone is not None and isinstance(value, str) else {} if value is None else value
    try:
        return [word.step(word.form.model_validate(said), width)]
    except ValidationError as error:
        for problem in problems_of(error, word.form):
            path = f"{place}.{key}.{problem.path}" if problem.path else f"{place}.{key}"
            problems.append(Problem(path, problem.message, problem.value, problem.example, problem.suggestion))
    return []
