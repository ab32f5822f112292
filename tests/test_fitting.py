"""The state after a fit that is refused, interrupted, continued or resumed."""

import inspect
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import RECOMMENDERS, TEXT_CLASSES, Interrupt, fit, name_of, small
from sklearn.base import clone

from skrec import (
    AutoRecRegressor,
    BaselineRegressor,
    BayesianMFRegressor,
    BiasedMFRegressor,
    PMFRegressor,
    RBMRegressor,
    SVDppRegressor,
)
from skrec._factorization import alternation
from skrec._fitting import Fit
from skrec.datasets import make_ratings

pytestmark = [pytest.mark.filterwarnings("ignore:.* stopped at max_iter")]


def each(models):
    return pytest.mark.parametrize("recommender", models, ids=name_of)


def frame(user, item):
    columns = {user: ["a", "a", "b", "b"], item: ["c", "d", "c", "e"]}
    return pd.DataFrame(columns)


@each([m for m in RECOMMENDERS if not isinstance(m, TEXT_CLASSES)])
def test_a_refused_refit_leaves_the_model_unchanged(recommender):
    X = frame("user", "item")
    model = clone(recommender).fit(X, [1.0, 2.0, 3.0, 4.0])
    before, state = model.predict(X), dict(vars(model))
    with pytest.raises(ValueError, match="infinity"):
        model.fit(frame("u", "i"), [1.0, 2.0, 3.0, np.inf])
    assert vars(model) == state
    np.testing.assert_array_equal(model.predict(X), before)


def test_a_fitted_model_holds_five_bytes_a_rating(rng):
    cells = rng.permutation(200 * 1000)[:100_000]
    X, y = np.column_stack(np.divmod(cells, 1000)), 1.0 + cells % 5
    few = BaselineRegressor().fit(X[:50_000], y[:50_000])
    many = BaselineRegressor().fit(X, y)
    assert len(few.users_) == len(many.users_) == 200
    sizes = [len(pickle.dumps(model)) for model in (few, many)]
    assert sizes[1] - sizes[0] < 5.01 * 50_000


def test_a_refusal_by_the_trainer_leaves_the_column_names():
    X = frame("user", "item")
    model = small(RBMRegressor, baseline=False).fit(X, [1, 2, 3, 4])
    many = pd.DataFrame({"u": np.arange(200), "i": np.arange(200)})
    with pytest.raises(ValueError, match="at most 100 different values"):
        model.fit(many, np.linspace(0, 1, 200))
    assert np.isfinite(model.predict(X)).all()
    assert model.feature_names_in_.tolist() == ["user", "item"]


@each(RECOMMENDERS)
def test_an_interrupt_in_the_first_epoch_leaves_the_model_unchanged(
    recommender, R, monkeypatch
):
    model = fit(clone(recommender), R)
    before, n_iter = model.predict(R[:70]), model.n_iter_
    trainer = next(
        cls
        for cls in trainer_classes()
        if cls.__name__ == TRAINERS[type(model).__name__]
    )

    def interrupted(self, epoch, keep):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(model, R[:60])
    assert model.n_iter_ == n_iter
    np.testing.assert_array_equal(model.predict(R[:70]), before)


TRAINERS = {
    "AutoRecRegressor": "AutoRecTrainer",
    "RBMRegressor": "RBMTrainer",
    "PMFRegressor": "AlternationTrainer",
    "BiasedMFRegressor": "VariationalTrainer",
    "SVDppRegressor": "VariationalTrainer",
    "ConvMFRegressor": "VariationalTrainer",
    "CTRRegressor": "AlternationTrainer",
    "CDLRegressor": "AlternationTrainer",
    "LLORMARegressor": "LLORMATrainer",
    "BayesianMFRegressor": "GibbsTrainer",
    "BaselineRegressor": "BaselineTrainer",
}


def trainer_classes():
    from skrec._fitting import Trainer

    found, todo = [], [Trainer]
    while todo:
        subclasses = todo.pop().__subclasses__()
        found += subclasses
        todo += subclasses
    return found


def test_an_interrupt_later_stores_the_epochs_so_far(R):
    model = small(BiasedMFRegressor).fit(R)
    model.set_callbacks(Interrupt(1))
    with pytest.raises(KeyboardInterrupt):
        model.fit(R[:60])
    assert model.n_iter_ == 2
    assert len(model.users_) == 60


def test_a_refit_replaces_all_attributes_at_once(R):
    model = small(BiasedMFRegressor).fit(R)
    expected, predictor = model.predict(R), model._predictor()
    model.fit(R[:60])
    assert len(model.users_) == 60
    # A predictor that is in use keeps all of the old attributes.
    np.testing.assert_array_equal(predictor.predict_rows(R), expected)


def test_a_fit_without_column_names_removes_them():
    model = small(PMFRegressor).fit(frame("user", "item"), [1, 2, 3, 4])
    model.fit(frame("user", "item").to_numpy(), [1, 2, 3, 4])
    assert not hasattr(model, "feature_names_in_")


# States of trainers


class Recorder:
    """Captures the trainers of fits, without running them."""

    def __init__(self, monkeypatch):
        self.trainers = []
        monkeypatch.setattr(
            Fit, "run", lambda _, trainer: self.trainers.append(trainer)
        )

    def trainer(self, recommender, R):
        fit(clone(recommender), R)
        return self.trainers[-1]


def steps(trainer, epochs):
    return [trainer.step(epoch, lambda: None) for epoch in epochs]


@each(
    [
        *(m for m in RECOMMENDERS if not isinstance(m, BaselineRegressor)),
        small(AutoRecRegressor, dropout=0.2, input_dropout=0.2, batch_size=10),
        small(RBMRegressor, persistent=True, batch_size=16),
        small(RBMRegressor, baseline=False),
        small(AutoRecRegressor, hidden_layer_sizes=(4, 3, 4), pretraining=True),
        small(AutoRecRegressor, solver="rprop"),
        small(AutoRecRegressor, solver="lbfgs"),
        small(BayesianMFRegressor, implicit=True),
    ]
)
def test_a_trainer_resumes_exactly_from_a_saved_state(recommender, R, monkeypatch):
    recorder = Recorder(monkeypatch)
    whole = recorder.trainer(recommender, R)
    first = steps(whole, range(3))
    state = whole.state()
    rest = steps(whole, range(3, 6)) if whole.n_epochs >= 6 else steps(whole, [])
    resumed = recorder.trainer(recommender, R)
    resumed.load_state(state)
    assert steps(resumed, range(3, 6)) == rest if rest else True
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert len(first) == 3


# Warm starts


@pytest.mark.parametrize("cls", [BiasedMFRegressor, SVDppRegressor])
def test_a_warm_start_on_the_same_ratings_stops_at_once(cls):
    R = make_ratings(n_users=300, n_items=100, random_state=0).R
    model = cls(n_factors=3, random_state=0, warm_start=True).fit(R)
    assert model.n_iter_ > 5
    end = model.loss_curve_[-1]
    model.fit(R)
    assert model.n_iter_ <= 3
    assert model.loss_curve_[0] <= end * (1 + 1e-4)


@pytest.mark.parametrize("kind", ["item", "user"])
@pytest.mark.parametrize("cls", [AutoRecRegressor, RBMRegressor])
def test_a_warm_start_refuses_ids_of_another_type(cls, kind):
    y = [1.0, 2.0, 3.0, 4.0]
    model = small(cls, kind=kind, warm_start=True)
    model.fit([[1, 1], [1, 2], [2, 1], [2, 2]], y)
    visible = "user" if kind == "item" else "item"
    frame = pd.DataFrame({"user": [1, 1, 2, 2], "item": [1, 2, 1, 2]})
    frame[visible] = frame[visible].astype(str)
    with pytest.raises(TypeError, match=f"The {visible} ids"):
        model.fit(frame, y)


def test_ratings_are_counted_only_where_a_penalty_is_zero(R, monkeypatch):
    def bincount(*args, **kwargs):
        raise AssertionError("counted all ratings")

    fit_ = Fit(small(PMFRegressor), R, None)
    monkeypatch.setattr(alternation.np, "bincount", bincount)
    alternation.refuse_singular(fit_, 2)
    fit_.estimator.set_params(lambda_u=0)
    with pytest.raises(AssertionError, match="counted all ratings"):
        alternation.refuse_singular(fit_, 2)


@each(RECOMMENDERS)
def test_fit_is_short(recommender):
    source = inspect.getsource(inspect.unwrap(type(recommender).fit))
    body = source.rpartition('"""')[2].strip().splitlines()
    assert len(body) <= 10
