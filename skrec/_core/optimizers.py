"""Adam and RProp, with the same steps as in `torch.optim`.

The first optimizer of `torch.optim` in a process imports the compiler of PyTorch, which
takes longer than a small fit.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Adam:
    """Adam (Kingma and Ba 2015), with the defaults of `torch.optim.Adam`.

    Parameters
    ----------
    parameters : iterable of Tensor
        Parameters, changed in place. Those without gradient are left alone.

    learning_rate : float
        Step size, which may change between steps.
    """

    betas, eps = (0.9, 0.999), 1e-8

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float):
        self.parameters, self.learning_rate = list(parameters), learning_rate
        self.means = [torch.zeros_like(p.detach()) for p in self.parameters]
        self.squares = [torch.zeros_like(mean) for mean in self.means]
        # PyTorch's kernel counts in single precision, on the parameter's device.
        self.counts = [p.new_zeros((), dtype=torch.float32) for p in self.means]

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters along their gradients."""
        state = zip(self.parameters, self.means, self.squares, self.counts, strict=True)
        moving = [(p, p.grad, *own) for p, *own in state if p.grad is not None]
        if not moving:
            return
        parameters, grads, means, squares, counts = map(list, zip(*moving, strict=True))
        torch._foreach_add_(counts, 1)
        torch._fused_adam_(
            parameters,
            grads,
            means,
            squares,
            [],
            counts,
            lr=self.learning_rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=0.0,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, list[Tensor]]:
        """State on which the next steps depend, sharing memory with the optimizer."""
        return {"means": self.means, "squares": self.squares, "counts": self.counts}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        _copy(self.state_dict(), state)


class RProp:
    """Resilient backpropagation (Riedmiller and Braun 1993), as `torch.optim.Rprop`.

    Parameters
    ----------
    parameters : iterable of Tensor
        Parameters, changed in place. Those without gradient are left alone.

    learning_rate : float
        Initial step size of each entry.
    """

    shrink, grow = 0.5, 1.2
    smallest, largest = 1e-6, 50.0

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float):
        self.parameters = list(parameters)
        self.last = [torch.zeros_like(p.detach()) for p in self.parameters]
        self.sizes = [torch.full_like(grad, learning_rate) for grad in self.last]

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters by the sign of their gradients."""
        for p, last, size in zip(self.parameters, self.last, self.sizes, strict=True):
            if p.grad is None:
                continue
            agreement = p.grad * last
            factor = torch.ones_like(size)
            factor[agreement > 0] = self.grow
            factor[agreement < 0] = self.shrink
            size.mul_(factor).clamp_(self.smallest, self.largest)
            # An entry whose gradient has changed its sign rests for one step.
            last.copy_(p.grad.masked_fill(agreement < 0, 0))
            p.addcmul_(last.sign(), size, value=-1)

    def state_dict(self) -> dict[str, list[Tensor]]:
        """State on which the next steps depend, sharing memory with the optimizer."""
        return {"last": self.last, "sizes": self.sizes}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        _copy(self.state_dict(), state)


# L-BFGS is used too rarely for a version of its own.
Optimizer = Adam | RProp | torch.optim.LBFGS


def _copy(own: dict[str, list[Tensor]], saved: dict[str, list[Tensor]]) -> None:
    for name, tensors in own.items():
        torch._foreach_copy_(tensors, saved[name])
