"""Texts of items: sequences of words, word vectors, and a container for `fit`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.utils.validation import check_is_fitted

from ._data.texts import ItemTexts, check_texts
from ._data.word_vectors import WordVectors, load_word_vectors
from ._sklearn_compat import Interval, RealNotInt, StrOptions, validated

__all__ = ["ItemTexts", "SequenceVectorizer", "WordVectors", "load_word_vectors"]

_DOCUMENT_FREQUENCY = [
    Interval(RealNotInt, 0, 1, closed="both"),
    Interval(Integral, 1, None, closed="left"),
]


# No set_output: the columns are positions in a text, not named features.
class SequenceVectorizer(  # type: ignore[call-arg]
    TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):
    r"""Convert texts to sequences of word indices of equal length.

    A text becomes the sequence of the indices of its words, which is the input of a
    convolutional or recurrent network. Words outside the vocabulary are removed,
    sequences are truncated to their first `max_words` words, and shorter sequences are
    padded with zeros at the end. The defaults are those of ConvMF [1]_.

    Parameters
    ----------
    max_words : int, default=300
        Length of the sequences.

    max_features : int or None, default=8000
        Maximum size of the vocabulary. Words with the largest tf-idf summed over the
        texts are kept, see Notes. None means no limit.

    max_df : float in range [0, 1] or int, default=0.5
        Maximum document frequency of a word, as a proportion of the texts (float) or
        as their number (int). Words in more texts are removed. With few texts the
        default is strict: of two texts it removes the words that they share, and of a
        single text it removes all words.

    min_df : float in range [0, 1] or int, default=1
        Minimum document frequency of a word, as for `max_df`. Words in fewer texts are
        removed.

    stop_words : {"english"}, list, tuple, set, frozenset or None, default="english"
        Words to remove: scikit-learn's English list, or a list of your own. The English
        list does no harm in other languages.

    lowercase : bool, default=True
        Whether to convert texts to lowercase.

    token_pattern : str, default=r"(?u)\\b\\w\\w+\\b"
        Regular expression of a word, as in
        :class:`~sklearn.feature_extraction.text.CountVectorizer`. By default a word has
        two or more letters or digits of any script. Ignored if `tokenizer` is given.

    tokenizer : callable or None, default=None
        Function that splits a text into a list of words, for example for scripts
        without spaces or for stemming.

    Attributes
    ----------
    vocabulary_ : dict
        Index of each word, from 1 to ``len(vocabulary_)`` in alphabetical order. Index
        0 is padding, so an embedding needs ``len(vocabulary_) + 1`` rows.

    See Also
    --------
    load_word_vectors : Load word vectors to initialize an embedding.
    sklearn.feature_extraction.text.CountVectorizer : Convert texts to word counts.

    Notes
    -----
    Let word :math:`w` occur :math:`n_w` times, in :math:`d_w` of :math:`n` texts. Its
    tf-idf summed over the texts is

    .. math:: n_w \left(\ln \frac{1 + n}{1 + d_w} + 1\right),

    with the idf of :class:`~sklearn.feature_extraction.text.TfidfTransformer`. Ties are
    broken in alphabetical order. Missing and blank texts are not counted, neither here
    nor in `max_df` and `min_df`.

    The paper truncates texts to 300 words before it removes words. Here, words are
    removed first, so removed words take up no room in a sequence.

    References
    ----------
    .. [1] D. Kim, C. Park, J. Oh, S. Lee, H. Yu. "Convolutional Matrix Factorization
       for Document Context-Aware Recommendation", RecSys 2016.
       https://doi.org/10.1145/2959100.2959165

    Examples
    --------
    >>> from skrec.text import SequenceVectorizer
    >>> plots = [
    ...     "A cat chases a mouse, and the mouse chases the cat.",
    ...     "A mouse saves a lion.",
    ...     None,
    ...     "The lion sleeps.",
    ...     "Stars collide.",
    ... ]
    >>> vectorizer = SequenceVectorizer(max_words=5)
    >>> sequences = vectorizer.fit_transform(plots)
    >>> vectorizer.vocabulary_["mouse"], vectorizer.vocabulary_["saves"]
    (5, 6)
    >>> sequences
    array([[1, 2, 5, 5, 2],
           [5, 6, 4, 0, 0],
           [0, 0, 0, 0, 0],
           [4, 7, 0, 0, 0],
           [8, 3, 0, 0, 0]], dtype=int32)
    >>> vectorizer.inverse_transform(sequences[1:2])
    [array(['mouse', 'saves', 'lion'], dtype=object)]
    """

    vocabulary_: dict[str, int]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "max_words": [Interval(Integral, 1, None, closed="left")],
        "max_features": [Interval(Integral, 1, None, closed="left"), None],
        "max_df": _DOCUMENT_FREQUENCY,
        "min_df": _DOCUMENT_FREQUENCY,
        "stop_words": [StrOptions({"english"}), list, tuple, set, frozenset, None],
        "lowercase": ["boolean"],
        "token_pattern": [str],
        "tokenizer": [callable, None],
    }

    def __init__(
        self,
        *,
        max_words: int = 300,
        max_features: int | None = 8000,
        max_df: float = 0.5,
        min_df: float = 1,
        stop_words: str | Collection[str] | None = "english",
        lowercase: bool = True,
        token_pattern: str = r"(?u)\b\w\w+\b",
        tokenizer: Callable[[str], list[str]] | None = None,
    ) -> None:
        self.max_words = max_words
        self.max_features = max_features
        self.max_df = max_df
        self.min_df = min_df
        self.stop_words = stop_words
        self.lowercase = lowercase
        self.token_pattern = token_pattern
        self.tokenizer = tokenizer

    @validated
    def fit(self, X: Iterable[Any], y: None = None) -> Self:
        """Learn the vocabulary.

        Parameters
        ----------
        X : iterable of str, of length n_texts
            Texts. None, NaN, ``pd.NA`` and blank strings are missing texts.

        y : None
            Ignored.

        Returns
        -------
        self : object
            Fitted vectorizer.

        Raises
        ------
        ValueError
            If the vocabulary would be empty, or if X is a single text.

        TypeError
            If X has values that are neither str nor missing.
        """
        self._learn(X)
        return self

    @validated
    def fit_transform(self, X: Iterable[Any], y: None = None) -> NDArray[np.int32]:
        """Learn the vocabulary and convert the same texts, splitting each text once.

        Parameters
        ----------
        X : iterable of str, of length n_texts
            Texts. None, NaN, ``pd.NA`` and blank strings are missing texts.

        y : None
            Ignored.

        Returns
        -------
        sequences : ndarray of shape (n_texts, max_words), dtype int32
            Indices of the words of each text, padded with zeros.

        Raises
        ------
        ValueError
            If the vocabulary would be empty, or if X is a single text.

        TypeError
            If X has values that are neither str nor missing.
        """
        return self._to_sequences(self._learn(X))

    def transform(self, X: Iterable[Any]) -> NDArray[np.int32]:
        """Convert texts to sequences.

        Parameters
        ----------
        X : iterable of str, of length n_texts
            Texts. None, NaN, ``pd.NA`` and blank strings are missing texts.

        Returns
        -------
        sequences : ndarray of shape (n_texts, max_words), dtype int32
            Indices of the words of each text, padded with zeros. The row of a text
            without words of the vocabulary is zero.

        Raises
        ------
        ValueError
            If X is a single text.

        TypeError
            If X has values that are neither str nor missing.
        """
        check_is_fitted(self)
        # The vocabulary has no stop words, so they need no removal here.
        split = self._word_splitter(stop_words=None)
        texts = check_texts(X, "X")
        return self._to_sequences([split(text) if text else [] for text in texts])

    def inverse_transform(self, X: ArrayLike) -> list[NDArray[Any]]:
        """Convert sequences of word indices to words.

        Parameters
        ----------
        X : array-like of int, of shape (n_texts, n_words)
            Sequences of word indices. Zeros are ignored.

        Returns
        -------
        words : list of n_texts arrays of str
            Words of each sequence, in order.

        Raises
        ------
        ValueError
            If X is not two-dimensional, or has values that are not word indices.
        """
        check_is_fitted(self)
        X = np.asarray(X)
        n_words = len(self.vocabulary_)
        if X.ndim != 2 or X.dtype.kind not in "iu":
            raise ValueError(
                "X must be a two-dimensional array of integers, as returned by "
                f"transform, got shape {X.shape} and dtype {X.dtype}."
            )
        if X.size and not 0 <= X.min() <= X.max() <= n_words:
            raise ValueError(
                f"X has indices from {X.min()} to {X.max()}, but the vocabulary has "
                f"the indices 1 to {n_words}, and 0 is padding: give sequences from "
                "this vectorizer."
            )
        words = np.concatenate([[None], self.get_feature_names_out()])
        return [words[row[row > 0]] for row in X]

    def get_feature_names_out(self, input_features: None = None) -> NDArray[Any]:
        """Get the words of the vocabulary, which are not names of output columns.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        words : ndarray of shape (n_words,), dtype object
            Words in the order of their indices, starting with index 1.
        """
        check_is_fitted(self)
        # The dict is ordered by index.
        return np.array(list(self.vocabulary_), dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.allow_nan = True
        # The output has integers, whatever the input.
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _learn(self, X: Iterable[Any]) -> list[list[str]]:
        """Learn the vocabulary; return the words of each text."""
        split = self._word_splitter(self.stop_words)
        texts = check_texts(X, "X")
        words = [split(text) if text else [] for text in texts]
        counted = [w for w, text in zip(words, texts, strict=True) if text]
        chosen = self._choose(counted)
        self.vocabulary_ = {word: index for index, word in enumerate(chosen, start=1)}
        return words

    def _choose(self, documents: list[list[str]]) -> list[str]:
        """Return the words of the vocabulary in alphabetical order."""
        counter = CountVectorizer(
            analyzer=_identity, max_df=self.max_df, min_df=self.min_df
        )
        try:
            counts = counter.fit_transform(documents)
        except ValueError as error:
            raise ValueError(
                f"The vocabulary is empty: no word of the {len(documents)} texts in X "
                "(missing and blank texts not counted) is left. Raise max_df (now "
                f"{self.max_df}), lower min_df (now {self.min_df}), or give fewer "
                "stop_words; or check that token_pattern or tokenizer finds words."
            ) from error
        names = counter.get_feature_names_out()
        # One product per word, so that ties have exactly equal scores.
        n_occurrences = np.asarray(counts.sum(axis=0)).ravel()
        scores = TfidfTransformer().fit(counts).idf_ * n_occurrences
        best = np.argsort(-scores, kind="stable")[: self.max_features]
        return names[np.sort(best)].tolist()

    def _to_sequences(self, documents: list[list[str]]) -> NDArray[np.int32]:
        sequences = np.zeros((len(documents), self.max_words), dtype=np.int32)
        index_of = self.vocabulary_
        for row, words in zip(sequences, documents, strict=True):
            indices = [index_of[word] for word in words if word in index_of]
            n_kept = min(len(indices), self.max_words)
            row[:n_kept] = indices[:n_kept]
        return sequences

    def _word_splitter(
        self, stop_words: str | Collection[str] | None
    ) -> Callable[[str], list[str]]:
        vectorizer = CountVectorizer(
            lowercase=self.lowercase,
            token_pattern=self.token_pattern,
            tokenizer=self.tokenizer,
            stop_words=stop_words,
        )
        with warnings.catch_warnings():
            if isinstance(stop_words, str):
                # A tokenizer for another language may split the words of the English
                # list differently, which does no harm. For custom lists, warn.
                warnings.filterwarnings("ignore", "Your stop_words may be inconsistent")
            return vectorizer.build_analyzer()


def _identity(words: list[str]) -> list[str]:
    return words
