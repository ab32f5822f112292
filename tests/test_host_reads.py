import pytest
import torch
from helpers import MODELS, fit, name_of, small
from simulated_gpu import DEVICE, SimulatedGPU, waits_of_steps
from sklearn.base import clone
from torch.utils._python_dispatch import TorchDispatchMode

from skrec import BaselineRegressor, BayesianMFRegressor, LLORMARegressor
from skrec._core.conjugate_gradients import solve_columns
from skrec._core.ridge import solve_rows
from skrec._core.training import PenalizedLoss

# Most waits in a step: the loss, two looks whether everything is finite, and one for
# each solution that is checked, or for every fourth step of conjugate gradients. Topic
# proportions are improved until they settle. A step of LLORMA is a local model, with
# two sweeps and the transfer of its ratings.
MOST_WAITS = {
    "SVDppRegressor": 9,
    "BayesianMFRegressor": 8,
    "LLORMARegressor": 34,
    "CTRRegressor": 12,
}


# A handful of steps does not converge.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "recommender",
    [m for m in MODELS if not isinstance(m, BaselineRegressor)],
    ids=name_of,
)
def test_a_step_waits_for_a_gpu_a_few_times(recommender, R):
    def run(n_steps):
        model = clone(recommender).set_params(device="meta")
        if isinstance(model, LLORMARegressor):
            model.set_params(n_models=n_steps, max_iter=2)
        else:
            model.set_params(max_iter=n_steps)
            if "tol" in model.get_params():
                model.set_params(tol=0)
        fit(model, R)

    waits = dict(waits_of_steps(run, 2, 4))
    most = MOST_WAITS.get(type(recommender).__name__, 6)
    assert 0 < sum(waits.values()) <= most, waits


def test_samples_stay_on_the_device_until_the_end(R):
    model = small(BayesianMFRegressor, max_iter=12, thinning=1, burn_in=0)
    with SimulatedGPU() as gpu:
        fit(model.set_params(device="meta"), R)
    kinds = {place: n for (kind, place), n in gpu.waits.items() if kind == "download"}
    (stacked,) = [n for place, n in kinds.items() if "bayesian_trainer" in place]
    assert stacked == 3 * 12  # users, items and no links, after the last sweep
    assert not any("gibbs" in place for _, place in gpu.waits if _ == "upload")


def test_conjugate_gradients_look_at_every_fourth_step_of_a_gpu(rng):
    A = torch.tensor(rng.standard_normal((30, 12)))
    A = A.T @ A + torch.eye(12)
    right = torch.tensor(rng.standard_normal((12, 3)))
    diagonal = A.diagonal().unsqueeze(1).expand(-1, 3)
    images = []

    def solve(A, right, diagonal, start):
        def times(x):
            images.append(1)
            return A @ x

        return solve_columns(times, right, diagonal, start, tolerance=1e-6)

    found = solve(A, right, diagonal, torch.zeros_like(right))
    n_steps = len(images) - 1
    assert n_steps > 4
    images.clear()
    with SimulatedGPU() as gpu:
        tensors = (t.to(DEVICE) for t in (A, right, diagonal, torch.zeros_like(right)))
        on_gpu = solve(*tensors).cpu()
    assert n_steps <= len(images) - 1 <= n_steps + 3
    looks = sum(n for (kind, _), n in gpu.waits.items() if "scalar" in kind)
    assert looks == (len(images) - 1) // 4 + 1
    torch.testing.assert_close(on_gpu, found, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(A @ on_gpu, right, rtol=1e-4, atol=1e-5)


def test_ridge_regressions_wait_once_for_each_bucket(rng):
    sizes = torch.tensor([1, 3, 9, 27, 81])
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    indices = torch.arange(int(indptr[-1])) % 90
    ratings = torch.tensor(rng.standard_normal(len(indices)))
    factors = torch.tensor(rng.standard_normal((90, 4)))
    found = solve_rows(indptr, indices, ratings, factors, 1.0)
    with SimulatedGPU() as gpu:
        tensors = (t.to(DEVICE) for t in (indptr, indices, ratings, factors))
        on_gpu = solve_rows(*tensors, 1.0).coef.cpu()
    waits = {key: n for key, n in gpu.waits.items() if "ridge" in key[1]}
    # The counts, two looks at the penalty, and whether the systems are singular
    assert sum(waits.values()) <= 3 + len(sizes), waits
    torch.testing.assert_close(on_gpu, found.coef)


def test_the_simulated_gpu_refuses_what_a_gpu_refuses():
    with SimulatedGPU():
        own = torch.ones(3, device=DEVICE)
        with pytest.raises(RuntimeError, match="two devices"):
            own + torch.ones(3)
        with pytest.raises(TypeError, match=r"call cpu\(\) first"):
            own.numpy()


def test_the_simulated_gpu_counts_waits():
    with SimulatedGPU() as gpu:
        own = torch.arange(4.0).to(DEVICE)
        own[own > 1] = 0  # needs no positions
        assert gpu.count == 1
        assert (gpu.uploads, gpu.downloads) == (4, 0)
        assert own.sum().item() == 1
        assert own[own > 0].tolist() == [1]
        torch.linalg.inv(torch.diag(own + 1))
    assert sorted(kind for kind, _ in gpu.waits.elements()) == [
        "aten::_linalg_check_errors",
        "aten::_local_scalar_dense",
        "aten::index by mask",
        "download",
        "upload",
    ]
    assert gpu.downloads == 1


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
