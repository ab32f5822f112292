import copy
import pickle
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.utils.validation import _check_method_params

from skrec import AutoRecRegressor
from skrec._data.texts import resolve_item_texts
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples
from skrec.text import (
    ItemTexts,
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


class TextReader(RegressorMixin, BaseEstimator):
    """A minimal recommender that stores the texts passed to fit."""

    def fit(self, X, y=None, *, item_texts=None):
        on_matrix = sp.issparse(X)
        items = np.arange(X.shape[1]) if on_matrix else np.unique(np.asarray(X)[:, 1])
        self.texts_ = resolve_item_texts(item_texts, items, on_matrix=on_matrix)
        return self

    def score(self, X, y=None):
        return len(self.texts_.ids)


class TestItemTexts:
    def test_cross_validation_passes_it_whole_and_splits_all_others(self):
        X = np.zeros((4, 2))
        sized = {"list": PLOTS, "Series": pd.Series(PLOTS), "array": np.array(PLOTS)}
        sized["dict"] = dict(enumerate(PLOTS))
        for texts in sized.values():
            params = {"cut": texts, "whole": ItemTexts(texts)}
            cut, whole = _check_method_params(X, params, np.array([0, 2])).values()
            assert len(cut) == 2
            assert whole is params["whole"]

    @pytest.mark.parametrize("wrap", [list, lambda texts: dict(enumerate(texts))])
    def test_with_a_matrix_split_texts_are_refused_and_wrapped_texts_arrive(self, wrap):
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

    def test_with_pairs_split_texts_are_refused_and_wrapped_texts_arrive(self):
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

    def test_it_has_no_size_by_which_it_could_be_split(self):
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

    def test_equality_compares_the_contents(self):
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

    def test_other_objects_are_refused(self):
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
    def test_texts_follow_the_ids_and_cold_start_items_are_added(self, kind, wrap):
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

    def test_texts_of_other_items_only_are_allowed(self):
        with pytest.warns(UserWarning, match="has the ids of only 0 of 3 rated items"):
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
        # Wrapped texts were not split, so the message does not mention it.
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
                "ids in item_texts are of type str, but the item ids of the ratings "
                "are of type int, so they can never match: convert one of them",
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
    def test_texts_that_cannot_be_matched_are_refused(self, texts, error, match):
        with pytest.raises(error, match=match):
            self.PAIRS(texts, self.ITEMS)


# 40 rated items
RATED = [f"tt{item:04}" for item in range(40)]


class TestFailedJoin:
    ITEMS = np.array(RATED, dtype=object)

    def resolve(self, ids, texts=None):
        texts = ["text"] * len(ids) if texts is None else texts
        item_texts = dict(zip(ids, texts, strict=True))
        return resolve_item_texts(item_texts, self.ITEMS, on_matrix=False)

    @pytest.mark.parametrize(
        "change",
        [
            lambda item: item.replace("tt0", "tt").replace("tt0", "tt"),
            lambda item: item.upper(),
            lambda item: f"{item} ",
            lambda item: f"{item}.0",
        ],
        ids=["leading zeros", "case", "blank", "float"],
    )
    @pytest.mark.parametrize("n_texts", [10, 30, 40])
    def test_ids_that_were_changed_cause_a_warning(self, change, n_texts):
        ids = [change(item) for item in RATED[:n_texts]]
        with pytest.warns(
            UserWarning,
            match=f"item_texts has the ids of only 0 of 40 rated items, and {n_texts} "
            f"texts of items without ratings: for example, 'tt0000' is rated and has "
            f"no text, and {ids[0]!r} is in item_texts and has no rating.*leading "
            "zeros",
        ):
            assert len(self.resolve(ids).ids) == 40 + n_texts

    def test_other_numbers_that_match_by_chance_cause_a_warning(self):
        texts = dict.fromkeys(range(0, 400, 10), "text")
        with pytest.warns(
            UserWarning, match="only 4 of 40 rated .* 36 texts .* 1 is rated .* 40 is"
        ):
            resolve_item_texts(texts, np.arange(40), on_matrix=False)

    def test_half_of_the_items_may_have_no_text_beside_many_new_items(self):
        new = [f"new {item}" for item in range(1000)]
        self.resolve(RATED[:20] + new)
        with pytest.warns(UserWarning, match="only 19 of 40 rated .* 1000 texts of"):
            self.resolve(RATED[:19] + new)

    def test_with_a_series_the_warning_says_that_it_may_have_been_split(self):
        texts = {"other": "text"}
        for given in (texts, ItemTexts(pd.Series(texts))):
            with pytest.warns(UserWarning, match=r"are recommended as well\.$"):
                resolve_item_texts(given, self.ITEMS, on_matrix=False)
        with pytest.warns(
            UserWarning, match=r"wrap a Series in skrec\.text\.ItemTexts"
        ):
            resolve_item_texts(pd.Series(texts), self.ITEMS, on_matrix=False)

    def test_few_texts_of_rated_items_are_allowed(self):
        self.resolve(RATED[:1])

    def test_as_many_new_items_as_matched_ones_are_allowed(self):
        self.resolve([*RATED[:10], *map(str, range(10))])
        with pytest.warns(UserWarning, match="only 10 of 40"):
            self.resolve([*RATED[:10], *map(str, range(11))])

    def test_missing_texts_of_rated_items_are_no_failed_join(self):
        new = list(map(str, range(100)))
        self.resolve(RATED + new, [None] * 40 + ["text"] * 100)

    def test_new_items_without_a_text_do_not_count(self):
        new = list(map(str, range(100)))
        self.resolve(RATED[:10] + new, ["text"] * 10 + [None] * 100)

    @pytest.mark.parametrize("n_folds", [3, 5, 10])
    def test_folds_of_items_are_allowed(self, n_folds):
        # 40 % of the items have texts, whether they are in the fold or not.
        texts = dict.fromkeys(range(0, 1000, 5), "text")
        texts |= dict.fromkeys(range(1, 1000, 5), "text")
        items = np.arange(1000)
        for train, _ in KFold(n_folds, shuffle=True, random_state=0).split(items):
            resolve_item_texts(texts, np.sort(items[train]), on_matrix=False)

    def test_columns_of_a_matrix_are_allowed(self):
        resolve_item_texts({3: "text"}, np.arange(40), on_matrix=True)

    def test_the_warning_points_to_the_call_of_fit(self):
        R = make_ratings(20, 10, density=0.8, random_state=0).R
        X, y = ratings_to_samples(R)
        texts = {item: PLOTS[item % 4] for item in range(100, 110)}
        model = AutoRecRegressor(hidden_layer_sizes=2, max_iter=1, random_state=0)
        with pytest.warns(UserWarning, match="only 0 of 10 rated items") as caught:
            model.fit(X, y, item_texts=texts)
        assert [warning.filename for warning in caught] == [__file__]
