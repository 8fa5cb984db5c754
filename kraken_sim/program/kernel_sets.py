"""Which kernels an engine runs for the small operations of a layer, and in which state the card is."""

from __future__ import annotations

from enum import StrEnum


class KernelSet(StrEnum):
    """Which kernels a layer's small operations are; GEMMs and attention are the same in all.

    pytorch: one for each operation, torch's own where it has one; pytorch_composed: those that a model written in
    torch's operators launches one by one, such as Hugging Face's; fused: as pytorch, the RMSNorm an engine's instead of
    torch's; compiled: neighbours fused by torch.compile; serving: as vLLM and SGLang run them; serving_fused: the
    AllReduce with the add and norm behind it in one kernel too, as vLLM and TensorRT-LLM run them on Hopper and
    Blackwell.
    """

    PYTORCH = "pytorch"
    PYTORCH_COMPOSED = "pytorch_composed"
    FUSED = "fused"
    COMPILED = "compiled"
    SERVING = "serving"
    SERVING_FUSED = "serving_fused"

    __hash__ = str.__hash__  # faster than Enum's


class CardLoad(StrEnum):
    """The state of the card: after a rest, at its boost clock, or under passes back to back."""

    RESTED = "rested"
    SUSTAINED = "sustained"

    __hash__ = str.__hash__  # faster than Enum's
