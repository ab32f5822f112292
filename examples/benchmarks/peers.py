"""Estimators of other libraries with their defaults, behind one interface.

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

    Parameters
    ----------
    seed : int
        Random state.

    threads : int
        Number of threads, for libraries that do not follow the limits of threadpoolctl.
    """

    package: str
    # Whether the result depends on the seed.
    random = True

    def __init__(self, seed, threads):
        self.seed = seed
        self.threads = threads
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
        self.ids = [pd.Index(np.unique(X[:, side])) for side in (0, 1)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.train(*self.numbers(X), y)
        return self

    def predict(self, X):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(self.rate(*self.numbers(X)), dtype=np.float64)

    def numbers(self, X):
        return [ids.get_indexer(X[:, side]) for side, ids in enumerate(self.ids)]


class SurprisePeer(Peer):
    package = "scikit-surprise"
    algorithm: str

    def load(self):
        import surprise

        self.surprise = surprise
        seed = {"random_state": self.seed} if self.random else {"verbose": False}
        self.model = getattr(surprise, self.algorithm)(**seed)

    def train(self, users, items, y):
        ratings = pd.DataFrame({"user": users, "item": items, "rating": y})
        reader = self.surprise.Reader(rating_scale=(y.min(), y.max()))
        data = self.surprise.Dataset.load_from_df(ratings, reader)
        self.model.fit(data.build_full_trainset())

    def rate(self, users, items):
        pairs = zip(users.tolist(), items.tolist(), strict=True)
        return [self.model.predict(*pair).est for pair in pairs]


class SurpriseSVD(SurprisePeer):
    algorithm = "SVD"


class SurpriseSVDpp(SurprisePeer):
    algorithm = "SVDpp"


class SurpriseKNNBaseline(SurprisePeer):
    algorithm = "KNNBaseline"
    random = False


class SurpriseBaselineOnly(SurprisePeer):
    algorithm = "BaselineOnly"
    random = False


class CornacMF(Peer):
    """It has one thread if it has a seed."""

    package = "cornac"

    def load(self):
        from cornac.data import Dataset
        from cornac.models import MF

        self.dataset = Dataset
        self.model = MF(seed=self.seed)

    def train(self, users, items, y):
        # The numbers of the library are those of the first occurrences.
        numbered = zip(users.tolist(), items.tolist(), y.tolist(), strict=True)
        self.data = self.dataset.from_uir(list(numbered))
        self.model.fit(self.data)

    def rate(self, users, items):
        n_users, n_items = len(self.data.uid_map), len(self.data.iid_map)
        users = [self.data.uid_map.get(user, n_users) for user in users.tolist()]
        items = [self.data.iid_map.get(item, n_items) for item in items.tolist()]
        return [self.model.rate(*pair) for pair in zip(users, items, strict=True)]


class LenskitBiasedMF(Peer):
    package = "lenskit"

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
        self.model = predict_pipeline(BiasedMFScorer())

    def train(self, users, items, y):
        ratings = pd.DataFrame({"user_id": users, "item_id": items, "rating": y})
        self.model.train(self.to_dataset(ratings), self.options)

    def rate(self, users, items):
        pairs = pd.DataFrame({"user_id": users, "item_id": items})
        # The unknown have one number, but a pair must not occur twice.
        predicted = self.batch.predict(self.model, pairs.drop_duplicates(), n_jobs=1)
        return pairs.merge(predicted.to_df(), how="left")["score"]


class MyFM(Peer):
    """Bayesian factorization machine on the ids, with 10 factors."""

    package = "myfm"

    def load(self):
        from myfm import MyFMGibbsRegressor

        self.model = MyFMGibbsRegressor(rank=10, random_seed=self.seed)

    def train(self, users, items, y):
        shapes = [len(ids) for ids in self.ids]
        with redirect_stderr(io.StringIO()):  # the progress bar
            self.model.fit(self.features(users, items), y, group_shapes=shapes)

    def rate(self, users, items):
        return self.model.predict(self.features(users, items), n_workers=self.threads)

    def features(self, *numbers):
        """Return one column per user and item; rows of the unknown are zero."""
        blocks = []
        for ids, places in zip(self.ids, numbers, strict=True):
            rows = np.flatnonzero(places >= 0)
            block = (np.ones(len(rows)), (rows, places[rows]))
            blocks.append(csr_array(block, shape=(len(places), len(ids))))
        return csr_matrix(hstack(blocks))


class CmfrecCMF(Peer):
    package = "cmfrec"

    def load(self):
        from cmfrec import CMF

        self.model = CMF(random_state=self.seed, nthreads=self.threads)

    def train(self, users, items, y):
        ratings = pd.DataFrame({"UserId": users, "ItemId": items, "Rating": y})
        self.model.fit(ratings)

    def rate(self, users, items):
        return self.model.predict(users, items)


@functools.cache
def _start_lenskit(threads):
    """Limit the threads, which the library allows once in a process."""
    from lenskit.parallel import initialize

    initialize(processes=1, threads=threads, backend_threads=threads)


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
