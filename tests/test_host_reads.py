import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from skrec._core.training import PenalizedLoss


class ScalarReads(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_penalized_loss_reads_no_scalar_by_itself():
    weights = [torch.full((3, 2), 1.0 + i, requires_grad=True) for i in range(3)]
    own = torch.tensor([2.0], requires_grad=True)

    def loss(batch):
        return sum((batch * w).sum() for w in [*weights, own])

    objective = PenalizedLoss(loss, [*weights, own], weights, 0.5, [(own, 3.0)])
    with ScalarReads() as reads:
        total = objective(torch.tensor(2.0), share=0.5)
    assert reads.count == 0
    expected = 2 * (6 * 6 + 2) + 0.125 * 6 * 14 + 0.75 * 4
    assert total == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(own.grad, torch.tensor([2.0 + 0.5 * 3.0 * 2.0]))
