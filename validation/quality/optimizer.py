"""AdamW on float32 masters of the weights, the gradient's norm over all ranks, and the schedule of the rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from validation.models.layers import Norm
from validation.quality.batched_kraken import BatchedNorm
from validation.quality.network import AllPositions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from validation.quality.place import Place
    from validation.quality.recipe import Recipe, TrainingSpec


def rate_at(step: int, recipe: Recipe) -> float:
    """The learning rate of step 0, 1, ...: a linear rise, then half a cosine down to its last share."""
    spec, steps = recipe.training, recipe.num_steps
    warmup = round(spec.warmup_share * steps)
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - 1 - warmup)
    low = spec.final_learning_rate_ratio
    return spec.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class Optimizer:
    """AdamW of a network whose weights may be bfloat16: it keeps and steps float32 masters of them.

    Matrices and embeddings decay, biases and norms do not, as in the authors' training of Kraken.
    """

    def __init__(self, network: nn.Module, spec: TrainingSpec, place: Place) -> None:
        self.spec, self.place = spec, place
        named = [(name, weight) for name, weight in network.named_parameters() if weight.requires_grad]
        self.names = [name for name, _ in named]
        self.weights: list[Tensor] = [weight for _, weight in named]
        self.masters = self.weights
        if spec.dtype != "float32":
            self.masters = [nn.Parameter(weight.detach().clone()) for weight in self.weights]
            network.to(getattr(torch, spec.dtype))
        vectors = _vectors(network)
        copies = _copies(network, place)
        self.copies = torch.tensor([copies.get(name, 1) for name in self.names], device=place.device)
        decaying = [m for n, m in zip(self.names, self.masters, strict=True) if n not in vectors]
        others = [m for n, m in zip(self.names, self.masters, strict=True) if n in vectors]
        self.adam = torch.optim.AdamW(
            [{"params": decaying, "weight_decay": spec.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=spec.learning_rate,
            betas=(spec.beta1, spec.beta2),
            fused=place.device.type == "cuda",
        )

    def collect(self) -> None:
        """Adds the gradients of one part of a step to the masters'."""
        if self.masters is self.weights:
            return
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        if self.masters[0].grad is None:
            for master, gradient in zip(self.masters, gradients, strict=True):
                master.grad = gradient.float()
        else:
            sums = [master.grad for master in self.masters if master.grad is not None]
            torch._foreach_add_(sums, [gradient.float() for gradient in gradients])
        for weight in self.weights:
            weight.grad = None

    def step(self, learning_rate: float) -> Tensor:
        """One step with the gradients gathered since the last; their norm before clipping, a scalar tensor."""
        gradients = [master.grad for master in self.masters if master.grad is not None]
        self._average(gradients)
        norm = self._norm(gradients)
        torch._foreach_mul_(gradients, (self.spec.max_gradient_norm / (norm + 1e-6)).clamp(max=1.0))
        for group in self.adam.param_groups:
            group["lr"] = learning_rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self._publish()
        return norm

    def _average(self, gradients: list[Tensor]) -> None:
        """Over the copies of the model, in one message."""
        data = self.place.data
        if data.size == 1:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat, group=data.handle)
        flat /= data.size
        parts = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])

    def _norm(self, gradients: list[Tensor]) -> Tensor:
        """Of the whole model's gradient: what several ranks hold counts once."""
        norms = torch.stack(torch._foreach_norm(gradients))
        total = (norms.square() / self.copies).sum()
        if self.place.model.size > 1:
            dist.all_reduce(total, group=self.place.model.handle)
        return total.sqrt()

    def _publish(self) -> None:
        if self.masters is not self.weights:
            with torch.no_grad():
                torch._foreach_copy_(self.weights, self.masters)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        masters = {name: master.detach() for name, master in zip(self.names, self.masters, strict=True)}
        return {"weights": masters, "adam": self.adam.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        with torch.no_grad():
            for name, master in zip(self.names, self.masters, strict=True):
                master.copy_(state["weights"][name])
        self.adam.load_state_dict(state["adam"])
        self._publish()


def _vectors(network: nn.Module) -> set[str]:
    """Names of biases and of the weights of norms, however many of them are stacked."""
    found = set()
    for prefix, module in network.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            if name.endswith("bias") or isinstance(module, Norm | BatchedNorm):
                found.add(f"{prefix}.{name}".lstrip("."))
    return found


def _copies(network: nn.Module, place: Place) -> dict[str, int]:
    """On how many of a model's ranks a weight lies whole, where that is more than one.

    Embeddings and the last norm lie on all, the norms of a (sub-)layer on the ranks that share it; of the bias of a sum
    only one rank has a weight.
    """
    sharing = network.decoder.tensor.size if isinstance(network, AllPositions) else 1
    found = {}
    for prefix, module in network.named_modules():
        if isinstance(module, nn.Embedding | Norm):
            inside = isinstance(module, Norm) and ".layers." in f".{prefix}."
            for name, _ in module.named_parameters(recurse=False):
                found[f"{prefix}.{name}"] = sharing if inside else place.model.size
    return found
