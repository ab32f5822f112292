"""Collaborative topic regression: matrix factorization with topics of item texts."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer

from .._core.device import as_tensor
from .._core.topics import improve_proportions, log_likelihood
from .._data.ids import positions_of
from .._factorization.alternation import DIVERGENCE_REMEDY
from .._factorization.priors import Prior
from .._sklearn_compat import Interval
from .base import TextFactorization
from .documents import check_bags, continued
from .topic_model import fit_lda, to_tensors, transform


class TopicPrior(Prior):
    """Prior of CTR: the topic proportions of the texts.

    Parameters
    ----------
    lda : LatentDirichletAllocation
        Fitted topic model.

    documents : csr_array of shape (n_texts, n_words)
        Counts of each word in the texts.

    items : ndarray of shape (n_texts,)
        Position of the item of each text. Items without text get the mean proportions.

    is_rated : ndarray of shape (n_items,), dtype bool
        Mask of the items that have ratings.

    has_biases : bool
        Whether the last entry of the vectors is a bias. Its prior mean is the mean bias
        of the rated items.

    refine : bool
        Whether to adapt the proportions of rated items to the items' vectors.

    dtype : torch.dtype
        Precision of the tensors.

    device : torch.device
        Device to compute on.
    """

    def __init__(
        self, lda, documents, items, is_rated, *, has_biases, refine, dtype, device
    ):
        def tensor(array):
            return torch.tensor(array, dtype=dtype, device=device)

        self.lda, self.has_biases, self.refine = lda, has_biases, refine
        words = lda.components_ / lda.components_.sum(axis=1, keepdims=True)
        self.topics = tensor(words.T)
        self.proportions = transform(lda, documents).to(self.topics)
        pattern, counts = to_tensors(documents, dtype)
        self.words = pattern.to(device), counts.to(device)
        self.items = torch.tensor(items, device=device)
        self.rated = torch.tensor(np.flatnonzero(is_rated), device=device)
        # Whether the item of each text is rated
        self.has_ratings = torch.tensor(is_rated[items], device=device).unsqueeze(1)
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
            kept = torch.where(self.has_ratings, improved, self.proportions)
            self.proportions.copy_(kept)
            self._spread()
        if self.has_biases:
            self._means[:, -1] = vectors[self.rated, -1].mean()

    def penalty(self):
        return self.unrefined - self._log_likelihood() if self.refine else 0.0

    def attributes(self):
        return {"lda_": self.lda}

    def set_proportions(self, texts, proportions) -> None:
        """Set the proportions of some texts to values refined in a previous fit."""
        self.proportions[texts] = as_tensor(proportions).to(self.proportions)
        self._spread()

    def _log_likelihood(self) -> torch.Tensor:
        values = log_likelihood(*self.words, self.proportions, self.topics)
        return values.double().sum()

    def _spread(self):
        """Set the prior means of all items."""
        factors = self._means[:, : self.lda.n_components]
        factors[:] = self.proportions.mean(0)
        factors[self.items] = self.proportions


class CTRRegressor(TextFactorization):
    r"""Collaborative topic regression (CTR): factorization with topics of item texts.

    The factors of an item are shrunk toward the topic proportions of its text. The
    fewer ratings an item has, the stronger the shrinkage. Cold-start items are
    predicted from their text alone.

    Parameters
    ----------
    n_factors : int, default=10
        Number of latent factors k, which is also the number of topics.

    lambda_u : float, default=20.0
        Penalty on the squared norm of a user's vector, on the scale of half the sum of
        squared errors of the standardized ratings (see Notes).

    lambda_v : float, default=5.0
        Penalty on the squared distance of an item's vector from the topic proportions
        of its text, or from the mean proportions for items without text, on the same
        scale.

    fit_intercept : bool, default=True
        Whether to subtract the global mean from the ratings. Ignored with
        `normalize_y`, which subtracts it.

    normalize_y : bool, default=True
        Whether to standardize the ratings inside the fit. Predictions are then the same
        whatever the unit of the ratings. False uses the ratings as they are, as the
        papers do.

    fit_biases : bool, default=False
        Whether to fit biases of users and items. Item biases are shrunk toward their
        mean. If False, all biases are 0, as in [1]_.

    refine : bool, default=True
        Whether to adapt the topic proportions of rated items to their factors, within
        the limits set by their words. If False, the proportions of the topic model are
        kept.

    lda_max_iter : int, default=10
        Number of iterations of the topic model.

    vectorizer : transformer or None, default=None
        Transformer from texts to a sparse matrix of word counts, of shape (n_texts,
        n_words). None means a
        :class:`~sklearn.feature_extraction.text.CountVectorizer` of the 8000 most
        frequent words, without English stop words and words in more than half of the
        texts.

    memory : str or object with the joblib.Memory interface, default=None
        Cache for the output of the vectorizer: a folder or a memory object. A search
        over other parameters then vectorizes the texts only once.

    max_iter : int, default=200
        Maximum number of iterations. Each iteration solves for all users, then for all
        items.

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
        Whether to start from the factors and topic proportions of the previous fit, if
        there is one. Its topics are kept: `vectorizer_` and `lda_` do not change. Users
        and items are matched by id. New ones are initialized at random.

    clip : bool, default=True
        Whether to keep predictions inside the range of the training ratings.

    device : str or torch.device, default="auto"
        Device to compute on: "cpu", "cuda", "cuda:0", ...; "auto" uses a GPU if
        there is one. A fitted model falls back to the CPU if the device is missing.
        The topic model is always fitted on the CPU.

    dtype : {"float32", "float64"}, default="float32"
        Precision of the parameters.

    random_state : int, RandomState instance or None, default=None
        Source of all random numbers, such as initial parameters, batches, samples and
        held-out ratings. An int gives reproducible fits, bit for bit with the same
        number of threads.

    verbose : bool or int, default=False
        True or 1: print about ten lines with the iteration, the objective, the
        validation RMSE (with `early_stopping`) and the seconds. 2: print a line for
        each iteration. With both, predictions, recommendations and searches for
        neighbors that take longer than 5 seconds print their progress. For progress
        bars set a callback:
        ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    user_factors_ : ndarray of shape (n_users, n_factors)
        Factors of the users: what `transform` returns for the users in `fit`.

    item_factors_ : ndarray of shape (n_items, n_factors)
        Factors of the items.

    user_biases_ : ndarray of shape (n_users,)
        Biases of the users.

    item_biases_ : ndarray of shape (n_items,)
        Biases of the items.

    text_factors_ : ndarray of shape (n_items, n_factors) or None
        Prior means of the item factors given the item texts; the mean over all texts
        for items without text. None without any texts.

    text_biases_ : ndarray of shape (n_items,) or None
        Prior means of the item biases given the item texts. None without any texts.

    user_text_biases_ : ndarray of shape (n_users,)
        Corrections added to the predictions of items that have a text but no ratings.

    lda_ : LatentDirichletAllocation or None
        Fitted topic model, without `bound_`. None without any texts.

    vectorizer_ : transformer
        Fitted vectorizer.

    intercept_ : float
        Global mean; 0 with `normalize_y` or without `fit_intercept`.

    loss_curve_ : list of float
        Objective after each iteration.

    validation_scores_ : list of float
        R² of the held-out ratings after each iteration; empty without
        `early_stopping`.

    users_, items_, user_means_, item_means_, global_mean_, rating_range_
        Common to all recommenders, see :ref:`shared-attributes`.

    rating_std_, n_iter_, n_features_in_, feature_names_in_, device_
        Common to all recommenders, see :ref:`shared-attributes`.

    See Also
    --------
    PMFRegressor : Matrix factorization without texts.
    CDLRegressor : Factorization with an autoencoder of the texts.
    ConvMFRegressor : Factorization with a convolutional network over the texts.

    Notes
    -----
    With the weight w of each rating, the topic proportions theta of each item, its
    :math:`n_{it}` words t and the probabilities beta of words in topics, the objective
    is

    .. math:: \frac{1}{2} \sum_{(u, i)} w_{ui} (r_{ui} - \mu - u_u^T v_i)^2
              + \frac{\lambda_U}{2} \sum_u \|u_u\|^2
              + \frac{\lambda_V}{2} \sum_i \|v_i - \theta_i\|^2
              - \sum_{i, t} n_{it} \log \theta_i^T \beta_t

    where biases, if fitted, are entries of the vectors whose counterpart is 1, and the
    prior mean of the item biases is the mean bias. The topic proportions theta are
    `text_factors_`. beta and the initial theta are those of latent Dirichlet allocation
    [2]_ by variational Bayes. Each iteration solves for all users, then for all items.
    With `refine`, it then takes an expectation maximization step toward the best theta
    on the simplex, for items with ratings. None of the three steps increases the
    objective if all rated items have texts; items without text are shrunk toward the
    mean topic proportions of the others. The last sum is reported relative to its
    initial value, so that it is 0 without `refine`.

    With `normalize_y`, the ratings r are standardized, mu is 0, and the parameters are
    on this scale: the predicted rating is ``global_mean_ + rating_std_ * z``, where z
    is the sum of `intercept_`, the biases and the product of the factors. Without
    biases and with ``refine=False``, penalties for ratings as they are, such as a
    paper's, have the same effect if `lambda_v` is divided by the variance of the
    ratings. With ratings and user factors multiplied by s, and this penalty by the
    square of s, the objective is multiplied by the square of s, up to the last sum.

    The scale of theta is fixed. Unlike in `PMFRegressor`, `lambda_u` and `lambda_v`
    therefore have separate effects: the larger `lambda_v`, the more influence the texts
    have. The ratings in [1]_ indicate which user has which article in a library, 1 or 0
    with a small weight; here they are the given ratings.

    Predictions of cold-start items, which have a text but no ratings, are increased by
    `user_text_biases_`: the mean difference, over the items that the user has rated,
    between the model's predictions and those from the texts alone. It is shrunk toward
    0 (equivalent to 5 extra ratings at 0), and multiplied by the probability that an
    item without ratings is new, not one that nobody chooses. The latter is estimated
    from the numbers of items with few ratings.

    In `predict`, each row of a matrix is a new user described by that row alone, whose
    vector is the solution of the user's ridge regression. `score` of a matrix without y
    predicts each rating from the other ratings in its row, exactly.

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
    >>> model = model.fit(data.R[:250], item_texts=data.item_texts)
    >>> round(model.score(data.R[250:]), 1)
    0.3
    >>> model.text_factors_.sum(axis=1).round(3)[:3].tolist()
    [1.0, 1.0, 1.0]

    Cold-start items can be added later, given only their texts:

    >>> model.extend_items({100: data.item_texts[0]}).predict([[0, 100]]).round(1)
    array([3.9])
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
        n_factors: int = 10,
        lambda_u: float = 20.0,
        lambda_v: float = 5.0,
        fit_intercept: bool = True,
        normalize_y: bool = True,
        fit_biases: bool = False,
        refine: bool = True,
        lda_max_iter: int = 10,
        vectorizer: Any = None,
        memory: Any = None,
        max_iter: int = 200,
        tol: float = 1e-4,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 2,
        warm_start: bool = False,
        clip: bool = True,
        device: str | torch.device = "auto",
        dtype: Literal["float32", "float64"] = "float32",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_factors = n_factors
        self.lambda_u = lambda_u
        self.lambda_v = lambda_v
        self.fit_intercept = fit_intercept
        self.normalize_y = normalize_y
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
        if previous is None:
            size = self.n_factors, self.lda_max_iter
            options = *size, fit.draw_seed(), fit.dtype
            lda = fit.group.once(lambda: fit_lda(documents.values, *options))
        else:
            lda = previous.lda_
        counts = np.bincount(ratings.indices, minlength=len(ratings.items))
        is_rated = fit.group.total(counts) > 0
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
            known = is_rated[items] & (old >= 0) & previous._is_described[old]
            proportions = previous.text_factors_[old[known]]
            prior.set_proportions(np.flatnonzero(known), proportions)
        return prior

    def _read(self, documents):
        factors = self.lda_.transform(documents).astype(self.item_factors_.dtype)
        if not self._has_biases:
            return factors
        return np.column_stack([factors, np.full(len(factors), self.text_biases_[0])])
