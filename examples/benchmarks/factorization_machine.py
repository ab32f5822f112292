"""A factorization machine of another library that knows the same features."""

import io
import warnings
from contextlib import redirect_stderr

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import BaseEstimator, RegressorMixin, clone

from skrec.features import FeatureEncoder


class FactorizationMachine(RegressorMixin, BaseEstimator):
    """Bayesian factorization machine of myfm (optional dependencies `bench`).

    Ids and encoded features have factors and weights, each kind with a prior of its
    own, which Gibbs sampling estimates. A prediction contains the product of the sum of
    factors of the user with that of the item, which is the model of LightFM.

    Parameters
    ----------
    rank : int, default=10
        Number of factors.

    n_iter : int, default=200
        Number of sweeps.

    random_state : int, default=0
        Seed.
    """

    def __init__(self, rank=10, n_iter=200, random_state=0):
        self.rank = rank
        self.n_iter = n_iter
        self.random_state = random_state

    def fit(self, X, y, *, user_features=None, item_features=None):
        """Fit the model to pairs of ids and ratings, and to frames of features."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations that are not ours
            from myfm import MyFMGibbsRegressor
        tables = user_features, item_features
        self.sides_ = [_Side(X[:, j], table) for j, table in enumerate(tables)]
        self.model_ = MyFMGibbsRegressor(self.rank, random_seed=self.random_state)
        sizes = [size for side in self.sides_ for size in side.sizes]
        with redirect_stderr(io.StringIO()):  # the progress bar
            self.model_.fit(
                None, y, self._blocks(X), n_iter=self.n_iter, group_shapes=sizes
            )
        self.range_ = y.min(), y.max()
        return self

    def predict(self, X):
        """Predict the ratings of pairs."""
        predicted = self.model_.predict(None, self._blocks(X), n_workers=1)
        return np.clip(predicted, *self.range_)

    def _blocks(self, X):
        return [side.block(X[:, j]) for j, side in enumerate(self.sides_)]


class _Side:
    """Ids and features of users or of items. The last row is that of unknown ids."""

    def __init__(self, ids, table):
        rated = np.unique(ids)
        self.ids = pd.Index(rated if table is None else np.union1d(rated, table.index))
        places = self.ids.get_indexer(rated), np.arange(len(rated))
        shape = len(self.ids) + 1, len(rated)
        columns = [sparse.csr_matrix((np.ones(len(rated)), places), shape)]
        if table is not None:
            places = self.ids.get_indexer(table.index)
            columns += [_spread(b, places, shape[0]) for b in _encoded_blocks(table)]
        self.sizes = [block.shape[1] for block in columns]
        self.rows = sparse.csr_matrix(sparse.hstack(columns))

    def block(self, ids):
        """Return the rows of these ids, as the library wants them."""
        from myfm import RelationBlock

        places = self.ids.get_indexer(ids)
        places[places < 0] = len(self.ids)
        return RelationBlock(places, self.rows)


def _encoded_blocks(table):
    """Encode each column as `skrec` does: centered, with a mean squared length of 1."""
    encoder = clone(FeatureEncoder()).set_params(random_state=0)
    values = encoder.fit_transform(table)
    values = values.toarray() if sparse.issparse(values) else np.asarray(values)
    values = values - values.mean(axis=0)
    for columns in encoder.output_indices_.values():
        block = values[:, columns]
        length = np.sqrt(np.square(block).sum(axis=1).mean())
        if length > 0:
            yield block / length


def _spread(block, places, n_rows):
    rows = np.zeros((n_rows, block.shape[1]))
    rows[places] = block
    return sparse.csr_matrix(rows)
