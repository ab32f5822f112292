import copy
import gzip
import os
import pickle
import tracemalloc
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
from sklearn import config_context
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.validation import _check_method_params

from skrec._data.texts import resolve_item_texts
from skrec.datasets import fetch_movielens, make_ratings
from skrec.text import (
    ItemTexts,
    SequenceVectorizer,
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


def everything(**params):
    """A vectorizer that leaves out no word."""
    return SequenceVectorizer(
        **{"max_df": 1.0, "stop_words": None, "max_words": 5} | params
    )


class TestSequenceVectorizer:
    def test_a_text_becomes_the_indices_of_its_words_in_order(self):
        vectorizer = SequenceVectorizer(max_words=6)
        sequences = vectorizer.fit_transform(PLOTS)
        assert vectorizer.get_feature_names_out().tolist() == VOCABULARY
        assert vectorizer.vocabulary_ == {w: i for i, w in enumerate(VOCABULARY, 1)}
        assert sequences.dtype == np.int32
        assert sequences.tolist() == [
            [2, 3, 9, 9, 6, 0],
            [9, 8, 7, 7, 10, 0],
            [11, 4, 0, 0, 0, 0],
            [5, 1, 11, 0, 0, 0],
        ]

    def test_fit_transform_is_fit_then_transform(self):
        vectorizer = SequenceVectorizer()
        sequences = vectorizer.fit_transform(PLOTS)
        assert sequences.shape == (4, 300)
        np.testing.assert_array_equal(
            SequenceVectorizer().fit(PLOTS).transform(PLOTS), sequences
        )
        np.testing.assert_array_equal(vectorizer.transform(PLOTS), sequences)

    def test_inverse_transform_gives_the_words_that_were_kept(self):
        vectorizer = SequenceVectorizer(max_words=4)
        words = vectorizer.inverse_transform(vectorizer.fit_transform(PLOTS))
        assert [part.tolist() for part in words] == [
            ["cat", "chases", "mouse", "mouse"],
            ["mouse", "meets", "lion", "lion"],
            ["stars", "collide"],
            ["dog", "barks", "stars"],
        ]
        assert vectorizer.inverse_transform(np.empty((0, 4), int)) == []

    def test_words_are_left_out_before_the_text_is_cut(self):
        vectorizer = SequenceVectorizer(max_words=2).fit(PLOTS)
        sequence = vectorizer.transform(["the unknown cat and the unheard-of dog runs"])
        assert vectorizer.inverse_transform(sequence)[0].tolist() == ["cat", "dog"]

    def test_words_in_too_many_or_too_few_texts_are_left_out(self):
        texts = ["ab cd ef", "ab cd", "ab gh", "ab"]
        assert [*everything(max_df=0.5).fit(texts).vocabulary_] == ["cd", "ef", "gh"]
        assert [*everything(max_df=1).fit(texts).vocabulary_] == ["ef", "gh"]
        assert [*everything(min_df=2).fit(texts).vocabulary_] == ["ab", "cd"]
        assert [*everything(min_df=0.5).fit(texts).vocabulary_] == ["ab", "cd"]

    def test_missing_texts_do_not_count_as_texts(self):
        texts = ["ab cd", "ab ef", "gh", *MISSING.values()]
        assert "ab" not in SequenceVectorizer().fit(texts).vocabulary_
        few, many = (
            SequenceVectorizer(max_df=2 / 3).fit(t) for t in (texts[:3], texts)
        )
        assert few.vocabulary_ == many.vocabulary_
        assert "ab" in few.vocabulary_

    @pytest.mark.parametrize("n_kept", [1, 10, 40])
    def test_the_words_with_the_largest_summed_tf_idf_are_kept(self, rng, n_kept):
        names = [f"w{number:02}" for number in range(60)]
        chances = np.arange(1, 61) / np.arange(1, 61).sum()
        texts = [" ".join(rng.choice(names, 50, p=chances)) for _ in range(20)]
        reference = TfidfVectorizer(norm=None)
        scores = np.asarray(reference.fit_transform(texts).sum(axis=0)).ravel()
        words = reference.get_feature_names_out()
        # Rounded, as sums of equal products in another order differ in the last bit.
        ranked = sorted(zip(-scores.round(9), words, strict=True))
        vectorizer = everything(max_features=n_kept).fit(texts)
        assert [*vectorizer.vocabulary_] == sorted(w for _, w in ranked[:n_kept])

    def test_ties_are_broken_by_the_alphabet(self):
        texts = ["zeta beta", "eta alpha", "theta iota iota iota"]
        vectorizer = everything(max_features=3)
        for order in (texts, texts[::-1]):
            assert [*vectorizer.fit(order).vocabulary_] == ["alpha", "beta", "iota"]

    @pytest.mark.parametrize("missing", MISSING.values(), ids=MISSING)
    def test_a_missing_text_is_all_padding(self, missing):
        vectorizer = SequenceVectorizer(max_words=3)
        assert not vectorizer.fit_transform([*PLOTS, missing])[-1].any()
        assert vectorizer.transform([missing]).tolist() == [[0, 0, 0]]

    def test_a_text_without_a_known_word_is_all_padding(self):
        vectorizer = SequenceVectorizer(max_words=3).fit(PLOTS)
        assert vectorizer.transform(["nothing known here"]).tolist() == [[0, 0, 0]]
        assert vectorizer.transform([]).shape == (0, 3)

    @pytest.mark.parametrize(
        "make",
        [
            tuple,
            iter,
            np.array,
            partial(np.array, dtype=object),
            partial(np.array, dtype=np.dtypes.StringDType()),
            partial(pd.Series, index=[7, 3, 5, 1]),
            partial(pd.Series, dtype="string[pyarrow]"),
            partial(pd.Series, dtype="category"),
            pl.Series,
            pa.array,
            lambda texts: pa.chunked_array([texts]),
        ],
    )
    def test_any_sequence_of_texts_will_do(self, make):
        expected = SequenceVectorizer().fit_transform(PLOTS)
        found = SequenceVectorizer().fit_transform(make(PLOTS))
        np.testing.assert_array_equal(found, expected)

    def test_korean_text_is_split_at_its_spaces(self):
        texts = ["\uace0\uc591\uc774\uac00 \uc950\ub97c \ucad3\ub294\ub2e4."]
        texts += ["\uc950\ub97c \uc0ac\uc790\uac00 \ubd24\ub2e4", "\ubcc4 \ud558\ub298"]
        found, expected = (
            SequenceVectorizer(max_df=1.0, stop_words=stop_words, max_words=3)
            for stop_words in ("english", None)
        )
        sequences = found.fit_transform(texts)
        np.testing.assert_array_equal(sequences, expected.fit_transform(texts))
        words = found.inverse_transform(sequences)
        assert words[0].tolist() == texts[0].rstrip(".").split()
        # By default a word has two characters at least.
        assert words[2].tolist() == ["\ud558\ub298"]

    def test_a_tokenizer_replaces_the_pattern_without_a_warning(self):
        # Letters, into which it splits the English stop words as well.
        vectorizer = SequenceVectorizer(tokenizer=list, max_df=1.0, max_words=2)
        assert vectorizer.fit_transform(["xy z", "yx"]).tolist() == [[2, 3], [3, 2]]

    def test_own_stop_words_that_never_occur_are_warned_of(self):
        vectorizer = SequenceVectorizer(stop_words=["The"])
        with pytest.warns(UserWarning, match="inconsistent with your preprocessing"):
            vectorizer.fit(PLOTS)
        # It was said once.
        vectorizer.transform(PLOTS)

    @pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
    def test_own_stop_words(self, kind):
        vectorizer = SequenceVectorizer(stop_words=kind(["cat", "lion"])).fit(PLOTS)
        assert not {"cat", "lion"} & set(vectorizer.vocabulary_)

    def test_case_and_pattern_are_those_of_the_constructor(self):
        texts = ["Ab ab a", "c d"]
        cased = everything(lowercase=False).fit(texts)
        assert [*cased.vocabulary_] == ["Ab", "ab"]
        letters = everything(token_pattern=r"\w+").fit(texts)
        assert [*letters.vocabulary_] == ["a", "ab", "c", "d"]

    def test_each_text_is_split_once_in_fit_transform(self):
        seen = []

        def split(text):
            seen.append(text)
            return text.split()

        SequenceVectorizer(tokenizer=split, stop_words=None).fit_transform(PLOTS)
        assert seen == [text.lower() for text in PLOTS]

    def test_an_empty_vocabulary_is_refused_with_the_remedy(self):
        # Half of one text is less than a text.
        with pytest.raises(
            ValueError,
            match=r"no word of the 1 texts in X .* Raise max_df \(now 0\.5\), lower "
            r"min_df \(now 1\), or give fewer stop_words",
        ):
            SequenceVectorizer().fit(["one text", None])
        for texts in ([], [None], ["the and"], ["same word", "same word"]):
            with pytest.raises(ValueError, match="no word of the"):
                SequenceVectorizer().fit(texts)

    @pytest.mark.parametrize("method", ["fit", "fit_transform", "transform"])
    @pytest.mark.parametrize(
        ("X", "error", "match"),
        [
            ("one text", ValueError, r"X is a single text.* give \[X\] for one text"),
            (b"one text", ValueError, "X is a single text"),
            ({"a": "text"}, TypeError, "X must be a sequence of texts, got dict"),
            ({"text"}, TypeError, "X must be a sequence of texts, got set"),
            (None, TypeError, "X must be a sequence of texts, got NoneType"),
            (
                ["text", 3.5],
                TypeError,
                r"X has an object of type float at position 1: texts must be str, or "
                r"missing \(None, NaN, pd\.NA\)",
            ),
            (["text", b"text"], TypeError, "of type bytes at position 1"),
            ([["text"]], TypeError, "of type list at position 0"),
            (
                pd.DataFrame({"plot": PLOTS}),
                ValueError,
                r"X must have one dimension, got DataFrame of shape \(4, 1\)",
            ),
            (np.array("text"), ValueError, r"got ndarray of shape \(\)"),
            (
                np.ma.array(PLOTS, mask=[1, 0, 0, 0]),
                ValueError,
                "X is a masked array with masked entries",
            ),
        ],
    )
    def test_what_is_no_sequence_of_texts_is_refused(self, method, X, error, match):
        vectorizer = SequenceVectorizer().fit(PLOTS)
        with pytest.raises(error, match=match):
            getattr(vectorizer, method)(X)

    def test_what_is_no_sequence_of_indices_is_refused(self):
        vectorizer = SequenceVectorizer().fit(PLOTS)
        with pytest.raises(
            ValueError, match=r"array of integers.* shape \(1, 1\) and dtype f"
        ):
            vectorizer.inverse_transform([[1.0]])
        with pytest.raises(ValueError, match="X must be a two-dimensional array"):
            vectorizer.inverse_transform([1, 2])
        for X, limits in (([[0, 12]], "0 to 12"), ([[-1, 3]], "-1 to 3")):
            match = f"X has indices from {limits}, but the vocabulary has .* 1 to 11"
            with pytest.raises(ValueError, match=match):
                vectorizer.inverse_transform(X)

    def test_it_must_be_fitted_first(self):
        for method in ("transform", "inverse_transform", "get_feature_names_out"):
            with pytest.raises(NotFittedError):
                getattr(SequenceVectorizer(), method)(PLOTS)

    @pytest.mark.parametrize(
        "check",
        [
            "check_parameters_default_constructible",
            "check_no_attributes_set_in_init",
            "check_do_not_raise_errors_in_init_or_set_params",
            "check_param_validation",
            "check_get_params_invariance",
            "check_set_params",
            "check_estimator_cloneable",
            "check_estimator_repr",
            "check_valid_tag_types",
        ],
    )
    def test_common_checks_that_need_no_numbers_as_input(self, check):
        # check_estimator skips all of its checks where the input is text.
        getattr(estimator_checks, check)("SequenceVectorizer", SequenceVectorizer())

    def test_tags_and_output(self):
        tags = get_tags(SequenceVectorizer()).input_tags
        assert tags.string
        assert tags.allow_nan
        assert not tags.two_d_array
        # Sequences are no table of features.
        assert not hasattr(SequenceVectorizer(), "set_output")
        with config_context(transform_output="pandas"):
            assert isinstance(SequenceVectorizer().fit_transform(PLOTS), np.ndarray)

    def test_it_is_a_step_of_a_pipeline_and_survives_pickling(self):
        lengths = FunctionTransformer(lambda X: (X > 0).sum(axis=1, keepdims=True))
        pipeline = make_pipeline(SequenceVectorizer(), lengths)
        assert pipeline.fit_transform(PLOTS).ravel().tolist() == [5, 5, 2, 3]
        vectorizer = clone(pipeline[0]).fit(PLOTS)
        np.testing.assert_array_equal(
            pickle.loads(pickle.dumps(vectorizer)).transform(PLOTS),
            vectorizer.transform(PLOTS),
        )

    @pytest.mark.skipif(
        not (
            Path(os.environ.get("SKREC_DATA", "")) / "ml-1m" / "texts.csv.gz"
        ).is_file(),
        reason="needs MovieLens 1M with plots in the folder SKREC_DATA",
    )
    def test_plots_of_movielens(self):
        texts = fetch_movielens("1m", download_if_missing=False).item_texts
        vectorizer = SequenceVectorizer()
        sequences = vectorizer.fit_transform(texts)
        assert sequences.shape == (len(texts), 300)
        assert len(vectorizer.vocabulary_) == 8000
        np.testing.assert_array_equal(np.unique(sequences)[1:], np.arange(1, 8001))


class TextReader(RegressorMixin, BaseEstimator):
    """Stands for a recommender: keeps the texts that reach its fit."""

    def fit(self, X, y=None, *, item_texts=None):
        on_matrix = sp.issparse(X)
        items = np.arange(X.shape[1]) if on_matrix else np.unique(np.asarray(X)[:, 1])
        self.texts_ = resolve_item_texts(item_texts, items, on_matrix=on_matrix)
        return self

    def score(self, X, y=None):
        return len(self.texts_.ids)


class TestItemTexts:
    def test_cross_validation_passes_it_whole_and_cuts_all_others(self):
        X = np.zeros((4, 2))
        sized = {"list": PLOTS, "Series": pd.Series(PLOTS), "array": np.array(PLOTS)}
        sized["dict"] = dict(enumerate(PLOTS))
        for texts in sized.values():
            params = {"cut": texts, "whole": ItemTexts(texts)}
            cut, whole = _check_method_params(X, params, np.array([0, 2])).values()
            assert len(cut) == 2
            assert whole is params["whole"]

    @pytest.mark.parametrize("wrap", [list, lambda texts: dict(enumerate(texts))])
    def test_with_a_matrix_cut_texts_are_refused_and_wrapped_ones_arrive(self, wrap):
        R = make_ratings(10, 10, density=0.8, random_state=0).R
        texts = wrap([f"text {item}" for item in range(10)])
        run = partial(cross_validate, TextReader(), R, cv=2, error_score="raise")
        with pytest.raises(
            ValueError,
            match="item_texts has 5 texts, but X has 10 columns: give one text for each"
            " column, None for .* scikit-learn splits any sized object whose length "
            r"equals the number of samples.*skrec\.text\.ItemTexts",
        ):
            run(params={"item_texts": texts})
        assert run(params={"item_texts": ItemTexts(texts)})["test_score"].min() == 10

    def test_with_pairs_cut_texts_are_refused_and_wrapped_ones_arrive(self):
        X, y = [[0, 0], [0, 1], [1, 0], [1, 2]], [1.0, 2.0, 3.0, 4.0]
        texts = dict(enumerate(PLOTS))
        search = GridSearchCV(TextReader(), {}, cv=2, error_score="raise")
        with pytest.raises(
            TypeError,
            match=r"item_texts is of type list, but with user-item pairs a sequence "
            r"does not tell which text belongs to which item: give a mapping or .* "
            r"scikit-learn splits any sized object",
        ):
            search.fit(X, y, item_texts=texts)
        search.fit(X, y, item_texts=ItemTexts(texts))
        assert search.best_score_ == 4

    def test_it_has_no_size_by_which_it_could_be_cut(self):
        for name in ("__len__", "shape", "__array__", "__getitem__", "__iter__"):
            assert not hasattr(ItemTexts(PLOTS), name)

    @pytest.mark.parametrize(
        "copied", [copy.deepcopy, clone, partial(clone, safe=False)]
    )
    @pytest.mark.parametrize("texts", [PLOTS, dict(zip("abcd", PLOTS, strict=True))])
    def test_a_copy_is_equal(self, texts, copied):
        item_texts = ItemTexts(texts)
        assert copied(item_texts) is not item_texts
        assert copied(item_texts) == item_texts
        assert pickle.loads(pickle.dumps(item_texts)) == item_texts

    def test_equality_is_that_of_the_contents(self):
        by_id = ItemTexts({1: "a", 2: None})
        assert by_id == ItemTexts(pd.Series([np.nan, "a"], index=[2.0, 1.0]))
        assert by_id == ItemTexts(by_id)
        assert by_id != ItemTexts({1: "a", 2: "b"})
        assert by_id != ItemTexts({1: "a", 3: None})
        assert by_id != ItemTexts(["a", None])
        assert ItemTexts(["a", None]) == ItemTexts(("a", pd.NA))
        assert by_id != {1: "a", 2: None}

    def test_repr_says_what_it_wraps(self):
        assert repr(ItemTexts(PLOTS)) == "ItemTexts(<4 texts by column>)"
        assert repr(ItemTexts({1: "a"})) == "ItemTexts(<1 text by item id>)"

    def test_what_holds_no_texts_is_refused(self):
        with pytest.raises(
            TypeError,
            match=r"texts must be a mapping or pandas Series from item id to text, .*"
            r", got int",
        ):
            ItemTexts(3)
        with pytest.raises(ValueError, match="texts is an empty dict: give at least"):
            ItemTexts({})
        with pytest.raises(
            TypeError, match=r"texts has .* type int at item 'b': texts"
        ):
            ItemTexts({"a": "text", "b": 3})


class TestResolveItemTexts:
    PAIRS = partial(resolve_item_texts, on_matrix=False)
    MATRIX = partial(resolve_item_texts, on_matrix=True)
    ITEMS = np.array([1, 3, 5])

    @pytest.mark.parametrize("wrap", [lambda texts: texts, ItemTexts])
    @pytest.mark.parametrize("kind", [dict, pd.Series])
    def test_texts_follow_the_ids_and_cold_items_join(self, kind, wrap):
        texts = wrap(kind({5: "e", 4: "d", 1: "a", 0: "zero", 2: None, 6: ""}))
        ids, found = self.PAIRS(texts, self.ITEMS)
        assert ids.tolist() == [0, 1, 3, 4, 5]
        assert ids.dtype == np.int64
        assert found == ["zero", "a", None, "d", "e"]

    def test_ids_may_be_strings(self):
        ids, texts = self.PAIRS({"c": "C", "a": "A"}, np.array(["a", "b"], object))
        assert ids.tolist() == ["a", "b", "c"]
        assert texts == ["A", None, "C"]

    def test_numbers_match_by_value_whatever_their_type(self):
        ids, texts = self.PAIRS({1.0: "a", 3.0: "c"}, self.ITEMS)
        assert ids is self.ITEMS
        assert texts == ["a", "c", None]
        ids, texts = self.PAIRS({0.5: "half", 3.0: "c"}, self.ITEMS)
        assert ids.tolist() == [0.5, 1, 3, 5]
        assert texts == ["half", None, "c", None]

    def test_large_ids_are_never_rounded(self):
        known = np.array([1, 2**62 + 1])
        ids, texts = self.PAIRS({2**63: "large", 2**62 + 1: "known"}, known)
        assert ids.tolist() == [1, 2**62 + 1, 2**63]
        assert texts == [None, "known", "large"]

    def test_texts_of_none_of_the_items_are_allowed(self):
        ids, texts = self.PAIRS({7: "g"}, self.ITEMS)
        assert ids.tolist() == [1, 3, 5, 7]
        assert texts == [None, None, None, "g"]

    @pytest.mark.parametrize("wrap", [lambda texts: texts, ItemTexts])
    @pytest.mark.parametrize("kind", [list, tuple, np.array, pl.Series])
    def test_with_a_matrix_a_sequence_follows_the_columns(self, kind, wrap):
        ids, texts = self.MATRIX(wrap(kind(["a", None, "c"])), np.arange(3))
        assert ids.tolist() == [0, 1, 2]
        assert texts == ["a", None, "c"]

    def test_with_a_matrix_the_ids_of_a_mapping_are_columns(self):
        ids, texts = self.MATRIX(pd.Series({2: "c", 0: "a"}), np.arange(3))
        assert ids.tolist() == [0, 1, 2]
        assert texts == ["a", None, "c"]

    @pytest.mark.parametrize("key", [3, -1, 0.5])
    def test_an_id_without_a_column_is_refused(self, key):
        with pytest.raises(
            ValueError,
            match="the ids in item_texts must be its column numbers, integers from 0 "
            f"to 2, got {key}: remove these ids",
        ):
            self.MATRIX({0: "a", key: "b"}, np.arange(3))

    @pytest.mark.parametrize("n_texts", [2, 4])
    def test_a_sequence_of_another_length_is_refused(self, n_texts):
        match = f"item_texts has {n_texts} texts, but X has 3 columns"
        with pytest.raises(ValueError, match=f"{match}.*scikit-learn splits"):
            self.MATRIX(["a"] * n_texts, np.arange(3))
        # What is wrapped was not cut.
        with pytest.raises(ValueError, match=f"{match}.* to text.$"):
            self.MATRIX(ItemTexts(["a"] * n_texts), np.arange(3))

    def test_with_pairs_a_sequence_is_refused_wrapped_or_not(self):
        with pytest.raises(TypeError, match="item_texts is of type tuple, but with"):
            self.PAIRS(("a", "b", "c"), self.ITEMS)
        with pytest.raises(TypeError, match="ItemTexts around a sequence, but with"):
            self.PAIRS(ItemTexts(["a", "b", "c"]), self.ITEMS)

    @pytest.mark.parametrize(
        ("texts", "error", "match"),
        [
            (
                {"1": "a"},
                TypeError,
                "ids in item_texts are of type str, but the item ids of the ratings are "
                "of type int, so they can never match: convert one of them",
            ),
            (
                {1: "a", "1": "b"},
                TypeError,
                "has keys that are not valid item ids. The item ids are of mixed",
            ),
            (
                pd.Series(["a", "b"], index=[1, np.nan]),
                ValueError,
                "has keys that are not valid item ids. The item ids have 1 missing",
            ),
            (
                pd.Series(["a", "b", "c"], index=[1, 3, 3]),
                ValueError,
                "item_texts has repeated ids, among them 3: keep one text per item",
            ),
            ({1: "a", 3: 4.5}, TypeError, "item_texts has .* type float at item 3"),
            ({1: "a", 3: ["b"]}, TypeError, "item_texts has .* type list at item 3"),
            ({}, ValueError, "item_texts is an empty dict"),
            ("text", ValueError, "item_texts is a single text"),
            ({"a", "b"}, TypeError, "item_texts must be a sequence of texts, got set"),
            (
                iter(["a"]),
                TypeError,
                "item_texts must be a mapping .* got list_iterator",
            ),
            (None, TypeError, "item_texts must be a mapping .* got NoneType"),
        ],
    )
    def test_what_cannot_be_matched_is_refused(self, texts, error, match):
        with pytest.raises(error, match=match):
            self.PAIRS(texts, self.ITEMS)


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
    """Write bytes to a file and return its path."""

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
    """The same word vectors in all forms that may have spaces in words."""
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
    def test_all_words(self, source):
        words, vectors = load_word_vectors(source)
        assert words == WORDS
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, VECTORS)

    @pytest.mark.parametrize("kind", [list, set, dict.fromkeys, np.array, iter])
    def test_only_the_words_of_the_vocabulary(self, source, kind):
        wanted = kind(["\u00e9t\u00e9", "the", "unknown", ". . ."])
        words, vectors = load_word_vectors(source, wanted)
        assert words == ["the", ". . .", "\u00e9t\u00e9"]
        np.testing.assert_array_equal(vectors, VECTORS[[0, 2, 3]])

    def test_without_a_wanted_word_the_dimension_stays(self, source):
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

    def test_of_a_word_given_twice_the_first_vector_counts(self, save):
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

    def test_bytes_that_are_not_utf8_harm_no_other_word(self, save):
        path = save("v.txt", b"\xe9t\xe9 1 2\ncat 3 4\n")
        assert load_word_vectors(path, ["cat"]).vectors.tolist() == [[3, 4]]
        assert load_word_vectors(path).words == ["\udce9t\udce9", "cat"]

    def test_blank_lines_are_nothing(self, save):
        path = save("v.txt", b"a 1 2\r\n\r\nb 3 4\r\n\n")
        assert load_word_vectors(path).vectors.tolist() == [[1, 2], [3, 4]]

    @pytest.mark.parametrize("name", ["large.txt", "large.bin", "large.txt.gz"])
    def test_memory_is_that_of_the_wanted_words(self, save, name, rng):
        n_words, n_dims = 20_000, 50
        words = [f"word{number}" for number in range(n_words)]
        vectors = rng.integers(10, size=(n_words, n_dims)).astype(np.float32)
        content = (binary_of if name == "large.bin" else text_of)(words, vectors)
        path = save(name, gzip.compress(content, 1) if ".gz" in name else content)
        wanted = words[::2000]
        load_word_vectors(path, wanted)  # with all that is imported but once
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

    def test_columns_are_counted_for_words_that_are_not_wanted_too(self, save):
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
    def test_what_holds_no_word_vectors_is_refused(self, source, error, match):
        with pytest.raises(error, match=match):
            load_word_vectors(source)

    def test_a_vocabulary_must_hold_words(self):
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
