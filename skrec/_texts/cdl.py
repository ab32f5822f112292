"""Collaborative deep learning: factorization with an autoencoder of item texts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from .._core.batches import drop
from .._core.denoising import DenoisingAutoencoder, cut_bags
from .._core.device import as_tensor, inference_device, make_generator
from .._core.sparse import Pattern
from .._limits import is_count
from .._sklearn_compat import Interval
from .base import TextFactorization
from .documents import check_bags, continued
from .network_prior import INFERENCE_BATCH, NetworkPrior, compute_outputs


class BagPrior(NetworkPrior):
    """Prior of CDL: the codes of a denoising autoencoder.

    Parameters
    ----------
    network : DenoisingAutoencoder
        Denoising autoencoder.

    documents : csr_array of shape (n_texts, n_words)
        Bags of words.

    items, n_items, random_state, **training
        See `NetworkPrior`.

    input_dropout : float
        Probability that a word of a text is dropped.

    lambda_n : float
        Penalty on the squared error of the reconstruction.
    """

    def __init__(
        self,
        network,
        documents,
        items,
        n_items,
        random_state,
        *,
        input_dropout,
        lambda_n,
        **training,
    ):
        weight = network.decoder
        self.bags = _to_tensors(documents, weight.dtype, weight.device)
        self.lambda_n = lambda_n
        super().__init__(network, items, n_items, random_state, **training)
        self.corrupt = functools.partial(
            drop, rate=input_dropout, generator=self.dropout_generator
        )

    def _cut(self, order, batch_size):
        return cut_bags(*self.bags, order, batch_size)

    def _loss(self, batch, vectors, weights):
        codes = self.network(batch, self.corrupt)
        distances = torch.dot(weights, (codes - vectors).square().sum(1))
        error = self.network.squared_error(batch, codes)
        return 0.5 * (distances + self.lambda_n * error)

    @torch.no_grad()
    def penalty(self):
        error = sum(
            self.network.squared_error(batch, self.network(batch)).double()
            for batch in self.whole
        )
        return super().penalty() + self.lambda_n / 2 * error


class CDLRegressor(TextFactorization):
    r"""Collaborative deep learning (CDL): factorization with an autoencoder of texts.

    The factors of an item are shrunk toward the code that a stacked denoising
    autoencoder computes from the words in its text. The fewer ratings an item has, the
    stronger the shrinkage. Cold-start items are predicted from their text alone.

    Parameters
    ----------
    n_factors : int, default=15
        Number of latent factors k, which is also the number of hidden units in the
        middle layer, not counting the bias unit.

    lambda_u : float, default=40.0
        Penalty on the squared norm of a user's vector, on the scale of half the sum of
        squared errors of the standardized ratings (see Notes).

    lambda_v : float, default=5.0
        Penalty on the squared distance of an item's vector from the code of its text,
        or from the mean code for items without text, on the same scale.

    lambda_n : float, default=1.0
        Penalty on the squared error of the reconstructed texts, on the same scale.

    lambda_w : float, default=1.0
        Penalty on the squared weights of the network (weight decay), on the same scale.
        Large values restrict the network to features that many texts have in common.

    fit_intercept : bool, default=True
        Whether to subtract the global mean from the ratings. Ignored with
        `normalize_y`, which subtracts it.

    normalize_y : bool, default=True
        Whether to standardize the ratings inside the fit. Predictions are then the same
        whatever the unit of the ratings. False uses the ratings as they are, as the
        papers do.

    fit_biases : bool, default=True
        Whether to fit biases of users and items. Item biases are shrunk toward an
        additional output of the network. If False, all biases are 0, as in [1]_.

    hidden_layer_sizes : array-like of int, default=(200,)
        Number of hidden units in each layer between a text and its code; in reverse
        order, between the code and the reconstruction. If empty, the middle layer is
        the only hidden layer.

    input_dropout : float, default=0.3
        Probability that a word of a text is dropped in training, in [0, 1).

    network_epochs : int, default=1
        Number of training epochs of the network in each iteration.

    batch_size : int, default=512
        Number of texts in each training step of the network.

    learning_rate_init : float, default=0.001
        Step size of Adam in the training of the network.

    vectorizer : transformer or None, default=None
        Transformer from texts to a sparse matrix of shape (n_texts, n_words) without
        negative entries, preferably with rows of length 1. None means a
        :class:`~sklearn.feature_extraction.text.TfidfVectorizer` with
        ``use_idf=False``: the counts of the 8000 most frequent words, without English
        stop words and words in more than half of the texts, divided by the length of
        their row.

    memory : str or object with the joblib.Memory interface, default=None
        Cache for the output of the vectorizer: a folder or a memory object. A search
        over other parameters then vectorizes the texts only once.

    max_iter : int, default=15
        Maximum number of iterations. Each iteration solves for all users and all items
        and trains the network on the items.

    tol : float, default=1e-4
        Minimum relative decrease of the objective, or minimum increase of the
        validation score, that counts as an improvement.

    early_stopping : bool, default=False
        Whether to hold out ratings, to stop when their score has not improved for
        `n_iter_no_change` iterations, and to keep the best parameters.

    validation_fraction : float, default=0.1
        Fraction of the ratings that is held out with `early_stopping`.

    n_iter_no_change : int, default=10
        Number of iterations without improvement after which to stop.

    warm_start : bool, default=False
        Whether to start from the factors and the network of the previous fit, if there
        is one. Its vocabulary is kept: `vectorizer_` does not change. Users and items
        are matched by id. New ones are initialized at random.

    clip : bool, default=True
        Whether to keep predictions inside the range of the training ratings.

    device : str or torch.device, default="auto"
        Device to compute on: "cpu", "cuda", "cuda:0", ...; "auto" uses a GPU if
        there is one. A fitted model falls back to the CPU if the device is missing.

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

    text_weights_ : dict of str to ndarray
        Weights of the network.

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
    BiasedMFRegressor : Matrix factorization without texts.
    CTRRegressor : Factorization with topics of the texts.
    ConvMFRegressor : Factorization with a convolutional network over the texts.

    Notes
    -----
    With the weight w of each rating, the bag of words x of each item, and a corrupted
    copy of x as the input of the network, the objective is

    .. math:: \frac{1}{2} \sum_{(u, i)} w_{ui} (r_{ui} - \mu - u_u^T v_i)^2
              + \frac{\lambda_U}{2} \sum_u \|u_u\|^2
              + \frac{\lambda_V}{2} \sum_i \|v_i - f_e(W, \tilde{x}_i)\|^2
              + \frac{\lambda_N}{2} \sum_i \|x_i - f_r(W, \tilde{x}_i)\|^2
              + \frac{\lambda_W}{2} \|W\|^2

    where f_e is the middle layer and f_r the last layer. `text_factors_` are the codes
    f_e. Biases, if fitted, are entries of the vectors whose counterpart is 1; the item
    biases have an additional unit in the middle layer. Each iteration solves for all
    users, then for all items, and then trains the network by gradient steps to fit both
    the items and the texts.

    With `normalize_y`, the ratings r are standardized, mu is 0, and the parameters are
    on this scale: the predicted rating is ``global_mean_ + rating_std_ * z``, where z
    is the sum of `intercept_`, the biases and the product of the factors. Without
    biases, penalties for ratings as they are, such as a paper's, have the same effect
    if `lambda_v`, `lambda_n` and `lambda_w` are divided by the variance of the ratings.
    With ratings and user factors multiplied by s, and these penalties by the square of
    s, the objective is multiplied by the square of s.

    Layers use tanh, so that the codes lie between -1 and 1, and the last layer is
    linear; the layers of [1]_ are logistic. The input is corrupted in training only:
    items are shrunk toward the code of the whole text. The biases of the network are
    not penalized. The ratings in [1]_ indicate which user has which item, 1 or 0 with a
    small weight; here they are the given ratings.

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
    .. [1] Hao Wang, Naiyan Wang and Dit-Yan Yeung. 2015. "Collaborative Deep Learning
       for Recommender Systems". KDD '15. https://doi.org/10.1145/2783258.2783273
    .. [2] Pascal Vincent, Hugo Larochelle, Isabelle Lajoie, Yoshua Bengio and
       Pierre-Antoine Manzagol. 2010. "Stacked Denoising Autoencoders". Journal of
       Machine Learning Research 11.

    Examples
    --------
    >>> from skrec import CDLRegressor
    >>> from skrec.datasets import make_ratings
    >>> data = make_ratings(n_users=300, n_items=100, random_state=0)
    >>> model = CDLRegressor(n_factors=5, max_iter=20, random_state=0)
    >>> model = model.fit(data.R[:250], item_texts=data.item_texts)
    >>> round(model.score(data.R[250:]), 1)
    0.4

    Cold-start items can be added later, given only their texts:

    >>> model.extend_items({100: data.item_texts[0]}).predict([[0, 100]]).round(1)
    array([3.7])
    """

    _divergence_remedy = "Lower learning_rate_init, or use normalize_y=True"

    _learned_without_texts: ClassVar[dict[str, Any]] = {"text_weights_": {}}

    text_weights_: dict[str, np.ndarray]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TextFactorization._parameter_constraints,
        "lambda_n": [Interval(Real, 0, None, closed="left")],
        "lambda_w": [Interval(Real, 0, None, closed="left")],
        "hidden_layer_sizes": ["array-like"],
        "input_dropout": [Interval(Real, 0, 1, closed="left")],
        "network_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        *,
        n_factors: int = 15,
        lambda_u: float = 40.0,
        lambda_v: float = 5.0,
        lambda_n: float = 1.0,
        lambda_w: float = 1.0,
        fit_intercept: bool = True,
        normalize_y: bool = True,
        fit_biases: bool = True,
        hidden_layer_sizes: Sequence[int] = (200,),
        input_dropout: float = 0.3,
        network_epochs: int = 1,
        batch_size: int = 512,
        learning_rate_init: float = 0.001,
        vectorizer: Any = None,
        memory: Any = None,
        max_iter: int = 15,
        tol: float = 1e-4,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
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
        self.lambda_n = lambda_n
        self.lambda_w = lambda_w
        self.fit_intercept = fit_intercept
        self.normalize_y = normalize_y
        self.fit_biases = fit_biases
        self.hidden_layer_sizes = hidden_layer_sizes
        self.input_dropout = input_dropout
        self.network_epochs = network_epochs
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
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

    def _check_parameters(self):
        self._hidden_layers()

    def _hidden_layers(self) -> list[int]:
        sizes = list(self.hidden_layer_sizes)
        if not all(map(is_count, sizes)):
            raise ValueError(
                "hidden_layer_sizes must be a sequence of positive integers, got "
                f"{self.hidden_layer_sizes!r}."
            )
        return [int(size) for size in sizes]

    def _default_vectorizer(self):
        return TfidfVectorizer(
            max_features=8000, max_df=0.5, stop_words="english", use_idf=False
        )

    def _check_documents(self, vectorizer, documents):
        return check_bags(vectorizer, documents)

    def _make_prior(self, fit, documents):
        network = DenoisingAutoencoder(
            documents.values.shape[1],
            self._hidden_layers(),
            self.n_factors + self.fit_biases,
            make_generator(fit.draw_seed()),
            fit.dtype,
            fit.device,
        )
        previous = continued(fit)
        if previous is not None:
            _load(network, previous.text_weights_)
        return BagPrior(
            network,
            documents.values,
            documents.items,
            len(fit.ratings.items),
            fit.random_state,
            input_dropout=self.input_dropout,
            lambda_n=self.lambda_n,
            epochs=self.network_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate_init,
            lambda_w=self.lambda_w,
        )

    def _read(self, documents):
        device = inference_device(self.device)
        biases = [w for n, w in self.text_weights_.items() if n.startswith("biases.")]
        sizes = [len(bias) for bias in biases]
        middle = len(sizes) // 2
        dtype = as_tensor(biases[0]).dtype
        network = DenoisingAutoencoder(
            documents.shape[1],
            sizes[:middle],
            sizes[middle],
            make_generator(0),
            dtype,
            device,
        )
        _load(network, self.text_weights_)
        bags = _to_tensors(documents, dtype, device)
        batches = cut_bags(*bags, torch.arange(documents.shape[0]), INFERENCE_BATCH)
        return compute_outputs(network, batches).cpu().numpy()


def _load(network, weights):
    """Replace the weights of a network with those of a fit."""
    new = network.state_dict()
    if {n: w.shape for n, w in new.items()} != {n: w.shape for n, w in weights.items()}:
        raise ValueError(
            "warm_start=True cannot continue a fit whose hidden_layer_sizes, n_factors "
            "or fit_biases were others: use warm_start=False."
        )
    network.load_state_dict({name: as_tensor(w) for name, w in weights.items()})


def _to_tensors(documents, dtype, device) -> tuple[Pattern, torch.Tensor]:
    """Convert a csr_array to its pattern and values."""
    crow, col = map(torch.tensor, (documents.indptr, documents.indices))
    pattern = Pattern(crow, col, documents.shape).to(device)
    return pattern, torch.tensor(documents.data, dtype=dtype, device=device)
