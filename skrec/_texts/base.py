"""What the factorizations share whose items are drawn to what their texts say."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import _fit_context, clone
from sklearn.callback import with_callbacks
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.validation import check_is_fitted, check_memory

from .._base import PRIOR_RATINGS
from .._core.device import resolve_device
from .._core.ridge import positive_penalty
from .._data.ids import positions_of, union_of_ids
from .._data.ratings import row_numbers
from .._factorization.alternation import BaseFactorization, ItemPrior
from ..text import ItemTexts


class BaseTextFactorization(BaseFactorization):
    """Base of the factorizations with an item prior that reads texts.

    A subclass has the parameters `vectorizer`, `memory` and `fit_biases`, says what
    texts become (`_default_vectorizer`, `_check_documents`), makes the prior of them
    (`_make_text_prior`), keeps what it has learned (`_describe_text_prior`), and reads
    further texts with that (`_read`).
    """

    # What `_make_text_prior` returns.
    _prior_class: Any

    text_factors_: np.ndarray
    text_biases_: np.ndarray
    user_text_biases_: np.ndarray

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseFactorization._parameter_constraints,
        "fit_biases": ["boolean"],
        "vectorizer": [HasMethods(["fit_transform", "transform"]), None],
        "memory": [None, str, HasMethods(["cache"])],
    }

    # Texts belong to these estimators: with metadata routing they come unasked.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"item_texts": True}

    @abstractmethod
    def _default_vectorizer(self):
        """What turns texts into documents where `vectorizer` is None."""

    @abstractmethod
    def _check_documents(self, vectorizer, documents):
        """Refuse what a vectorizer of another kind returns.

        Returns
        -------
        documents : ndarray or csr_array of shape (n_texts, n_columns)
            One row for each text, without any entry where there is no known word.
        """

    @abstractmethod
    def _make_text_prior(
        self, vectorizer, documents, items, ratings, random_state, device
    ) -> ItemPrior:
        """The prior of items whose texts are these documents.

        Its means have the biases in their last column, if there are biases.
        """

    @abstractmethod
    def _describe_text_prior(self, prior) -> dict[str, Any]:
        """What the prior has learned, as fitted attributes; None without texts."""

    @abstractmethod
    def _read(self, documents) -> np.ndarray:
        """What the fitted prior makes of documents: its means for them."""

    def _check_parameters(self):
        """Refuse parameters that `_parameter_constraints` cannot tell."""

    def _fit_vectorizer(self, texts):
        """The fitted vectorizer, and the documents that it makes of the texts."""
        fit_transform = check_memory(self.memory).cache(_fit_transform)
        return fit_transform(self._new_vectorizer(), texts)

    def _new_vectorizer(self):
        if self.vectorizer is None:
            return self._default_vectorizer()
        return clone(self.vectorizer)

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
        self : estimator

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
            If the objective became infinite, or had not settled in `max_iter`
            iterations, where it is one that settles.
        """
        self._check_parameters()
        resolve_device(self.device)  # before there is any work
        ratings, texts, known = self._check_fit(X, y, sample_weight, item_texts)
        metadata = {"sample_weight": sample_weight, "item_texts": item_texts}
        if texts is None or not known["_has_text"].any():
            warnings.warn(
                "There are no item_texts: the factorization goes without. Pass "
                "item_texts to fit, or use PMFRegressor or BiasedMFRegressor.",
                stacklevel=4,
            )
            known["vectorizer_"] = self._new_vectorizer()
            return self._alternate(X, y, metadata, ratings, known)
        items = np.flatnonzero(known["_has_text"])
        vectorizer, documents = self._fit_vectorizer([texts[i] for i in items])
        documents = self._check_documents(vectorizer, documents)
        # A text without a known word says nothing.
        has_words = _has_words(documents)
        if not has_words.any():
            raise ValueError(
                f"item_texts has no word that the {type(vectorizer).__name__} knows: "
                "give texts that have, or another vectorizer."
            )
        items, documents = items[has_words], documents[has_words]
        known["vectorizer_"] = vectorizer
        known["_has_text"] = np.isin(np.arange(len(texts)), items)

        def make_prior(ratings, random_state, device):
            return self._make_text_prior(
                vectorizer, documents, items, ratings, random_state, device
            )

        return self._alternate(X, y, metadata, ratings, known, make_prior)

    def _has_biases(self):
        return self.fit_biases

    def extend_items(self, item_texts):
        """Add items to a fitted model, from their texts alone.

        Parameters
        ----------
        item_texts : mapping, Series or ItemTexts around one
            Item id to text. After a fit on a matrix the ids are the numbers of the
            columns that come to be: n_items, n_items + 1, ...

        Returns
        -------
        self : estimator
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
        documents = self._check_documents(
            self.vectorizer_, self.vectorizer_.transform(texts)
        )
        has_words = _has_words(documents)
        if not has_words.all():
            silent = ids.tolist()[has_words.argmin()]
            raise ValueError(
                f"The text of item {silent!r} has no word that the model knows: leave "
                "the item out, or fit anew with its text."
            )
        outputs = self._read(documents)
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
        if not isinstance(prior, self._prior_class):
            described = {"text_factors_": None, "text_biases_": None}
            return described | self._describe_text_prior(None)
        means = prior.means().cpu().numpy()
        biases = means[:, -1] if self.fit_biases else np.zeros(len(means), means.dtype)
        return {
            "text_factors_": means[:, : self.n_factors].copy(),
            "text_biases_": biases.copy(),
            **self._describe_text_prior(prior),
        }


class BaseBagOfWordsFactorization(BaseTextFactorization):
    """Base of the factorizations that read how often a text has which word.

    With `warm_start` they keep the words of the last fit.
    """

    def _continues(self):
        """Whether what was learned from texts in the last fit is kept."""
        return self.warm_start and getattr(self, "text_factors_", None) is not None

    def _fit_vectorizer(self, texts):
        if self._continues():
            return self.vectorizer_, self.vectorizer_.transform(texts)
        try:
            return super()._fit_vectorizer(texts)
        except ValueError as error:
            raise ValueError(
                f"The vectorizer cannot learn from the {len(texts)} texts in "
                f"item_texts: {error} The default one leaves out English stop words "
                "and words in more than half of the texts; give another one."
            ) from error

    def _check_documents(self, vectorizer, documents: Any):
        is_sparse = sp.issparse(documents)
        if not is_sparse or (documents.data < 0).any():
            found = "negative entries" if is_sparse else type(documents).__name__
            raise TypeError(
                "vectorizer must turn texts into a sparse matrix of shape (n_texts, "
                "n_words) without negative entries, as CountVectorizer does, got "
                f"{type(vectorizer).__name__} that returns {found}."
            )
        documents = sp.csr_array(documents)
        documents.eliminate_zeros()
        documents.sort_indices()
        return documents


def _fit_transform(vectorizer, texts):
    """The fitted vectorizer and what it makes of texts, for a cache of both."""
    return vectorizer, vectorizer.fit_transform(texts)


def _has_words(documents) -> np.ndarray:
    """Which rows have an entry, of shape (n_texts,)."""
    return (documents != 0).sum(axis=1) > 0


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
