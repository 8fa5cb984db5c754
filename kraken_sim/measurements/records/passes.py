"""One forward step of a whole model, described as in a scenario file."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from kraken_sim.measurements.records.base import Case, Positive, Quartiles, Timed, formats_key
from kraken_sim.program.formats import ActivationScheme, Quantization
from kraken_sim.program.kernel_sets import CardLoad, KernelSet
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch


class PassCase(Case):
    """One forward step of a whole model; the fields are those of a scenario file."""

    collective: ClassVar[bool] = True
    kind: Literal["pass"] = "pass"
    architecture: dict[str, Any]
    model: dict[str, Any]
    num_devices: Positive
    phase: Literal["prefill", "decode"]
    batch_size: Positive
    context_length: Positive
    dtype: DType
    launch: Launch
    overlap: bool
    condition: str
    kernels: KernelSet = KernelSet.PYTORCH
    quantization: Quantization | None = None
    activation_scheme: ActivationScheme | None = None
    load: CardLoad | None = None
    """None: one pass after another, the device idle and the ranks met in between."""

    @property
    def key(self) -> str:
        """Names this case."""
        model = ",".join(f"{name}={self.model[name]}" for name in sorted(self.model))
        architecture = ",".join(f"{name}={self.architecture[name]}" for name in sorted(self.architecture))
        mode = "overlap" if self.overlap else "blocking"
        mode += "" if self.kernels is KernelSet.PYTORCH else f"/{self.kernels}"
        mode += "" if self.load is None else f"/{self.load}"
        formats = formats_key(self.dtype, self.quantization, self.activation_scheme)
        work = f"{self.phase}/b{self.batch_size}t{self.context_length}/{formats}/{self.launch}/{mode}"
        return f"pass/{self.condition}/{self.num_devices}/{work}/{architecture}/{model}"


class PassRecord(PassCase, Timed):
    """`time_s` is TTFT of a prefill, or the time of one decode step: the slowest rank of each repeat.

    Under load it is the period of passes back to back; `sm_clock_hz` and `power_w` are the card's while they ran.
    """

    time_s: Quartiles
    sm_clock_hz: float | None = None
    power_w: float | None = None
