"""Loading of word vectors from GloVe, word2vec and NumPy files, or from memory."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sized
from itertools import chain
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

_File: TypeAlias = IO[bytes] | gzip.GzipFile
_CHUNK = 2**16  # bytes of a binary file that are read at a time
_DAMAGED = "the file is damaged, or not in the format that its name and header indicate"


class WordVectors(NamedTuple):
    """Words and their vectors.

    Attributes
    ----------
    words : list of str, of length n_words
        Words, without duplicates.

    vectors : ndarray of shape (n_words, n_dims)
        Vector of each word.
    """

    words: list[str]
    vectors: NDArray[Any]

    def __repr__(self) -> str:
        # Short, because the repr of an estimator includes its word vectors.
        n_words, n_dims = np.shape(self.vectors)
        return f"WordVectors(<{n_words} words, {n_dims} dimensions>)"


class _Entries(NamedTuple):
    """Words of a source with their unparsed vectors.

    Vectors are parsed only for requested words.
    """

    n_dims: int
    rows: Iterator[tuple[str, Any, int]]  # word, unparsed vector, line or word number
    parse: Callable[[Any], Any]
    place: str  # prefix of the line or word number in error messages


def load_word_vectors(
    source: Any,
    vocabulary: Iterable[str] | None = None,
    *,
    dtype: DTypeLike = "float32",
) -> WordVectors:
    """Load pre-trained word vectors, for example of GloVe or word2vec.

    Parameters
    ----------
    source : str, path-like, mapping, pair or KeyedVectors
        One of the following.

        - Path of a text file of GloVe [1]_ (one line per word: the word and its
          numbers) or word2vec [2]_ (the same after a line with the number of words and
          of dimensions). It may be compressed by gzip.
        - Path of a binary file of word2vec, whose name must end in ``.bin`` or
          ``.bin.gz``.
        - Path of an ``.npz`` file with the arrays ``words`` and ``vectors``.
        - Mapping from word to vector.
        - :class:`WordVectors`, or another pair ``(words, vectors)``.
        - Object with the attributes ``index_to_key`` and ``vectors``, such as gensim's
          KeyedVectors.

    vocabulary : iterable of str, default=None
        Requested words, for example ``vectorizer.vocabulary_`` of a
        :class:`SequenceVectorizer`. None means all words.

    dtype : {"float16", "float32", "float64"} or dtype, default="float32"
        Data type of the vectors.

    Returns
    -------
    word_vectors : WordVectors
        The requested words that the source has, in the order of the source, and their
        vectors of shape (n_words, n_dims). If a word occurs twice, its first vector is
        used.

    Raises
    ------
    ValueError
        If a file is damaged (the message has its path and the position), or if vectors
        are of different lengths, empty, not numeric or not finite.

    TypeError
        If `source` has an unsupported type, or words are not str.

    OSError
        If a file cannot be opened.

    Notes
    -----
    Text files and word2vec files are read word by word. Only the vectors of requested
    words are parsed and kept in memory. A word in a text file may contain spaces, as
    some words of GloVe do, unless it ends in a number. Bytes that are not valid UTF-8
    are decoded with ``surrogateescape``.

    References
    ----------
    .. [1] J. Pennington, R. Socher, C. D. Manning. "GloVe: Global Vectors for Word
       Representation", EMNLP 2014. https://doi.org/10.3115/v1/D14-1162

    .. [2] T. Mikolov, I. Sutskever, K. Chen, G. Corrado, J. Dean. "Distributed
       Representations of Words and Phrases and their Compositionality", NeurIPS 2013.
       https://arxiv.org/abs/1310.4546

    Examples
    --------
    >>> from skrec.text import load_word_vectors
    >>> source = {"cat": [0.5, 1.0], "dog": [0.25, 1.0], "stone": [2.0, 0.0]}
    >>> words, vectors = load_word_vectors(source, vocabulary=["stone", "cat", "cow"])
    >>> words
    ['cat', 'stone']
    >>> vectors
    array([[0.5, 1. ],
           [2. , 0. ]], dtype=float32)
    """
    wanted = None if vocabulary is None else _check_vocabulary(vocabulary)
    float_type = np.dtype(dtype)
    if float_type.kind != "f":
        raise ValueError(f"dtype must be a floating-point type, got {float_type}.")
    if isinstance(source, str | os.PathLike):
        return _load_file(os.fspath(source), wanted, float_type)
    return _collect(_from_memory(source), wanted, float_type)


def _check_vocabulary(vocabulary: Any) -> set[str]:
    if isinstance(vocabulary, str | bytes) or not isinstance(vocabulary, Iterable):
        raise TypeError(
            "vocabulary must be an iterable of words or None, got "
            f"{type(vocabulary).__name__}."
        )
    wanted = set(vocabulary)
    _check_words(wanted, "vocabulary")
    return wanted


def _check_words(words: Iterable[Any], name: str) -> None:
    for word in words:
        if not isinstance(word, str):
            raise TypeError(
                f"{name} has the word {word!r} of type {type(word).__name__}: words "
                "must be str."
            )


def _collect(
    entries: _Entries, wanted: Container[str] | None, dtype: np.dtype[Any]
) -> WordVectors:
    vectors: dict[str, NDArray[Any]] = {}
    for word, raw, number in entries.rows:
        if word in vectors or (wanted is not None and word not in wanted):
            continue
        vectors[word] = _to_vector(raw, entries, number, dtype)
    if vectors:
        return WordVectors(list(vectors), np.stack(list(vectors.values())))
    return WordVectors([], np.empty((0, entries.n_dims), dtype))


def _to_vector(
    raw: Any, entries: _Entries, number: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    place = f"{entries.place} {number}"
    try:
        with np.errstate(over="ignore"):  # checked below
            vector = np.array(entries.parse(raw), dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: the vector is not numeric ({error}).") from error
    if vector.shape != (entries.n_dims,):
        raise ValueError(
            f"{place}: the vector has shape {vector.shape}, but the first vector has "
            f"{entries.n_dims} numbers: all vectors must have the same length."
        )
    if not np.isfinite(vector).all():
        raise ValueError(
            f"{place}: the vector has numbers that are not finite in {dtype}: remove "
            "the word from the source or from vocabulary."
        )
    return vector


def _from_memory(source: Any) -> _Entries:
    if hasattr(source, "index_to_key") and hasattr(source, "vectors"):
        return _from_pair(source.index_to_key, source.vectors, "source")
    if isinstance(source, Mapping):
        return _from_pair(list(source), list(source.values()), "source")
    if isinstance(source, tuple | list) and len(source) == 2:
        words, vectors = source
        return _from_pair(words, vectors, "source")
    raise TypeError(
        "source must be a path, a mapping from word to vector, a pair (words, vectors) "
        f"or an object like gensim's KeyedVectors, got {type(source).__name__}."
    )


def _from_pair(words: Any, vectors: Any, name: str) -> _Entries:
    words = list(words)
    _check_words(words, name)
    if hasattr(vectors, "__array__"):
        vectors = np.atleast_1d(vectors)
    n_vectors = len(vectors) if isinstance(vectors, Sized) else "no"
    if n_vectors != len(words):
        raise ValueError(
            f"{name} has {len(words)} words and {n_vectors} vectors: give one vector "
            "per word."
        )
    n_dims = np.size(vectors[0]) if words else 0
    _check_not_empty(n_dims, name)
    rows = zip(words, vectors, range(1, len(words) + 1), strict=True)
    return _Entries(n_dims, rows, np.asarray, f"{name}, word")


def _check_not_empty(n_dims: int, name: str) -> None:
    if n_dims < 1:
        raise ValueError(
            f"{name} has no word vectors: at least one word with at least one number "
            "is required, separated by a space in a text file."
        )


def _load_file(
    path: str, wanted: Container[str] | None, dtype: np.dtype[Any]
) -> WordVectors:
    name = repr(path)
    with open(path, "rb") as raw:
        start = raw.read(4)
        raw.seek(0)
        if start.startswith(b"PK"):
            return _collect(_from_pair(*_load_npz(raw, name), name), wanted, dtype)
        binary = path.lower().removesuffix(".gz").endswith(".bin")
        read = _from_binary if binary else _from_text
        if not start.startswith(b"\x1f\x8b"):
            return _collect(read(raw, name), wanted, dtype)
        try:
            with gzip.open(raw) as file:
                return _collect(read(file, name), wanted, dtype)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{name} cannot be decompressed ({error}): {_DAMAGED}."
            ) from error


def _load_npz(file: IO[bytes], name: str) -> tuple[list[str], NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            words, vectors = arrays["words"], arrays["vectors"]
    # NumPy and zipfile raise a dozen types for damaged bytes.
    except Exception as error:
        raise ValueError(
            f"{name} cannot be read ({error}). An .npz file must have the arrays "
            "'words' (with a string dtype, not object) and 'vectors'."
        ) from error
    if words.ndim != 1 or vectors.ndim != 2:
        raise ValueError(
            f"{name} has 'words' of shape {words.shape} and 'vectors' of shape "
            f"{vectors.shape}: the shapes must be (n_words,) and (n_words, n_dims)."
        )
    return words.tolist(), vectors


def _read_header(line: bytes) -> tuple[int, int] | None:
    """Return the numbers of words and dimensions; None if the line is not a header."""
    fields = line.split()
    if len(fields) == 2 and all(field.isdigit() for field in fields):
        return int(fields[0]), int(fields[1])
    return None


def _from_text(file: _File, name: str) -> _Entries:
    first = file.readline()
    header = _read_header(first)
    n_dims = header[1] if header else first.rstrip().count(b" ")
    _check_not_empty(n_dims, name)
    lines = enumerate(file if header else chain([first], file), 2 if header else 1)
    rows = _text_rows(lines, n_dims, header[0] if header else None, name)
    return _Entries(n_dims, rows, _parse_numbers, f"{name}, line")


def _text_rows(
    lines: Iterable[tuple[int, bytes]], n_dims: int, n_words: int | None, name: str
) -> Iterator[tuple[str, bytes, int]]:
    """Yield word, unparsed numbers and line number."""
    n_found = 0
    for number, line in lines:
        line = line.rstrip()
        if not line:
            continue
        n_numbers = line.count(b" ")
        if n_numbers < n_dims:
            raise ValueError(
                f"{name}, line {number}: {n_numbers} numbers after the word, but "
                f"{n_dims} are expected: {_DAMAGED}."
            )
        if n_numbers == n_dims:
            word, _, numbers = line.partition(b" ")
        else:
            word, numbers = _split_right(line, n_dims, f"{name}, line {number}")
        yield word.decode("utf-8", "surrogateescape"), numbers, number
        n_found += 1
    if n_words is not None and n_found != n_words:
        raise ValueError(
            f"{name} has {n_found} words, but line 1 says {n_words}: {_DAMAGED}."
        )


def _split_right(line: bytes, n_dims: int, place: str) -> tuple[bytes, bytes]:
    """Split a line whose word contains spaces into word and numbers."""
    word = line.rsplit(b" ", n_dims)[0]
    last = word.rpartition(b" ")[2]
    try:
        float(last)
    except ValueError:
        return word, line[len(word) + 1 :]
    raise ValueError(f"{place}: more than the expected {n_dims} numbers: {_DAMAGED}.")


def _parse_numbers(numbers: bytes) -> list[float]:
    return [float(number) for number in numbers.split(b" ")]


def _from_binary(file: _File, name: str) -> _Entries:
    first = file.readline(100)
    header = _read_header(first)
    if header is None:
        raise ValueError(
            f"{name} does not begin with the number of words and of dimensions: "
            f"{_DAMAGED}."
        )
    n_words, n_dims = header
    _check_not_empty(n_dims, name)
    rows = _binary_rows(file, n_words, 4 * n_dims, len(first), name)
    return _Entries(n_dims, rows, _parse_floats, f"{name}, word")


def _binary_rows(
    file: _File, n_words: int, size: int, offset: int, name: str
) -> Iterator[tuple[str, bytes, int]]:
    """Yield word, bytes of its vector, and word number."""
    buffer, at = b"", 0
    for number in range(1, n_words + 1):
        end = buffer.find(b" ", at)
        while end < 0 or len(buffer) - end <= size:
            chunk = file.read(_CHUNK)
            if not chunk:
                raise ValueError(
                    f"{name}, word {number} of {n_words}: the file ends at byte "
                    f"{offset + len(buffer)}, within this word: {_DAMAGED}."
                )
            offset += at
            buffer, at = buffer[at:] + chunk, 0
            end = buffer.find(b" ")
        # word2vec itself writes a newline after each vector, other writers do not.
        word = buffer[at:end].lstrip(b"\n").decode("utf-8", "surrogateescape")
        at = end + 1 + size
        yield word, buffer[end + 1 : at], number
    if (buffer[at:] + file.read(_CHUNK)).strip():
        raise ValueError(
            f"{name} continues at byte {offset + at}, after the {n_words} words that "
            f"its first line announces: {_DAMAGED}."
        )


def _parse_floats(vector: bytes) -> NDArray[np.float32]:
    return np.frombuffer(vector, dtype="<f4")
