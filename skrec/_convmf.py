"""ConvMF: matrix factorization with a convolutional network over item texts."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import _fit_context, clone
from sklearn.callback import with_callbacks
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ._base import PRIOR_RATINGS
from ._core.device import (
    as_tensor,
    inference_device,
    make_generator,
    resolve_device,
)
from ._core.ridge import positive_penalty
from ._core.text_cnn import TextCNN
from ._factorization import BaseFactorization
from ._ids import positions_of, union_of_ids
from ._ratings import row_numbers
from ._text_prior import TextPrior, read
from .text import ItemTexts, SequenceVectorizer, load_word_vectors

# The standard deviation of the initial word vectors.
_WORD_STD = 0.1


class ConvMFRegressor(BaseFactorization):
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
        What counts as an improvement: a decrease of the objective by this part, or an
        increase of the validation score by this much.

    early_stopping : bool, default=False
        Hold out ratings, stop when their score has not improved for
        `n_iter_no_change` iterations, and keep the best factors.

    validation_fraction : float, default=0.1
        The part of the ratings that is held out.

    n_iter_no_change : int, default=10
        Iterations without improvement after which to stop.

    warm_start : bool, default=False
        Start from the factors and the network of the last fit, if there was one. Users,
        items and words are matched by name; new ones start at random.

    clip : bool, default=True
        Keep predictions inside the range of the training ratings.

    device : str or torch.device, default="auto"
        "cpu", "cuda", "cuda:0", ...; "auto" takes a GPU where there is one. A fitted
        model falls back to the CPU where the device is missing.

    dtype : {"float32", "float64"}, default="float32"
        The precision of the factors.

    random_state : int, RandomState instance or None, default=None
        Determines initial weights, batches, dropout and held-out ratings. An int gives
        the same model in each call, bit for bit with the same number of threads.

    verbose : bool or int, default=False
        Print the objective after each iteration. For progress bars set a callback:
        ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    users_ : ndarray of shape (n_users,)
        The ids of the users, ascending; row numbers after a fit on a matrix.

    items_ : ndarray of shape (n_items,)
        The ids of the items, ascending; column numbers after a fit on a matrix.

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

    user_means_, item_means_ : ndarray of shape (n_users,) and (n_items,)
        Mean ratings, drawn to the global mean as by 5 ratings more.

    global_mean_ : float
        The mean rating.

    rating_range_ : tuple of (float, float)
        The lowest and the highest training rating.

    loss_curve_ : list of float
        The objective after each iteration.

    validation_scores_ : list of float
        R² of the held-out ratings after each iteration; empty without
        `early_stopping`.

    n_iter_ : int
        Iterations made.

    n_features_in_ : int
        2 for pairs, the number of items for a matrix.

    feature_names_in_ : ndarray of shape (2,)
        Names of the columns, if X was a DataFrame with string names.

    device_ : str
        Where the model was fitted.

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
    penalised, its word vectors are. Ratings on a much wider scale than that of stars
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

    text_factors_: np.ndarray
    text_biases_: np.ndarray
    user_text_biases_: np.ndarray
    _divergence_remedy = (
        "Lower learning_rate_init, or bring the ratings to a smaller scale"
    )

    text_weights_: dict[str, np.ndarray]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseFactorization._parameter_constraints,
        "lambda_w": [Interval(Real, 0, None, closed="left")],
        "fit_biases": ["boolean"],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "n_filters": [Interval(Integral, 1, None, closed="left")],
        "window_sizes": ["array-like"],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "word_dropout": [Interval(Real, 0, 1, closed="left")],
        "cnn_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "vectorizer": [HasMethods(["fit_transform", "transform"]), None],
        # Anything that `load_word_vectors` takes; it says what it does not.
        "word_vectors": "no_validation",  # type: ignore[dict-item]
        "item_weight": [StrOptions({"sqrt"}), None],
    }

    # Texts belong to this estimator: with metadata routing they come unasked.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"item_texts": True}

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

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, sample_weight=None, item_texts=None):
        """Fit the model to ratings and to texts of the items.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_users, n_items)
            User and item ids; or a matrix whose stored entries are the ratings, a
            stored 0 included.

        y : array-like of shape (n_ratings,), sparse of shape (n_users, n_items) or None
            The ratings of the pairs. Beside a matrix, further ratings or None.

        sample_weight : array-like or sparse, default=None
            The weight of each rating's error, of shape (n_ratings,); beside a matrix
            sparse with its entries, or of shape (n_users,). A rating of weight 0 is as
            good as absent.

        item_texts : mapping, Series, ItemTexts or sequence, default=None
            Item id to text; beside a matrix also one text for each column. Items may
            lack a text, or have one and no rating. scikit-learn's cross-validation
            cuts sized objects of as many entries as there are samples:
            :class:`skrec.text.ItemTexts` passes whole.

        Returns
        -------
        self : ConvMFRegressor

        Raises
        ------
        TypeError, ValueError
            If ratings, texts or parameters are not what they should be; see the
            message.

        Warns
        -----
        UserWarning
            If there are no texts.
        ConvergenceWarning
            If the objective became infinite.
        """
        windows = self._check_windows()
        resolve_device(self.device)  # before there is any work
        ratings, texts, known = self._check_fit(X, y, sample_weight, item_texts)
        vectorizer = (
            SequenceVectorizer() if self.vectorizer is None else clone(self.vectorizer)
        )
        known["vectorizer_"] = vectorizer
        metadata = {"sample_weight": sample_weight, "item_texts": item_texts}
        if texts is None or not known["_has_text"].any():
            warnings.warn(
                "There are no item_texts: the factorization goes without. Pass "
                "item_texts to fit, or use PMFRegressor or BiasedMFRegressor.",
                stacklevel=4,
            )
            return self._alternate(X, y, metadata, ratings, known)
        items = np.flatnonzero(known["_has_text"])
        sequences = vectorizer.fit_transform([texts[i] for i in items])
        _check_sequences(vectorizer, sequences)
        # A text without a known word says nothing.
        has_words = sequences.any(axis=1)
        items, sequences = items[has_words], sequences[has_words]
        n_items = len(texts)
        known["_has_text"] = np.isin(np.arange(n_items), items)

        def make_prior(ratings, random_state, device):
            network = self._make_network(vectorizer, windows, random_state, device)
            return TextPrior(
                network,
                sequences,
                items,
                n_items,
                random_state,
                epochs=self.cnn_epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate_init,
                dropout=self.dropout,
                word_dropout=self.word_dropout,
                lambda_w=self.lambda_w,
            )

        return self._alternate(X, y, metadata, ratings, known, make_prior)

    def _check_windows(self) -> list[int]:
        windows = list(self.window_sizes)
        if not windows or not all(
            isinstance(w, Integral) and int(w) > 0 for w in windows
        ):
            raise ValueError(
                "window_sizes must be a sequence of positive integers, got "
                f"{self.window_sizes!r}."
            )
        return [int(w) for w in windows]

    def _has_biases(self):
        return self.fit_biases

    def _item_penalties(self, ratings):
        if self.item_weight is None:
            return super()._item_penalties(ratings)
        counts = np.bincount(ratings.indices, minlength=len(ratings.items))
        weights = np.sqrt(np.maximum(counts, 1))
        return self.lambda_v * weights / weights.mean()

    def _make_network(self, vectorizer, windows, random_state, device) -> TextCNN:
        generator = make_generator(random_state.randint(np.iinfo(np.int32).max))
        vectors = self._initial_word_vectors(vectorizer, generator)
        network = TextCNN(
            vectors,
            windows,
            self.n_filters,
            self.hidden_dim,
            self.n_factors + self.fit_biases,
            generator,
            device,
        )
        if self.warm_start and getattr(self, "text_weights_", None):
            self._continue_network(network, vectorizer)
        return network

    def _continue_network(self, network, vectorizer):
        """Overwrite initial weights by those of the last fit; words match by name."""
        old = {name: as_tensor(w) for name, w in self.text_weights_.items()}
        new = network.state_dict()
        words, vectors = old.pop("vectors"), new.pop("vectors").clone()
        if words.shape[1] != vectors.shape[1] or any(
            w.shape != old[name].shape if name in old else True
            for name, w in new.items()
        ):
            raise ValueError(
                "warm_start=True cannot continue a fit whose embedding_dim, n_filters, "
                "window_sizes, hidden_dim, n_factors or fit_biases were others: use "
                "warm_start=False."
            )
        known, vocabulary = self.vectorizer_.vocabulary_, vectorizer.vocabulary_
        common = [word for word in vocabulary if word in known]
        places = [vocabulary[word] for word in common]
        vectors[places] = words[[known[word] for word in common]].to(vectors)
        network.load_state_dict(old | {"vectors": vectors})

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

    def extend_items(self, item_texts):
        """Add items to a fitted model, from their texts alone.

        Parameters
        ----------
        item_texts : mapping, Series or ItemTexts around one
            Item id to text. After a fit on a matrix the ids are the numbers of the
            columns that come to be: n_items, n_items + 1, ...

        Returns
        -------
        self : ConvMFRegressor
            With the new items in `items_`, `item_factors_`, `item_biases_`,
            `item_means_`, `text_factors_` and `text_biases_`.

        Raises
        ------
        TypeError, ValueError
            If the model was fitted without texts, or an id is known already, or an item
            has no text with a word that the model knows.
        """
        check_is_fitted(self)
        if self.text_factors_ is None:
            raise ValueError(
                "The model was fitted without texts, so that a text says nothing to "
                "it: pass item_texts to fit."
            )
        ids, texts = self._check_new_items(item_texts)
        sequences = self.vectorizer_.transform(texts)
        if not sequences.any(axis=1).all():
            silent = ids.tolist()[sequences.any(axis=1).argmin()]
            raise ValueError(
                f"The text of item {silent!r} has no word that the model knows: leave "
                "the item out, or fit anew with its text."
            )
        outputs = read(self.text_weights_, sequences, inference_device(self.device))
        all_ids = union_of_ids(self.items_, ids)
        old = positions_of(self.items_, all_ids, "item")
        new = positions_of(ids, all_ids, "item")

        def merge(known, added):
            merged = np.empty((len(all_ids), *known.shape[1:]), known.dtype)
            merged[old], merged[new] = known, added
            return merged

        factors, biases = outputs, np.zeros(len(ids))
        if self._biased:
            factors, biases = outputs[:, :-1], outputs[:, -1]
        seen = self._seen
        columns = old[seen.indices].astype(seen.indices.dtype)
        shape = seen.shape[0], len(all_ids)
        extended = {
            "items_": all_ids,
            "item_factors_": merge(self.item_factors_, factors),
            "text_factors_": merge(self.text_factors_, factors),
            "item_biases_": merge(self.item_biases_, biases),
            "text_biases_": merge(self.text_biases_, biases),
            "item_means_": merge(self.item_means_, self.global_mean_),
            "_has_text": merge(self._has_text, True),
            "_is_rated": merge(self._is_rated, False),
            "_seen": sp.csr_array((seen.data, columns, seen.indptr), shape=shape),
        }
        if self._fitted_on_matrix:
            extended["n_features_in_"] = len(all_ids)
        self.__dict__.update(extended)
        return self

    def _check_new_items(self, item_texts):
        """Ids and texts of items to be added."""
        texts = (
            item_texts if isinstance(item_texts, ItemTexts) else ItemTexts(item_texts)
        )
        if texts.ids is None:
            raise TypeError(
                "item_texts is a sequence, which does not say what the new items are "
                "called: give a mapping or Series from item id to text."
            )
        known = positions_of(texts.ids, self.items_, "item") >= 0
        if known.any():
            raise ValueError(
                f"item_texts has {texts.ids[known].tolist()[0]!r}, which the model "
                "knows already: leave it out, or fit anew."
            )
        missing = [
            i for i, text in zip(texts.ids, texts.texts, strict=True) if not text
        ]
        if missing:
            raise ValueError(f"item_texts has no text for item {missing[0]!r}.")
        n_known = len(self.items_)
        wanted = np.arange(n_known, n_known + len(texts.ids))
        if self._fitted_on_matrix and not np.array_equal(np.sort(texts.ids), wanted):
            raise ValueError(
                f"The model was fitted on a matrix of {n_known} columns, so that the "
                f"new items are columns {wanted[0]} to {wanted[-1]}: give these ids."
            )
        return texts.ids, list(texts.texts)

    def _text_biases_of_fit(self):
        return self.user_text_biases_

    def _text_biases(self, rows, factors):
        if self.text_factors_ is None:
            return super()._text_biases(rows, factors)
        return _product(_beyond_texts(rows.astype(bool), vars(self)), factors)

    def _leave_one_out(self, rows):
        left_out = super()._leave_one_out(rows)
        text_only = self._is_text_only()[rows.indices]
        if text_only.any():
            biases = self._left_out_text_biases(rows, rows.data - left_out)
            left_out[text_only] += biases[text_only]
        return left_out

    def _left_out_text_biases(self, rows, left_out_errors):
        """The text bias of each row, as it would be without each of its ratings.

        This holds for ratings of items that are known by their text alone: without one
        of them, whose error is e, only the row's vector is another, ``w - e inv(A) z``.
        The text bias is the product of that vector and a direction d, and the ridge
        regression of ``Z d`` on Z has the residuals ``penalty * z' inv(A) d``.
        """
        row, design = row_numbers(rows), self._item_design()
        directions = _beyond_texts(rows.astype(bool), vars(self))
        if self._biased:
            directions[:, -1] = 0
        else:
            directions = directions[:, :-1]
        products = (directions[row] * design[rows.indices]).sum(1)
        coef = self._solve_users(rows, products).coef.cpu().numpy()
        residuals = products - (coef[row] * design[rows.indices]).sum(1)
        penalty = positive_penalty(self._lambda_u, torch.as_tensor(design))
        whole = self._text_biases(rows, self._fold_in(rows)[0])[row]
        return whole - residuals / penalty * left_out_errors

    def _describe(self, alternation, known):
        described = super()._describe(alternation, known)
        biases = np.zeros_like(described["user_biases_"])
        if described["text_factors_"] is not None:
            pattern, _, weights = alternation.by_user
            weights = torch.ones(pattern.nnz) if weights is None else weights
            entries = (t.cpu().numpy() for t in (weights, pattern.col, pattern.crow))
            rows = sp.csr_array(tuple(entries), shape=pattern.shape)
            beyond = _beyond_texts(rows, known | described)
            biases = _product(beyond, described["user_factors_"])
        return described | {"user_text_biases_": biases.astype(self.dtype)}

    def _describe_prior(self, prior):
        if not isinstance(prior, TextPrior):
            return {"text_factors_": None, "text_biases_": None, "text_weights_": {}}
        means = prior.means().cpu().numpy()
        weights = prior.network.state_dict()
        biases = means[:, -1] if self.fit_biases else np.zeros(len(means), means.dtype)
        return {
            "text_factors_": means[:, : self.n_factors].copy(),
            "text_biases_": biases.copy(),
            "text_weights_": {n: w.cpu().numpy().copy() for n, w in weights.items()},
        }


def _beyond_texts(rows, fitted):
    """By how much the items of each row differ from what their texts say, on average.

    Parameters
    ----------
    rows : csr_array of shape (n_rows, n_items)
        How much each item counts.

    fitted : mapping
        The attributes of a fitted model.

    Returns
    -------
    beyond : ndarray of shape (n_rows, n_factors + 1)
        The mean difference of factors and of biases, drawn to zero.
    """
    factors = fitted["item_factors_"] - fitted["text_factors_"]
    biases = fitted["item_biases_"] - fitted["text_biases_"]
    is_compared = (fitted["_has_text"] & fitted["_is_rated"]).astype(factors.dtype)
    distances = np.column_stack([factors, biases]) * is_compared[:, np.newaxis]
    counts = rows @ is_compared
    return (rows @ distances) / (counts + PRIOR_RATINGS)[:, np.newaxis]


def _product(items, users):
    """The sums that the factors and the bias of one item a row add to a rating."""
    return (items[:, :-1] * users).sum(axis=1) + items[:, -1]


def _check_sequences(vectorizer, sequences):
    """Refuse what a vectorizer of another kind returns."""
    if not (
        isinstance(sequences, np.ndarray)
        and sequences.ndim == 2
        and sequences.dtype.kind in "iu"
        and hasattr(vectorizer, "vocabulary_")
    ):
        raise TypeError(
            "vectorizer must turn texts into an integer array of shape (n_texts, "
            "max_words) and have vocabulary_, as skrec.text.SequenceVectorizer does, "
            f"got {type(vectorizer).__name__} that returns "
            f"{type(sequences).__name__}."
        )
