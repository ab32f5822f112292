import copy

import pytest
import torch

from skrec._core.optimizers import Adam, RProp


def make_parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = [(7, 5), (5,), (3, 2)]
    return [
        torch.randn(s, generator=generator, dtype=dtype).requires_grad_()
        for s in shapes
    ]


def set_gradients(parameters, step):
    """Gradients with zeros and changing signs; the last parameter often has none."""
    generator = torch.Generator().manual_seed(step)
    for i, p in enumerate(parameters):
        grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        grad[grad.abs() < 0.2] = 0
        p.grad = None if i == 2 and step % 3 else grad


def run(parameters, optimizer, steps):
    for step in steps:
        set_gradients(parameters, step)
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_takes_the_steps_of_pytorch(dtype):
    ours, theirs = make_parameters(dtype), make_parameters(dtype)
    adam = Adam(ours, 0.01)
    reference = torch.optim.Adam(theirs, lr=0.01, fused=True)
    run(ours, adam, range(5))
    run(theirs, reference, range(5))
    adam.learning_rate = reference.param_groups[0]["lr"] = 0.003
    run(ours, adam, range(5, 10))
    run(theirs, reference, range(5, 10))
    for p, q, start in zip(ours, theirs, make_parameters(dtype), strict=True):
        assert torch.equal(p, q)
        assert not torch.equal(p, start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rprop_takes_the_steps_of_pytorch(dtype):
    ours, theirs = make_parameters(dtype), make_parameters(dtype)
    run(ours, RProp(ours, 0.01), range(12))
    run(theirs, torch.optim.Rprop(theirs, lr=0.01), range(12))
    for p, q, start in zip(ours, theirs, make_parameters(dtype), strict=True):
        assert torch.equal(p, q)
        assert not torch.equal(p, start)


@pytest.mark.parametrize("make", [Adam, RProp])
def test_the_next_steps_depend_on_the_state_alone(make):
    straight, resumed = make_parameters(), make_parameters()
    first, second = make(straight, 0.01), make(resumed, 0.01)
    run(straight, first, range(4))
    saved = copy.deepcopy(first.state_dict())
    copies = [p.detach().clone() for p in straight]
    run(straight, first, range(4, 8))

    second.load_state_dict(saved)
    with torch.no_grad():
        torch._foreach_copy_(resumed, copies)
    run(resumed, second, range(4, 8))
    assert all(map(torch.equal, straight, resumed))


@pytest.mark.parametrize("make", [Adam, RProp])
def test_parameters_without_gradients_stay(make):
    parameters = make_parameters()
    make(parameters, 0.01).step()
    assert all(map(torch.equal, parameters, make_parameters()))


def test_the_names_in_a_state_stay_those_of_older_checkpoints():
    parameters = make_parameters()
    assert list(Adam(parameters, 0.1).state_dict()) == ["means", "squares", "counts"]
    assert list(RProp(parameters, 0.1).state_dict()) == ["last", "sizes"]
