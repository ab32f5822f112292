"""Fits use as many threads as pay for the work, and change nothing outside."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers import MODELS, TEXT_CLASSES, TEXTS, name_of
from sklearn.base import clone

from skrec import BiasedMFRegressor
from skrec._core import threads
from skrec._core.device import own_settings
from skrec._core.threads import set_threads, threads_for

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*stopped at max_iter:sklearn.exceptions.ConvergenceWarning"
)


@pytest.fixture
def four_threads(monkeypatch):
    """Let PyTorch use four threads, on a machine with eight processors."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "cpu_count", lambda: 8)
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("n_ratings", "n_texts", "expected"),
    [
        (1, 0, 1),
        (399_999, 0, 1),
        (400_000, 0, 2),
        (200_000, 4_000, 2),
        (10**9, 0, 4),
    ],
)
def test_number_of_threads_grows_with_the_work(
    four_threads, n_ratings, n_texts, expected
):
    assert threads_for(n_ratings, n_texts) == expected


def test_never_more_threads_than_processors_that_may_be_used(four_threads, monkeypatch):
    monkeypatch.setattr(threads, "cpu_count", lambda: 3)
    assert threads_for(10**9) == 3


def test_threads_are_set_for_the_calling_thread_only(four_threads):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 4
        set_threads(2)
        assert torch.get_num_threads() == 2
        assert pool.submit(torch.get_num_threads).result() == 4
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 4


class Library:
    """OpenMP library."""

    def __init__(self, n_threads):
        self.n_threads = n_threads

    def get_num_threads(self):
        return self.n_threads

    def set_num_threads(self, n_threads):
        self.n_threads = n_threads


def test_each_library_gets_its_own_number_of_threads_back(monkeypatch):
    libraries = [Library(3), Library(1)]
    monkeypatch.setattr(threads, "_openmp", lambda: libraries)
    with own_settings():
        set_threads(2)
        assert [library.n_threads for library in libraries] == [2, 2]
    assert [library.n_threads for library in libraries] == [3, 1]


class Threads:
    """Callback that notes the number of threads in each epoch."""

    max_estimator_depth = 1

    def __init__(self):
        self.found = set()

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context, **kwargs):
        self.found.add(torch.get_num_threads())

    def on_fit_task_end(self, estimator, context, **kwargs):
        return False


@pytest.mark.parametrize("estimator", MODELS, ids=name_of)
def test_small_fits_use_one_thread(estimator, R, four_threads):
    texts = {"item_texts": TEXTS} if isinstance(estimator, TEXT_CLASSES) else {}
    callback = Threads()
    clone(estimator).set_callbacks(callback).fit(R, **texts)
    assert callback.found == {1}
    assert torch.get_num_threads() == 4


def test_larger_fits_use_more_threads(R, four_threads, monkeypatch):
    monkeypatch.setattr(threads, "RATINGS_PER_THREAD", R.nnz // 3)
    callback = Threads()
    BiasedMFRegressor(max_iter=2, tol=0, random_state=0).set_callbacks(callback).fit(R)
    assert callback.found == {3}
    assert torch.get_num_threads() == 4


def test_threads_are_restored_after_a_refusal(R, four_threads):
    with pytest.raises(ValueError, match="early_stopping"):
        BiasedMFRegressor(early_stopping=True, validation_fraction=0.999).fit(R[:1])
    assert torch.get_num_threads() == 4
