import gzip
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from skrec.text import (
    WordVectors,
    load_word_vectors,
)

PLOTS = [
    "The cat chases the mouse. The mouse hides!",
    "A mouse meets a lion; the lion sleeps",
    "Stars collide",
    "a dog barks at the stars",
]
VOCABULARY = ["barks", "cat", "chases", "collide", "dog", "hides", "lion"]
VOCABULARY += ["meets", "mouse", "sleeps", "stars"]
MISSING = {
    "None": None,
    "NaN": float("nan"),
    "NumPy NaN": np.float32("nan"),
    "pd.NA": pd.NA,
    "empty": "",
    "blank": " \n\u3000",
}


WORDS = ["the", "cat", ". . .", "\u00e9t\u00e9", "at\u0085x"]
VECTORS = np.arange(15, dtype=np.float32).reshape(5, 3) / 8 - 1


def text_of(words, vectors, end=""):
    rows = zip(words, vectors, strict=True)
    lines = [f"{word} {' '.join(map(str, row))}{end}\n" for word, row in rows]
    return "".join(lines).encode()


def binary_of(words, vectors, end=b"\n"):
    rows = zip(words, np.asarray(vectors, "<f4"), strict=True)
    parts = [word.encode() + b" " + row.tobytes() + end for word, row in rows]
    return b"%d %d\n" % np.shape(vectors) + b"".join(parts)


@pytest.fixture
def save(tmp_path):
    """A function that writes bytes to a file and returns its path."""

    def write(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@pytest.fixture(
    params=[
        "GloVe",
        "word2vec text",
        "trailing spaces",
        "no newline at the end",
        "gzip",
        "npz",
        "mapping",
        "pair",
        "lists",
        "WordVectors",
        "KeyedVectors",
    ]
)
def source(request, save, tmp_path):
    """The same word vectors in all forms that allow spaces in words."""
    text = text_of(WORDS, VECTORS)
    header = b"5 3\n"
    if request.param == "npz":
        np.savez(tmp_path / "vectors.npz", words=np.array(WORDS), vectors=VECTORS)
    return {
        "GloVe": lambda: save("glove.txt", text),
        "word2vec text": lambda: str(save("vectors.vec", header + text)),
        "trailing spaces": lambda: save("v", header + text_of(WORDS, VECTORS, " ")),
        "no newline at the end": lambda: save("glove.txt", text[:-1]),
        "gzip": lambda: save("glove.gz", gzip.compress(text)),
        "npz": lambda: tmp_path / "vectors.npz",
        "mapping": lambda: dict(zip(WORDS, VECTORS, strict=True)),
        "pair": lambda: (np.array(WORDS), VECTORS),
        "lists": lambda: [WORDS, VECTORS.tolist()],
        "WordVectors": lambda: WordVectors(WORDS, VECTORS),
        "KeyedVectors": lambda: SimpleNamespace(index_to_key=WORDS, vectors=VECTORS),
    }[request.param]()


class TestLoadWordVectors:
    def test_all_words_are_loaded_from_every_source(self, source):
        words, vectors = load_word_vectors(source)
        assert words == WORDS
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, VECTORS)

    @pytest.mark.parametrize("kind", [list, set, dict.fromkeys, np.array, iter])
    def test_a_vocabulary_selects_words(self, source, kind):
        wanted = kind(["\u00e9t\u00e9", "the", "unknown", ". . ."])
        words, vectors = load_word_vectors(source, wanted)
        assert words == ["the", ". . .", "\u00e9t\u00e9"]
        np.testing.assert_array_equal(vectors, VECTORS[[0, 2, 3]])

    def test_a_vocabulary_without_matches_keeps_the_dimension(self, source):
        words, vectors = load_word_vectors(source, ["unknown"], dtype="float64")
        assert words == []
        assert vectors.shape == (0, 3)
        assert vectors.dtype == np.float64

    @pytest.mark.parametrize("end", [b"\n", b""])
    @pytest.mark.parametrize("name", ["v.bin", "v.bin.gz"])
    @pytest.mark.parametrize("chunk", [1, 7, 2**16])
    def test_binary_files(self, save, monkeypatch, name, end, chunk):
        monkeypatch.setattr("skrec._data.word_vectors._CHUNK", chunk)
        words = ["the", "cat", "dog", "\u00e9t\u00e9", "x"]
        content = binary_of(words, VECTORS, end)
        path = save(name, gzip.compress(content) if name.endswith("gz") else content)
        found = load_word_vectors(path)
        assert found.words == words
        np.testing.assert_array_equal(found.vectors, VECTORS)
        found = load_word_vectors(path, {"x", "cat"})
        assert found.words == ["cat", "x"]
        np.testing.assert_array_equal(found.vectors, VECTORS[[1, 4]])

    def test_the_first_vector_of_a_repeated_word_counts(self, save):
        words = ["a", "b", "a"]
        text, binary = text_of(words, VECTORS[:3]), binary_of(words, VECTORS[:3])
        for source in (
            save("v.txt", text),
            save("h.txt", b"3 3\n" + text),
            save("v.bin", binary),
            (words, VECTORS[:3]),
        ):
            found = load_word_vectors(source)
            assert found.words == ["a", "b"]
            np.testing.assert_array_equal(found.vectors, VECTORS[:2])

    def test_invalid_utf8_does_not_affect_other_words(self, save):
        path = save("v.txt", b"\xe9t\xe9 1 2\ncat 3 4\n")
        assert load_word_vectors(path, ["cat"]).vectors.tolist() == [[3, 4]]
        assert load_word_vectors(path).words == ["\udce9t\udce9", "cat"]

    def test_blank_lines_are_ignored(self, save):
        path = save("v.txt", b"a 1 2\r\n\r\nb 3 4\r\n\n")
        assert load_word_vectors(path).vectors.tolist() == [[1, 2], [3, 4]]

    @pytest.mark.parametrize("name", ["large.txt", "large.bin", "large.txt.gz"])
    def test_memory_is_proportional_to_the_selected_words(self, save, name, rng):
        n_words, n_dims = 20_000, 50
        words = [f"word{number}" for number in range(n_words)]
        vectors = rng.integers(10, size=(n_words, n_dims)).astype(np.float32)
        content = (binary_of if name == "large.bin" else text_of)(words, vectors)
        path = save(name, gzip.compress(content, 1) if ".gz" in name else content)
        wanted = words[::2000]
        load_word_vectors(path, wanted)  # so that imports are not measured
        tracemalloc.start()
        try:
            found = load_word_vectors(path, wanted)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        np.testing.assert_array_equal(found.vectors, vectors[::2000])
        assert peak < vectors.nbytes / 8

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            (b"a 1 2\nb 1\n", "line 2: 1 numbers after the word, but 2 are expected"),
            (b"a 1 2\nb 1 2\nc 1 2 3\n", "line 3: more than the expected 2 numbers"),
            (b"a 1 2\nb 1 x\n", r"line 2: the vector is not numeric \(could not"),
            (b"a 1 2\nb 1 nan\n", "line 2: the vector has numbers that are not finite"),
            (b"a 1 2\nb inf 2\n", "line 2: the vector has numbers that are not finite"),
            (b"a 1 2\nb 1e99 2\n", "line 2: .* not finite in float32: remove the word"),
            (b"3 2\na 1 2\nb 1 2\n", "has 2 words, but line 1 says 3: the file is dam"),
            (b"1 2\na 1 2\nb 1 2\n", "has 2 words, but line 1 says 1: the file is dam"),
            (b"2 3\na 1 2\nb 1 2\n", "line 2: 2 numbers after the word, but 3 are"),
            (b"", "has no word vectors: at least one word with at least one number"),
            (b"a\nb\n", "has no word vectors"),
            (b"a\t1\t2\n", "has no word vectors: .* separated by a space"),
            (b"0 0\n", "has no word vectors"),
        ],
    )
    def test_a_damaged_text_file_is_refused_with_the_line(self, save, text, match):
        for name, content in (("v.txt", text), ("v.gz", gzip.compress(text))):
            with pytest.raises(ValueError, match=rf"{name}'.*{match}"):
                load_word_vectors(save(name, content))

    def test_columns_are_checked_for_words_outside_the_vocabulary(self, save):
        for line in (b"b 1\n", b"b 1 2 3\n"):
            with pytest.raises(ValueError, match="line 2"):
                load_word_vectors(save("v.txt", b"a 1 2\n" + line), ["a"])

    def test_a_damaged_binary_file_is_refused_with_the_word(self, save):
        content = binary_of(["a", "b"], VECTORS[:2])
        header = len(b"2 3\n")
        for size in (len(content) - 2, header + 15, header + 16):
            match = rf"v.bin', word 2 of 2: the file ends at byte {size}, within this"
            with pytest.raises(ValueError, match=match):
                load_word_vectors(save("v.bin", content[:size]))
        match = rf"v.bin' continues at byte {len(content) - 1}, after the 2 words that"
        with pytest.raises(ValueError, match=match):
            load_word_vectors(save("v.bin", content + b"c "))
        with pytest.raises(ValueError, match=r"v.bin' does not begin with the number"):
            load_word_vectors(save("v.bin", b"a 1 2\n"))
        content = binary_of(["a", "b"], [[1, 2, 3], [1, np.inf, 3]])
        with pytest.raises(ValueError, match=r"v.bin', word 2: .* that are not finite"):
            load_word_vectors(save("v.bin", content))

    @pytest.mark.parametrize("name", ["v.gz", "v.bin.gz"])
    def test_a_damaged_compressed_file_is_refused(self, save, rng, name):
        vectors = rng.standard_normal((100, 3))
        words = [f"w{number}" for number in range(100)]
        content = (binary_of if "bin" in name else text_of)(words, vectors)
        content = gzip.compress(content)
        for damaged in (content[:-300], content[:12] + b"\0" * 20 + content[32:]):
            with pytest.raises(ValueError, match=rf"{name}' cannot be decompressed"):
                load_word_vectors(save(name, damaged))

    @pytest.mark.parametrize(
        ("arrays", "match"),
        [
            ({"words": ["a"]}, r"v.npz' cannot be read \(.*vectors.*'words' \(with"),
            (
                {"words": np.array(["a"], object), "vectors": [[1.0]]},
                r"v.npz' cannot be read \(Object arrays cannot be loaded",
            ),
            (
                {"words": ["a"], "vectors": [1.0]},
                r"v.npz' has 'words' of shape \(1,\) and 'vectors' of shape \(1,\): ",
            ),
            (
                {"words": ["a", "b"], "vectors": [[1.0]]},
                "v.npz' has 2 words and 1 vectors: give one vector per word",
            ),
            (
                {"words": ["a", "b"], "vectors": [[1.0], [np.nan]]},
                "v.npz', word 2: the vector has numbers that are not finite",
            ),
        ],
    )
    def test_a_damaged_npz_file_is_refused(self, tmp_path, arrays, match):
        np.savez(tmp_path / "v.npz", **arrays)
        with pytest.raises(ValueError, match=match):
            load_word_vectors(tmp_path / "v.npz")

    def test_a_truncated_npz_file_is_refused(self, save, tmp_path):
        np.savez(tmp_path / "whole.npz", words=np.array(WORDS), vectors=VECTORS)
        content = (tmp_path / "whole.npz").read_bytes()
        with pytest.raises(
            ValueError, match=r"v.npz' cannot be read \(File is not a z"
        ):
            load_word_vectors(save("v.npz", content[:-100]))

    @pytest.mark.parametrize(
        ("source", "error", "match"),
        [
            (
                {"a": [1, 2], "b": [1]},
                ValueError,
                r"source, word 2: .* shape \(1,\), b",
            ),
            ({"a": [1, 2], "b": [[1, 2]]}, ValueError, r"word 2: .* shape \(1, 2\)"),
            ({"a": ["x"]}, ValueError, "source, word 1: the vector is not numeric"),
            ({"a": [1, None]}, ValueError, "source, word 1: the vector "),
            ({3: [1, 2]}, TypeError, "source has the word 3 of type int: words must"),
            ({}, ValueError, "source has no word vectors"),
            ((["a"], 3), ValueError, "source has 1 words and no vectors"),
            ((["a"], [[1], [2]]), ValueError, "source has 1 words and 2 vectors"),
            (3, TypeError, "source must be a path, a mapping .* got int"),
            (["a", "b", "c"], TypeError, "source must be a path, .* got list"),
        ],
    )
    def test_other_sources_are_refused(self, source, error, match):
        with pytest.raises(error, match=match):
            load_word_vectors(source)

    def test_a_vocabulary_must_contain_words(self):
        source = {"a": [1.0]}
        with pytest.raises(
            TypeError, match=r"vocabulary must be an iterable .* got str"
        ):
            load_word_vectors(source, "a")
        with pytest.raises(
            TypeError, match="vocabulary has the word 1 of type int: words"
        ):
            load_word_vectors(source, [1])

    def test_the_type_of_the_vectors_can_be_chosen(self):
        source = {"a": [1 / 3]}
        assert load_word_vectors(source, dtype=np.float64).vectors[0, 0] == 1 / 3
        with pytest.raises(
            ValueError, match="dtype must be a floating-point type, got "
        ):
            load_word_vectors(source, dtype="int32")

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none.txt"):
            load_word_vectors(tmp_path / "none.txt")

    def test_repr_is_short(self):
        assert (
            repr(WordVectors(WORDS, VECTORS)) == "WordVectors(<5 words, 3 dimensions>)"
        )
        assert clone(WordVectors(WORDS, VECTORS), safe=False).words == WORDS
