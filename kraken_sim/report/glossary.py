"""The words of reports that not every reader knows, each in a sentence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

GLOSSARY: Final[Mapping[str, tuple[str, str]]] = {
    "TTFT": (r"TTFT", "Time to first token: from the request until the whole prompt is computed."),
    "TPOT": (r"TPOT", "Time per output token: one step of decode, which gives each sequence one more token."),
    "prefill": (r"prefill", "The pass over all tokens of a prompt at once."),
    "decode": (r"decode", "A step that computes one new token of each sequence from the KV cache."),
    "standard": (
        r"\bstandard\b",
        "A Transformer as it is trained today, its layers split over the GPUs (tensor parallelism); it waits "
        "for two AllReduces a layer.",
    ),
    "Kraken": (
        r"kraken(?!-sim)",
        "A Transformer whose layers are narrow sub-layers side by side, one a GPU; its AllReduce runs beside "
        "the attention instead of between two kernels.",
    ),
    "parallel": (
        r"(?<!tensor )\bparallel\b",
        "A Transformer whose attention and FFN stand beside each other, so that a layer has one AllReduce.",
    ),
    "Ladder": (
        r"\bladder\b",
        "A Transformer whose blocks read the stream without the block before them, whose AllReduce so runs beside "
        "the next block.",
    ),
    "at equal parameters": (
        r"equal parameters",
        "Compared with as many parameters as the standard model has: time is interpolated between the two "
        "widths around that.",
    ),
    "90 % interval": (
        r"90 %",
        "The true value lies in it with a probability of 90 %, as far as the errors of the constants on "
        "shapes that no fit saw tell.",
    ),
    "speed-up": (r"speed-up|faster", "How much faster: +10 % means that the other takes 1.1 times as long."),
    "AllReduce": (r"all.?reduce", "All GPUs end with the sum of what each of them had."),
    "collective": (r"collective", "What GPUs do together: AllReduce, AllGather and their like."),
    "exposed communication": (
        r"exposed",
        "Time in which a GPU computes nothing because it communicates or waits for it.",
    ),
    "hidden communication": (r"hidden", "Communication that runs while the GPU computes."),
    "beside compute": (
        r"beside compute|beside the attention",
        "On a stream of its own, while other kernels compute.",
    ),
    "kernel": (r"\bkernels?\b", "A function that runs on the GPU; a layer is a dozen of them."),
    "kernel set": (
        r"kernel set|pytorch kernels|kernels a layer",
        "Which kernels an engine runs for a layer's small operations.",
    ),
    "GEMM": (r"\bGEMMs?\b", "A product of two matrices, where most arithmetic of a Transformer is."),
    "LM head": (r"lm.head", "The product that turns the last hidden state into a score of each word."),
    "KV cache": (r"KV cache", "Keys and values of the tokens so far, kept so that decode computes new ones only."),
    "SM": (r"\bSMs?\b", "Streaming multiprocessor: one of a GPU's hundred and more processors."),
    "HBM": (r"\bHBM\b", "The GPU's memory."),
    "NVLink": (r"NVLink", "NVIDIA's link between GPUs."),
    "NVSwitch": (r"NVSwitch", "A switch that joins the GPUs of a machine over NVLink."),
    "NIC": (r"\bNICs?\b", "A network card, over which GPUs of several nodes communicate."),
    "NCCL": (r"\bNCCL", "NVIDIA's library of collectives."),
    "channels": (r"channels", "CTAs with which NCCL moves data: more move it faster and take more SMs from compute."),
    "bus bandwidth": (
        r"busbw|bus bandwidth",
        "Bytes over time as nccl-tests counts them, comparable with a link's rate.",
    ),
    "CUDA graph": (
        r"graph launch|CUDA graph|launch as a graph|\bgraph\b",
        "Kernels recorded once and launched by one call.",
    ),
    "eager": (r"\beager\b", "Each kernel launched by a call of its own from the host."),
    "host-bound": (r"host-bound|waits? for the host", "Waiting for the processor that launches the kernels."),
    "load": (
        r"\bsustained\b|\brested\b",
        "Sustained: steps run back to back and the clock has settled. Rested: a lone step on a cool card at "
        "its boost clock.",
    ),
    "roofline": (
        r"roofline",
        "The most a GPU computes with so many FLOPs for each byte of memory it reads: limited by memory on "
        "the slope, by arithmetic on the flat part.",
    ),
    "arithmetic intensity": (r"intensity", "FLOPs for each byte of memory that is read or written."),
    "datasheet, measured, fitted, assumed": (
        r"\bfitted\b|\bdatasheet\b",
        "How a constant is known: from its maker, from a measurement, from a fit to measurements, or taken "
        "from a like machine.",
    ),
    "residual": (r"residual", "The mean error of a fit on shapes that it never saw."),
    "SLA": (r"\bSLAs?\b", "What a service promises: latency at a percentile, for instance."),
    "goodput": (r"goodput", "Requests a second that are answered within their limits."),
    "Pareto front": (r"pareto|\bfront\b", "The designs that none beats in everything that is asked for."),
    "perplexity": (r"perplexity", "How surprised a language model is by text; lower is better."),
    "tensor parallelism": (r"-way\b|tensor parallel", "Each layer's matrices cut over so many GPUs."),
    "percentile": (r"\bp\d\d\b|percentile", "p99: 99 of 100 requests are no slower."),
    "replica": (r"replica", "A copy of the model with GPUs of its own, which serves a share of the requests."),
}
"""By word: how it is found in a text, whatever its case, and what it means."""


def what_is(kind: str) -> str:
    """A sentence on an architecture; nothing where the glossary does not have it."""
    for word, (_, meaning) in GLOSSARY.items():
        if word.casefold() == kind:
            return f"{word[:1].upper()}{word[1:]}: {meaning[:1].lower()}{meaning[1:]}"
    return ""


def terms_in(text: str) -> list[tuple[str, str]]:
    """The words of the glossary that a text has, in alphabetical order, with their meaning."""
    found = (
        (word, meaning) for word, (pattern, meaning) in GLOSSARY.items() if re.search(pattern, text, re.IGNORECASE)
    )
    return sorted(found, key=lambda pair: pair[0].casefold())
