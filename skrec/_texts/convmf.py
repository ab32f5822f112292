"""ConvMF: matrix factorization with a convolutional network over item texts."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch

from .._core.device import as_tensor, inference_device, make_generator
from .._core.text_cnn import TextCNN
from .._sklearn_compat import Interval, StrOptions
from ..text import SequenceVectorizer, load_word_vectors
from .base import TextFactorization
from .network_prior import TextPrior, read

# The standard deviation of the initial word vectors.
_WORD_STD = 0.1


class ConvMFRegressor(TextFactorization):
    r"""Matrix factorization with a convolutional network over item texts (ConvMF).

    The factors of an item are drawn to what a network makes of its text, the more so
    the fewer ratings it has. Items without any rating are predicted from their text
    alone.

    Parameters
    ----------
    n_factors : int, default=15
        The number of factors k.

    lambda_u : float, default=40.0
        The penalty on the squared length of a user's vector, on the scale of half the
        sum of squared errors.

    lambda_v : float, default=5.0
        The penalty on the squared distance of an item's vector from what the network
        makes of its text, or of all texts on average where it has none.

    lambda_w : float, default=60.0
        The penalty on the squared weights of the network. Large values let it tell
        only what many texts have in common.

    fit_intercept : bool, default=True
        Whether to subtract the global mean from the ratings.

    fit_biases : bool, default=True
        Whether users and items have biases. That of an item is drawn to what the
        network makes of its text, too. False is the model of [1]_.

    embedding_dim : int, default=50
        Numbers in a word's vector (p). `word_vectors` decide it if there are any.

    n_filters : int, default=50
        Filters of each window size.

    window_sizes : array-like of int, default=(3, 4, 5)
        Words in the windows that filters look at.

    hidden_dim : int, default=100
        Units between the filters and the output.

    dropout : float, default=0.0
        Probability that one of these units is left out in training, in [0, 1).

    word_dropout : float, default=0.7
        Probability that a word is left out of the texts in a step of training, in
        [0, 1). Without it the network learns by heart which text belongs to which
        item, and has little to say on items that it has not seen [3]_. 0 is the network
        of [1]_.

    cnn_epochs : int, default=1
        Epochs of the network in each iteration.

    batch_size : int, default=256
        Texts in a step of the network.

    learning_rate_init : float, default=0.002
        Its step size (Adam).

    vectorizer : transformer or None, default=None
        Turns texts into an integer array of shape (n_texts, max_words), each row the
        numbers of words, from 1, followed by zeros, as the ``vocabulary_`` of the
        fitted transformer maps words to them. None means a
        :class:`skrec.text.SequenceVectorizer`.

    memory : str or object with the joblib.Memory interface, default=None
        Cache of what the vectorizer makes of the texts: a folder or a memory object. A
        search over other parameters then computes it once.

    word_vectors : path, mapping, pair or KeyedVectors, default=None
        Pre-trained word vectors to start from (ConvMF+): anything that
        :func:`skrec.text.load_word_vectors` takes. They are brought to the scale of
        the random ones, which words that are not among them start from.

    item_weight : {"sqrt"} or None, default=None
        "sqrt" multiplies `lambda_v` of each item by the square root of its number of
        ratings, with mean 1 (R-ConvMF [2]_).

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
        Start from the factors and the network of the last fit, if there was one. Users,
        items and words are matched by name; new ones start at random.

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
        The factors that the network makes of each item's text; their mean for an item
        without text, None without any texts.

    text_biases_ : ndarray of shape (n_items,) or None
        The biases that it makes of them.

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
    AutoRecRegressor : An autoencoder, which also takes texts.
    skrec.text.ItemTexts : Brings texts through cross-validation.

    Notes
    -----
    With the weight w of each rating and the text X of each item, the objective is

    .. math:: \frac{1}{2} \sum_{(u, i)} w_{ui} (r_{ui} - \mu - u_u^T v_i)^2
              + \frac{\lambda_U}{2} \sum_u \|u_u\|^2
              + \frac{\lambda_V}{2} \sum_i \|v_i - cnn(W, X_i)\|^2
              + \frac{\lambda_W}{2} \|W\|^2

    where biases, if there are any, are entries of the vectors whose counterpart is 1.
    An iteration solves for all users, then for all items, and then takes the network
    nearer to the items by gradients. The first two are ridge regressions by conjugate
    gradients, whose products are evaluated at the ratings only, and only lower the
    objective.

    The network is that of [1]_: word vectors, filters over windows of words with
    rectified linear units, the maximum of each filter over the text, and two layers
    with tanh, so that what a text says lies between -1 and 1. Its biases are not
    penalized, its word vectors are. Ratings on a much wider scale than that of stars
    are better divided first. With `item_weight`, lambda_V differs between items.

    Whoever rates an item has chosen it, and likes it better than its text would have
    them. By how much differs between users, but hardly between the items of a user: an
    item that is known by its text alone is predicted higher by the mean, over the items
    that the user has rated, of what the model predicts beyond their texts
    (`user_text_biases_`, drawn to zero as by 5 ratings more).

    A row of a matrix in `predict` is a user who is known by that row alone, with the
    solution of that user's ridge regression. `score` of a matrix without y predicts
    each rating from the others in its row, exactly.

    References
    ----------
    .. [1] Donghyun Kim, Chanyoung Park, Jinoh Oh, Sungyoung Lee and Hwanjo Yu. 2016.
       "Convolutional Matrix Factorization for Document Context-Aware Recommendation".
       RecSys '16. https://doi.org/10.1145/2959100.2959165
    .. [2] Donghyun Kim, Chanyoung Park, Jinoh Oh and Hwanjo Yu. 2017. "Deep hybrid
       recommender systems via exploiting document context and statistics of items".
       Information Sciences 417. https://doi.org/10.1016/j.ins.2017.06.026
    .. [3] Mohit Iyyer, Varun Manjunatha, Jordan Boyd-Graber and Hal Daume III. 2015.
       "Deep Unordered Composition Rivals Syntactic Methods for Text Classification".
       ACL '15. https://doi.org/10.3115/v1/P15-1162

    Examples
    --------
    >>> from skrec import ConvMFRegressor
    >>> from skrec.datasets import make_ratings
    >>> data = make_ratings(n_users=300, n_items=100, random_state=0)
    >>> model = ConvMFRegressor(n_factors=5, max_iter=20, random_state=0)
    >>> model.fit(data.R[:250], item_texts=data.item_texts).predict(data.R[250:]).shape
    (50, 100)

    With pairs the texts come by item id, and an item may have a text and no rating:

    >>> from skrec.model_selection import ratings_to_samples
    >>> X, y = ratings_to_samples(data.R[:, :90])
    >>> model.fit(X, y, item_texts=dict(enumerate(data.item_texts)))
    ConvMFRegressor(...)
    >>> model.predict([[0, 95], [1, 95]]).shape
    (2,)
    """

    _divergence_remedy = (
        "Lower learning_rate_init, or bring the ratings to a smaller scale"
    )

    # Word vectors of common words continue, whatever the vectorizer's order is.
    _keeps_vectorizer = False
    _learned_without_texts: ClassVar[dict[str, Any]] = {"text_weights_": {}}

    text_weights_: dict[str, np.ndarray]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TextFactorization._parameter_constraints,
        "lambda_w": [Interval(Real, 0, None, closed="left")],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "n_filters": [Interval(Integral, 1, None, closed="left")],
        "window_sizes": ["array-like"],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "word_dropout": [Interval(Real, 0, 1, closed="left")],
        "cnn_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        # Anything that `load_word_vectors` takes; it says what it does not.
        "word_vectors": "no_validation",  # type: ignore[dict-item]
        "item_weight": [StrOptions({"sqrt"}), None],
    }

    def __init__(
        self,
        *,
        n_factors=15,
        lambda_u=40.0,
        lambda_v=5.0,
        lambda_w=60.0,
        fit_intercept=True,
        fit_biases=True,
        embedding_dim=50,
        n_filters=50,
        window_sizes=(3, 4, 5),
        hidden_dim=100,
        dropout=0.0,
        word_dropout=0.7,
        cnn_epochs=1,
        batch_size=256,
        learning_rate_init=0.002,
        vectorizer=None,
        memory=None,
        word_vectors=None,
        item_weight=None,
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
        self.lambda_w = lambda_w
        self.fit_intercept = fit_intercept
        self.fit_biases = fit_biases
        self.embedding_dim = embedding_dim
        self.n_filters = n_filters
        self.window_sizes = window_sizes
        self.hidden_dim = hidden_dim
        self.dropout = dropout
        self.word_dropout = word_dropout
        self.cnn_epochs = cnn_epochs
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.vectorizer = vectorizer
        self.memory = memory
        self.word_vectors = word_vectors
        self.item_weight = item_weight
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
        windows = list(self.window_sizes)
        if not windows or not all(
            isinstance(w, Integral) and int(w) > 0 for w in windows
        ):
            raise ValueError(
                "window_sizes must be a sequence of positive integers, got "
                f"{self.window_sizes!r}."
            )

    def _default_vectorizer(self):
        return SequenceVectorizer()

    def _check_documents(self, vectorizer, documents):
        if not (
            isinstance(documents, np.ndarray)
            and documents.ndim == 2
            and documents.dtype.kind in "iu"
            and hasattr(vectorizer, "vocabulary_")
        ):
            raise TypeError(
                "vectorizer must turn texts into an integer array of shape (n_texts, "
                "max_words) and have vocabulary_, as skrec.text.SequenceVectorizer "
                f"does, got {type(vectorizer).__name__} that returns "
                f"{type(documents).__name__}."
            )
        return documents

    def _make_prior(self, fit, documents):
        network = self._make_network(fit, documents.vectorizer)
        return TextPrior(
            network,
            documents.values,
            documents.items,
            len(fit.ratings.items),
            fit.random_state,
            epochs=self.cnn_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate_init,
            dropout=self.dropout,
            word_dropout=self.word_dropout,
            lambda_w=self.lambda_w,
        )

    def _read(self, documents):
        return read(self.text_weights_, documents, inference_device(self.device))

    def _item_penalties(self, fit):
        if self.item_weight is None:
            return None
        ratings = fit.training
        counts = np.bincount(ratings.indices, minlength=len(ratings.items))
        weights = np.sqrt(np.maximum(counts, 1))
        return self.lambda_v * weights / weights.mean()

    def _make_network(self, fit, vectorizer) -> TextCNN:
        generator = make_generator(fit.draw_seed())
        vectors = self._initial_word_vectors(vectorizer, generator)
        network = TextCNN(
            vectors,
            [int(w) for w in self.window_sizes],
            self.n_filters,
            self.hidden_dim,
            self.n_factors + self.fit_biases,
            generator,
            fit.device,
        )
        if fit.previous is not None and fit.previous.text_weights_:
            _continue(network, vectorizer, fit.previous)
        return network

    def _initial_word_vectors(self, vectorizer, generator) -> torch.Tensor:
        vocabulary = vectorizer.vocabulary_
        pretrained, n_dims = None, self.embedding_dim
        if self.word_vectors is not None:
            pretrained = load_word_vectors(
                self.word_vectors, vocabulary, dtype=self.dtype
            )
            n_dims = pretrained.vectors.shape[1]
            if not pretrained.vectors.any():
                raise ValueError(
                    "word_vectors has none of the words in the texts, or zeros only: "
                    "give vectors of the texts' language, or None."
                )
        shape = (max(vocabulary.values()) + 1, n_dims)
        vectors = torch.empty(shape, dtype=getattr(torch, self.dtype))
        vectors.normal_(0, _WORD_STD, generator=generator)
        if pretrained is not None:
            places = [vocabulary[word] for word in pretrained.words]
            found = torch.as_tensor(pretrained.vectors)
            vectors[places] = found * (_WORD_STD / found.square().mean().sqrt())
        return vectors


def _continue(network, vectorizer, previous):
    """Overwrite initial weights by those of the last fit; words match by name."""
    old = {name: as_tensor(w) for name, w in previous.text_weights_.items()}
    new = network.state_dict()
    words, vectors = old.pop("vectors"), new.pop("vectors").clone()
    if words.shape[1] != vectors.shape[1] or any(
        w.shape != old[name].shape if name in old else True for name, w in new.items()
    ):
        raise ValueError(
            "warm_start=True cannot continue a fit whose embedding_dim, n_filters, "
            "window_sizes, hidden_dim, n_factors or fit_biases were others: use "
            "warm_start=False."
        )
    known, vocabulary = previous.vectorizer_.vocabulary_, vectorizer.vocabulary_
    common = [word for word in vocabulary if word in known]
    places = [vocabulary[word] for word in common]
    vectors[places] = words[[known[word] for word in common]].to(vectors)
    network.load_state_dict(old | {"vectors": vectors})
