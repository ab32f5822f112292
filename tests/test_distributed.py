"""One fit over two processes on one machine, which exchange sums with gloo.

Two processes run all functions of `CASES` one after the other, since starting them
takes longer than the fits. Each case returns what the tests below compare.
"""

import contextlib
import io
import os
import pickle
import re
import signal
import tempfile
import time
import traceback
import warnings
from datetime import timedelta
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
import torch.distributed as dist
from helpers import small
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.feature_extraction.text import CountVectorizer

import skrec
import skrec.distributed
from skrec import (
    AutoRecRegressor,
    BaselineRegressor,
    BayesianMFRegressor,
    BiasedMFRegressor,
    CDLRegressor,
    Checkpoint,
    ConvMFRegressor,
    CTRRegressor,
    LLORMARegressor,
    PMFRegressor,
    RBMRegressor,
    SVDppRegressor,
    _checkpoint,
)
from skrec._checkpoint import FitCheckpoint, write_state
from skrec._core import collectives, gibbs, rbm
from skrec._core.collectives import Share
from skrec._factorization.variational_trainer import VariationalTrainer
from skrec.datasets import make_ratings
from skrec.distributed import RankError
from skrec.model_selection import ratings_to_samples


def words_of(text):
    return text.split()


N_RANKS, TIMEOUT = 2, 2.0
DATA = make_ratings(80, 50, density=0.3, noise=0.3, random_state=0)
R = DATA.R.tocsr()
# Item 51 has a text and no ratings, and item 1 has no text.
TEXTS = {i: text for i, text in enumerate(DATA.item_texts) if i != 1}
TEXTS[51] = TEXTS[0]
CUT = 30  # users before are those of rank 0
PAIRS, RATINGS = ratings_to_samples(R)
# Items with few ratings tell how many of those without are new.
IN_FEW = (PAIRS[:, 1] >= 10) | (PAIRS[:, 0] % 20 == PAIRS[:, 1])
WEIGHTS = np.random.default_rng(0).uniform(0.5, 2, len(RATINGS))
PENALTIES = {"lambda_u": 2.0, "lambda_v": 3.0}
MODELS = {
    "AutoRec of items": small(AutoRecRegressor, dtype="float64"),
    "AutoRec of users": small(AutoRecRegressor, kind="user", dtype="float64"),
    "deep AutoRec of items, by RProp": small(
        AutoRecRegressor,
        hidden_layer_sizes=(4, 3),
        solver="rprop",
        learning_rate_init=0.01,
        learning_rate="constant",
        baseline=False,
        alpha="auto",
        dtype="float64",
    ),
    "Baseline": small(BaselineRegressor, lambda_u="auto", lambda_v="auto"),
    "PMF": small(PMFRegressor, n_factors=4),
    "PMF by conjugate gradients": small(PMFRegressor, n_factors=40, dtype="float64"),
    "BiasedMF by variational Bayes": small(BiasedMFRegressor, n_factors=4),
    "BiasedMF by least squares": small(BiasedMFRegressor, n_factors=4, **PENALTIES),
    "SVD++ by variational Bayes": small(SVDppRegressor),
    "SVD++ with links of users": small(SVDppRegressor, implicit="items"),
    "SVD++ by least squares": small(SVDppRegressor, **PENALTIES),
}
TEXT_MODELS = {
    "ConvMF": small(
        ConvMFRegressor,
        lambda_u=1.0,
        lambda_v=2.0,
        word_dropout=0.0,
        item_weight="sqrt",
        dtype="float64",
    ),
    # The address of a function differs between processes.
    "CTR": small(
        CTRRegressor,
        fit_biases=True,
        vectorizer=CountVectorizer(tokenizer=words_of, token_pattern=None),
        dtype="float64",
    ),
    "CDL": small(CDLRegressor, input_dropout=0.0, dtype="float64"),
}
MACHINES = {
    "RBM": small(RBMRegressor, kind="user", dtype="float64"),
    "RBM of ratings": small(RBMRegressor, kind="user", baseline=False, dtype="float64"),
}
RESUMED = {
    "texts": small(CDLRegressor),
    "batches": small(
        RBMRegressor, kind="user", batch_size=30, persistent=True, max_iter=5
    ),
    "early stopping": small(BiasedMFRegressor, early_stopping=True, max_iter=5),
    "samples": small(BayesianMFRegressor, implicit=True, max_iter=5, thinning=1),
    "dropout": small(AutoRecRegressor, input_dropout=0.3, dropout=0.3, max_iter=5),
}
BAYESIAN = {
    "BayesianMF": small(BayesianMFRegressor, dtype="float64"),
    "BayesianMF with links": small(BayesianMFRegressor, implicit=True, dtype="float64"),
}


class StopAt:
    """Callback that stops a fit, and counts its calls."""

    def __init__(self, epoch):
        self.epoch, self.n_calls = epoch, 0

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context, **kwargs):
        pass

    def on_fit_task_end(self, estimator, context, **kwargs):
        self.n_calls += 1
        return self.n_calls == self.epoch


def own_ratings(rank):
    return (PAIRS[:, 0] < CUT) == (rank == 0)


def fit_own(model, rank, **options):
    """Fit a model to the ratings of a rank, as pairs."""
    mine = own_ratings(rank)
    model = pickle.loads(pickle.dumps(model))
    return skrec.distributed.fit(model, PAIRS[mine], RATINGS[mine], **options)


def error_of(function, *args, **options):
    """Error of a call, its notes, and the seconds until it was raised."""
    start = time.monotonic()
    try:
        function(*args, **options)
    except BaseException as error:
        notes = getattr(error, "__notes__", [])
        seconds = time.monotonic() - start
        return SimpleNamespace(
            type=type(error), text=str(error), notes=notes, seconds=seconds
        )
    return None


def failing_step(rank, fail, failing_rank=1, epoch=2):
    """Patch the step of a trainer such that one rank fails."""
    original = VariationalTrainer.step

    def step(self, number, keep):
        if rank == failing_rank and number + 1 == epoch:
            fail(self)
        return original(self, number, keep)

    return mock.patch.object(VariationalTrainer, "step", step)


def case_models(rank):
    found = {}
    for name, model in MODELS.items():
        part = fit_own(model, rank)
        found[name] = part, skrec.distributed.gather(part)
    return found


def case_texts(rank):
    found = {}
    mine = own_ratings(rank) & IN_FEW
    for name, model in TEXT_MODELS.items():
        part = skrec.distributed.fit(
            clone(model), PAIRS[mine], RATINGS[mine], item_texts=TEXTS
        )
        found[name] = part, skrec.distributed.gather(part)
    return found


def without_draws():
    """Patch the sampler such that it moves to the means of what it would draw."""
    return mock.patch.multiple(
        gibbs, _normal=lambda like, rng: torch.zeros_like(like), _LINK_TOLERANCE=1e-9
    )


def case_machines(rank):
    found = {}
    for name, model in MACHINES.items():
        with mock.patch.object(rbm, "_draw", lambda p, generator: p):
            part = fit_own(model, rank)
        found[name] = part, skrec.distributed.gather(part)
    # Rank 0 has no user in a part of the batches
    model = clone(model).set_params(batch_size=2, persistent=True, max_iter=3)
    return found | {"batches": fit_own(model, rank)}


def case_samples(rank):
    found = {}
    for name, model in BAYESIAN.items():
        with without_draws():
            means = skrec.distributed.gather(fit_own(model, rank))
        part = fit_own(model.set_params(max_iter=60), rank)
        found[name] = means, part, skrec.distributed.gather(part)
    return found


def case_matrix_with_weights(rank):
    rows = slice(0, CUT) if rank == 0 else slice(CUT, None)
    weights = sp.csr_array((WEIGHTS, R.indices, R.indptr), shape=R.shape)[rows]
    part = skrec.distributed.fit(
        small(BiasedMFRegressor), R[rows], sample_weight=weights
    )
    return skrec.distributed.gather(part)


def case_strings(rank):
    mine = own_ratings(rank) if rank else own_ratings(0) & (PAIRS[:, 1] != 7)
    X = np.array([[f"user {u}", f"item {i}"] for u, i in PAIRS[mine]], object)
    part = skrec.distributed.fit(small(BiasedMFRegressor), X, RATINGS[mine])
    return part, skrec.distributed.gather(part)


def case_early_stopping(rank):
    model = small(BiasedMFRegressor, early_stopping=True, max_iter=30, tol=0.01)
    return fit_own(model.set_params(random_state=None), rank)


def case_callback(rank):
    model = small(BiasedMFRegressor, verbose=True).set_callbacks(StopAt(3))
    mine = own_ratings(rank)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        skrec.distributed.fit(model, PAIRS[mine], RATINGS[mine])
    callback = model._skl_callbacks[0]
    return model.n_iter_, printed.getvalue(), callback.n_calls, model.verbose


def case_divergence_of_one_rank(rank):
    def diverge(trainer):
        trainer.model.users.vectors.mean.fill_(torch.nan)
        trainer.model.items.ratings.fill_(torch.nan)

    with warnings.catch_warnings(record=True) as caught, failing_step(rank, diverge):
        warnings.simplefilter("always")
        part = fit_own(small(BiasedMFRegressor), rank)
    return part.n_iter_, [w.category for w in caught], part.item_factors_


def case_invalid_ratings_on_one_rank(rank):
    y = np.where(rank == 1, np.nan, RATINGS)
    return error_of(skrec.distributed.fit, small(PMFRegressor), PAIRS, y)


def case_invalid_parameter_on_one_rank(rank):
    model = small(PMFRegressor, n_factors=2 if rank else -1)
    return error_of(fit_own, model, rank)


def case_shared_user(rank):
    mine = own_ratings(rank) | ((PAIRS[:, 0] == 3) & (PAIRS[:, 1] > 20))
    model = small(PMFRegressor)
    return error_of(skrec.distributed.fit, model, PAIRS[mine], RATINGS[mine])


def case_different_parameters(rank):
    return error_of(fit_own, small(PMFRegressor, n_factors=2 + rank), rank)


def case_different_texts(rank):
    texts = TEXTS if rank else TEXTS | {2: "of rank 0"}
    return error_of(fit_own, small(CTRRegressor), rank, item_texts=texts)


def case_different_ids(rank):
    mine = own_ratings(rank)
    X = PAIRS[mine].astype(float if rank else int)
    return error_of(skrec.distributed.fit, small(PMFRegressor), X, RATINGS[mine])


def case_unsupported(rank):
    return error_of(fit_own, small(LLORMARegressor), rank)


def case_unsupported_solver(rank):
    model = small(AutoRecRegressor, solver="lbfgs")
    return error_of(fit_own, model, rank)


def case_unsupported_kind(rank):
    return error_of(fit_own, small(RBMRegressor), rank)


def case_unsupported_penalties(rank):
    return error_of(fit_own, small(ConvMFRegressor), rank, item_texts=TEXTS)


def case_unsupported_texts(rank):
    model = small(AutoRecRegressor, batch_size=None)
    return error_of(fit_own, model, rank, item_texts={0: "a text"})


def case_unsupported_batches(rank):
    model = small(AutoRecRegressor, batch_size=10 if rank else None)
    return error_of(fit_own, model, rank)


def case_dropout(rank):
    model = small(AutoRecRegressor, input_dropout=0.3, dropout=0.3)
    return fit_own(model, rank)


def case_checkpoint_of_one_rank(rank):
    model = small(PMFRegressor)
    if rank == 0:
        model.set_callbacks(Checkpoint("never written"))
    return error_of(fit_own, model, rank)


def full_disk(is_full):
    """Patch checkpoints such that some cannot be written."""

    def write(path, state):
        if len(state["loop"]["curves"][0]) in (2, 3):
            raise OSError("no space left")
        write_state(path, state)

    write = write if is_full else write_state
    return mock.patch.object(_checkpoint, "write_state", write)


def watched_saves(end):
    """Patch checkpoints to end a fit instead of one; return epochs of the others."""

    def save(self, epoch, loop):
        if epoch == end:
            raise SystemExit
        epochs.append(epoch)
        original(self, epoch, loop)

    original, epochs = FitCheckpoint.save, []
    return mock.patch.object(FitCheckpoint, "save", save), epochs


def resume(model, rank, ends, *, is_lost=False, **texts):
    """End a fit before a checkpoint of each rank, and repeat it.

    Each rank has a disk of its own, and that of rank 1 may be lost.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = clone(model).set_callbacks(Checkpoint(f"{folder}/fit", every=0))
        with watched_saves(ends[rank])[0]:
            error = error_of(fit_own, model, rank, **texts)
        names = sorted(os.listdir(folder))
        if is_lost and rank == 1:
            for name in names:
                os.remove(f"{folder}/{name}")
        patch, epochs = watched_saves(None)
        with patch, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", ConvergenceWarning)
            part = fit_own(model, rank, **texts)
        left = os.listdir(folder)
    return SimpleNamespace(
        error=error,
        names=names,
        first_epoch=epochs[0],
        left=left,
        messages=[str(w.message) for w in caught],
        places=[os.path.basename(w.filename) for w in caught],
        loss_curve=part.loss_curve_,
        predicted=part.predict(PAIRS[own_ratings(rank)]),
    )


def case_checkpoints(rank):
    found = {}
    for name, model in RESUMED.items():
        texts = {"item_texts": TEXTS} if hasattr(model, "vectorizer") else {}
        whole = fit_own(model, rank, **texts)
        found[name] = (
            whole.loss_curve_,
            whole.predict(PAIRS[own_ratings(rank)]),
            # Rank 0 has checkpoints of epochs 2 and 3, rank 1 of epochs 1 and 2.
            resume(model, rank, (4, 3), **texts),
        )
    found["together"] = *found[name][:2], resume(model, rank, (3, 3))
    with full_disk(rank == 1), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        full = resume(model, rank, (4, 4))
    return found | {"lost": resume(model, rank, (3, 3), is_lost=True), "full": full}


def case_unfitted(rank):
    model = small(PMFRegressor)
    fitted = clone(model).fit(*own_pairs(rank))
    return error_of(skrec.distributed.gather, fitted if rank else model)


def case_validation_error(rank):
    model = small(BiasedMFRegressor, early_stopping=True, max_iter=3, verbose=2)
    X, y = own_pairs(rank)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        skrec.distributed.fit(model, X, y if rank else 3 + y / 100)
    return printed.getvalue(), model.validation_scores_


def case_raising_rank(rank):
    def fail(trainer):
        raise MemoryError("no more")

    model = small(BiasedMFRegressor)
    with failing_step(rank, fail):
        found = error_of(skrec.distributed.fit, model, *own_pairs(rank))
    return found, sorted(vars(model).keys() - model.get_params().keys())


def own_pairs(rank):
    mine = own_ratings(rank)
    return PAIRS[mine], RATINGS[mine]


def case_interrupted_rank(rank):
    def fail(trainer):
        raise KeyboardInterrupt

    with failing_step(rank, fail):
        return error_of(fit_own, small(BiasedMFRegressor), rank)


def case_late_rank(rank):
    with failing_step(rank, lambda trainer: time.sleep(2 * TIMEOUT)):
        return error_of(fit_own, small(BiasedMFRegressor), rank, timeout=TIMEOUT)


def case_killed_rank(rank):  # the last one
    def die(trainer):
        os.kill(os.getpid(), signal.SIGKILL)

    with failing_step(rank, die):
        return error_of(fit_own, small(BiasedMFRegressor), rank, timeout=60.0)


CASES = [value for name, value in list(globals().items()) if name.startswith("case_")]


def run_rank(rank, folder):
    """Run all cases on a rank, and write what they return, or where one failed."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", ConvergenceWarning)  # few epochs are enough
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(f"{folder}/store", N_RANKS),
        rank=rank,
        world_size=N_RANKS,
        timeout=timedelta(seconds=60),
    )
    with open(f"{folder}/{rank}", "wb") as file:
        for case in CASES:
            try:
                pickle.dump(case(rank), file)
            except Exception:
                pickle.dump(traceback.format_exc(), file)
            file.flush()


# Few epochs are enough for a comparison.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the cases return on each rank."""
    folder = tmp_path_factory.mktemp("ranks")
    context = torch.multiprocessing.spawn(
        run_rank, (str(folder),), nprocs=N_RANKS, join=False
    )
    for process in context.processes:
        process.join(100)
        process.kill()
    found = {}
    for rank in range(N_RANKS):
        with open(folder / str(rank), "rb") as file:
            for case in CASES:
                with contextlib.suppress(EOFError):  # of the killed rank
                    name = case.__name__.removeprefix("case_")
                    found.setdefault(name, []).append(pickle.load(file))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_two_processes_find_the_model_of_one(found, name):
    one = MODELS[name].fit(PAIRS, RATINGS)
    part, whole = found["models"][0][name]
    assert found["models"][1][name][1] is None
    assert whole.n_iter_ == one.n_iter_
    np.testing.assert_allclose(whole.loss_curve_, one.loss_curve_, rtol=1e-5)
    np.testing.assert_allclose(whole.predict(PAIRS), one.predict(PAIRS), rtol=1e-5)
    # A rank knows all items, and its own users alone
    np.testing.assert_array_equal(part.items_, one.items_)
    np.testing.assert_array_equal(part.users_, one.users_[:CUT])
    mine = own_ratings(0)
    np.testing.assert_array_equal(part.predict(PAIRS[mine]), whole.predict(PAIRS[mine]))


@pytest.mark.parametrize("name", MODELS)
def test_a_joined_model_has_all_attributes(found, name):
    one = MODELS[name].fit(PAIRS, RATINGS)
    _, whole = found["models"][0][name]
    assert vars(whole).keys() == vars(one).keys()
    for attribute, value in vars(one).items():
        pairs = getattr(whole, attribute), value
        if attribute.startswith("encoder_"):  # one array for each layer
            assert [a.shape for a in pairs[0]] == [a.shape for a in pairs[1]]
        else:
            assert np.shape(pairs[0]) == np.shape(pairs[1]), attribute
    np.testing.assert_allclose(whole.item_means_, one.item_means_)
    np.testing.assert_array_equal(whole._seen.toarray(), one._seen.toarray())


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_two_processes_read_the_texts_as_one_does(found, name):
    one = clone(TEXT_MODELS[name])
    one.fit(PAIRS[IN_FEW], RATINGS[IN_FEW], item_texts=TEXTS)
    part, whole = found["texts"][0][name]
    second = found["texts"][1][name][0]
    assert vars(whole).keys() == vars(one).keys()
    for attribute in "text_factors_", "item_factors_", "loss_curve_":
        values = getattr(whole, attribute), getattr(one, attribute)
        np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(values[0], getattr(second, attribute))
    # Item 51 is predicted from its text, with corrections of each user.
    pairs = np.vstack([PAIRS, [[u, 51] for u in range(80)]])
    np.testing.assert_allclose(whole.predict(pairs), one.predict(pairs), rtol=1e-5)
    np.testing.assert_array_equal(part.predict([[3, 51]]), whole.predict([[3, 51]]))


@pytest.mark.parametrize("name", MACHINES)
def test_two_processes_add_up_the_gradients_of_one(found, name):
    with mock.patch.object(rbm, "_draw", lambda p, generator: p):
        one = clone(MACHINES[name]).fit(PAIRS, RATINGS)
    part, whole = found["machines"][0][name]
    assert vars(whole).keys() == vars(one).keys()
    for attribute, value in vars(one).items():
        assert np.shape(getattr(whole, attribute)) == np.shape(value), attribute
    np.testing.assert_allclose(whole.loss_curve_, one.loss_curve_, rtol=1e-5)
    np.testing.assert_allclose(whole.predict(PAIRS), one.predict(PAIRS), rtol=1e-5)
    mine = own_ratings(0)
    np.testing.assert_array_equal(part.predict(PAIRS[mine]), whole.predict(PAIRS[mine]))


def test_ranks_have_parts_of_the_same_batches(found):
    first, second = (rank["batches"] for rank in found["machines"])
    assert first.n_iter_ == 3
    assert first.loss_curve_ == second.loss_curve_
    np.testing.assert_array_equal(first.weights_, second.weights_)


@pytest.mark.parametrize("name", BAYESIAN)
def test_two_processes_sample_from_the_posterior_of_one(found, name):
    model = clone(BAYESIAN[name])
    with without_draws():
        one = clone(model).fit(PAIRS, RATINGS)
    means, part, whole = found["samples"][0][name]
    np.testing.assert_allclose(means.predict(PAIRS), one.predict(PAIRS), rtol=1e-5)
    np.testing.assert_allclose(means.loss_curve_, one.loss_curve_, rtol=1e-5)
    model.set_params(max_iter=60)
    one, other = model.fit(PAIRS, RATINGS), clone(model).set_params(random_state=1)
    other.fit(PAIRS, RATINGS)
    assert vars(whole).keys() == vars(one).keys()
    for attribute, value in vars(one).items():
        assert np.shape(getattr(whole, attribute)) == np.shape(value), attribute
    for prior in "user_prior_covariance_", "item_prior_mean_", "noise_variance_":
        np.testing.assert_allclose(getattr(whole, prior), getattr(one, prior), 1e-5)
    # Items are drawn once, and users on each rank.
    second = found["samples"][1][name][1]
    np.testing.assert_array_equal(part.item_factors_, second.item_factors_)
    (mean, std), (own_mean, own_std), (other_mean, _) = (
        m.predict(PAIRS, return_std=True) for m in (one, whole, other)
    )
    # No farther from one process than another seed is
    assert np.std(own_mean - mean) < 1.2 * np.std(other_mean - mean)
    np.testing.assert_allclose(own_std.mean(), std.mean(), rtol=0.01)


def test_a_joined_model_serves_and_is_saved(found, tmp_path):
    one = MODELS["BiasedMF by variational Bayes"].fit(PAIRS, RATINGS)
    _, whole = found["models"][0]["BiasedMF by variational Bayes"]
    users = [3, 50]
    pd.testing.assert_frame_equal(
        whole.recommend(users), one.recommend(users), rtol=1e-5
    )
    assert whole.score(PAIRS, RATINGS) == pytest.approx(one.score(PAIRS, RATINGS), 1e-5)
    assert whole.score(R) == pytest.approx(one.score(R), abs=1e-5)
    skrec.save(whole, tmp_path / "model")
    loaded = skrec.load(tmp_path / "model")
    for copy in loaded, pickle.loads(pickle.dumps(whole)):
        np.testing.assert_array_equal(copy.predict(PAIRS), whole.predict(PAIRS))


def test_the_rows_of_a_matrix_are_stacked(found):
    weights = sp.csr_array((WEIGHTS, R.indices, R.indptr), shape=R.shape)
    one = small(BiasedMFRegressor).fit(R, sample_weight=weights)
    whole, _ = found["matrix_with_weights"]
    np.testing.assert_array_equal(whole.users_, np.arange(80))
    np.testing.assert_array_equal(whole._rating_weights, one._rating_weights)
    np.testing.assert_allclose(whole.predict(R), one.predict(R), atol=1e-4)


def test_strings_are_ids_and_items_of_other_ranks_are_known(found):
    (part, whole), _ = found["strings"]
    assert "item 7" in part.items_
    assert part._is_rated.all()
    assert list(whole.users_) == sorted(f"user {u}" for u in range(80))
    users = [list(whole.users_).index(f"user {u}") for u in (0, 45)]
    seen = whole._seen[users]
    rated = np.zeros(seen.shape, bool)
    rated[np.repeat([0, 1], np.diff(seen.indptr)), seen.indices] = True
    items = [int(name.removeprefix("item ")) for name in whole.items_]
    expected = R[[0, 45]].toarray()[:, items] != 0
    expected[0, items.index(7)] = False
    np.testing.assert_array_equal(rated, expected)


def test_all_ranks_stop_at_the_same_epoch(found):
    first, second = found["early_stopping"]
    assert first.n_iter_ == second.n_iter_ < 30
    assert first.validation_scores_ == second.validation_scores_
    assert first.loss_curve_ == second.loss_curve_
    np.testing.assert_array_equal(first.item_factors_, second.item_factors_)
    assert first.validation_scores_[-1] > 0.1


def test_ranks_drop_the_same_units_of_items(found):
    first, second = found["dropout"]
    np.testing.assert_array_equal(first.item_factors_, second.item_factors_)
    assert first.loss_curve_ == second.loss_curve_


def test_callbacks_and_messages_are_those_of_rank_0(found):
    (n_iter, printed, n_calls, verbose), others = found["callback"]
    assert n_iter == others[0] == 3
    assert "[BiasedMFRegressor]" in printed
    assert others[1:] == ("", 0, True)
    assert n_calls > 2
    assert verbose is True


def test_divergence_of_one_rank_ends_the_fit_of_all(found):
    first, second = found["divergence_of_one_rank"]
    assert first[0] == second[0] == 1
    assert first[1] == [ConvergenceWarning]
    assert second[1] == []
    np.testing.assert_array_equal(first[2], second[2])


@pytest.mark.parametrize(
    ("case", "error", "text"),
    [
        ("invalid_ratings_on_one_rank", ValueError, "Input y contains NaN"),
        ("invalid_parameter_on_one_rank", ValueError, "'n_factors' parameter"),
        (
            "shared_user",
            ValueError,
            "User 3 has ratings on rank 0 and on rank 1: give all ratings of a user",
        ),
        (
            "different_parameters",
            ValueError,
            "must have the same n_factors, but rank 0 has 2 and rank 1 has 3",
        ),
        (
            "different_ids",
            ValueError,
            "type of the user ids, but rank 0 has int64 and rank 1 has float64",
        ),
        (
            "unsupported",
            TypeError,
            "LLORMARegressor cannot be fitted by several processes",
        ),
        (
            "different_texts",
            ValueError,
            "must have the same item_texts, but rank 0 has 50 texts with the hash",
        ),
        (
            "unsupported_penalties",
            ValueError,
            "use numbers for lambda_u and lambda_v",
        ),
        ("unsupported_kind", ValueError, "use kind='user'"),
        ("unsupported_solver", ValueError, "use solver='adam' or 'rprop'"),
        ("unsupported_texts", TypeError, "AutoRecRegressor takes no item_texts over"),
        ("unsupported_batches", ValueError, "batch_size=10 is not for several"),
        (
            "checkpoint_of_one_rank",
            ValueError,
            "number of Checkpoint callbacks, but rank 0 has 1 and rank 1 has 0",
        ),
        ("unfitted", NotFittedError, "This PMFRegressor instance is not fitted"),
    ],
)
def test_all_ranks_refuse_with_the_same_message(found, case, error, text):
    first, second = found[case]
    assert text in first.text
    assert first.text == second.text
    assert issubclass(first.type, error)
    assert first.type is second.type


@pytest.mark.parametrize("name", [*RESUMED, "together"])
def test_a_repeated_fit_resumes_on_all_ranks_to_equal_bits(found, name):
    for rank in range(N_RANKS):
        loss_curve, predicted, case = found["checkpoints"][rank][name]
        assert case.error.type in (SystemExit, RankError)
        assert case.names == [f"fit.rank-{rank}-{file}" for file in "ab"]
        assert case.first_epoch == 3
        assert case.messages == case.left == []
        assert case.loss_curve == loss_curve
        np.testing.assert_array_equal(case.predicted, predicted)


def test_a_fit_begins_anew_if_the_files_of_a_rank_are_lost(found):
    ranks = [rank["lost"] for rank in found["checkpoints"]]
    assert [case.first_epoch for case in ranks] == [1, 1]
    assert "of no common iteration" in ranks[0].messages[0]
    assert ranks[0].places == ["test_distributed.py"]
    assert ranks[1].messages == []
    whole = found["checkpoints"][0]["dropout"][1]
    np.testing.assert_array_equal(ranks[0].predicted, whole)


def test_all_ranks_keep_the_last_checkpoint_that_all_could_write(found):
    assert [rank["full"].first_epoch for rank in found["checkpoints"]] == [2, 2]


def test_the_printed_validation_error_is_of_all_ranks(found):
    (text, scores), (silence, _) = found["validation_error"]
    errors = [float(e) for e in re.findall(r"validation RMSE (\S+),", text)]
    stds = np.array(errors) / np.sqrt(1 - np.array(scores))
    # Rank 0 alone has a standard deviation of about 0.01.
    assert len(stds) == 3
    assert (stds > 0.2).all()
    assert silence == ""


def test_the_rank_with_the_error_is_noted(found):
    for error in found["invalid_ratings_on_one_rank"]:
        assert error.notes == ["This is the error of rank 1."]


def test_others_name_a_rank_that_fails(found):
    (other, attributes), (own, _) = found["raising_rank"]
    assert own.type is MemoryError
    assert other.type is RankError
    assert "Rank 1 failed in epoch 2 with MemoryError: no more" in other.text
    assert other.seconds < 10
    assert attributes == []  # neither fitted nor a member of a group


def test_others_name_a_rank_that_is_interrupted(found):
    other, own = found["interrupted_rank"]
    assert own.type is KeyboardInterrupt
    assert other.type is RankError
    assert "Rank 1 failed in epoch 2 with KeyboardInterrupt" in other.text


def test_others_name_a_rank_that_hangs(found):
    other, own = found["late_rank"]
    assert other.type is own.type is RankError
    assert "Rank 1 did not answer rank 0 in epoch 2" in other.text
    assert TIMEOUT <= other.seconds < 20


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_others_name_a_rank_that_is_killed(found):
    (other,) = found["killed_rank"]
    assert other.type is RankError
    assert "Rank 1 did not answer rank 0 in epoch 2" in other.text
    assert other.seconds < 30  # not the timeout


def test_a_process_group_is_required():
    with pytest.raises(RuntimeError, match="There is no process group: call torch"):
        skrec.distributed.fit(small(PMFRegressor), R)


@pytest.mark.parametrize("total", [7, 16, 80, 81, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ranks_draw_what_one_process_draws(monkeypatch, total, dtype):
    monkeypatch.setattr(collectives, "_DRAWN", 64)
    generator = torch.Generator()

    def draw(n):
        return torch.empty(n, 3, dtype=dtype).normal_(generator=generator)

    generator.manual_seed(0)
    expected = draw(total)
    state = generator.get_state()
    for first, count in (0, 5), (5, total - 5), (2, 3):
        generator.manual_seed(0)
        found = Share(first, count, total).draw(draw)
        assert torch.equal(found, expected[first : first + count])
        assert torch.equal(generator.get_state(), state)
