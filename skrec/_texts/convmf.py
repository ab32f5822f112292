"""ConvMF: matrix factorization with a convolutional network over item texts."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from .._base import ProbabilisticRecommender
from .._core.device import (
    as_tensor,
    inference_device,
    make_generator,
    own_settings,
)
from .._core.text_cnn import TextCNN
from .._factorization.alternation import PENALTY_OR_AUTO, penalties_are_auto
from .._factorization.features import (
    FEATURE_CONSTRAINTS,
    FeatureMixin,
    add_items,
    check_new,
    refuse_features,
)
from .._factorization.variational_model import VariationalModel
from .._factorization.variational_trainer import n_factors_to_continue
from .._fitting import Fit, fit_method
from .._limits import is_count
from .._sklearn_compat import Interval, StrOptions
from ..text import SequenceVectorizer, load_word_vectors
from .base import TextFactorization
from .documents import read_item_texts
from .network_prior import EvidencePrior, TextPrior, read
from .split_text import split_text
from .text_model import TextModel
from .variational_text import VariationalTextTrainer, describe_items, text_biases

# Standard deviation of the initial word vectors.
_WORD_STD = 0.1


class ConvMFRegressor(FeatureMixin, ProbabilisticRecommender, TextFactorization):
    r"""Matrix factorization with a convolutional network over item texts (ConvMF).

    The vector of an item is shrunk toward what its text and its features predict: a
    linear path over the words, a convolutional network [1]_ on top of it, and a linear
    path over the features. The fewer ratings an item has, the stronger the shrinkage.
    Cold-start items are predicted from text and features alone. By default all
    penalties of vectors, words and features are estimated by variational Bayes.

    Parameters
    ----------
    n_factors : int, default=20
        Number of latent factors k. With estimated penalties it is a maximum: factors
        that explain nothing are dropped.

    lambda_u : float or "auto", default="auto"
        Penalty on the squared norm of a user's vector, on the scale of half the sum of
        squared errors of the standardized ratings (see Notes). "auto" estimates the
        prior of the vectors, and needs ``lambda_v="auto"``. Numbers mean the model of
        [1]_, whose only path from the text is the network.

    lambda_v : float or "auto", default="auto"
        Penalty on the squared distance of an item's vector from the network's output
        for its text, or from the mean output for items without text, on the same scale.
        "auto" needs ``lambda_u="auto"``.

    lambda_w : float, default=30.0
        Penalty on the squared weights of the network (weight decay), on the same scale;
        with estimated penalties, on the scale of the log likelihood. Large values
        restrict the network to features that many texts have in common.

    text_prior : {"both", "linear", "network"}, default="both"
        Paths from the text to the vector of an item: the tf-idf vectors of its words,
        reduced to 200 components, the network, or both. Ignored with penalties given as
        numbers, which mean the network.

    fit_intercept : bool, default=True
        Whether to subtract the global mean from the ratings. Ignored with
        `normalize_y`, which subtracts it.

    normalize_y : bool, default=True
        Whether to standardize the ratings inside the fit. Predictions are then the same
        whatever the unit of the ratings. False uses the ratings as they are, as the
        papers do.

    fit_biases : bool, default=True
        Whether to fit biases of users and items. Item biases are shrunk toward an
        additional output of the network. If False, all biases are 0, as in [1]_; this
        needs penalties given as numbers.

    embedding_dim : int, default=50
        Dimension p of the word vectors. If `word_vectors` are given, their dimension is
        used instead.

    n_filters : int, default=50
        Number of filters for each window size.

    window_sizes : array-like of int, default=(3, 4, 5)
        Window sizes of the filters, in words.

    n_hidden : int, default=100
        Number of hidden units between the filters and the output.

    dropout : float, default=0.0
        Probability that a hidden unit is dropped in training, in [0, 1).

    word_dropout : float, default=0.3
        Probability that a word is dropped from the texts in a training step, in [0, 1)
        [3]_. Without word dropout the network memorizes which text belongs to which
        item, which hurts accuracy on items without ratings. 0 gives the network of
        [1]_.

    network_epochs : int, default=1
        Number of training epochs of the network in each iteration.

    batch_size : int, default=256
        Number of texts in each training step of the network.

    learning_rate_init : float, default=0.002
        Step size of Adam in the training of the network.

    vectorizer : transformer or None, default=None
        Transformer from texts to an integer array of shape (n_texts, max_words). Each
        row has the indices of words, starting from 1, padded with zeros. The
        ``vocabulary_`` of the fitted transformer maps words to indices. None means a
        :class:`skrec.text.SequenceVectorizer`.

    item_encoder, user_encoder : transformer or None, default=None
        Transformers that turn the tables of features into numbers, such as a
        `ColumnTransformer` or a `Pipeline`. None means
        :class:`skrec.features.FeatureEncoder`, which looks at the columns. Columns are
        centered and scaled in blocks: those of `output_indices_`, if the encoder has
        this attribute, or else all of them.

    memory : str or object with the joblib.Memory interface, default=None
        Cache for the output of the vectorizer and of the encoders: a folder or a memory
        object. A search over other parameters then vectorizes the texts only once.

    word_vectors : path, mapping, pair or KeyedVectors, default=None
        Pre-trained word vectors to initialize the network (ConvMF+), in any form that
        :func:`skrec.text.load_word_vectors` accepts. They are rescaled to the scale of
        the random vectors, which initialize all other words.

    item_weight : {"sqrt"} or None, default=None
        Weight of each item in `lambda_v`. "sqrt" multiplies `lambda_v` of each item by
        the square root of its number of ratings, scaled to mean 1 (R-ConvMF [2]_). This
        needs a `lambda_v` that is a number.

    max_iter : int, default=200
        Maximum number of iterations. Each iteration solves for all users and all items
        and trains the network on the items.

    tol : float, default=1e-3
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
        Whether to start from the factors and the network of the previous fit, if there
        is one. Users, items and words are matched by name. New ones are initialized at
        random.

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
    user_factors_ : ndarray of shape (n_users, n_kept)
        Factors of the users: what `transform` returns for the users in `fit`. With
        estimated penalties, the n_kept <= n_factors factors that explain something, in
        descending order of what they explain.

    item_factors_ : ndarray of shape (n_items, n_kept)
        Factors of the items.

    user_biases_ : ndarray of shape (n_users,)
        Biases of the users.

    item_biases_ : ndarray of shape (n_items,)
        Biases of the items.

    text_factors_ : ndarray of shape (n_items, n_kept) or None
        Prior means of the item factors given the item texts; the mean over all texts
        for items without text. None without any texts.

    text_biases_ : ndarray of shape (n_items,) or None
        Prior means of the item biases given the item texts. None without any texts.

    user_text_biases_ : ndarray of shape (n_users,)
        Corrections added to the predictions of items that have a text but no ratings.

    text_weights_ : dict of str to ndarray
        Weights of the network.

    item_encoder_, user_encoder_ : transformer or None
        Fitted encoders of the features; only with estimated penalties, as the following
        attributes. They are None without features.

    item_feature_weights_, user_feature_weights_ : ndarray or None
        Linear maps from the encoded features, and from the components of the texts, to
        prior means of the vectors, of shape (n_columns, n_kept + 1).

    item_feature_names_, user_feature_names_ : ndarray of shape (n_columns,) or None
        Names of the columns of the encoded features.

    item_feature_blocks_, user_feature_blocks_ : dict of str to slice or None
        Columns of each block: those that encode a column of the table. The columns of
        the texts are "item_texts".

    item_feature_center_, user_feature_center_ : ndarray of shape (n_columns,) or None
        Means of the encoded features, which are subtracted from them.

    noise_variance_ : float
        Variance of a rating around its prediction; only with estimated penalties.

    user_prior_mean_, item_prior_mean_ : ndarray of shape (n_kept + 1,)
        Prior means of the vectors; only with estimated penalties.

    user_prior_covariance_, item_prior_covariance_ : ndarray
        Prior covariances of the vectors, of shape (n_kept + 1, n_kept + 1); only with
        estimated penalties.

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
    AutoRecRegressor : Autoencoder that also accepts texts.
    skrec.text.ItemTexts : Container of texts for cross-validation.

    Notes
    -----
    With ``lambda_u="auto"`` and ``lambda_v="auto"``, the model and the solver are those
    of `BiasedMFRegressor`. The prior mean of an item's vector is

    .. math:: m_V + W^T x_i + cnn(X_i)

    where x are the features of the item and the tf-idf vector of its text, reduced by a
    singular value decomposition, and X is its text. The weights W are solved for with
    the vectors integrated out, and their penalties are estimated, one for each block of
    columns. The network descends the same objective; its outputs are linear.
    `text_factors_` and `text_biases_` are these prior means, features included.

    With numbers as penalties, the weight w of each rating and the text X of each item,
    the objective is

    .. math:: \frac{1}{2} \sum_{(u, i)} w_{ui} (r_{ui} - \mu - u_u^T v_i)^2
              + \frac{\lambda_U}{2} \sum_u \|u_u\|^2
              + \frac{\lambda_V}{2} \sum_i \|v_i - cnn(W, X_i)\|^2
              + \frac{\lambda_W}{2} \|W\|^2

    where biases, if fitted, are entries of the vectors whose counterpart is 1. Each
    iteration solves for all users, then for all items, and then trains the network by
    gradient steps to predict the items. The first two steps are ridge regressions by
    conjugate gradients, whose products are evaluated at the ratings only. These two
    steps never increase the objective.

    With `normalize_y`, the ratings r are standardized, mu is 0, and the parameters are
    on this scale: the predicted rating is ``global_mean_ + rating_std_ * z``, where z
    is the sum of `intercept_`, the biases and the product of the factors. Without
    biases, penalties for ratings as they are, such as a paper's, have the same effect
    if `lambda_v` and `lambda_w` are divided by the variance of the ratings. With
    ratings and user factors multiplied by s, and these penalties by the square of s,
    the objective is multiplied by the square of s.

    The network is that of [1]_: word vectors, filters over windows of words with
    rectified linear units, max pooling of each filter over the text, and two layers
    with tanh, so that its outputs lie between -1 and 1. Its biases are not penalized,
    but its word vectors are. With `item_weight`, lambda_V differs between items.

    Users rate items they chose, so their ratings are higher on average than the text
    alone predicts. The difference varies between users, but hardly between the items of
    a user. Predictions of cold-start items, which have a text but no ratings, are
    therefore increased by `user_text_biases_`: the mean difference, over the items that
    the user has rated, between the model's predictions and those from the texts alone.
    It is shrunk toward 0 (equivalent to 5 extra ratings at 0), and multiplied by the
    probability that an item without ratings is new, not one that nobody chooses. The
    latter is estimated from the numbers of items with few ratings.

    In `predict`, each row of a matrix is a new user described by that row alone, whose
    vector is the solution of the user's ridge regression. `score` of a matrix without y
    predicts each rating from the other ratings in its row, exactly.

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
    >>> model = ConvMFRegressor(n_factors=5, random_state=0)
    >>> model = model.fit(data.R[:250], item_texts=data.item_texts)
    >>> round(model.score(data.R[250:]), 1)
    0.6

    With pairs, texts are given by item id. Cold-start items have a text but no ratings:

    >>> from skrec.model_selection import ratings_to_samples
    >>> X, y = ratings_to_samples(data.R[:, :90])
    >>> model.fit(X, y, item_texts=dict(enumerate(data.item_texts)))
    ConvMFRegressor(...)
    >>> model.predict([[0, 95], [1, 95]]).round(1)
    array([3.6, 3.7])
    """

    _divergence_remedy = "Lower learning_rate_init, or use normalize_y=True"

    # A warm start matches word vectors by word, so the vectorizer may be refitted.
    _keeps_vectorizer = False
    _learned_without_texts: ClassVar[dict[str, Any]] = {"text_weights_": {}}

    # Metadata routing passes texts and features to this estimator without a request.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {
        "item_texts": True,
        "item_features": True,
        "user_features": True,
    }

    text_weights_: dict[str, np.ndarray]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TextFactorization._parameter_constraints,
        **FEATURE_CONSTRAINTS,
        "lambda_u": PENALTY_OR_AUTO,
        "lambda_v": PENALTY_OR_AUTO,
        "text_prior": [StrOptions({"both", "linear", "network"})],
        "lambda_w": [Interval(Real, 0, None, closed="left")],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "n_filters": [Interval(Integral, 1, None, closed="left")],
        "window_sizes": ["array-like"],
        "n_hidden": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "word_dropout": [Interval(Real, 0, 1, closed="left")],
        "network_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        # Validated by `load_word_vectors`.
        "word_vectors": "no_validation",  # type: ignore[dict-item]
        "item_weight": [StrOptions({"sqrt"}), None],
    }

    def __init__(
        self,
        *,
        n_factors: int = 20,
        lambda_u: float | Literal["auto"] = "auto",
        lambda_v: float | Literal["auto"] = "auto",
        lambda_w: float = 30.0,
        text_prior: Literal["both", "linear", "network"] = "both",
        fit_intercept: bool = True,
        normalize_y: bool = True,
        fit_biases: bool = True,
        embedding_dim: int = 50,
        n_filters: int = 50,
        window_sizes: Sequence[int] = (3, 4, 5),
        n_hidden: int = 100,
        dropout: float = 0.0,
        word_dropout: float = 0.3,
        network_epochs: int = 1,
        batch_size: int = 256,
        learning_rate_init: float = 0.002,
        vectorizer: Any = None,
        item_encoder: Any = None,
        user_encoder: Any = None,
        memory: Any = None,
        word_vectors: Any = None,
        item_weight: Literal["sqrt"] | None = None,
        max_iter: int = 200,
        tol: float = 1e-3,
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
        self.lambda_w = lambda_w
        self.text_prior = text_prior
        self.fit_intercept = fit_intercept
        self.normalize_y = normalize_y
        self.fit_biases = fit_biases
        self.embedding_dim = embedding_dim
        self.n_filters = n_filters
        self.window_sizes = window_sizes
        self.n_hidden = n_hidden
        self.dropout = dropout
        self.word_dropout = word_dropout
        self.network_epochs = network_epochs
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.vectorizer = vectorizer
        self.item_encoder = item_encoder
        self.user_encoder = user_encoder
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

    @fit_method
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        item_texts: Any = None,
        item_features: Any = None,
        user_features: Any = None,
    ) -> Self:
        """Fit the model to ratings, to texts of the items, and to features.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_users, n_items)
            User and item ids; or a matrix whose stored entries are the ratings, a
            stored 0 included.

        y : array-like of shape (n_ratings,), sparse of shape (n_users, n_items) or None
            Ratings of the pairs. With a matrix, further ratings of it or None.

        sample_weight : array-like or sparse, default=None
            Weight of each rating's error, of shape (n_ratings,); with a matrix, sparse
            with its entries or of shape (n_users,). Ratings of weight 0 are ignored.

        item_texts : mapping, Series, ItemTexts or sequence, default=None
            Texts by item id; with a matrix, also one text for each column. Items may
            have no text, or a text and no ratings. For cross-validation, use
            :class:`skrec.text.ItemTexts`: scikit-learn splits other sized objects with
            as many entries as there are samples.

        item_features : DataFrame, mapping, Series, array-like, sparse or Features, \
default=None
            Features by item id: a DataFrame whose index holds the ids, with columns of
            any kind, or a mapping from id to vector. With a matrix, the ids are its
            column numbers, or an array has one row for each column. Items without
            ratings become known. For cross-validation, use
            :class:`skrec.features.Features`: scikit-learn splits other sized objects
            with as many entries as there are samples.

        user_features : DataFrame, mapping, Series, array-like, sparse or Features, \
default=None
            The same by user id. With a matrix, a table or array with one row for each
            row of X, in the same order, which scikit-learn splits with X.

        Returns
        -------
        self : ConvMFRegressor

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is invalid; see the message.

        Warns
        -----
        UserWarning
            If there are no texts.
        ConvergenceWarning
            If the objective became infinite, or did not converge within `max_iter`
            iterations. The latter is not checked if a network is trained.
        """
        self._check_parameters()
        fit = Fit(self, X, y, sample_weight, item_texts, item_features, user_features)
        return fit.run(self._make_trainer(fit, read_item_texts(fit)))

    @own_settings()
    def extend_items(  # type: ignore[override]
        self, item_texts: Any = None, *, item_features: Any = None
    ) -> Self:
        """Add cold-start items to a fitted model, given their texts or features.

        Parameters
        ----------
        item_texts : mapping, Series or ItemTexts around one, default=None
            Texts by item id. After a fit on a matrix, the ids are the indices of the
            new columns: n_items, n_items + 1, ...

        item_features : DataFrame, mapping, Series or Features around one, default=None
            Features by item id, with the columns of `fit`.

        Returns
        -------
        self : estimator
            The estimator, with the new items in `items_`, `item_factors_`,
            `item_biases_`, `item_means_`, `text_factors_` and `text_biases_`.

        Raises
        ------
        TypeError, ValueError
            If neither is given, if the model was fitted without what is given, if an id
            is already known, or if a text has no word known to the model.
        """
        if item_texts is None and item_features is None:
            raise ValueError("Give item_texts or item_features of the new items.")
        check_is_fitted(self)
        if self._lambda_u is not None and item_features is None:
            return TextFactorization.extend_items(self, item_texts)
        texts = features = None
        if item_features is not None:
            features = check_new(self, item_features, "item")
        if item_texts is not None:
            texts = self._read_new_items(item_texts)
        ids, vectors, parts = describe_items(self, texts, features)
        own = {}
        if self._item_feature_parts is not None:
            own["_item_feature_parts"] = parts
        if self.text_factors_ is not None:
            own["text_factors_"], own["text_biases_"] = vectors[:, :-1], vectors[:, -1]
        return add_items(self, ids, vectors, **own)

    def _completed(self, attributes):
        attributes = super()._completed(attributes)
        return attributes | {"user_text_biases_": text_biases(attributes)}

    def _check_parameters(self):
        windows = list(self.window_sizes)
        if not windows or not all(map(is_count, windows)):
            raise ValueError(
                "window_sizes must be a sequence of positive integers, got "
                f"{self.window_sizes!r}."
            )
        if penalties_are_auto(self) and not self.fit_biases:
            raise ValueError(
                "fit_biases=False needs lambda_u and lambda_v that are numbers: "
                "estimated priors are those of vectors with biases."
            )
        if penalties_are_auto(self) and self.item_weight is not None:
            raise ValueError(
                "item_weight needs a lambda_v that is a number, which it multiplies."
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

    def _make_trainer(self, fit, documents):
        if not penalties_are_auto(self):
            refuse_features(fit)
            return super()._make_trainer(fit, documents)
        network = None
        if documents is not None and self.text_prior != "linear":
            network = self._make_prior(fit, documents)
        has_linear_path = self.text_prior != "network"
        return VariationalTextTrainer(
            fit, documents, network, has_linear_path=has_linear_path
        )

    def _make_model(self, device):
        is_auto = self._lambda_u is None
        return (VariationalModel if is_auto else TextModel)(self, device)

    def _split_text(self, item, text):
        return split_text(self, item, text)

    def _make_prior(self, fit, documents):
        network = self._make_network(fit, documents.vectorizer)
        return (TextPrior if network.squashes else EvidencePrior)(
            network,
            documents.values,
            documents.items,
            len(fit.ratings.items),
            fit.random_state,
            epochs=self.network_epochs,
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
        counts = fit.group.total(counts)
        weights = np.sqrt(np.maximum(counts, 1))
        return self.lambda_v * weights / weights.mean()

    def _make_network(self, fit, vectorizer) -> TextCNN:
        generator = make_generator(fit.draw_seed())
        vectors = self._initial_word_vectors(vectorizer, generator)
        is_auto, n_factors = penalties_are_auto(self), self.n_factors
        if is_auto and fit.previous is not None:
            n_factors = n_factors_to_continue(fit.previous, self)
        network = TextCNN(
            vectors,
            [int(w) for w in self.window_sizes],
            self.n_filters,
            self.n_hidden,
            n_factors + self.fit_biases,
            generator,
            fit.device,
            squashes=not is_auto,
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
    """Replace initial weights with those of the previous fit; match words by name."""
    old = {name: as_tensor(w) for name, w in previous.text_weights_.items()}
    new = network.state_dict()
    words, vectors = old.pop("vectors"), new.pop("vectors").clone()
    if words.shape[1] != vectors.shape[1] or any(
        w.shape != old[name].shape if name in old else True for name, w in new.items()
    ):
        raise ValueError(
            "warm_start=True cannot continue a fit whose embedding_dim, n_filters, "
            "window_sizes, n_hidden, n_factors or fit_biases were others: use "
            "warm_start=False."
        )
    known, vocabulary = previous.vectorizer_.vocabulary_, vectorizer.vocabulary_
    common = [word for word in vocabulary if word in known]
    places = [vocabulary[word] for word in common]
    vectors[places] = words[[known[word] for word in common]].to(vectors)
    network.load_state_dict(old | {"vectors": vectors})
