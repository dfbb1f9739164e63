"""Muon, and the schedule of learning rates.

Muon: momentum whose matrix is replaced by the nearest orthogonal one, found by five
Newton-Schulz steps (Keller Jordan, 2024). Matrices of one shape are treated together.
"""

import torch
from torch import Tensor


def orthogonal(matrices: Tensor) -> Tensor:
    """Roughly the orthogonal factors of count × rows × cols matrices; singular values end near 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    """For matrices that multiply activations; not for embeddings or gains."""

    def __init__(self, params: list[Tensor], rate: float, momentum: float = 0.95, weight_decay: float = 0.05) -> None:
        defaults = {"lr": rate, "initial_lr": rate, "momentum": momentum, "weight_decay": weight_decay}
        shapes = sorted({tuple(p.shape) for p in params})
        super().__init__([{"params": [p for p in params if tuple(p.shape) == shape]} for shape in shapes], defaults)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            params, keep = group["params"], group["momentum"]
            gradients = torch.stack([p.grad for p in params])
            state = self.state[params[0]]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(gradients)
            state["momentum"].lerp_(gradients, 1 - keep)
            update = orthogonal(gradients.lerp(state["momentum"], keep))
            rows, cols = params[0].shape
            rate = group["lr"] * max(1.0, rows / cols) ** 0.5
            for parameter, change in zip(params, update):
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(change, alpha=-rate)


def scheduled(step: int, steps: int, decay: float, warm_up: int = 60) -> float:
    """The rates' factor: a rise over `warm_up` steps, a plateau, a straight fall over the last share `decay`."""
    return min(1.0, (step + 1) / warm_up, max(0.0, (steps - step) / (steps * decay)))
