"""Texts of items: sequences of words, word vectors and what carries texts to `fit`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted

from ._data.texts import ItemTexts, check_texts
from ._data.word_vectors import WordVectors, load_word_vectors

__all__ = ["ItemTexts", "SequenceVectorizer", "WordVectors", "load_word_vectors"]

_DOCUMENT_FREQUENCY = [
    Interval(RealNotInt, 0, 1, closed="both"),
    Interval(Integral, 1, None, closed="left"),
]


# No set_output: the columns are places in a text, no features with names.
class SequenceVectorizer(  # type: ignore[call-arg]
    TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):
    r"""Convert texts to sequences of word indices, all of one length.

    A text becomes the indices of its words in their order: what a convolutional or
    recurrent network reads. Words outside the vocabulary are left out, the first
    `max_words` of the rest are kept, and shorter sequences are filled up with zeros at
    the end. The defaults are those of ConvMF [1]_.

    Parameters
    ----------
    max_words : int, default=300
        The length of the sequences.

    max_features : int or None, default=8000
        How many words the vocabulary has at most: those with the largest tf-idf summed
        over the texts, see Notes. None means all.

    max_df : float in range [0, 1] or int, default=0.5
        Words in more texts than this are left out: a proportion of the texts (float) or
        their number (int). With few texts the default is strict: of two texts it
        leaves out the words that they share, and a single one it leaves no word.

    min_df : float in range [0, 1] or int, default=1
        Words in fewer texts than this are left out, as for `max_df`.

    stop_words : {"english"}, list, tuple, set, frozenset or None, default="english"
        Words to be left out: those of scikit-learn's English list, or one's own. They
        do no harm in other languages.

    lowercase : bool, default=True
        Whether to convert texts to lowercase.

    token_pattern : str, default=r"(?u)\\b\\w\\w+\\b"
        The regular expression of a word, as of
        :class:`~sklearn.feature_extraction.text.CountVectorizer`: by default two or
        more letters or digits of any script. Not used if `tokenizer` is given.

    tokenizer : callable or None, default=None
        Splits a text into a list of words, for scripts without spaces or for stems.

    Attributes
    ----------
    vocabulary_ : dict
        The index of each word, from 1 to ``len(vocabulary_)`` in alphabetical order; 0
        is padding. An embedding needs ``len(vocabulary_) + 1`` rows.

    See Also
    --------
    load_word_vectors : Word vectors to begin an embedding with.
    sklearn.feature_extraction.text.CountVectorizer : Counts instead of sequences.

    Notes
    -----
    With :math:`n_w` the times that word :math:`w` occurs, in :math:`d_w` of :math:`n`
    texts, its tf-idf summed over the texts is

    .. math:: n_w \left(\ln \frac{1 + n}{1 + d_w} + 1\right),

    the idf being that of :class:`~sklearn.feature_extraction.text.TfidfTransformer`.
    Among equals the first in the alphabet is taken. Missing and blank texts do not
    count as texts, neither here nor in `max_df` and `min_df`.

    The paper cuts texts to 300 words before it leaves words out; here only words that
    are kept take up room.

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
        max_words=300,
        max_features=8000,
        max_df=0.5,
        min_df=1,
        stop_words="english",
        lowercase=True,
        token_pattern=r"(?u)\b\w\w+\b",
        tokenizer=None,
    ):
        self.max_words = max_words
        self.max_features = max_features
        self.max_df = max_df
        self.min_df = min_df
        self.stop_words = stop_words
        self.lowercase = lowercase
        self.token_pattern = token_pattern
        self.tokenizer = tokenizer

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Choose the vocabulary.

        Parameters
        ----------
        X : iterable of str, of length n_texts
            The texts. None, NaN, ``pd.NA`` and blank text stand for no text.

        y : None
            Ignored.

        Returns
        -------
        self : object
            Fitted vectorizer.

        Raises
        ------
        ValueError
            If no word is left for the vocabulary, or X is a single text.

        TypeError
            If X has something else than texts.
        """
        self._learn(X)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X, y=None):
        """Choose the vocabulary and convert the same texts, each split but once.

        Parameters
        ----------
        X : iterable of str, of length n_texts
            The texts. None, NaN, ``pd.NA`` and blank text stand for no text.

        y : None
            Ignored.

        Returns
        -------
        sequences : ndarray of shape (n_texts, max_words), dtype int32
            The indices of the words of each text, then zeros.

        Raises
        ------
        ValueError
            If no word is left for the vocabulary, or X is a single text.

        TypeError
            If X has something else than texts.
        """
        return self._to_sequences(self._learn(X))

    def transform(self, X):
        """Convert texts to sequences.

        Parameters
        ----------
        X : iterable of str, of length n_texts
            The texts. None, NaN, ``pd.NA`` and blank text stand for no text.

        Returns
        -------
        sequences : ndarray of shape (n_texts, max_words), dtype int32
            The indices of the words of each text, then zeros. A text without a word of
            the vocabulary has only zeros.

        Raises
        ------
        ValueError
            If X is a single text.

        TypeError
            If X has something else than texts.
        """
        check_is_fitted(self)
        # No stop word is in the vocabulary, so that it leaves them out as well.
        split = self._word_splitter(stop_words=None)
        texts = check_texts(X, "X")
        return self._to_sequences([split(text) if text else [] for text in texts])

    def inverse_transform(self, X):
        """Give the words of sequences.

        Parameters
        ----------
        X : array-like of int, of shape (n_texts, n_words)
            Indices of words; zeros are left out.

        Returns
        -------
        words : list of n_texts arrays of str
            The words of each sequence in order.

        Raises
        ------
        ValueError
            If X is not of two dimensions or has something else than indices of words.
        """
        check_is_fitted(self)
        X = np.asarray(X)
        n_words = len(self.vocabulary_)
        if X.ndim != 2 or X.dtype.kind not in "iu":
            raise ValueError(
                "X must have two dimensions and hold integers, as transform gives "
                f"them, got shape {X.shape} and dtype {X.dtype}."
            )
        if X.size and not 0 <= X.min() <= X.max() <= n_words:
            raise ValueError(
                f"X has indices from {X.min()} to {X.max()}, but the vocabulary has "
                f"the indices 1 to {n_words}, and 0 is padding: give sequences of this "
                "vectorizer."
            )
        words = np.concatenate([[None], self.get_feature_names_out()])
        return [words[row[row > 0]] for row in X]

    def get_feature_names_out(self, input_features=None):
        """Get the words of the vocabulary; they are no names of columns.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        words : ndarray of shape (n_words,), dtype object
            The words in the order of their indices, that of index 1 first.
        """
        check_is_fitted(self)
        # The dict is in the order of its indices.
        return np.array(list(self.vocabulary_), dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.allow_nan = True
        # Integers come out of texts.
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _learn(self, X) -> list[list[str]]:
        """Choose the vocabulary; the words of each text, for further use."""
        split = self._word_splitter(self.stop_words)
        texts = check_texts(X, "X")
        words = [split(text) if text else [] for text in texts]
        counted = [w for w, text in zip(words, texts, strict=True) if text]
        chosen = self._choose(counted)
        self.vocabulary_ = {word: index for index, word in enumerate(chosen, start=1)}
        return words

    def _choose(self, documents: list[list[str]]) -> list[str]:
        """The words of the vocabulary in alphabetical order."""
        counter = CountVectorizer(
            analyzer=_identity, max_df=self.max_df, min_df=self.min_df
        )
        try:
            counts = counter.fit_transform(documents)
        except ValueError as error:
            raise ValueError(
                f"No word of the {len(documents)} texts in X (missing and blank ones "
                "not counted) is left for the vocabulary. Let more pass: raise max_df "
                f"(now {self.max_df}), lower min_df (now {self.min_df}), or give fewer "
                "stop_words; or check that token_pattern or tokenizer finds words."
            ) from error
        names = counter.get_feature_names_out()
        # One product a word, so that equal words have equal scores to the last bit.
        n_occurrences = np.asarray(counts.sum(axis=0)).ravel()
        scores = TfidfTransformer().fit(counts).idf_ * n_occurrences
        best = np.argsort(-scores, kind="stable")[: self.max_features]
        return names[np.sort(best)].tolist()

    def _to_sequences(self, documents: list[list[str]]) -> np.ndarray:
        sequences = np.zeros((len(documents), self.max_words), dtype=np.int32)
        index_of = self.vocabulary_
        for row, words in zip(sequences, documents, strict=True):
            indices = [index_of[word] for word in words if word in index_of]
            n_kept = min(len(indices), self.max_words)
            row[:n_kept] = indices[:n_kept]
        return sequences

    def _word_splitter(self, stop_words) -> Callable[[str], list[str]]:
        vectorizer = CountVectorizer(
            lowercase=self.lowercase,
            token_pattern=self.token_pattern,
            tokenizer=self.tokenizer,
            stop_words=stop_words,
        )
        with warnings.catch_warnings():
            if isinstance(stop_words, str):
                # A tokenizer made for another language may well split the English
                # list's words in its own way. One's own list should be split well.
                warnings.filterwarnings("ignore", "Your stop_words may be inconsistent")
            return vectorizer.build_analyzer()


def _identity(words):
    return words
