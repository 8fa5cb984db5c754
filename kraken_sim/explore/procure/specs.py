"""What a purchase's file says of one workload, one candidate and its price."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from kraken_sim.architectures.registry import BASELINE, architecture
from kraken_sim.files.model import FileModel, Name, NotEmpty
from kraken_sim.files.problems import fields_error
from kraken_sim.program.formats import KVCacheDType, Quantization
from kraken_sim.program.ops import ComputeDType, DType
from kraken_sim.scenario.fields import CONTEXT_LIMIT
from kraken_sim.scenario.request_file import Amount, IsoDate, Source, Watts
from kraken_sim.scenario.spec import ArchitectureSpec, DeviceCount, ModelSpec, RuntimeSpec

ProfileName = Annotated[str, Field(strict=True, min_length=1, max_length=4096)]
Tokens = Annotated[int, Field(strict=True, ge=1, le=CONTEXT_LIMIT)]


def _standard() -> ArchitectureSpec:
    standard: ArchitectureSpec = architecture(BASELINE).own()
    return standard


class WorkloadSpec(FileModel):
    """Prompts alike: a model, their length, their share of all prompts."""

    name: Name = Field(examples=["chat"])
    share: Annotated[float, Field(gt=0.0, le=1.0)] = Field(examples=[1.0])
    model: ModelSpec = Field(examples=[{"preset": "13B"}])
    architecture: ArchitectureSpec = Field(default_factory=_standard, examples=[{"kind": "standard"}])
    prompt_tokens: Tokens = Field(examples=[512])
    output_tokens: Tokens | None = Field(
        default=None, description="Of one answer; counts where the load is requests_per_s.", examples=[256]
    )
    variation: Annotated[float, Field(ge=0.0, le=10.0)] = Field(
        default=0.0, description="Spread of both lengths: standard deviation over the mean.", examples=[0.7]
    )
    dtype: ComputeDType = DType.FLOAT16
    quantization: Quantization | None = Field(
        default=None, description="Of the layers' GEMMs; fp8 inputs have a scale a token.", examples=["fp8"]
    )
    kv_cache_dtype: KVCacheDType = Field(
        default=KVCacheDType.AUTO, description="What keys and values are cached in.", examples=["float8"]
    )
    runtime: RuntimeSpec = Field(default_factory=RuntimeSpec)


class PriceSpec(FileModel):
    """What a machine costs: rent an hour, or a purchase; always with where the number is from, and when."""

    per_hour: Amount | None = Field(default=None, description="Rent of the whole machine an hour.", examples=[40.0])
    purchase: Amount | None = Field(default=None, description="Price of the whole machine.", examples=[250_000])
    lifetime_years: Annotated[float, Field(gt=0.0, le=50.0)] | None = Field(
        default=None, description="Purchase: years it is spread over.", examples=[4]
    )
    source: Source = Field(examples=["quote 1234 of our supplier"])
    date: IsoDate = Field(examples=["2026-01-31"])

    @model_validator(mode="after")
    def _rent_or_purchase(self) -> Self:
        if (self.per_hour is None) == (self.purchase is None):
            raise fields_error("give the rent per hour or the purchase price, one of the two", "per_hour")
        if self.purchase is not None and self.lifetime_years is None:
            raise fields_error("is required with a purchase price", "lifetime_years")
        if self.purchase is None and self.lifetime_years is not None:
            raise fields_error("goes with a purchase price, not with rent", "lifetime_years")
        return self


class ElectricitySpec(FileModel):
    """Price of electricity, and how much the site adds to what its machines draw."""

    per_kwh: Amount = Field(examples=[0.25])
    pue: Annotated[float, Field(ge=1.0, le=5.0)] = Field(default=1.0, examples=[1.3])
    source: Source = Field(examples=["our contract"])
    date: IsoDate = Field(examples=["2026-01-31"])


class CandidateSpec(FileModel):
    """A machine that could be bought or rented."""

    name: Name = Field(examples=["eight-h100"])
    hardware: ProfileName = Field(description="A profile's name, or the path of one.", examples=["h100-sxm-x8"])
    num_devices: Annotated[tuple[DeviceCount, ...], NotEmpty] | None = Field(
        default=None, description="GPUs of a replica to try; default: powers of two.", examples=["[4, 8]"]
    )
    price: PriceSpec = Field(examples=[{"per_hour": 40.0, "source": "quote 1234", "date": "2026-01-31"}])
    host_power: Watts = Field(default=0.0, description="What the machine draws beside its GPUs.", examples=['"1.5 kW"'])
    architecture: ArchitectureSpec | None = Field(
        default=None,
        description="What the models run as there; default: each workload's own.",
        examples=[{"kind": "ladder"}],
    )
