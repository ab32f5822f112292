import os
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks, get_tags

from skrec.datasets import fetch_movielens
from skrec.text import (
    SequenceVectorizer,
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
    """Return a vectorizer that keeps all words."""
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

    def test_words_are_removed_before_the_text_is_truncated(self):
        vectorizer = SequenceVectorizer(max_words=2).fit(PLOTS)
        sequence = vectorizer.transform(["the unknown cat and the unheard-of dog runs"])
        assert vectorizer.inverse_transform(sequence)[0].tolist() == ["cat", "dog"]

    def test_words_in_too_many_or_too_few_texts_are_removed(self):
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
        # Rounded, since the order of a sum changes the last bit.
        ranked = sorted(zip(-scores.round(9), words, strict=True))
        vectorizer = everything(max_features=n_kept).fit(texts)
        assert [*vectorizer.vocabulary_] == sorted(w for _, w in ranked[:n_kept])

    def test_ties_are_broken_alphabetically(self):
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
    def test_any_sequence_of_texts_is_accepted(self, make):
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
        # By default, words have at least two characters.
        assert words[2].tolist() == ["\ud558\ub298"]

    def test_a_tokenizer_replaces_the_pattern_without_a_warning(self):
        # It also splits the English stop words into letters.
        vectorizer = SequenceVectorizer(tokenizer=list, max_df=1.0, max_words=2)
        assert vectorizer.fit_transform(["xy z", "yx"]).tolist() == [[2, 3], [3, 2]]

    def test_inconsistent_stop_words_warn_once(self):
        vectorizer = SequenceVectorizer(stop_words=["The"])
        with pytest.warns(UserWarning, match="inconsistent with your preprocessing"):
            vectorizer.fit(PLOTS)
        # No second warning.
        vectorizer.transform(PLOTS)

    @pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
    def test_own_stop_words(self, kind):
        vectorizer = SequenceVectorizer(stop_words=kind(["cat", "lion"])).fit(PLOTS)
        assert not {"cat", "lion"} & set(vectorizer.vocabulary_)

    def test_lowercase_and_token_pattern_have_an_effect(self):
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
        # max_df=0.5 of one text is less than one text.
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
    def test_other_objects_than_sequences_of_texts_are_refused(
        self, method, X, error, match
    ):
        vectorizer = SequenceVectorizer().fit(PLOTS)
        with pytest.raises(error, match=match):
            getattr(vectorizer, method)(X)

    def test_other_objects_than_sequences_of_indices_are_refused(self):
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
        # check_estimator skips all checks if the input is text.
        getattr(estimator_checks, check)("SequenceVectorizer", SequenceVectorizer())

    def test_tags_and_output(self):
        tags = get_tags(SequenceVectorizer()).input_tags
        assert tags.string
        assert tags.allow_nan
        assert not tags.two_d_array
        # Sequences are not a table of features.
        assert not hasattr(SequenceVectorizer(), "set_output")
        with config_context(transform_output="pandas"):
            assert isinstance(SequenceVectorizer().fit_transform(PLOTS), np.ndarray)

    def test_it_works_in_a_pipeline_and_can_be_pickled(self):
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
