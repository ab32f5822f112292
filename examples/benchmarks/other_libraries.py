"""Estimators of other libraries behind one interface.

They are installed with the optional dependencies `bench`. A library is imported when
one of its estimators is made, which raises ImportError if it is not installed.
"""

import functools
import io
import warnings
from contextlib import redirect_stderr
from importlib.metadata import version

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, csr_matrix, hstack


class Peer:
    """Base class: replaces ids by numbers, with -1 for those not in training.

    A fit has two parts, so that they can be timed apart: `convert` makes what the
    library calls its data set, `train` fits the model.

    Parameters
    ----------
    seed : int
        Random state.

    threads : int
        Number of threads, for libraries that do not follow the limits of threadpoolctl.

    iterations : int, optional
        Number of iterations. By default that of the library.

    **parameters
        Parameters of the library, instead of its defaults.
    """

    package: str
    # Name of the parameter with the number of iterations, if there is one.
    iterations: str | None = None
    # Parameters that differ from the defaults of the library.
    fixed: dict = {}  # noqa: RUF012
    # Whether the result depends on the seed.
    random = True
    # Whether a fit can use several threads.
    threaded = True

    def __init__(self, seed, threads, iterations=None, **parameters):
        self.seed = seed
        self.threads = threads
        self.parameters = {**self.fixed, **parameters}
        if iterations is not None:
            self.parameters[self.iterations] = iterations
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations that are not ours
            self.load()

    @classmethod
    def version(cls):
        """Return name and version of the library, or None if it is not installed."""
        try:
            return f"{cls.package} {version(cls.package)}"
        except ImportError:
            return None

    def fit(self, X, y):
        return self.train(self.convert(X, y))

    def convert(self, X, y):
        self.ids = [pd.Index(np.unique(X[:, side])) for side in (0, 1)]
        return self.to_data(*self.numbers(X), y)

    def train(self, data):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.train_on(data)
        return self

    def predict(self, X):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(self.rate(*self.numbers(X)), dtype=np.float64)

    def numbers(self, X):
        return [ids.get_indexer(X[:, side]) for side, ids in enumerate(self.ids)]

    def to_data(self, users, items, y):
        return users, items, y


class SurprisePeer(Peer):
    package = "scikit-surprise"
    algorithm: str
    iterations = "n_epochs"
    threaded = False

    def load(self):
        import surprise

        self.surprise = surprise
        seed = {"random_state": self.seed} if self.random else {"verbose": False}
        self.model = getattr(surprise, self.algorithm)(**seed, **self.parameters)

    def to_data(self, users, items, y):
        ratings = pd.DataFrame({"user": users, "item": items, "rating": y})
        reader = self.surprise.Reader(rating_scale=(y.min(), y.max()))
        return self.surprise.Dataset.load_from_df(ratings, reader).build_full_trainset()

    def train_on(self, data):
        self.model.fit(data)

    def rate(self, users, items):
        pairs = zip(users.tolist(), items.tolist(), strict=True)
        return [self.model.predict(*pair).est for pair in pairs]


class SurpriseSVD(SurprisePeer):
    algorithm = "SVD"


class SurpriseSVDpp(SurprisePeer):
    algorithm = "SVDpp"


class SurpriseKNNBaseline(SurprisePeer):
    algorithm = "KNNBaseline"
    iterations = None
    random = False


class SurpriseItemKNN(SurpriseKNNBaseline):
    fixed = {"sim_options": {"name": "pearson_baseline", "user_based": False}}  # noqa: RUF012


class SurpriseBaselineOnly(SurprisePeer):
    algorithm = "BaselineOnly"
    iterations = None
    random = False


class CornacMF(Peer):
    """It has one thread if it has a seed."""

    package = "cornac"
    iterations = "max_iter"

    def load(self):
        from cornac.data import Dataset
        from cornac.models import MF

        self.dataset = Dataset
        seed = {"seed": self.seed} if self.threads == 1 else {}
        self.model = MF(**seed, num_threads=self.threads, **self.parameters)

    def to_data(self, users, items, y):
        # The numbers of the library are those of the first occurrences.
        numbered = zip(users.tolist(), items.tolist(), y.tolist(), strict=True)
        return self.dataset.from_uir(list(numbered))

    def train_on(self, data):
        self.data = data
        self.model.fit(data)

    def rate(self, users, items):
        n_users, n_items = len(self.data.uid_map), len(self.data.iid_map)
        users = [self.data.uid_map.get(user, n_users) for user in users.tolist()]
        items = [self.data.iid_map.get(item, n_items) for item in items.tolist()]
        return [self.model.rate(*pair) for pair in zip(users, items, strict=True)]


class LenskitBiasedMF(Peer):
    package = "lenskit"
    iterations = "epochs"

    def load(self):
        from lenskit import batch
        from lenskit.als import BiasedMFScorer
        from lenskit.data import from_interactions_df
        from lenskit.pipeline import predict_pipeline
        from lenskit.training import TrainingOptions

        _start_lenskit(self.threads)
        self.to_dataset, self.batch = from_interactions_df, batch
        self.options = TrainingOptions(rng=self.seed)
        # Pairs that it cannot rate are rated by the effects.
        self.model = predict_pipeline(BiasedMFScorer(**self.parameters))

    def to_data(self, users, items, y):
        ratings = pd.DataFrame({"user_id": users, "item_id": items, "rating": y})
        return self.to_dataset(ratings)

    def train_on(self, data):
        self.model.train(data, self.options)

    def rate(self, users, items):
        pairs = pd.DataFrame({"user_id": users, "item_id": items})
        # The unknown have one number, but a pair must not occur twice.
        predicted = self.batch.predict(self.model, pairs.drop_duplicates(), n_jobs=1)
        return pairs.merge(predicted.to_df(), how="left")["score"]


class MyFM(Peer):
    """Bayesian factorization machine on the ids, with 10 factors."""

    package = "myfm"
    iterations = "n_iter"
    fixed = {"rank": 10}  # noqa: RUF012
    threaded = False

    def load(self):
        from myfm import MyFMGibbsRegressor, RelationBlock

        parameters = dict(self.parameters)
        n_iter = parameters.pop("n_iter", None)
        self.options = {} if n_iter is None else {"n_iter": n_iter}
        self.model = MyFMGibbsRegressor(**parameters, random_seed=self.seed)
        self.block = RelationBlock

    def to_data(self, users, items, y):
        return self.features(users, items), y, [len(ids) for ids in self.ids]

    def train_on(self, data):
        X, y, shapes = data
        with redirect_stderr(io.StringIO()):  # the progress bar
            self.model.fit(X, y, group_shapes=shapes, **self.options)

    def rate(self, users, items):
        return self.model.predict(self.features(users, items), n_workers=self.threads)

    def features(self, *numbers):
        """Return one column per user and item; rows of the unknown are zero."""
        return csr_matrix(hstack([*self.indicators(numbers)]))

    def indicators(self, numbers):
        for ids, places in zip(self.ids, numbers, strict=True):
            rows = np.flatnonzero(places >= 0)
            block = (np.ones(len(rows)), (rows, places[rows]))
            yield csr_array(block, shape=(len(places), len(ids)))


class MyFMImplicit(MyFM):
    """The same with who has rated what, on both sides.

    The features of a user are also the items that the user has rated, divided by the
    square root of their number, and those of an item are also its users.
    """

    def to_data(self, users, items, y):
        shape = [len(ids) for ids in self.ids]
        rated = csr_array((np.ones(len(y)), (users, items)), shape=shape)
        self.sides = []
        for matrix in (rated, rated.T.tocsr()):
            n = len(matrix.indptr) - 1
            lengths = np.diff(matrix.indptr)
            scale = np.repeat(1 / np.sqrt(lengths.clip(1)), lengths)
            scaled = csr_array((scale, matrix.indices, matrix.indptr), matrix.shape)
            # The last row is that of the unknown.
            rows = hstack([csr_array(np.eye(n + 1, n)), _with_empty_row(scaled)])
            self.sides.append(csr_matrix(rows))
        shapes = [shape[0], shape[1], shape[1], shape[0]]
        return self.blocks(users, items), y, shapes

    def train_on(self, data):
        blocks, y, shapes = data
        with redirect_stderr(io.StringIO()):
            self.model.fit(None, y, blocks, group_shapes=shapes, **self.options)

    def rate(self, users, items):
        blocks = self.blocks(users, items)
        return self.model.predict(None, blocks, n_workers=self.threads)

    def blocks(self, *numbers):
        found = []
        for places, side in zip(numbers, self.sides, strict=True):
            rows = np.where(places < 0, side.shape[0] - 1, places)
            found.append(self.block(rows, side))
        return found


def _with_empty_row(matrix):
    n_rows, n_columns = matrix.shape
    indptr = np.append(matrix.indptr, matrix.indptr[-1])
    shape = (n_rows + 1, n_columns)
    return csr_array((matrix.data, matrix.indices, indptr), shape=shape)


class CmfrecCMF(Peer):
    package = "cmfrec"
    iterations = "niter"

    def load(self):
        from cmfrec import CMF

        common = {"random_state": self.seed, "nthreads": self.threads}
        self.model = CMF(**common, **self.parameters)

    def to_data(self, users, items, y):
        return pd.DataFrame({"UserId": users, "ItemId": items, "Rating": y})

    def train_on(self, data):
        self.model.fit(data)

    def rate(self, users, items):
        return self.model.predict(users, items)


class CmfrecImplicit(CmfrecCMF):
    fixed = {"add_implicit_features": True}  # noqa: RUF012


@functools.cache
def _start_lenskit(threads):
    """Limit the threads, which the library allows once in a process."""
    from lenskit.parallel import initialize

    initialize(processes=1, threads=threads, backend_threads=threads)


# With the defaults of the libraries.
PEERS = {
    "Surprise BaselineOnly": SurpriseBaselineOnly,
    "Surprise KNNBaseline": SurpriseKNNBaseline,
    "Surprise SVD": SurpriseSVD,
    "Surprise SVD++": SurpriseSVDpp,
    "cornac MF": CornacMF,
    "lenskit BiasedMF": LenskitBiasedMF,
    "myfm": MyFM,
    "cmfrec CMF": CmfrecCMF,
}
