"""A trained model of ours as `lm_eval` asks for one: how likely a continuation is, and what comes next.

Source of the interface: EleutherAI, lm-evaluation-harness, `lm_eval.api.model`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as nnf
from lm_eval.api.model import TemplateLM

from kraken_sim.errors import InputError
from validation.models.communication import Group
from validation.quality import checkpoint
from validation.quality.network import build_network
from validation.quality.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from validation.quality.recipe import Recipe

BATCH = 16
"""Sequences that are scored at once; a choice of ours."""


def load_network(run: Path, device: torch.device) -> tuple[Recipe, nn.Module]:
    """The recipe and the model of a run's last checkpoint, in float32.

    Raises:
        InputError: there is no checkpoint, it is damaged, or its model is spread over several devices.
    """
    found = checkpoint.latest(run)
    if found is None:
        raise InputError.single("run", "has no checkpoint", str(run), "out/run")
    if found.ranks > 1:
        message = "the checkpoint's model is spread over several devices; only one of a single device can be asked"
        raise InputError.single("run", message, found.ranks, "1")
    network = build_network(found.recipe, Group(), device)
    network.load_state_dict(checkpoint.load(run, found, 0, device)["optimizer"]["weights"])
    return found.recipe, network.eval()


class TrainedModel(TemplateLM):  # type: ignore[misc]  # of a library without types
    """The last checkpoint of a run; a text longer than its sequences is cut on the left."""

    def __init__(self, run: Path, device: torch.device) -> None:
        super().__init__()
        self.recipe, self.network = load_network(run, device)
        self.tokens, self.where = read_tokenizer(run), device
        self.length = self.recipe.model.max_position_embeddings

    @property
    def eot_token_id(self) -> int:
        """What stands between two texts, and before a first token that nothing precedes."""
        return self.tokens.end_of_text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The tokens of a text; there are no special ones to add."""
        del add_special_tokens
        return list(next(iter(self.tokens.encode_all([string]))))

    @torch.inference_mode()
    def _log_probabilities(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """[B, T, V] of token rows; shorter ones are filled up on the right, where causal attention does not look."""
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=self.where)
        logits = self.network(ids)[..., : self.tokens.vocab_size]
        return nnf.log_softmax(logits.float(), dim=-1)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Log-likelihood in nats of each continuation after its context, and whether it is the likeliest one."""
        answers: dict[int, tuple[float, bool]] = {}
        order = sorted(range(len(requests)), key=lambda index: -sum(map(len, requests[index][1:])))
        for indices in _chunks(order, BATCH):
            whole = [[*requests[index][1], *requests[index][2]][-self.length - 1 :] for index in indices]
            scores = self._log_probabilities([tokens[:-1] for tokens in whole])
            for row, (index, tokens) in enumerate(zip(indices, whole, strict=True)):
                count = min(len(requests[index][2]), len(tokens) - 1)
                part = scores[row, len(tokens) - 1 - count : len(tokens) - 1]
                wanted = torch.tensor(tokens[len(tokens) - count :], device=self.where)
                likely = float(part.gather(1, wanted[:, None]).sum())
                answers[index] = likely, bool((part.argmax(1) == wanted).all())
        return [answers[index] for index in range(len(requests))]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood in nats of whole texts, in windows side by side."""
        del disable_tqdm
        results = []
        for request in requests:
            tokens = [self.eot_token_id, *self.tok_encode(request.args[0])]
            windows = [tokens[start : start + self.length + 1] for start in range(0, len(tokens) - 1, self.length)]
            asked = [(("", ""), window[:1], window[1:]) for window in windows]
            results.append(sum(likely for likely, _ in self._loglikelihood_tokens(asked)))
        return results

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The likeliest continuation token by token, up to a stop text or the number of tokens asked for."""
        del disable_tqdm
        return [self._continue(request.args[0], request.args[1]) for request in requests]

    def _continue(self, context: str, asked: dict[str, Any]) -> str:
        until = asked.get("until") or []
        stops = [until] if isinstance(until, str) else until
        tokens = self.tok_encode(context) or [self.eot_token_id]
        made: list[int] = []
        for _ in range(asked.get("max_gen_toks", self.length // 2)):
            best = int(self._log_probabilities([[*tokens, *made][-self.length :]])[0, -1].argmax())
            if best == self.eot_token_id:
                break
            made.append(best)
            text = self.tokens.decode(made)
            if found := [place for stop in stops if (place := text.find(stop)) >= 0]:
                return text[: min(found)]
        return self.tokens.decode(made)


def _chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def scores_of(results: dict[str, Any]) -> Iterable[tuple[str, str, float, float | None]]:
    """Task, metric, value and standard error of what `lm_eval.simple_evaluate` answers."""
    for task, metrics in results["results"].items():
        for key, value in metrics.items():
            name, _, kind = key.partition(",")
            if isinstance(value, int | float) and not name.endswith("_stderr") and kind:
                error = metrics.get(f"{name}_stderr,{kind}")
                yield task, name, float(value), float(error) if isinstance(error, int | float) else None
