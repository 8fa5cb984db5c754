"""What many designs take at least, as arrays: a roofline of their weights, then their priced stream of compute.

Both are lower bounds of what is simulated. A product takes no less than its weights from HBM and its FLOPs at the
datasheet's rates (`costs.gemm`). Beside a collective no kernel ends before it would have alone (`engine.device`), so
the stream of compute without waiting is a bound; where nothing runs beside compute it is the answer itself.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kraken_sim.errors import InputError
from kraken_sim.explore.design.batches import predictor_of
from kraken_sim.explore.design.space import NotAlikeError
from kraken_sim.models.counts import device_matrix_parameters
from kraken_sim.predict.energy import step_energy
from kraken_sim.predict.number_formats import input_format
from kraken_sim.predict.prediction import Prediction
from kraken_sim.program.many import DividedError, OneByOneError
from kraken_sim.program.points import without_side_stream
from kraken_sim.program.program import COMM_STREAM
from kraken_sim.scenario.resolve import ResolvedModel, token_load_of

if TYPE_CHECKING:
    from kraken_sim.explore.design.batches import SearchRecipe
    from kraken_sim.explore.design.request import DesignRequest
    from kraken_sim.explore.design.space import Candidates
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.predict.pipeline import Predictor
    from kraken_sim.predict.prepared import Prepared
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.program.many import Sizes
    from kraken_sim.scenario.spec import Scenario

TOGETHER = 1_000
"""Designs that are priced at once, so that what they need stays in a core's caches; a choice of ours."""


_COLUMNS = ("latency_s", "energy_j", "memory_bytes", "exact")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of many designs [num_designs]: time and energy of the step, `exact` where these are no bounds but the answer."""

    latency_s: Sizes
    energy_j: Sizes
    memory_bytes: Sizes
    exact: Sizes


def answer_bounds(recipe: SearchRecipe, batch: tuple[Candidates, bool]) -> bytes:
    """`bounds_of` a batch of designs, simulated or not, as bytes; or what keeps it from an answer."""
    found, simulate = batch
    try:
        bounds = bounds_of(predictor_of(recipe), recipe.request, found, simulate=simulate)
    except InputError as error:
        return b"!" + "; ".join(map(str, error.problems)).encode()
    sink = io.BytesIO()
    np.savez(sink, **{name: getattr(bounds, name) for name in _COLUMNS})
    return sink.getvalue()


def bounds_in(data: bytes) -> Bounds | str:
    """What `answer_bounds` wrote."""
    if data.startswith(b"!"):
        return data[1:].decode()
    with np.load(io.BytesIO(data), allow_pickle=False) as columns:
        return Bounds(*(columns[name] for name in _COLUMNS))


def roofline_s(scenario: Scenario, config: TransformerConfig, profile: HardwareProfile, found: Candidates) -> Sizes:
    """Seconds that the products of a step take at least: weights from HBM, FLOPs at the peak rate."""
    config, layout = found.first_shapes(config)
    inputs, device = input_format(scenario), profile.device
    matrices, load = device_matrix_parameters(config, layout), token_load_of(scenario)
    head = layout.vocabulary_share(config.vocab_size) * layout.share.hidden_size
    inner_bytes = scenario.dtype.num_bytes if inputs is None else inputs.quantization.bytes_per_weight
    dtype = scenario.dtype if inputs is None else inputs.dtype
    bytes_s = (matrices * inner_bytes + head * scenario.dtype.num_bytes) / device.hbm_bandwidth_bytes_per_s
    flops_s = 2.0 * load.num_tokens * matrices / device.rate_flops(dtype)
    flops_s = flops_s + 2.0 * load.batch_size * head / device.rate_flops(scenario.dtype)
    return np.maximum(bytes_s, flops_s) * min(1.0, profile.time_factors.get("gemm", 1.0))


def bounds_of(predictor: Predictor, request: DesignRequest, found: Candidates, *, simulate: bool = False) -> Bounds:
    """Bounds of what a search minimises; with `simulate` the answers themselves.

    Raises:
        InputError: what all of them ask for, the machine cannot run.
    """
    num = len(found)
    columns = [np.zeros(num), np.zeros(num), np.zeros(num, dtype=np.int64), np.zeros(num, dtype=bool)]
    waiting = [np.arange(num)[start : start + TOGETHER] for start in range(0, num, TOGETHER)]
    while waiting:
        index = waiting.pop()
        try:
            part = _together(predictor, request, found.at(index), simulate=simulate)
        except (OneByOneError, NotAlikeError):
            part = _one_by_one(predictor, request, found.at(index))
        except DividedError as divided:
            _, labels = np.unique(divided.labels, return_inverse=True)
            waiting += [index[labels == number] for number in range(labels.max() + 1)]
            continue
        for column, values in zip(columns, (part.latency_s, part.energy_j, part.memory_bytes, part.exact), strict=True):
            column[index] = values
    return Bounds(*columns)


def _together(predictor: Predictor, request: DesignRequest, found: Candidates, *, simulate: bool) -> Bounds:
    scenario = found.design(0).scenario(request.base)
    if not found.template.architecture.answers_any_step:
        raise OneByOneError
    first = predictor.resolve(scenario)
    config, layout = found.shapes(first.config, first.layout)
    prepared = predictor.prepare(scenario, fits=False, shapes=ResolvedModel(config, first.architecture, layout))
    beside = any(step.stream == COMM_STREAM for segment in prepared.program.segments for step in segment.steps)
    if beside and not simulate:
        prepared = _alone(prepared)
    prediction = Prediction(prepared, prepared.run())
    energy_j = step_energy(prediction).energy_j
    return Bounds(prediction.latency_s, energy_j, prepared.memory.total_bytes, np.array(simulate or not beside))


def _one_by_one(predictor: Predictor, request: DesignRequest, found: Candidates) -> Bounds:
    rows = []
    for number in range(len(found)):
        prediction = predictor.predict(found.design(number).scenario(request.base), fits=False)
        rows.append((prediction.latency_s, step_energy(prediction).energy_j, prediction.memory.total_bytes))
    latency_s, energy_j, memory_bytes = map(np.array, zip(*rows, strict=True))
    return Bounds(latency_s, energy_j, memory_bytes, np.array(True))


def _alone(prepared: Prepared) -> Prepared:
    return replace(prepared, program=without_side_stream(prepared.program))
