"""Collaborative deep learning: factorization with an autoencoder of item texts."""

from __future__ import annotations

import functools
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from .._core.batches import drop
from .._core.denoising import DenoisingAutoencoder, cut_bags
from .._core.device import as_tensor, inference_device, make_generator
from .._core.sparse import Pattern
from .._sklearn_compat import Interval
from .base import TextFactorization
from .documents import check_bags, continued
from .network_prior import INFERENCE_BATCH, NetworkPrior, compute_outputs


class BagPrior(NetworkPrior):
    """The prior of CDL: the codes of a denoising autoencoder.

    Parameters
    ----------
    network : DenoisingAutoencoder
        The network.

    documents : csr_array of shape (n_texts, n_words)
        The bags of words.

    items, n_items, random_state, **training
        As for `NetworkPrior`.

    input_dropout : float
        The probability that a word of a text is left out.

    lambda_n : float
        The penalty on the squared error of the reconstruction.
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
            float(self.network.squared_error(batch, self.network(batch)))
            for batch in self.whole
        )
        return super().penalty() + self.lambda_n / 2 * error


class CDLRegressor(TextFactorization):
    r"""Collaborative deep learning (CDL): factorization with an autoencoder of texts.

    The factors of an item are drawn to the code that a stacked denoising autoencoder
    makes of the words in its text, the more so the fewer ratings it has. Items without
    any rating are predicted from their text alone.

    Parameters
    ----------
    n_factors : int, default=15
        The number of factors k, and of units in the middle layer, biases aside.

    lambda_u : float, default=40.0
        The penalty on the squared length of a user's vector, on the scale of half the
        sum of squared errors.

    lambda_v : float, default=5.0
        The penalty on the squared distance of an item's vector from the code of its
        text, or from all codes on average where it has none.

    lambda_n : float, default=1.0
        The penalty on the squared error of the reconstructed texts.

    lambda_w : float, default=1.0
        The penalty on the squared weights of the network. Large values let it tell
        only what many texts have in common.

    fit_intercept : bool, default=True
        Whether to subtract the global mean from the ratings.

    fit_biases : bool, default=True
        Whether users and items have biases. That of an item is drawn to a further unit
        of the middle layer. False is the model of [1]_.

    hidden_layer_sizes : array-like of int, default=(200,)
        Units of the layers between a text and its code, and in reverse between the code
        and the reconstruction. An empty one leaves the middle layer alone.

    input_dropout : float, default=0.3
        Probability that a word of a text is left out in training, in [0, 1).

    sdae_epochs : int, default=1
        Epochs of the network in each iteration.

    batch_size : int, default=256
        Texts in a step of the network.

    learning_rate_init : float, default=0.001
        Its step size (Adam).

    vectorizer : transformer or None, default=None
        Turns texts into a sparse matrix without negative entries, of shape (n_texts,
        n_words), rows best of length 1. None means the counts of the 8000 most frequent
        words, without English stop words and words in more than half of the texts,
        divided by the length of their row: a
        :class:`~sklearn.feature_extraction.text.TfidfVectorizer` with
        ``use_idf=False``.

    memory : str or object with the joblib.Memory interface, default=None
        Cache of what the vectorizer makes of the texts: a folder or a memory object. A
        search over other parameters then computes it once.

    max_iter : int, default=40
        The largest number of iterations, in each of which all users and all items are
        solved for and the network is trained on the items.

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
        Start from the factors and the network of the last fit, if there was one, and
        keep its words: `vectorizer_` stays as it is. Users and items are matched by id;
        new ones start at random.

    clip : bool, default=True
        Whether to keep predictions inside the range of the training ratings.

    device : str or torch.device, default="auto"
        Device to compute on: "cpu", "cuda", "cuda:0", ...; "auto" takes a GPU where
        there is one. A fitted model falls back to the CPU where the device is missing.

    dtype : {"float32", "float64"}, default="float32"
        Precision of the parameters.

    random_state : int, RandomState instance or None, default=None
        Determines initial weights, batches, dropout and held-out ratings. An int gives
        the same model in each call, bit for bit with the same number of threads.

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
        The code of each item's text; their mean for an item without text, None without
        any texts.

    text_biases_ : ndarray of shape (n_items,) or None
        The biases that the network makes of them.

    user_text_biases_ : ndarray of shape (n_users,)
        What is added to the predictions of items that are known by their text alone.

    text_weights_ : dict of str to ndarray
        The weights of the network.

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
    BiasedMFRegressor : The same without texts.
    CTRRegressor : The same with topics of the texts.
    ConvMFRegressor : The same with a convolutional network over the texts.

    Notes
    -----
    With the weight w of each rating and the bag of words x of each item, of which the
    network sees a part, the objective is

    .. math:: \frac{1}{2} \sum_{(u, i)} w_{ui} (r_{ui} - \mu - u_u^T v_i)^2
              + \frac{\lambda_U}{2} \sum_u \|u_u\|^2
              + \frac{\lambda_V}{2} \sum_i \|v_i - f_e(W, \tilde{x}_i)\|^2
              + \frac{\lambda_N}{2} \sum_i \|x_i - f_r(W, \tilde{x}_i)\|^2
              + \frac{\lambda_W}{2} \|W\|^2

    where biases, if there are any, are entries of the vectors whose counterpart is 1,
    f_e is the middle layer and f_r the last one. An iteration solves for all users,
    then for all items, and then takes the network nearer to both items and texts by
    gradients.

    Layers are hyperbolic tangents, so that what a text says lies between -1 and 1, and
    the last one is linear; those of [1]_ are logistic. The network sees texts with
    noise in training only: items are drawn to what it makes of the whole text. The
    biases of the network are not penalized. The ratings of [1]_ say who has which item,
    1 or 0 with a small weight; here they are those that are given.

    An item that is known by its text alone is predicted higher by the mean, over the
    items that the user has rated, of what the model predicts beyond their texts
    (`user_text_biases_`, drawn to zero as by 5 ratings more).

    A row of a matrix in `predict` is a user who is known by that row alone, with the
    solution of that user's ridge regression. `score` of a matrix without y predicts
    each rating from the others in its row, exactly.

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
    >>> model.fit(data.R[:250], item_texts=data.item_texts).predict(data.R[250:]).shape
    (50, 100)

    Items may come later, by their texts alone:

    >>> model.extend_items({100: data.item_texts[0]}).items_[-1]
    np.int64(100)
    """

    _divergence_remedy = (
        "Lower learning_rate_init, or bring the ratings to a smaller scale"
    )

    _learned_without_texts: ClassVar[dict[str, Any]] = {"text_weights_": {}}

    text_weights_: dict[str, np.ndarray]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TextFactorization._parameter_constraints,
        "lambda_n": [Interval(Real, 0, None, closed="left")],
        "lambda_w": [Interval(Real, 0, None, closed="left")],
        "hidden_layer_sizes": ["array-like"],
        "input_dropout": [Interval(Real, 0, 1, closed="left")],
        "sdae_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        *,
        n_factors=15,
        lambda_u=40.0,
        lambda_v=5.0,
        lambda_n=1.0,
        lambda_w=1.0,
        fit_intercept=True,
        fit_biases=True,
        hidden_layer_sizes=(200,),
        input_dropout=0.3,
        sdae_epochs=1,
        batch_size=256,
        learning_rate_init=0.001,
        vectorizer=None,
        memory=None,
        max_iter=40,
        tol=1e-4,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
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
        self.lambda_n = lambda_n
        self.lambda_w = lambda_w
        self.fit_intercept = fit_intercept
        self.fit_biases = fit_biases
        self.hidden_layer_sizes = hidden_layer_sizes
        self.input_dropout = input_dropout
        self.sdae_epochs = sdae_epochs
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
        if not all(isinstance(size, Integral) and int(size) > 0 for size in sizes):
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
            epochs=self.sdae_epochs,
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
    """Overwrite the weights of a network by those of a fit."""
    new = network.state_dict()
    if {n: w.shape for n, w in new.items()} != {n: w.shape for n, w in weights.items()}:
        raise ValueError(
            "warm_start=True cannot continue a fit whose hidden_layer_sizes, n_factors "
            "or fit_biases were others: use warm_start=False."
        )
    network.load_state_dict({name: as_tensor(w) for name, w in weights.items()})


def _to_tensors(documents, dtype, device) -> tuple[Pattern, torch.Tensor]:
    """Pattern and values of a csr_array."""
    crow, col = map(torch.tensor, (documents.indptr, documents.indices))
    pattern = Pattern(crow, col, documents.shape).to(device)
    return pattern, torch.tensor(documents.data, dtype=dtype, device=device)
