"""A sentence encoder as the transformer of item features."""

import pickle
from functools import cache

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.preprocessing import OneHotEncoder

from skrec import BiasedMFRegressor
from skrec.features import Features

pytest.importorskip("sentence_transformers", reason="needs the extra `sentences`")
weights = pytest.importorskip("all_minilm_l6_v2", reason="needs the extra `sentences`")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@cache
def load_model(folder):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(folder, device="cpu")


class SentenceEncoder(TransformerMixin, BaseEstimator):
    """Vectors of texts. It holds the folder of the model, so copies are small."""

    def __init__(self, folder, n_components=384):
        self.folder = folder
        self.n_components = n_components

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        texts = np.asarray(X, dtype=object).ravel().tolist()
        vectors = load_model(self.folder).encode(texts, show_progress_bar=False)
        return vectors[:, : self.n_components]

    def __sklearn_is_fitted__(self):
        return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(weights.extract_model(str(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def data():
    """Ratings of 20 stories of dogs and 20 of spaceships, by fans of either."""
    plots = [f"A puppy and his master walk home, part {j}." for j in range(20)]
    plots += [f"A rocket leaves for a distant galaxy, part {j}." for j in range(20)]
    movies = pd.DataFrame({"plot": plots, "year": ["old", "new"] * 20})
    rng = np.random.default_rng(0)
    users, items = np.divmod(rng.permutation(60 * 40)[:900], 40)
    likes = (users % 2 == 0) == (items < 20)
    y = 3 + np.where(likes, 1, -1) + 0.3 * rng.normal(size=len(users))
    return np.column_stack([users, items]), y, movies


def encoders(folder):
    sentences = SentenceEncoder(folder)
    return {
        "alone": (sentences, ["plot"]),
        "column": (
            make_column_transformer((sentences, ["plot"]), (OneHotEncoder(), ["year"])),
            ["plot", "year"],
        ),
    }


@pytest.mark.parametrize("name", ["alone", "column"])
def test_new_items_are_predicted_from_sentences(name, folder, data):
    X, y, movies = data
    encoder, columns = encoders(folder)[name]
    model = BiasedMFRegressor(n_factors=5, item_encoder=encoder, random_state=0)
    cold = X[:, 1] % 5 == 0
    fitted = clone(model).fit(X[~cold], y[~cold], item_features=movies[columns])
    assert fitted.score(X[cold], y[cold]) > 0.5
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    new = pd.DataFrame(
        {"plot": ["A dog runs after a ball.", "Aliens attack the star base."]},
        index=[100, 101],
    ).assign(year="new")
    again.extend_items(item_features=new[columns])
    fan_of_dogs = again.predict([[0, 100], [0, 101]])
    assert fan_of_dogs[0] > fan_of_dogs[1] + 0.5


def test_a_search_tunes_a_sentence_encoder(folder, data):
    X, y, movies = data
    search = GridSearchCV(
        BiasedMFRegressor(item_encoder=SentenceEncoder(folder), random_state=0),
        {"item_encoder__n_components": [2, 384]},
        cv=KFold(2, shuffle=True, random_state=0),
    )
    search.fit(X, y, item_features=Features(movies[["plot"]]))
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    width = len(search.best_estimator_.item_feature_names_)
    assert width == search.best_params_["item_encoder__n_components"]
