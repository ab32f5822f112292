"""Matrix factorizations with item priors computed from texts."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from .._base import STOPPING_CONSTRAINTS, WARM_START_CONSTRAINTS, BaseRecommender
from .._core.device import own_settings
from .._data.ids import merge_ids
from .._data.texts import ItemTexts
from .._factorization.alternation import FACTORIZATION_CONSTRAINTS
from .._factorization.features import check_new_ids, with_described_items
from .._factorization.priors import Prior
from .._fitting import Fit, Trainer, fit_method
from .._sklearn_compat import HasMethods
from .documents import Documents, has_words, read_item_texts
from .text_model import TextModel
from .text_trainer import TextTrainer


class TextFactorization(BaseRecommender):
    """Base class of factorizations with an item prior computed from texts.

    A subclass has the parameters `vectorizer`, `memory` and `fit_biases`. It defines
    the vectorization of texts, their prior, and the prediction for further texts.
    """

    text_factors_: Any
    text_biases_: Any
    user_text_biases_: NDArray[Any]
    vectorizer_: Any

    # Whether a warm start keeps the vectorizer of the previous fit.
    _keeps_vectorizer: ClassVar[bool] = True
    # Values of the prior's fitted attributes in a fit without texts.
    _learned_without_texts: ClassVar[dict[str, Any]]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseRecommender._parameter_constraints,
        **STOPPING_CONSTRAINTS,
        **WARM_START_CONSTRAINTS,
        **FACTORIZATION_CONSTRAINTS,
        "fit_biases": ["boolean"],
        "vectorizer": [HasMethods(["fit_transform", "transform"]), None],
        "memory": [None, str, HasMethods(["cache"])],
    }

    # Metadata routing passes texts to these estimators without a request.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"item_texts": True}

    @abstractmethod
    def _default_vectorizer(self) -> Any:
        """Vectorizer used if the parameter is None."""

    @abstractmethod
    def _check_documents(self, vectorizer: Any, documents: Any) -> Any:
        """Check the output of a vectorizer; reject output of the wrong type.

        Returns
        -------
        documents : ndarray or csr_array of shape (n_texts, n_columns)
            One row for each text; empty for texts without a known word.
        """

    @abstractmethod
    def _make_prior(self, fit: Fit, documents: Documents) -> Prior:
        """Prior of items with these texts.

        If there are biases, they are the last column of the prior means.
        """

    @abstractmethod
    def _read(self, documents: Any) -> np.ndarray:
        """Means of the fitted prior for further documents."""

    def _make_trainer(self, fit: Fit, documents: Documents | None) -> Trainer:
        """Trainer of the alternation with the prior of the texts."""
        prior = None if documents is None else self._make_prior(fit, documents)
        return TextTrainer(fit, documents, prior, self._item_penalties(fit))

    def _check_parameters(self) -> None:
        """Reject invalid parameters that `_parameter_constraints` does not detect."""

    def _item_penalties(self, fit: Fit) -> np.ndarray | None:
        """Penalty of each item; None means `lambda_v`."""
        return None

    @fit_method
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        item_texts: Any = None,
    ) -> Self:
        """Fit the model to ratings and to texts of the items.

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

        Returns
        -------
        self : estimator

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
        fit = Fit(self, X, y, sample_weight, item_texts)
        return fit.run(self._make_trainer(fit, read_item_texts(fit)))

    @own_settings()
    def extend_items(self, item_texts: Any) -> Self:
        """Add cold-start items to a fitted model, given only their texts.

        Parameters
        ----------
        item_texts : mapping, Series or ItemTexts around one
            Texts by item id. After a fit on a matrix, the ids are the indices of the
            new columns: n_items, n_items + 1, ...

        Returns
        -------
        self : estimator
            The estimator, with the new items in `items_`, `item_factors_`,
            `item_biases_`, `item_means_`, `text_factors_` and `text_biases_`.

        Raises
        ------
        TypeError, ValueError
            If the model was fitted without texts, if an id is already known, or if an
            item has no text with a word known to the model.
        """
        ids, documents = self._read_new_items(item_texts)
        outputs = self._read(documents)
        all_ids, merge = merge_ids(self.items_, ids, "item")
        factors, biases = outputs, np.zeros(len(ids))
        if self._has_biases:
            factors, biases = outputs[:, :-1], outputs[:, -1]
        extended = with_described_items(self, all_ids, merge) | {
            "item_factors_": merge(self.item_factors_, factors),
            "text_factors_": merge(self.text_factors_, factors),
            "item_biases_": merge(self.item_biases_, biases),
            "text_biases_": merge(self.text_biases_, biases),
            "item_means_": merge(self.item_means_, self.global_mean_),
        }
        self.__dict__ = vars(self) | extended
        return self

    def _make_model(self, device):
        return TextModel(self, device)

    def _read_new_items(self, item_texts: Any) -> tuple[NDArray[Any], Any]:
        """Validate the texts of new items; return their ids and documents."""
        check_is_fitted(self)
        if self.text_factors_ is None:
            raise ValueError(
                "The model was fitted without texts, so that a text says nothing to "
                "it: pass item_texts to fit."
            )
        ids, texts = _check_new_items(self, item_texts)
        documents = self._check_documents(
            self.vectorizer_, self.vectorizer_.transform(texts)
        )
        is_readable = has_words(documents)
        if not is_readable.all():
            unreadable = ids.tolist()[is_readable.argmin()]
            raise ValueError(
                f"The text of item {unreadable!r} has no word that the model knows: "
                "leave the item out, or fit anew with its text."
            )
        return ids, documents


def _check_new_items(model, item_texts):
    """Validate the ids and texts of items to be added."""
    texts = item_texts if isinstance(item_texts, ItemTexts) else ItemTexts(item_texts)
    if texts.ids is None:
        raise TypeError(
            "item_texts is a sequence, which does not say what the new items are "
            "called: give a mapping or Series from item id to text."
        )
    check_new_ids(model, texts.ids, "item_texts", "item")
    missing = [i for i, text in zip(texts.ids, texts.texts, strict=True) if not text]
    if missing:
        raise ValueError(f"item_texts has no text for item {missing[0]!r}.")
    return texts.ids, list(texts.texts)
