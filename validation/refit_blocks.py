"""How each fitted block of a shipped profile is made: from published tables, from measurements, or carried over."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.calibration.attention import DEFAULT_START as ATTENTION_START
from kraken_sim.calibration.attention import fit_attention, phase_class
from kraken_sim.calibration.attention_start import PREFILL_BOUNDS
from kraken_sim.calibration.collective_kinds import fit_kind
from kraken_sim.calibration.collectives import fit_all_reduce
from kraken_sim.calibration.composed import composed_samples
from kraken_sim.calibration.fit_profile import calibrate
from kraken_sim.calibration.gemm import fit_gemm
from kraken_sim.calibration.kept import common_provenance
from kraken_sim.calibration.memory_bound import fit_memory_bound
from kraken_sim.calibration.node_wait import node_wait
from kraken_sim.calibration.overlap import sustained_samples
from kraken_sim.calibration.power import START as POWER_START
from kraken_sim.calibration.power import fit_power
from kraken_sim.calibration.progress import held_out_text, machine_text, unchanged
from kraken_sim.calibration.quantised import fit_quantised, quantising_samples
from kraken_sim.costs.collectives.choice import nccl_choice
from kraken_sim.costs.collectives.policy import CollectivePolicy
from kraken_sim.costs.collectives.tuning import NVLS
from kraken_sim.costs.memory_bound import COMPOSED, QUANTISING
from kraken_sim.files.strict_yaml import parse_yaml
from kraken_sim.measurements.launch import LAYER_CALLS, launch_costs
from kraken_sim.measurements.records.launched import LaunchRecord
from kraken_sim.measurements.records.loads import WakeRecord
from kraken_sim.measurements.schema import MeasurementFile, read_measurements
from kraken_sim.profiles.carried_errors import carried_error
from kraken_sim.profiles.datasheet import is_datasheet
from kraken_sim.profiles.from_datasheet import profile_of
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.schema import BLOCKS, parse_profile
from kraken_sim.profiles.transfer import carry_over_attention, carry_over_memory_bound
from kraken_sim.profiles.write import BlockText, block_yaml, numbers_of, section, with_sections
from kraken_sim.program.formats import DType, Quantization
from validation.public_tables import (
    MAX_BYTES,
    MAX_NVLS_BYTES,
    attention_samples,
    collective_samples,
    custom_samples,
    float8_cache_samples,
    gemm_samples,
    nccl_samples,
)
from validation.refit_starts import LINKS, collectives_start, contention_start, memory_bound_start

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from kraken_sim.calibration.collectives import AllReduceSample
    from kraken_sim.calibration.memory_bound import MemoryBoundSample
    from kraken_sim.calibration.split import Fit
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.memory_bound import MemoryBoundConstants
    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.profiles.profile import HardwareProfile
    from validation.public_tables import Card

PUBLISHER: Final = "ai-dynamo/aiconfigurator"
GIVEN_ATTENTION: Final = ("l2_share", "max_group", "persistent", "serving_packed_cache_share")
LOADS: Final = "h200-sxm-x1-power.jsonl"
"""Sustained loads and rests of one card of the pair's kind."""
RESTS: Final = "h200-sxm-x1-power-2.jsonl"
"""Further rests, of another one."""
GIVEN_POWER: Final = ("lowest_clock", "repeats")
"""Constants that fits take as given: they are as the profile has them."""
HALF_CACHE: Final = "; its grouped-query decode rows move half the nominal cache"
OTHER_CARD: Final = 2.0
NODES: Final = ("graph_node_gap_s", "graph_edge_s", "eager_kernel_gap_s")
NODES_AND_WAIT: Final = (*NODES, "graph_node_wait_s")
"""What the front end of a card takes between kernels."""
CARRIED_ERROR: Final = 0.1
"""The error of a block that is another card's, assumed: twice that on its own card, and no less than this."""
MULTIMEM: Final = "multimem"
ONE_CARD: Final = ("h200-sxm-x1-llama-microbench.jsonl", "h200-sxm-x1-chains.jsonl", "h200-sxm-x1-gaps.jsonl")
WITHOUT_GEMMS: Final = "h200-sxm-x1-kernels.jsonl"
"""Files of one H200 whose kernels are fitted: fp16 and bf16, with bias and without, of GPT-2- and Llama-like layers,
grouped and wide heads, operands fresh and kept."""


@dataclass(slots=True)
class Shipped:
    """The profiles as their files stand at this point of a refit.

    A block that is put is read back from the text of its file, so that later steps see it as users will, to its four
    digits, and a refit of one profile finds what a refit of all would have given it.
    """

    texts: dict[str, str]
    profiles: dict[str, HardwareProfile] = field(default_factory=dict)
    refitted: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.profiles = {name: self._read(name) for name in self.texts}

    def _read(self, name: str) -> HardwareProfile:
        document = parse_yaml(self.texts[name], name)
        return profile_of(document) if is_datasheet(document.data) else parse_profile(document)

    def put(self, name: str, block: str, text: BlockText) -> None:
        """A block of a profile; constants with a source of their own keep it unless their value has changed."""
        sources = {**unchanged(self.profiles[name], block, text.constants), **text.overrides}
        body = block_yaml(block, replace(text, overrides=sources))
        self.texts[name] = with_sections(self.texts[name], {**self._before(name, block), block: body})
        self.profiles[name] = self._read(name)
        blocks = self.refitted.setdefault(name, [])
        if block not in blocks:
            blocks.append(block)

    def _before(self, name: str, block: str) -> dict[str, str | None]:
        """The block that a new one goes behind, as it stands."""
        text, names = self.texts[name], list(BLOCKS)
        earlier = [other for other in names[: names.index(block)] if section(text, other) is not None]
        return {earlier[-1]: section(text, earlier[-1])} if earlier else {}


def _fitted(source: str, fit: Fit[Any, Any]) -> Provenance:
    return Provenance(ProvenanceKind.FITTED, source, fit.residual)


def _shapes(fit: Fit[Any, Any]) -> str:
    return f"{len(fit.fitted)} of {len(fit.fitted) + len(fit.held_out)} shapes"


def published_gemm(shipped: Shipped, card: Card, folder: Path) -> None:
    """GEMM from a card's table."""
    profile = shipped.profiles[card.profile]
    gap_s = profile.launch.graph_node_gap_s
    fit = fit_gemm(gemm_samples(folder, card), profile.device, graph_node_gap_s=gap_s)
    source = f"fit to {PUBLISHER} {card.name}, {card.framework}, GEMM bf16, {_shapes(fit)}{held_out_text(fit)}"
    shipped.put(card.profile, "gemm", BlockText(fit.constants, _fitted(source, fit)))


def published_quantised_gemms(shipped: Shipped, card: Card, folder: Path) -> None:
    """GEMMs of each quantised format that the card's tables have, and what their rows' quantisation of x takes."""
    for quantization in Quantization:
        profile = shipped.profiles[card.profile]
        samples = gemm_samples(folder, card, quantization)
        if not samples or quantization.dtype not in profile.device.peak_flops:
            continue
        fit = fit_gemm(samples, profile.device, profile.gemm, graph_node_gap_s=profile.launch.graph_node_gap_s)
        added_s = fit.constants.serving_quantize_s
        source = (
            f"fit to {PUBLISHER} {card.name}, {card.framework}, GEMM {quantization}, {_shapes(fit)}"
            f"{held_out_text(fit)}; its rows have the quantisation of x in them, {1e6 * added_s:.1f} us and the bytes "
            "of x, fitted with the product, whose start is that in bf16"
        )
        shipped.put(card.profile, f"gemm_{quantization}", BlockText(fit.constants, _fitted(source, fit)))


def published_attention(shipped: Shipped, card: Card, folder: Path) -> None:
    """Attention from a card's tables: of serving engines, where the profile keeps these apart from bare kernels."""
    profile = shipped.profiles[card.profile]
    block = "attention" if profile.serving_attention is None else "serving_attention"
    own = getattr(profile, block)
    given: dict[str, Any] = {name: getattr(own, name) for name in GIVEN_ATTENTION}
    start = replace(ATTENTION_START, **given)
    samples = attention_samples(folder, card)
    fit = fit_attention(samples, profile.device, start, graph_node_gap_s=profile.launch.graph_node_gap_s)
    dims = ", ".join(map(str, sorted({sample.head_dim for sample in samples})))
    errors = {error.name: f"{100 * error.mean:.1f} % {error.name}" for error in fit.class_errors("", phase_class)}
    half = HALF_CACHE if start.serving_packed_cache_share < 1.0 else ""
    source = (
        f"fit to {PUBLISHER} {card.name}, {card.framework} (causal bf16, head dimensions {dims}), {_shapes(fit)}; mean "
        f"error on held-out shapes {errors['prefill']}, {errors['decode']}{half}"
    )
    shipped.put(card.profile, block, BlockText(fit.constants, _fitted(source, fit)))


def prefill_of_published(shipped: Shipped, card: Card, chip: str) -> None:
    """The bare attention of a card of which only engines' was fitted: prefill as theirs, decode steps as on `chip`."""
    profile, base = shipped.profiles[card.profile], shipped.profiles[chip]
    if profile.serving_attention is None:
        return
    changes: dict[str, Any] = {name: getattr(profile.serving_attention, name) for name in (*PREFILL_BOUNDS, "prefill")}
    carried = carry_over_attention(base.attention, base.device, profile.device)
    where = said(profile, "serving_attention")
    own = replace(where, source=f"prefill as in serving_attention: {where.source}")
    error = carried_error("attention", base, profile.device)
    other = Provenance(ProvenanceKind.FITTED, f"carried over from {chip} ({base.device.name})", error)
    named = [path for path, _ in numbers_of(carried) if path.partition(".")[0] not in changes]
    shipped.put(card.profile, "attention", BlockText(replace(carried, **changes), own, dict.fromkeys(named, other)))


def published_float8_cache(shipped: Shipped, card: Card, folder: Path) -> None:
    """Decode steps over a cache in fp8, from the card's published attention, whose prefill they keep."""
    profile = shipped.profiles[card.profile]
    samples = float8_cache_samples(folder, card)
    if not samples or DType.FLOAT8_E4M3 not in profile.device.peak_flops:
        return
    start = profile.serving_attention or profile.attention
    fit = fit_attention(samples, profile.device, start, graph_node_gap_s=profile.launch.graph_node_gap_s)
    dims = ", ".join(map(str, sorted({sample.head_dim for sample in samples})))
    source = (
        f"fit to {PUBLISHER} {card.name}, {card.framework}, decode over an fp8 cache (bf16, head dimensions {dims}), "
        f"{_shapes(fit)}{held_out_text(fit)}; prefill as over other caches"
    )
    shipped.put(card.profile, "attention_float8", BlockText(fit.constants, _fitted(source, fit)))


CUSTOM_OF: Final = "h200-sxm-x8"
"""The profile whose custom kernels stand for those of cards without rows of them."""


def published_collectives(shipped: Shipped, card: Card, folder: Path) -> None:
    """Collectives from the tables: AllReduces of NCCL and of engines, then what other collectives differ by."""
    profile = shipped.profiles[card.machine]
    generation, gap_s = profile.device.generation, profile.launch.graph_node_gap_s
    start = collectives_start(_with_pcie_rows(shipped, profile), generation)
    start = replace(start, nccl_minor_version=int(card.nccl_versions[-1].split(".")[1]))
    samples = nccl_samples(folder, card, gap_s) + custom_samples(folder, card, gap_s)
    counts = sorted({sample.num_devices for sample in samples})
    interconnects = {(count, "p2p"): profile.topology.interconnect(count) for count in counts}
    samples += [sample for sample in _largest(folder, card, gap_s) if _runs_nvls(sample, interconnects, profile, start)]
    fit = fit_all_reduce(samples, interconnects, profile.device, start)
    kinds, constants = [], fit.constants
    others = collective_samples(folder, card)
    for kind in sorted({sample.kind for sample in others}):
        own = fit_kind([s for s in others if s.kind is kind], replace(profile, collectives=constants))
        constants = own.constants
        kinds.append(f"{100 * (own.residual or 0.0):.1f} % {kind}")
    graphs = f" and custom kernels in CUDA graphs ({', '.join(card.custom)})" if card.custom else ""
    source = (
        f"fit to {PUBLISHER} {card.name}, NCCL {' and '.join(card.nccl_versions)} AllReduce (nccl-tests){graphs}, "
        f"{_list(counts)} GPUs, 1 KiB to 256 MiB{', NVLS to 512 MiB' * bool(start.nvls_enabled)}, {_shapes(fit)}"
        f"{held_out_text(fit)}; rates of one channel are not told apart by these rows and stay near NCCL's tuning "
        f"constants (tuning.cc); kind_factors and kind_link_correction: fit to the same publisher's AllGather, "
        f"ReduceScatter and AllToAll rows, NCCL {card.nccl_versions[-1]}, mean error on held-out shapes "
        f"{', '.join(kinds)}"
    )
    if generation == "ada":
        pcie = {name: {**getattr(constants, name), "host": getattr(constants, name)["pcie"]} for name in LINKS["ada"]}
        constants = replace(constants, **pcie)  # type: ignore[arg-type]
    rows = _own_rows(profile, ("pcie", "host"), but=generation == "ada")
    if not card.custom:
        carried = Provenance(ProvenanceKind.ASSUMED, f"custom kernels carried over from {CUSTOM_OF} (H200)")
        rows |= {name: carried for name in constants.__slots__ if name.startswith("custom_")}
    text = BlockText(constants, _fitted(source, fit), rows)
    shipped.put(card.machine, "collectives", text)


def _largest(folder: Path, card: Card, gap_s: float) -> list[AllReduceSample]:
    return nccl_samples(folder, card, gap_s, MAX_BYTES + 1, MAX_NVLS_BYTES)


def _runs_nvls(
    sample: AllReduceSample,
    interconnects: Mapping[tuple[int, str], Interconnect],
    profile: HardwareProfile,
    constants: CollectiveConstants,
) -> bool:
    """Whether NCCL picks NVLS for a measured AllReduce."""
    if sample.nccl_minor_version is not None:
        constants = replace(constants, nccl_minor_version=sample.nccl_minor_version)
    link = interconnects[sample.num_devices, sample.transport]
    return nccl_choice(sample.num_bytes, link, profile.device, constants, CollectivePolicy()).algorithm == NVLS


def _list(counts: Sequence[int]) -> str:
    return f"{', '.join(map(str, counts[:-1]))} and {counts[-1]}"


def _with_pcie_rows(shipped: Shipped, profile: HardwareProfile) -> CollectiveConstants:
    """The profile's constants with the L40S's fitted rows of PCIe, which no table of NVSwitch machines tells."""
    own, pcie = profile.collectives, shipped.profiles["l40s-x8-slow-host"].collectives
    if profile.device.generation == "ada":
        return own
    changes: dict[str, Any] = {}
    for name in LINKS["ada"]:
        row = getattr(pcie, name)["pcie"]
        host = getattr(own, name)["host"] if name == "link_efficiency" else row
        changes[name] = {**getattr(own, name), "pcie": row, "host": host}
    return replace(own, **changes)


def _own_rows(profile: HardwareProfile, links: Sequence[str], *, but: bool = False) -> dict[str, Provenance]:
    """What the profile says of rows of links that are another machine's; of `but` PCIe is its own."""
    rows = [f"{name}.{link}" for name in LINKS["ada"] for link in links if not (but and link == "pcie")]
    return {
        path.removeprefix("collectives."): where
        for path, where in profile.provenance.items()
        if any(path.startswith(f"collectives.{row}.") for row in rows)
    }


def measured(shipped: Shipped, name: str, public: str, folder: Path) -> None:
    """All that `calibrate` fits to a machine's microbenchmarks; power to those of the machine with one such card.

    Kernels start from the published ones of the same chip, for what no record of the machine tells.
    """
    profile, chip = shipped.profiles[name], shipped.profiles[public]
    serving = chip.serving_attention or chip.attention
    base = replace(
        profile,
        gemm=chip.gemm,
        attention=serving,
        memory_bound=memory_bound_start(profile.memory_bound),
        collectives=_without_multicast(profile.collectives, chip.collectives),
        contention=contention_start(profile.contention),
        power=None,
    )
    shipped.profiles[name] = replace(profile, serving_attention=serving)
    own, one_card = _files(name, folder)
    found = calibrate(own, base, always=True, kernels_from=one_card)
    for block, fitted in found.blocks.items():
        if block == "power":
            continue
        text = fitted.text
        if block == "launch":
            text = _with_rest(_with_host(text, folder), folder)
        if block == "collectives":
            text = _with_kinds(text, chip, public)
        shipped.put(name, block, text)
    shipped.put(name, "serving_attention", BlockText(serving, said(chip, "serving_attention")))
    _power(shipped, name, folder)


def _files(name: str, folder: Path) -> tuple[MeasurementFile, list[MeasurementFile]]:
    """A machine's own file, and those of one such card whose kernels are fitted.

    GEMMs of the suite `full`, one after another for seconds, run below the boost clock, which varies from one to the
    next by a tenth; those between other kernels do not.
    """
    one_card = [read_measurements(folder / file) for file in ONE_CARD]
    slowed = read_measurements(folder / WITHOUT_GEMMS)
    others = tuple(record for record in slowed.records if record.kind != "gemm")
    return read_measurements(folder / f"{name}-microbench.jsonl"), [*one_card, replace(slowed, records=others)]


def _without_multicast(own: CollectiveConstants, chip: CollectiveConstants) -> CollectiveConstants:
    """The chip's constants on a machine whose switch cannot add: no multimem kernel."""
    tables = [item for item in chip.__dataclass_fields__ if item.startswith("custom_") and item != "custom_max_bytes"]
    changes: dict[str, Any] = {
        name: {kernel: value for kernel, value in getattr(chip, name).items() if kernel != MULTIMEM} for name in tables
    }
    return replace(chip, **changes, nvls_enabled=own.nvls_enabled, nccl_minor_version=own.nccl_minor_version)


def _with_kinds(text: BlockText, chip: HardwareProfile, public: str) -> BlockText:
    where = text.provenance
    theirs = said(chip, "collectives").source
    kinds = theirs[theirs.index("kind_factors") :].replace(", mean error", f", carried over from {public}, mean error")
    return replace(text, provenance=replace(where, source=f"{where.source}; {kinds}"))


def _with_host(text: BlockText, folder: Path) -> BlockText:
    """The host's times over all processes that ran a whole layer, on machines of this kind and of another."""
    files = [read_measurements(path) for path in sorted((folder / "launch").glob("*.jsonl"))]
    processes = sorted({(index, r.process) for index, file in enumerate(files) for r in file.select(LaunchRecord)})
    records = tuple(
        record.model_copy(update={"process": 1 + processes.index((index, record.process))})
        for index, file in enumerate(files)
        for record in file.select(LaunchRecord)
    )
    merged = MeasurementFile("launch", files[0].header, records)
    layers = [r.time_s[1] for r in records if (r.quantity, r.detail) == ("host_layer", "standard")]
    each = ", ".join(f"{1e6 * layer_s / sum(LAYER_CALLS.values()):.1f}" for layer_s in sorted(layers))
    devices = " and ".join(sorted({file.header.device_name for file in files}))
    where = f"{len(processes)} processes on hosts of {devices} ({each} us a kernel), torch {files[0].header.torch}"
    fit = launch_costs(merged, text.constants, where)
    names = ("eager_kernel_s", "eager_shares")
    constants = replace(text.constants, **{name: getattr(fit.constants, name) for name in names})
    sources = {path: source for path, source in fit.sources.items() if path.partition(".")[0] in names}
    return replace(text, constants=constants, overrides={**text.overrides, **sources})


def _with_rest(text: BlockText, folder: Path) -> BlockText:
    """The first launch after a rest, on two cards of the kind."""
    files = [read_measurements(folder / name) for name in (LOADS, RESTS)]
    records = tuple(record for file in files for record in file.select(WakeRecord))
    merged = MeasurementFile("rests", files[0].header, records)
    found = launch_costs(merged, text.constants, machine_text(files[0]))
    constants = replace(text.constants, graph_launch_rested_s=found.constants.graph_launch_rested_s)
    overrides = {**text.overrides, "graph_launch_rested_s": found.sources["graph_launch_rested_s"]}
    return replace(text, constants=constants, overrides=overrides)


def _power(shipped: Shipped, name: str, folder: Path) -> None:
    """Power from the loads of one such card, in all number formats and of more than GEMMs."""
    profile = shipped.profiles[name]
    loads = read_measurements(folder / LOADS)
    samples = sustained_samples(loads, profile)
    given: dict[str, Any] = {field: getattr(profile.power, field) for field in GIVEN_POWER}
    fit = fit_power(samples, profile.device, replace(POWER_START, **given))
    source = f"fit to {machine_text(loads)}, {len(samples)} sustained loads{held_out_text(fit)}"
    shipped.put(name, "power", BlockText(fit.constants, _fitted(source, fit)))


def carried(shipped: Shipped, name: str, source: str, blocks: Sequence[str], how: str, factor: float = 1.0) -> None:
    """Blocks of another machine, number for number; of another card's, the error is `factor` times as large.

    What kind of source a block is (fitted, assumed) stays as the profile has it.
    """
    base = shipped.profiles[source]
    for block in blocks:
        where = said(base, block)
        overrides = {
            path.removeprefix(f"{block}."): replace(own, residual=_widened(own.residual, factor))
            for path, own in base.provenance.items()
            if path.startswith(f"{block}.") and own != where
        }
        provenance = _carried(shipped.profiles[name], block, where, f"{how}: {where.source}", factor)
        shipped.put(name, block, BlockText(getattr(base, block), provenance, overrides))


def measured_quantised(shipped: Shipped, name: str, folder: Path) -> None:
    """Products of quantised operands as torch runs them on one such card."""
    profile = shipped.profiles[name]
    file = read_measurements(folder / "h200-sxm-x1-fp8-microbench.jsonl")
    for one, fit in fit_quantised(file, profile, profile.launch.graph_node_gap_s):
        source = (
            f"fit to {machine_text(file)}, torch._scaled_mm with {one.what}, {_shapes(fit)} at the boost clock"
            f"{held_out_text(fit)}"
        )
        shipped.put(name, one.block, BlockText(fit.constants, _fitted(source, fit)))


def measured_quantising(shipped: Shipped, name: str, folder: Path) -> None:
    """The kernels that quantise, on one such card, beside the other memory-bound ones."""
    profile = shipped.profiles[name]
    file = read_measurements(folder / "h200-sxm-x1-fp8-microbench.jsonl")
    gap_s, own = profile.launch.graph_node_gap_s, profile.memory_bound
    fit = fit_memory_bound(quantising_samples(file), profile.device, own, graph_node_gap_s=gap_s, common=False)
    source = f"fit to {machine_text(file)}, kernels of torch.compile that quantise, {_shapes(fit)}{held_out_text(fit)}"
    _put_kinds(shipped, name, fit, source, QUANTISING)


def measured_composed(shipped: Shipped, name: str, folder: Path) -> None:
    """Torch's kernels for strided operands and its reductions, on one such card, from sums of operators."""
    profile = shipped.profiles[name]
    file = read_measurements(folder / "h200-sxm-x1-llama-microbench.jsonl")
    gap_s, own, samples = profile.launch.graph_node_gap_s, profile.memory_bound, composed_samples(file)
    fit = fit_memory_bound(samples, profile.device, own, graph_node_gap_s=gap_s, common=False, only=COMPOSED)
    source = (
        f"fit to {machine_text(file)}, RMSNorm, rotary positions and SiLU-mul of two to ten kernels, "
        f"{_shapes(fit)}{held_out_text(fit)}"
    )
    _put_kinds(shipped, name, fit, source, COMPOSED)


def _put_kinds(
    shipped: Shipped,
    name: str,
    fit: Fit[MemoryBoundConstants, MemoryBoundSample],
    source: str,
    kinds: Iterable[str],
) -> None:
    """Some kinds of memory-bound kernels of a fit, which keep a source of their own."""
    profile, where = shipped.profiles[name], _fitted(source, fit)
    known = {
        path.removeprefix("memory_bound."): other
        for path, other in profile.provenance.items()
        if path.startswith("memory_bound.") and other != said(profile, "memory_bound")
    }
    overrides = known | {f"kernels.{kind}": where for kind in kinds}
    shipped.put(name, "memory_bound", BlockText(fit.constants, said(profile, "memory_bound"), overrides))


def published_of_same_chip(shipped: Shipped, name: str, source: str, block: str) -> None:
    """A block as published for the same chip."""
    where = said(shipped.profiles[source], block)
    provenance = replace(where, source=f"carried over from {source}: {where.source}")
    shipped.put(name, block, BlockText(getattr(shipped.profiles[source], block), provenance))


def rows_of_same_chip(shipped: Shipped, name: str, source: str, how: str, factor: float = 1.0) -> None:
    """Torch's products with a scale a row, which no published table has."""
    where, block = said(shipped.profiles[source], "gemm_fp8_rows"), "gemm_fp8_rows"
    residual = where.residual if factor == 1.0 else max(CARRIED_ERROR, factor * (where.residual or 0.0))
    provenance = replace(where, source=f"carried over from {how}: {where.source}", residual=residual)
    shipped.put(name, block, BlockText(getattr(shipped.profiles[source], block), provenance))


def contention_of_another_card(shipped: Shipped, name: str, source: str) -> None:
    """Contention of two H200 on cards that no pair was measured on; nothing of it is measured there."""
    base = shipped.profiles[source]
    where = said(base, "contention")
    provenance = _carried(shipped.profiles[name], "contention", where, f"two H200: {where.source}", OTHER_CARD)
    shipped.put(name, "contention", BlockText(base.contention, provenance))


def kernels_of_another_card(shipped: Shipped, name: str, chip: str) -> None:
    """The memory-bound kernels of a measured card on one where none was measured, by the rules of datasheets."""
    base, profile = shipped.profiles[chip], shipped.profiles[name]
    constants = carry_over_memory_bound(base.memory_bound, base.device, profile.device)
    source = "carried over from the fit to H200, with this card's clock and L2 rate"
    error = carried_error("memory_bound", base, profile.device)
    where = Provenance(ProvenanceKind.ASSUMED, source, error)
    shipped.put(name, "memory_bound", BlockText(constants, where))


def _carried(target: HardwareProfile, block: str, where: Provenance, how: str, factor: float) -> Provenance:
    return Provenance(said(target, block).kind, f"carried over from {how}", _widened(where.residual, factor))


def _widened(error: float | None, factor: float) -> float | None:
    return error if error is None or factor <= 1.0 else max(CARRIED_ERROR, factor * error)


def said(profile: HardwareProfile, block: str) -> Provenance:
    """What a block says of most of its numbers.

    Raises:
        ValueError: the profile has no such block.
    """
    found = common_provenance(profile, block)
    if found is None:
        message = f"{profile.name} has no {block}"
        raise ValueError(message)
    return found


def nodes_of_measured(shipped: Shipped, name: str, source: str, folder: Path) -> None:
    """The gaps between kernels and the edges between streams of a measured machine: fits take the gap off every period.

    They are the front end's; what the host needs for a launch stays as it is.
    """
    profile, (own, one_card) = shipped.profiles[name], _files(source, folder)
    fitted = launch_costs(own, profile.launch, "").constants
    wait_s = node_wait(own, one_card).seconds
    nodes = {field: getattr(fitted, field) for field in NODES}
    constants = replace(profile.launch, **nodes, graph_node_wait_s=wait_s)
    known = {path.removeprefix("launch."): s for path, s in profile.provenance.items() if path.startswith("launch.")}
    where = Provenance(ProvenanceKind.ASSUMED, f"as measured on {machine_text(own)}")
    shipped.put(
        name, "launch", BlockText(constants, said(profile, "launch"), known | dict.fromkeys(NODES_AND_WAIT, where))
    )


def launch_of_published(shipped: Shipped, name: str, source: str, how: str) -> None:
    """The launch costs of `source`."""
    base = shipped.profiles[source]
    known = {path.removeprefix("launch."): s for path, s in base.provenance.items() if path.startswith("launch.")}
    provenance = Provenance(ProvenanceKind.MEASURED, f"carried over from {how}: medians of launch records")
    shipped.put(name, "launch", BlockText(base.launch, provenance, known))
