"""Collaborative topic regression: matrix factorization with topics of item texts."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.decomposition import LatentDirichletAllocation
from sklearn.feature_extraction.text import CountVectorizer

from .._core.device import as_tensor
from .._core.sparse import Pattern
from .._core.topics import improve_proportions, log_likelihood
from .._data.ids import positions_of
from .._factorization.alternation import DIVERGENCE_REMEDY
from .._factorization.priors import Prior
from .._sklearn_compat import Interval
from .base import TextFactorization
from .documents import check_bags, continued


class TopicPrior(Prior):
    """The prior of CTR: the proportions of topics in the texts.

    Parameters
    ----------
    lda : LatentDirichletAllocation
        The fitted topics.

    documents : csr_array of shape (n_texts, n_words)
        How often the texts have each word.

    items : ndarray of shape (n_texts,)
        The item that each text belongs to. The others have the mean of these.

    is_rated : ndarray of shape (n_items,), dtype bool
        Which items have ratings.

    has_biases : bool
        Whether vectors end with a bias. Its mean is that of the rated items.

    refine : bool
        Whether the proportions of rated items come nearer to the items' vectors.

    dtype : torch.dtype
        The precision.

    device : torch.device
        Where to compute.
    """

    def __init__(
        self, lda, documents, items, is_rated, *, has_biases, refine, dtype, device
    ):
        def tensor(array):
            return torch.tensor(array, dtype=dtype, device=device)

        self.lda, self.has_biases, self.refine = lda, has_biases, refine
        words = lda.components_ / lda.components_.sum(axis=1, keepdims=True)
        self.topics = tensor(words.T)
        self.proportions = tensor(lda.transform(documents))
        crow, col = map(torch.tensor, (documents.indptr, documents.indices))
        pattern = Pattern(crow, col, documents.shape).to(device)
        self.words = pattern, tensor(documents.data)
        self.items = torch.tensor(items, device=device)
        self.is_rated = torch.tensor(is_rated, device=device)
        self.unrefined = self._log_likelihood()
        size = len(is_rated), lda.n_components + has_biases
        self._means = self.proportions.new_zeros(size)
        self._spread()

    def parameters(self):
        return [self.proportions, self._means]

    def means(self):
        return self._means

    def fit(self, vectors, penalties):
        if self.refine:
            factors = vectors[self.items, : self.lda.n_components]
            improved = improve_proportions(
                *self.words,
                self.proportions,
                self.topics,
                factors,
                penalties[self.items],
            )
            chosen = self.is_rated[self.items]
            self.proportions[chosen] = improved[chosen]
            self._spread()
        if self.has_biases:
            self._means[:, -1] = vectors[self.is_rated, -1].mean()

    def penalty(self):
        return self.unrefined - self._log_likelihood() if self.refine else 0.0

    def attributes(self):
        return {"lda_": self.lda}

    def set_proportions(self, texts, proportions) -> None:
        """Start from proportions of some texts that were refined before."""
        self.proportions[texts] = as_tensor(proportions).to(self.proportions)
        self._spread()

    def _log_likelihood(self) -> float:
        values = log_likelihood(*self.words, self.proportions, self.topics)
        return float(values.double().sum())

    def _spread(self):
        """Set the means of all items."""
        factors = self._means[:, : self.lda.n_components]
        factors[:] = self.proportions.mean(0)
        factors[self.items] = self.proportions


class CTRRegressor(TextFactorization):
    r"""Collaborative topic regression (CTR): factorization with topics of item texts.

    The factors of an item are drawn to the proportions of topics in its text, the more
    so the fewer ratings it has. Items without any rating are predicted from their text
    alone.

    Parameters
    ----------
    n_factors : int, default=10
        The number of factors k, and of topics.

    lambda_u : float, default=20.0
        The penalty on the squared length of a user's vector, on the scale of half the
        sum of squared errors.

    lambda_v : float, default=5.0
        The penalty on the squared distance of an item's vector from the proportions of
        topics in its text, or in all texts on average where it has none.

    fit_intercept : bool, default=True
        Whether to subtract the global mean from the ratings.

    fit_biases : bool, default=False
        Whether users and items have biases. That of an item is drawn to the mean bias.
        False is the model of [1]_.

    refine : bool, default=True
        Whether the proportions of topics of an item with ratings are adapted to its
        factors, as far as its words let them. False leaves them as the topic model
        finds them.

    lda_max_iter : int, default=10
        Iterations of the topic model.

    vectorizer : transformer or None, default=None
        Turns texts into a sparse matrix of the counts of words, of shape (n_texts,
        n_words). None means a
        :class:`~sklearn.feature_extraction.text.CountVectorizer` of the 8000 most
        frequent words, without English stop words and words in more than half of the
        texts.

    memory : str or object with the joblib.Memory interface, default=None
        Cache of what the vectorizer makes of the texts: a folder or a memory object. A
        search over other parameters then computes it once.

    max_iter : int, default=200
        The largest number of iterations, in each of which all users and then all items
        are solved for.

    tol : float, default=1e-4
        Minimum relative decrease of the objective, or minimum increase of the
        validation score, that counts as an improvement.

    early_stopping : bool, default=False
        Whether to hold out ratings, to stop when their score has not improved for
        `n_iter_no_change` iterations, and to keep the best parameters.

    validation_fraction : float, default=0.1
        Fraction of the ratings that is held out with `early_stopping`.

    n_iter_no_change : int, default=2
        Number of iterations without improvement after which to stop.

    warm_start : bool, default=False
        Start from the factors and proportions of the last fit, if there was one, and
        keep its topics: `vectorizer_` and `lda_` stay as they are. Users and items are
        matched by id; new ones start at random.

    clip : bool, default=True
        Whether to keep predictions inside the range of the training ratings.

    device : str or torch.device, default="auto"
        "cpu", "cuda", "cuda:0", ...; "auto" takes a GPU where there is one. A fitted
        model falls back to the CPU where the device is missing. Topics are found on
        the CPU.

    dtype : {"float32", "float64"}, default="float32"
        Precision of the parameters.

    random_state : int, RandomState instance or None, default=None
        Determines topics, initial factors and held-out ratings. An int gives the same
        model in each call, bit for bit with the same number of threads.

    verbose : bool or int, default=False
        Whether to print the objective after each iteration. For progress bars set a
        callback: ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    user_factors_, item_factors_ : ndarray of shape (n_users or n_items, n_factors)
        The factors.

    user_biases_, item_biases_ : ndarray of shape (n_users,) and (n_items,)
        The biases; zeros without `fit_biases`.

    text_factors_ : ndarray of shape (n_items, n_factors) or None
        The proportions of topics in each item's text; their mean for an item without
        text, None without any texts.

    text_biases_ : ndarray of shape (n_items,) or None
        The mean bias, for each item.

    user_text_biases_ : ndarray of shape (n_users,)
        What is added to the predictions of items that are known by their text alone.

    lda_ : LatentDirichletAllocation or None
        The fitted topic model; None without any texts.

    vectorizer_ : transformer
        The fitted vectorizer.

    intercept_ : float
        The global mean, or 0 without `fit_intercept`.

    loss_curve_ : list of float
        Objective after each iteration.

    validation_scores_ : list of float
        R² of the held-out ratings after each iteration; empty without
        `early_stopping`.

    users_, items_, user_means_, item_means_, global_mean_, rating_range_ : see guide
        Common to all recommenders, see :ref:`shared-attributes`.

    n_iter_, n_features_in_, feature_names_in_, device_ : see guide
        Common to all recommenders, see :ref:`shared-attributes`.

    See Also
    --------
    PMFRegressor : The same without texts.
    CDLRegressor : The same with an autoencoder of the texts.
    ConvMFRegressor : The same with a convolutional network over the texts.

    Notes
    -----
    With the weight w of each rating, the topic proportions theta of each item, its
    :math:`n_{it}` words t and the probabilities beta of words in topics, the objective
    is

    .. math:: \frac{1}{2} \sum_{(u, i)} w_{ui} (r_{ui} - \mu - u_u^T v_i)^2
              + \frac{\lambda_U}{2} \sum_u \|u_u\|^2
              + \frac{\lambda_V}{2} \sum_i \|v_i - \theta_i\|^2
              - \sum_{i, t} n_{it} \log \theta_i^T \beta_t

    where biases, if there are any, are entries of the vectors whose counterpart is 1.
    beta, and theta to begin with, are those of
    :class:`~sklearn.decomposition.LatentDirichletAllocation`. An iteration solves for
    all users, then for all items, and with `refine` takes a step of expectation
    maximisation towards the best theta on the simplex, for items with ratings. None of
    the three raises the objective if all rated items have texts; those without are
    drawn to the mean of the others' topics. The last sum is counted from where it
    begins, so that it is 0 without `refine`.

    The scale of theta is fixed, so that here, unlike in `PMFRegressor`, `lambda_u` and
    `lambda_v` matter each for itself: the larger `lambda_v`, the more texts count. The
    ratings of [1]_ say who has which article in a library, 1 or 0 with a small weight;
    here they are those that are given.

    An item that is known by its text alone is predicted higher by the mean, over the
    items that the user has rated, of what the model predicts beyond their texts
    (`user_text_biases_`, drawn to zero as by 5 ratings more).

    A row of a matrix in `predict` is a user who is known by that row alone, with the
    solution of that user's ridge regression. `score` of a matrix without y predicts
    each rating from the others in its row, exactly.

    References
    ----------
    .. [1] Chong Wang and David M. Blei. 2011. "Collaborative Topic Modeling for
       Recommending Scientific Articles". KDD '11.
       https://doi.org/10.1145/2020408.2020480
    .. [2] David M. Blei, Andrew Y. Ng and Michael I. Jordan. 2003. "Latent Dirichlet
       Allocation". Journal of Machine Learning Research 3.

    Examples
    --------
    >>> from skrec import CTRRegressor
    >>> from skrec.datasets import make_ratings
    >>> data = make_ratings(n_users=300, n_items=100, random_state=0)
    >>> model = CTRRegressor(n_factors=5, random_state=0)
    >>> model.fit(data.R[:250], item_texts=data.item_texts).predict(data.R[250:]).shape
    (50, 100)
    >>> model.text_factors_.sum(axis=1).round(3)[:3].tolist()
    [1.0, 1.0, 1.0]

    Items may come later, by their texts alone:

    >>> model.extend_items({100: data.item_texts[0]}).items_[-1]
    np.int64(100)
    """

    _divergence_remedy = DIVERGENCE_REMEDY
    _learned_without_texts: ClassVar[dict[str, Any]] = {"lda_": None}

    lda_: Any

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TextFactorization._parameter_constraints,
        "refine": ["boolean"],
        "lda_max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        n_factors=10,
        lambda_u=20.0,
        lambda_v=5.0,
        fit_intercept=True,
        fit_biases=False,
        refine=True,
        lda_max_iter=10,
        vectorizer=None,
        memory=None,
        max_iter=200,
        tol=1e-4,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=2,
        warm_start=False,
        clip=True,
        device="auto",
        dtype="float32",
        random_state=None,
        verbose=False,
    ):
        self.n_factors = n_factors
        self.lambda_u = lambda_u
        self.lambda_v = lambda_v
        self.fit_intercept = fit_intercept
        self.fit_biases = fit_biases
        self.refine = refine
        self.lda_max_iter = lda_max_iter
        self.vectorizer = vectorizer
        self.memory = memory
        self.max_iter = max_iter
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.clip = clip
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    def _default_vectorizer(self):
        return CountVectorizer(max_features=8000, max_df=0.5, stop_words="english")

    def _check_documents(self, vectorizer, documents):
        return check_bags(vectorizer, documents)

    def _make_prior(self, fit, documents):
        previous, ratings, items = continued(fit), fit.training, documents.items
        lda = self._find_topics(fit, documents) if previous is None else previous.lda_
        is_rated = np.bincount(ratings.indices, minlength=len(ratings.items)) > 0
        prior = TopicPrior(
            lda,
            documents.values,
            items,
            is_rated,
            has_biases=self.fit_biases,
            refine=self.refine,
            dtype=fit.dtype,
            device=fit.device,
        )
        if previous is not None and self.refine:
            old = positions_of(ratings.items[items], previous.items_, "item")
            known = is_rated[items] & (old >= 0) & previous._has_text[old]
            proportions = previous.text_factors_[old[known]]
            prior.set_proportions(np.flatnonzero(known), proportions)
        return prior

    def _find_topics(self, fit, documents) -> LatentDirichletAllocation:
        lda = LatentDirichletAllocation(
            self.n_factors, max_iter=self.lda_max_iter, random_state=fit.draw_seed()
        )
        # Arrays, whatever the configuration says of transformers.
        return lda.set_output(transform="default").fit(documents.values)

    def _read(self, documents):
        factors = self.lda_.transform(documents).astype(self.item_factors_.dtype)
        if not self._has_biases:
            return factors
        return np.column_stack([factors, np.full(len(factors), self.text_biases_[0])])
