"""One training run, step by step: what it reads, computes, logs, validates and keeps."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from kraken_sim.errors import InputError
from kraken_sim.files.whole import write_whole
from validation.progress import say
from validation.quality import checkpoint, log
from validation.quality.batches import Windows, in_order
from validation.quality.loss import LossOf
from validation.quality.network import build_network, check_vocabulary, flops_per_token, num_parameters
from validation.quality.optimizer import Optimizer, rate_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from validation.quality.corpus import Corpus
    from validation.quality.place import Place
    from validation.quality.recipe import Recipe

RESULT = "result.json"
LOOK_EVERY_STEPS = 5
"""How often a run looks whether its time is up: ranks have to agree on it. A choice of ours."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished run came to; losses in nats a token, infinite where it diverged."""

    name: str
    parameters: int
    tokens: int
    seed: int
    learning_rate: float
    validation_loss: float
    bits_per_byte: float
    tokens_per_s: float
    diverged: bool = False

    @property
    def perplexity(self) -> float:
        """Of the validation side."""
        return math.exp(min(self.validation_loss, 700.0))


class Trainer:
    """One run on this process' place."""

    def __init__(self, recipe: Recipe, corpus: Corpus, run: Path, place: Place, peak: float | None = None) -> None:
        check_vocabulary(recipe, corpus.vocab_size)
        self.recipe, self.corpus, self.run_folder, self.place = recipe, corpus, run, place
        spec, length = recipe.training, recipe.model.max_position_embeddings
        self.share = _share(recipe, place)
        self.micro_batch = self.share // spec.accumulation
        self.windows = Windows(corpus.tokens("train"), length, spec.seed, spec.sequences_per_step)
        self.validation = self._validation_batches(length)
        self.token_bytes = torch.tensor(corpus.tokenizer().token_bytes(), device=place.device)
        self.network = build_network(recipe, place.model, place.device)
        self.optimizer = Optimizer(self.network, spec, place)
        loss = LossOf(self.network, recipe.model.vocab_size, place.model)
        self.loss: Callable[[Tensor, Tensor], Tensor] = torch.compile(loss) if spec.compile else loss
        self.flops_per_token = flops_per_token(recipe)
        self.peak = peak * place.world.size if peak else None
        self.step, self.busy_s = 0, 0.0
        self.since_log = _Since(place.device)
        self.last_validation = (math.inf, math.inf)

    def _validation_batches(self, length: int) -> list[tuple[Tensor, Tensor]]:
        """This copy's part of the batches; every copy of the model has as many."""
        data, limit = self.place.data, self.recipe.training.validation_tokens
        batches = list(in_order(self.corpus.tokens("validation"), length, self.micro_batch * data.size, limit))
        rows = slice(data.rank * self.micro_batch, (data.rank + 1) * self.micro_batch)
        return [(inputs[rows], targets[rows]) for inputs, targets in batches]

    def run(self, stop_at_s: float | None = None) -> Result | None:
        """Trains to the end, or until the time (of `time.monotonic`) is up: then the run can go on later."""
        self._resume()
        while self.step < self.recipe.num_steps:
            if self.step % LOOK_EVERY_STEPS == 0 and self._time_is_up(stop_at_s):
                self._save()
                return None
            if not self._train_step():
                return self._finish(diverged=True)
        return self._finish(diverged=False)

    def rehearse(self, steps: int) -> None:
        """Steps that count for nothing, to compile what is to be compiled and to see how long they take."""
        for index in range(steps):
            inputs, targets = self.windows.read(index * self.micro_batch, self.micro_batch)
            self._loss(inputs, targets).backward()
            self.optimizer.collect()
            norm = self.optimizer.step(0.0)
        float(norm)

    def _resume(self) -> None:
        found = checkpoint.resume(self.run_folder, self.place, self.recipe, self.corpus)
        if found is not None:
            self.step, state = found
            self.optimizer.load(state["optimizer"])
            self.since_log.load(state["since_log"])
            self.busy_s = state["busy_s"]
            self.last_validation = tuple(state["last_validation"])
        if self.place.leads:
            self.run_folder.mkdir(parents=True, exist_ok=True)
            self.corpus.tokenizer().save(self.run_folder)
            log.cut_log(self.run_folder, self.step)

    def _time_is_up(self, stop_at_s: float | None) -> bool:
        if stop_at_s is None:
            return False
        mine = time.monotonic() >= stop_at_s
        if self.place.world.size == 1:
            return mine
        up = torch.tensor([mine], dtype=torch.int32, device=self.place.device)
        dist.broadcast(up, 0)
        return bool(up.item())

    def _train_step(self) -> bool:
        """One step, and what is due after it; False where the loss is no number any more."""
        spec = self.recipe.training
        first = self.step * spec.sequences_per_step + self.place.data.rank * self.share
        loss = torch.zeros((), device=self.place.device)
        for part in range(spec.accumulation):
            inputs, targets = self.windows.read(first + part * self.micro_batch, self.micro_batch)
            one = self._loss(inputs, targets) / spec.accumulation
            one.backward()
            self.optimizer.collect()
            loss += one.detach()
        norm = self.optimizer.step(rate_at(self.step, self.recipe))
        self.step += 1
        self.since_log.add(loss, norm)
        healthy = self.step % spec.log_every_steps != 0 or self._log()
        last = self.step == self.recipe.num_steps
        if healthy and (self.step % spec.validate_every_steps == 0 or last):
            self._validate()
        if healthy and self.step % spec.checkpoint_every_steps == 0 and not last:
            self._save()
        return healthy

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        device = self.place.device
        if device.type == "cuda":
            inputs, targets = inputs.pin_memory(), targets.pin_memory()
        return self.loss(inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True))

    def _log(self) -> bool:
        """A line of progress; whether the loss is a number."""
        loss, norm, steps = self._mean(self.since_log.loss), float(self.since_log.norm), self.since_log.steps
        elapsed = time.perf_counter() - self.since_log.begun_s
        self.busy_s += elapsed
        speed = steps * self.recipe.tokens_per_step / elapsed
        mfu = speed * self.flops_per_token / self.peak if self.peak else None
        line = {
            "step": self.step,
            "tokens": self.step * self.recipe.tokens_per_step,
            "loss": loss / steps,
            "gradient_norm": norm,
            "learning_rate": rate_at(self.step - 1, self.recipe),
            "tokens_per_s": round(speed, 1),
            "mfu": None if mfu is None else round(mfu, 4),
        }
        self.since_log.restart()
        if self.place.leads:
            log.append(self.run_folder, line)
            used = "" if mfu is None else f", MFU {100 * mfu:.0f} %"
            say(
                f"{self.recipe.name}: step {self.step} of {self.recipe.num_steps}, loss {line['loss']:.4f}, "
                f"{speed:,.0f} tokens/s{used}"
            )
        return math.isfinite(loss) and math.isfinite(norm)

    def _mean(self, value: Tensor) -> float:
        """Over the copies of the model."""
        total = value.detach().clone()
        if self.place.data.size > 1:
            dist.all_reduce(total, group=self.place.data.handle)
        return float(total) / self.place.data.size

    def _validate(self) -> None:
        """Loss and bits per byte of the validation side, as far as the recipe asks."""
        begun = time.perf_counter()
        loss = torch.zeros((), dtype=torch.float64, device=self.place.device)
        num_bytes = torch.zeros((), dtype=torch.float64, device=self.place.device)
        # Compiled for training, the same code serves here; without, no graph is kept.
        with torch.set_grad_enabled(self.recipe.training.compile):
            for inputs, targets in self.validation:
                loss += self._loss(inputs, targets).detach()
                num_bytes += self.token_bytes[targets.to(self.place.device)].sum()
        mean = self._mean(loss) / len(self.validation)
        tokens = len(self.validation) * self.micro_batch * self.recipe.model.max_position_embeddings
        per_byte = mean / math.log(2.0) * tokens / self._mean(num_bytes)
        self.last_validation = (mean, per_byte)
        line = {"step": self.step, "tokens": self.step * self.recipe.tokens_per_step}
        if self.place.leads:
            log.append(self.run_folder, {**line, "validation_loss": mean, "bits_per_byte": per_byte})
            say(f"{self.recipe.name}: step {self.step}, validation loss {mean:.4f}, {per_byte:.4f} bits a byte")
        self.since_log.begun_s += time.perf_counter() - begun

    def _save(self) -> None:
        begun = time.perf_counter()
        state = {
            "optimizer": self.optimizer.state(),
            "since_log": self.since_log.state(),
            "busy_s": self.busy_s,
            "last_validation": list(self.last_validation),
        }
        checkpoint.save(self.run_folder, self.place, self.step, self.recipe, self.corpus, state)
        self.since_log.begun_s += time.perf_counter() - begun

    def _finish(self, *, diverged: bool) -> Result:
        spec = self.recipe.training
        loss, per_byte = (math.inf, math.inf) if diverged else self.last_validation
        tokens = self.step * self.recipe.tokens_per_step
        speed = tokens / self.busy_s if self.busy_s else 0.0
        result = Result(
            self.recipe.name,
            num_parameters(self.recipe),
            tokens,
            spec.seed,
            spec.learning_rate,
            loss,
            per_byte,
            round(speed, 1),
            diverged,
        )
        self._save()
        if self.place.leads:
            write_whole(self.run_folder / RESULT, json.dumps(asdict(result), indent=1).encode())
        return result


class _Since:
    """What was seen since the last line of the log."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.restart()

    def restart(self) -> None:
        self.loss, self.norm = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        self.steps, self.begun_s = 0, time.perf_counter()

    def add(self, loss: Tensor, norm: Tensor) -> None:
        self.loss, self.norm, self.steps = self.loss + loss, norm, self.steps + 1

    def state(self) -> dict[str, Any]:
        return {"loss": self.loss, "norm": self.norm, "steps": self.steps}

    def load(self, state: dict[str, Any]) -> None:
        self.loss, self.norm, self.steps = state["loss"], state["norm"], state["steps"]


def _share(recipe: Recipe, place: Place) -> int:
    """Sequences of a step that one copy of the model takes.

    Raises:
        InputError: they do not divide over the copies and the parts of a step.
    """
    spec, copies = recipe.training, place.data.size
    if spec.sequences_per_step % (copies * spec.accumulation):
        message = f"must be a multiple of {copies} copies of the model times {spec.accumulation} parts of a step"
        example = str(copies * spec.accumulation)
        raise InputError.single("training.sequences_per_step", message, spec.sequences_per_step, example)
    return spec.sequences_per_step // copies


def read_result(run: Path) -> Result | None:
    """What a finished run came to; None where it is not finished.

    Raises:
        InputError: its file is damaged.
    """
    path = run / RESULT
    try:
        return Result(**json.loads(path.read_text())) if path.exists() else None
    except (ValueError, TypeError) as error:
        message = f"cannot be read ({type(error).__name__}); without it the run is finished anew"
        raise InputError.single("--out", message, str(path)) from None
