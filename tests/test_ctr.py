import numpy as np
import pytest
from helpers import standardized
from sklearn.decomposition import LatentDirichletAllocation
from sklearn.exceptions import ConvergenceWarning

from skrec import CTRRegressor
from skrec.datasets import make_ratings


@pytest.fixture(scope="module")
def data():
    return make_ratings(60, 40, density=0.3, text_words=40, random_state=0)


def fit_on(data, texts=None, **params):
    defaults = {"n_factors": 4, "lambda_u": 1.0, "lambda_v": 20.0, "tol": 1e-3}
    model = CTRRegressor(**(defaults | {"random_state": 0} | params))
    return model.fit(data.R, item_texts=texts or data.item_texts)


def test_text_factors_are_topic_proportions_without_refinement(data):
    model = fit_on(data, refine=False, dtype="float64")
    counts = model.vectorizer_.transform(data.item_texts)
    expected = model.lda_.transform(counts)
    np.testing.assert_allclose(model.text_factors_, expected, rtol=1e-7)
    assert not model.text_biases_.any()


def test_topics_explain_the_words_as_well_as_those_of_scikit_learn(data):
    model = fit_on(data)
    counts = model.vectorizer_.transform(data.item_texts)
    lda = LatentDirichletAllocation(4, random_state=0).fit(counts)
    assert model.lda_.perplexity(counts) < 1.01 * lda.perplexity(counts)
    assert vars(lda).keys() - vars(model.lda_).keys() == {"bound_"}
    mass = counts.sum() + counts.shape[1]
    assert model.lda_.components_.sum() == pytest.approx(mass, rel=1e-5)


@pytest.mark.parametrize("fit_biases", [True, False])
@pytest.mark.parametrize("refine", [True, False])
def test_the_objective_equals_the_notes_and_decreases(data, fit_biases, refine):
    model = fit_on(data, fit_biases=fit_biases, refine=refine, dtype="float64")
    U, V = model.user_factors_, model.item_factors_
    sums = U @ V.T + model.intercept_
    sums += model.user_biases_[:, None] + model.item_biases_
    errors = (standardized(model, data.R.toarray()) - sums)[data.R.toarray() != 0]
    users = (U**2).sum() + (model.user_biases_**2).sum()
    items = ((V - model.text_factors_) ** 2).sum()
    items += ((model.item_biases_ - model.text_biases_) ** 2).sum()
    expected = 0.5 * (errors @ errors + users + 20 * items)
    counts = model.vectorizer_.transform(data.item_texts).toarray()
    topics = model.lda_.components_ / model.lda_.components_.sum(axis=1)[:, None]
    unrefined = model.lda_.transform(counts)
    expected += (counts * np.log(unrefined @ topics)).sum()
    expected -= (counts * np.log(model.text_factors_ @ topics)).sum()
    assert model.loss_curve_[-1] == pytest.approx(expected, rel=1e-6)
    assert np.diff(model.loss_curve_).max() < 0


def test_refined_proportions_are_closer_to_item_factors(data):
    texts = [" ".join(text.split()[:8]) for text in data.item_texts[:-1]] + [None]
    plain, refined = (fit_on(data, texts, refine=refine) for refine in (False, True))
    distances = [
        np.square(model.item_factors_ - model.text_factors_)[:-1].mean()
        for model in (plain, refined)
    ]
    assert distances[1] < 0.9 * distances[0]
    np.testing.assert_allclose(refined.text_factors_.sum(axis=1), 1, rtol=1e-5)
    mean = refined.text_factors_[:-1].mean(axis=0)
    np.testing.assert_allclose(refined.text_factors_[-1], mean, rtol=1e-5)


def test_items_without_ratings_keep_the_proportions_of_the_topic_model(data):
    R = data.R.tolil()
    R[:, :3] = 0
    R = R.tocsr()
    R.eliminate_zeros()
    model = CTRRegressor(n_factors=4, refine=True, tol=1e-3, random_state=0)
    model.fit(R, item_texts=data.item_texts)
    found = model.lda_.transform(model.vectorizer_.transform(data.item_texts))
    np.testing.assert_allclose(model.text_factors_[:3], found[:3], rtol=1e-5)
    assert abs(model.text_factors_[3:] - found[3:]).max() > 1e-3


def test_warm_start_continues_from_refined_proportions(data):
    model = fit_on(data, warm_start=True)
    before, proportions = model.loss_curve_[-1], model.text_factors_
    model.set_params(max_iter=1, tol=1e9, n_iter_no_change=1)
    with pytest.warns(ConvergenceWarning):
        model.fit(data.R, item_texts=data.item_texts)
    assert model.loss_curve_[0] < before * 1.001
    np.testing.assert_allclose(model.text_factors_, proportions, atol=0.05)


def test_text_biases_are_the_mean_item_bias(data):
    model = fit_on(data, fit_biases=True)
    expected = np.full(40, model.item_biases_.mean())
    np.testing.assert_allclose(model.text_biases_, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("params", "match"), [({"refine": 2}, "refine"), ({"lda_max_iter": 0}, "lda_max")]
)
def test_bad_parameters_are_refused(data, params, match):
    with pytest.raises(ValueError, match=match):
        fit_on(data, **params)
