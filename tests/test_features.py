import copy
import datetime
import pickle
from decimal import Decimal
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
from sklearn import config_context
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.model_selection import cross_validate
from sklearn.utils.validation import _check_method_params

from skrec._data.columns import split_words
from skrec._data.features import split_features
from skrec.features import FeatureEncoder, Features
from skrec.text import ItemTexts

N = 40
EXAMPLES = {
    # What a column has, and what it is.
    "integers": (np.arange(N), "numbers"),
    "decimals": ([Decimal(i) / 3 for i in range(N)], "numbers"),
    "nullable integers": (pd.array([1, 2, 3, None] * 10, dtype="Int64"), "numbers"),
    "Arrow integers": (pd.array([1, 2, 3, None] * 10, "int64[pyarrow]"), "numbers"),
    "integers as objects": (
        pd.Series([1, 2, None, pd.NA] * 10, dtype=object),
        "numbers",
    ),
    "one number or none": ([1.0, np.nan] * 20, "numbers"),
    "numbers that nearly overflow": ([-1.7e308, 0, 1.7e308, 5] * 10, "numbers"),
    "subnormal numbers": (np.arange(N) * 5e-324, "numbers"),
    "numbers of all magnitudes": (10.0 ** np.linspace(-300, 300, N), "numbers"),
    "mostly zeros": ([0] * 25 + list(range(15)), "numbers"),
    "booleans": ([True, False] * 20, "category"),
    "booleans or none": ([True, False, None, pd.NA] * 10, "category"),
    "nullable booleans": (pd.array([True, None] * 20, dtype="boolean"), "category"),
    "categories": (pd.Categorical([1, 2, 3, None] * 10), "category"),
    "intervals": (pd.cut(np.arange(N), 4), "category"),
    "words": (["UK", "US", None, " "] * 10, "category"),
    "Arrow strings": (pd.array(["a b", None] * 20, "string[pyarrow]"), "category"),
    "flag": (["new", None] * 20, "category"),
    "Chinese words": (["动作", "喜剧"] * 20, "category"),
    "zip codes": ([f"{i % 30:05d}" for i in range(N)], "category"),
    "bars": (["a b|c", "c", "d|", ""] * 10, "labels"),
    "commas": (["Action, Comedy", "Drama", "Comedy, Drama", "Action"] * 10, "labels"),
    "semicolons": (["a;b", "b;c", "a; c ", None] * 10, "labels"),
    "lists of strings": ([["a", "b"], ("b",), {"c"}, None] * 10, "labels"),
    "arrays of strings": ([np.array(["a", "b"]), np.array(["b"])] * 20, "labels"),
    "names": ([f"first{i % 7} last{i % 9}" for i in range(N)], "text"),
    "sentences": (
        [f"Here {i}, of course, is cat {i % 7}{i}" for i in range(N)],
        "text",
    ),
    "sentences again": ([f"He is {i % 3}, and so am I" for i in range(N)], "category"),
    "Japanese": ([f"{'猫犬鳥魚馬'[i % 5]}が好き{i}" for i in range(N)], "text"),
    "dates": ([datetime.date(2000 + i, 5, 1) for i in range(N)], "date"),
    "dates or none": (
        [pd.NaT, pd.Timestamp("2000-03-01"), None, datetime.date(2001, 1, 1)] * 10,
        "date",
    ),
    "times with a zone": (pd.date_range("2000", periods=N, tz="Europe/Berlin"), "date"),
    "periods": (pd.period_range("2000", periods=N, freq="M"), "date"),
    "vectors": ([np.arange(3.0) + i for i in range(N)], "vector"),
    "vectors or none": (
        [[1, 2], None, (3, np.nan), np.ones(2, np.float16)] * 10,
        "vector",
    ),
    "one value": (["a"] * N, "constant"),
    "one number": ([3] * N, "constant"),
    "one vector": ([[1, 2]] * N, "constant"),
    "nothing": ([None] * N, "constant"),
    "blanks": ([" ", "\t", "", None] * 10, "constant"),
    "ids": ([f"tt{i}" for i in range(N)], "constant"),
    "labels that never repeat": ([[f"l{i}"] for i in range(N)], "constant"),
    "words that never repeat": ([f"w{i} v{i}" for i in range(N)], "constant"),
}
each_example = pytest.mark.parametrize("name", EXAMPLES)


def films(n=60):
    """A table with a column of each common kind."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(30)])
    genres = np.array(["Action", "Comedy", "Drama", "Horror"])
    return pd.DataFrame(
        {
            "year": rng.integers(1920, 2020, n),
            "genres": [
                "|".join(rng.choice(genres, 2, replace=False)) for _ in range(n)
            ],
            "country": rng.choice(["UK", "US", "FR"], n),
            "plot": [" ".join(rng.choice(words, 8)) for _ in range(n)],
            "released": pd.Timestamp("2000") + pd.to_timedelta(np.arange(n), unit="D"),
        },
        index=[f"film{i}" for i in range(n)],
    )


class TestKinds:
    @each_example
    def test_kinds_are_found_and_encoded_to_finite_numbers(self, name):
        values, kind = EXAMPLES[name]
        table = pd.DataFrame({"x": values, "other": np.arange(N) % 3})
        encoder = FeatureEncoder()
        encoded = encoder.fit_transform(table)
        assert encoder.kinds_ == {"x": kind, "other": "numbers"}
        assert ("x" in encoder.output_indices_) == (kind != "constant")
        assert encoded.dtype == np.float64
        assert np.isfinite(encoded).all()
        assert encoded.shape == (N, len(encoder.get_feature_names_out()))
        if kind != "constant":
            block = encoded[:, encoder.output_indices_["x"]]
            assert (block != block[:1]).any()
        again = pickle.loads(pickle.dumps(encoder)).transform(table)
        np.testing.assert_allclose(again, encoded, atol=1e-12)

    @each_example
    def test_missing_values_are_finite_in_transform(self, name):
        values, kind = EXAMPLES[name]
        if kind == "constant":
            return
        encoder = FeatureEncoder().fit(pd.DataFrame({"x": values}))
        nothing = encoder.transform(pd.DataFrame({"x": [None, None]}))
        assert np.isfinite(nothing).all()

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (["a", 1], r"mixes strings \('a'\) and numbers \(1\): give one type\. .*"
             r"pandas\.to_numeric"),
            (["a", datetime.date(2000, 1, 1)], "mixes strings .* dates .*to_datetime"),
            ([True, "a"], "mixes categories"),
            ([["a", 1], ["b"]], "mixes"),
            ([["a"], "b"], "mixes strings .* and labels"),
            ([{"a": 1}], r"has objects of type dict \(\{'a': 1\}\), but cells"),
            ([1j, 2j], "has objects of type complex"),
            ([np.ones((2, 2))], "has lists of arrays of shape"),
            ([[["a"]]], "has lists of labels"),
        ],
    )  # fmt: skip
    def test_cells_of_mixed_or_unknown_types_are_refused(self, values, message):
        with pytest.raises(TypeError, match=f"The column 'x' {message}"):
            FeatureEncoder().fit(pd.DataFrame({"x": values}))

    @pytest.mark.parametrize(
        "values", [[1.0, np.inf], [1, 10**400], [Decimal("1"), Decimal("-Infinity")],
                   [[1.0], [np.inf]]]
    )  # fmt: skip
    def test_infinite_numbers_are_refused_with_their_place(self, values):
        table = pd.DataFrame({"x": values}, index=["Up", "Heat"])
        with pytest.raises(
            ValueError, match=r"'x' contains infinity, in the row 'Heat'"
        ):
            FeatureEncoder().fit(table)
        with pytest.raises(ValueError, match="'x1' contains infinity, in the row 0"):
            FeatureEncoder().fit(np.array([[1, np.inf]]))

    def test_vectors_of_different_lengths_are_refused(self):
        table = pd.DataFrame({"x": [[1, 2], [3]]})
        with pytest.raises(ValueError, match="'x' has vectors of 2 and of 1 numbers"):
            FeatureEncoder().fit(table)
        encoder = FeatureEncoder().fit(pd.DataFrame({"x": [[1, 2], [3, 4]]}))
        with pytest.raises(ValueError, match="of 3 numbers, but it had vectors of 2"):
            encoder.transform(pd.DataFrame({"x": [[1, 2, 3]]}))

    def test_a_tenth_of_the_strings_decides_on_labels(self):
        strings = ["a|b"] * 4 + [f"c{i} d{i % 7}" for i in range(36)]
        for n_labels, kind in ((4, "labels"), (3, "text")):
            table = pd.DataFrame({"x": strings[4 - n_labels :]})
            assert FeatureEncoder().fit(table).kinds_["x"] == kind

    def test_long_pieces_between_bars_are_no_labels(self):
        table = pd.DataFrame(
            {"x": [f"{'word ' * 9}|{'term ' * 9}{i}" for i in range(9)]}
        )
        table["y"] = range(9)
        assert FeatureEncoder().fit(table).kinds_["x"] != "labels"

    def test_many_distinct_strings_of_several_words_are_text(self):
        table = pd.DataFrame({"x": [f"name{i // 2} x{i // 4}" for i in range(20)]})
        assert FeatureEncoder(max_categories=10).fit(table).kinds_["x"] == "category"
        assert FeatureEncoder(max_categories=9).fit(table).kinds_["x"] == "text"


class TestNumbers:
    def test_a_smooth_function_is_linear_in_the_splines(self):
        year = np.linspace(1920, 2020, 300)
        encoded = FeatureEncoder().fit_transform(pd.DataFrame({"year": year}))
        assert encoded.shape == (300, 10)
        smooth = np.sin((year - 1920) / 25)
        fitted = encoded @ np.linalg.lstsq(encoded, smooth, rcond=None)[0]
        assert np.abs(fitted - smooth).max() < 0.01

    def test_few_distinct_numbers_get_indicators_and_are_interpolated(self):
        encoder = FeatureEncoder().fit(pd.DataFrame({"x": [1, 5, 9] * 4}))
        encoded = encoder.transform(pd.DataFrame({"x": [1, 5, 9, 3, 99, -99]}))
        np.testing.assert_allclose(encoded[:3], np.eye(3), atol=1e-12)
        np.testing.assert_allclose(encoded[3:], [[0.5, 0.5, 0], [0, 0, 1], [1, 0, 0]])

    def test_missing_numbers_have_an_indicator_and_are_neutral_otherwise(self):
        table = pd.DataFrame({"x": [1.0, 2.0, 2.0, np.nan]})
        encoded = FeatureEncoder().fit_transform(table)
        np.testing.assert_allclose(
            encoded, [[1, 0, 0], [0, 1, 0], [0, 1, 0], [1 / 3, 2 / 3, 1]]
        )
        encoder = FeatureEncoder().fit(table.dropna())
        np.testing.assert_allclose(encoder.transform(table)[3], [1 / 3, 2 / 3])

    def test_more_than_twenty_columns_are_one_standardized_block(self):
        rng = np.random.default_rng(0)
        table = pd.DataFrame(rng.normal(3, 9, (50, 21))).rename(columns=str)
        table.insert(1, "genre", ["a", "b"] * 25)
        table.loc[7, "3"] = np.nan
        table["constant"] = 1
        encoder = FeatureEncoder()
        encoded = encoder.fit_transform(table)
        assert encoder.output_indices_ == {
            "numbers": slice(0, 21),
            "genre": slice(21, 23),
        }
        assert encoder.kinds_["20"] == "numbers"
        assert encoder.get_feature_names_out()[3:23:18].tolist() == ["3", "genre__a"]
        block = encoded[:, :21]
        np.testing.assert_allclose(block.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(np.delete(block, 3, axis=1).std(axis=0), 1)
        assert block[7, 3] == 0
        # With one fewer, each has splines.
        fewer = FeatureEncoder().fit(table.drop(columns="20"))
        assert fewer.output_indices_["0"] == slice(0, 10)

    def test_a_category_named_numbers_keeps_its_name(self):
        table = pd.DataFrame(np.random.default_rng(0).normal(size=(9, 21)))
        table["numbers"] = ["a", "b", "c"] * 3
        encoder = FeatureEncoder().fit(table)
        assert list(encoder.output_indices_) == ["numbers_", "numbers"]

    def test_dates_are_years(self):
        dates = pd.Series(pd.to_datetime(["2000-01-01", "2000-07-02", "2001-01-01"]))
        encoder = FeatureEncoder().fit(pd.DataFrame({"x": dates[[0, 2]]}))
        middle = encoder.transform(pd.DataFrame({"x": dates[[1]]}))
        np.testing.assert_allclose(middle, [[0.5, 0.5]])


class TestStrings:
    def test_unseen_categories_are_zeros_and_rare_ones_share_a_column(self):
        table = pd.DataFrame({"x": ["UK", "UK", "US", "US", "FR", "DE", None, None]})
        encoder = FeatureEncoder().fit(table)
        names = ["x__UK", "x__US", "x__None", "x__infrequent_sklearn"]
        assert encoder.get_feature_names_out().tolist() == names
        again = pd.DataFrame({"x": [" UK ", "IT", "", "FR"]})
        assert encoder.transform(again).tolist() == [
            [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]
        ]  # fmt: skip

    def test_categories_are_limited(self):
        table = pd.DataFrame({"x": np.repeat([f"c{i}" for i in range(30)], 3)})
        assert FeatureEncoder(max_categories=7).fit_transform(table).shape == (90, 7)

    def test_categories_match_whatever_type_their_column_has(self):
        table = pd.DataFrame({"x": pd.Categorical([1, 2, None, 1, 2])})
        encoder = FeatureEncoder().fit(table)
        text = pd.DataFrame({"x": ["2"]})
        assert (
            encoder.transform(text).tolist() == encoder.transform(table[1:2]).tolist()
        )

    def test_labels_are_stripped_counted_once_and_unseen_ones_ignored(self):
        table = pd.DataFrame({"x": ["a|b", "a | b|a|", "c", None]})
        encoder = FeatureEncoder()
        expected = [[1, 1], [1, 1], [0, 0], [0, 0]]
        assert encoder.fit_transform(table).tolist() == expected
        assert encoder.get_feature_names_out().tolist() == ["x__a", "x__b"]
        again = pd.DataFrame({"x": ["b|new", "new"]})
        assert encoder.transform(again).tolist() == [[0, 1], [0, 0]]

    def test_texts_without_known_words_are_zeros(self):
        table = films()[["plot"]]
        table.iloc[3] = None
        encoder = FeatureEncoder(n_text_components=5)
        encoded = encoder.fit_transform(table)
        assert encoded.shape == (60, 5)
        assert not encoded[3].any()
        assert encoded[[0, 1, 2, 4]].any(axis=1).all()
        assert not encoder.transform(pd.DataFrame({"plot": ["unheard of"]})).any()

    def test_components_keep_the_products_of_the_words(self):
        table = films()[["plot"]]
        words = FeatureEncoder().fit_transform(table)
        assert words.shape[1] <= 30
        reduced = FeatureEncoder(n_text_components=words.shape[1] - 1)
        reduced = reduced.fit_transform(table)
        difference = np.linalg.norm(words @ words.T - reduced @ reduced.T)
        assert difference < 0.1 * np.linalg.norm(words @ words.T)

    def test_there_are_no_more_components_than_texts(self):
        table = pd.DataFrame({"x": [f"w{i} v{i} w{i + 1} v{i + 1}" for i in range(9)]})
        encoder = FeatureEncoder(n_text_components=12)
        encoded = encoder.fit_transform(table)
        assert encoded.shape == (9, len(encoder.get_feature_names_out())) == (9, 9)

    def test_components_are_learned_from_some_of_many_texts(self, monkeypatch):
        table = films(90)[["plot"]]
        whole = FeatureEncoder(n_text_components=20).fit_transform(table)
        monkeypatch.setattr("skrec._data.encoders._MAX_DECOMPOSED", 50)
        part = FeatureEncoder(n_text_components=20).fit_transform(table)
        assert part.shape == whole.shape
        assert part.any(axis=1).all()
        # They keep less of the words, but not much.
        kept = np.square(part).sum() / np.square(whole).sum()
        assert 0.7 < kept < 1

    def test_missing_texts_do_not_make_a_word_rare(self):
        # Both words are in more than half of the texts that there are.
        texts = ["cat dog x1", "cat dog x2", "cat dog x3", *[None] * 9]
        table = pd.DataFrame({"x": texts, "y": range(12)})
        assert FeatureEncoder().fit(table).kinds_["x"] == "constant"

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("A House, flies!", ["house", "flies"]),
            ("Café-Bar Ärger", ["café", "bar", "ärger"]),
            ("天安门 2001", ["天安", "安门", "2001"]),
            ("Alien3部作です", ["alien3", "部作", "作で", "です"]),
            ("एक अच्छी फिल्म है।", ["एक", "अच्छी", "फिल्म", "है"]),
            ("ตลก", ["ตล", "ลก"]),
            ("фильм-драма", ["фильм", "драма"]),
        ],
    )
    def test_words_of_any_script(self, text, words):
        assert split_words(text) == words


class TestFeatureEncoder:
    def test_blocks_are_disjoint_in_order_and_cover_the_output(self):
        table = films()
        encoder = FeatureEncoder()
        encoded = encoder.fit_transform(table)
        assert list(encoder.output_indices_) == list(table.columns)
        ends = [block.stop for block in encoder.output_indices_.values()]
        starts = [block.start for block in encoder.output_indices_.values()]
        assert starts == [0, *ends[:-1]]
        assert ends[-1] == encoded.shape[1]
        assert encoder.feature_names_in_.tolist() == list(table.columns)
        assert encoder.n_features_in_ == 5

    def test_columns_may_be_reordered_and_others_are_ignored(self):
        table = films()
        encoder = FeatureEncoder().fit(table)
        other = table[table.columns[::-1]].assign(extra=object())
        np.testing.assert_array_equal(
            encoder.transform(other), encoder.transform(table)
        )

    def test_a_row_is_encoded_alone_as_among_others(self):
        table = films()
        encoder = FeatureEncoder().fit(table)
        np.testing.assert_allclose(
            encoder.transform(table[5:6]), encoder.transform(table)[5:6], atol=1e-12
        )

    def test_missing_columns_and_other_types_are_refused(self):
        table = films()
        encoder = FeatureEncoder().fit(table)
        with pytest.raises(
            ValueError, match=r"X lacks the columns \['plot', 'released'\]"
        ):
            encoder.transform(table.drop(columns=["released", "plot"]))
        with pytest.raises(
            TypeError, match="'year' has strings, but it had numbers in"
        ):
            encoder.transform(table.astype({"year": str}))
        with pytest.raises(
            TypeError, match=r"X is of type ndarray, but this .* DataFrame"
        ):
            encoder.transform(np.ones((3, 5)))

    def test_dropped_columns_are_not_looked_at(self):
        table = films(9).assign(id=[f"tt{i}" for i in range(9)])
        encoder = FeatureEncoder().fit(table)
        other = encoder.transform(table.assign(id=object()))
        np.testing.assert_array_equal(other, encoder.transform(table))

    def test_tables_without_information_are_refused(self):
        with pytest.raises(ValueError, match=r"X is empty, with 0 rows and 1 columns"):
            FeatureEncoder().fit(pd.DataFrame({"x": []}))
        with pytest.raises(ValueError, match=r"X is empty, with 2 rows and 0 columns"):
            FeatureEncoder().fit(pd.DataFrame(index=[1, 2]))
        with pytest.raises(ValueError, match=r"no column to learn from.*\['x', 'id'\]"):
            FeatureEncoder().fit(pd.DataFrame({"x": [1, 1], "id": ["a", "b"]}))

    @pytest.mark.parametrize("names", [["x", "x"], [1, "1"]])
    def test_repeated_names_are_refused(self, names):
        table = pd.DataFrame([[1, 2], [3, 4]], columns=names)
        with pytest.raises(
            ValueError, match=f"more than one column named '{names[1]}'"
        ):
            FeatureEncoder().fit(table)

    def test_other_frames_are_read(self):
        arrow = pa.table(
            {
                "date": [datetime.date(2000 + i, 1, 1) for i in range(20)],
                "labels": [["a", "b"], ["b"], None, []] * 5,
                "vector": [[1.0, 2.0], [3.0, None], None, [4.0, 5.0]] * 5,
                "category": pa.array(["x", "y"] * 10).dictionary_encode(),
                "numbers": [Decimal(i) for i in range(20)],
            }
        )
        expected = FeatureEncoder().fit_transform(arrow.to_pandas())
        frames = (
            arrow,
            pl.from_arrow(arrow),
            arrow.to_pandas(types_mapper=pd.ArrowDtype),
        )
        for frame in frames:
            encoder = FeatureEncoder()
            np.testing.assert_array_equal(encoder.fit_transform(frame), expected)
            assert all(name == kind for name, kind in encoder.kinds_.items())

    def test_an_array_is_one_block(self):
        X = np.array([[1.0, np.nan], [2, 4], [3, 8]])
        encoder = FeatureEncoder()
        expected = [[1, 6], [2, 4], [3, 8]]
        assert encoder.fit_transform(X).tolist() == expected
        assert encoder.transform(np.array([[np.nan, 0.5]])).tolist() == [[2, 0.5]]
        assert encoder.output_indices_ == {"features": slice(0, 2)}
        assert encoder.kinds_ == {"features": "vector"}
        assert encoder.get_feature_names_out().tolist() == ["x0", "x1"]
        sparse = encoder.fit_transform(sp.csr_matrix(np.eye(3)))
        assert isinstance(sparse, np.ndarray)
        assert encoder.transform(np.array([[np.nan, 1, 2]]))[0, 0] == pytest.approx(
            1 / 3
        )

    def test_wide_outputs_of_mostly_zeros_are_sparse(self):
        labels = [[f"l{i}", f"l{i + 1}"] for i in range(1100)]
        table = pd.DataFrame({"x": labels, "year": np.arange(1100)})
        encoder = FeatureEncoder()
        encoded = encoder.fit_transform(table)
        assert isinstance(encoded, sp.csr_array)
        assert encoder.sparse_output_
        assert encoded.shape == (1100, 1109)
        # The format does not depend on the rows.
        one = encoder.transform(table[:1])
        assert isinstance(one, sp.csr_array)
        np.testing.assert_allclose(one.toarray(), encoded[:1].toarray())
        wide = sp.random_array((50, 2000), density=0.01, rng=0, format="coo")
        assert isinstance(FeatureEncoder().fit_transform(wide), sp.csr_array)

    def test_results_are_reproducible_without_a_seed(self):
        table = films()
        encode = FeatureEncoder(n_text_components=5).fit_transform
        np.testing.assert_array_equal(encode(table), encode(table))
        seeded = FeatureEncoder(n_text_components=5, random_state=0).fit_transform(
            table
        )
        np.testing.assert_array_equal(encode(table), seeded)

    def test_set_output_names_the_columns_and_keeps_the_index(self):
        table = films()
        frame = FeatureEncoder().set_output(transform="pandas").fit_transform(table)
        assert frame.index.equals(table.index)
        assert {"genres__Action", "country__UK", "year__spline0"} <= set(frame)

    def test_the_global_output_is_that_of_the_encoder_alone(self):
        encoder = FeatureEncoder(n_text_components=5)
        encoded = encoder.fit_transform(films())
        with config_context(transform_output="pandas"):
            frame = FeatureEncoder(n_text_components=5).fit_transform(films())
        assert frame.columns.tolist() == encoder.get_feature_names_out().tolist()
        np.testing.assert_array_equal(frame, encoded)

    def test_a_second_fit_forgets_the_first(self):
        encoder = FeatureEncoder().fit(films())
        encoder.fit(np.arange(6.0).reshape(3, 2))
        assert not hasattr(encoder, "feature_names_in_")
        assert encoder.transform([[1.0, 2.0]]).tolist() == [[1, 2]]

    def test_input_is_not_changed(self):
        table = films()
        before = table.copy()
        FeatureEncoder().fit_transform(table)
        pd.testing.assert_frame_equal(table, before)


class TableReader(RegressorMixin, BaseEstimator):
    """A minimal recommender that counts the rows passed to fit."""

    def fit(self, X, y, *, item_features=None):
        _, table = split_features(item_features, "item_features")
        self.n_rows_ = table.shape[0]
        return self

    def score(self, X, y):
        return self.n_rows_


TABLES = {
    "frame": films(10),
    "series": pd.Series(np.arange(10), index=list("abcdefghij"), name="year"),
    "vectors": {i: np.arange(2.0) + i for i in range(10)},
    "attributes": {i: {"year": 1990 + i} for i in range(10)},
    "array": np.arange(20.0).reshape(10, 2),
    "sparse": sp.random_array((10, 3), density=0.5, rng=0),
}


class TestFeatures:
    @pytest.mark.parametrize("name", TABLES)
    def test_cross_validation_passes_it_whole(self, name):
        table, X = TABLES[name], np.zeros((10, 2))
        run = partial(cross_validate, TableReader(), X, np.arange(10), cv=2)
        scores = run(params={"item_features": Features(table)})["test_score"]
        assert scores.tolist() == [10, 10]
        cut = _check_method_params(X, {"table": table}, np.arange(5))["table"]
        assert not isinstance(cut, dict)

    def test_a_mapping_that_was_cut_is_explained(self):
        with pytest.raises(
            TypeError,
            match=r"item_features must be .*got list\. In cross-validation, .* wrap "
            r"the table in skrec\.features\.Features",
        ):
            split_features(["a", "b"], "item_features")

    def test_it_has_no_size_by_which_it_could_be_split(self):
        for name in ("__len__", "shape", "__array__", "__getitem__", "__iter__"):
            assert not hasattr(Features(films()), name)

    @pytest.mark.parametrize("name", TABLES)
    def test_a_copy_is_equal_and_independent(self, name):
        features = Features(TABLES[name])
        for copied in (copy.deepcopy, clone, Features):
            other = copied(features)
            assert other is not features
            assert other.table is not features.table
            assert other == features
        assert pickle.loads(pickle.dumps(features)) == features

    def test_it_keeps_a_copy_of_the_table(self):
        for table in (np.ones((2, 2)), sp.csr_array(np.ones((2, 2)))):
            features = Features(table)
            table[0, 0] = 7
            assert features.table[0, 0] == 1
        frame = pd.DataFrame({"x": [1, 2]})
        features = Features(frame)
        frame.loc[0, "x"] = 7
        assert features.table["x"].tolist() == [1, 2]

    def test_equality_compares_the_rows_by_id(self):
        frame = films(5)
        assert Features(frame) == Features(frame[::-1])
        assert Features(frame) != Features(frame.rename(index={"film0": "other"}))
        assert Features(frame) != Features(frame.assign(year=0))
        assert Features(frame) != Features(frame.rename(columns={"year": "date"}))
        assert Features({1: [1, np.nan], 2: [3, 4]}) == Features(
            {2: [3, 4], 1: [1, np.nan]}
        )
        assert Features(np.eye(2)) != Features({0: [1, 0], 1: [0, 1]})
        assert Features(np.eye(2)) != Features(sp.eye_array(2))
        sparse = sp.csr_array([[np.nan, 0], [0, 1.0]])
        assert Features(sparse) == Features(sparse)
        assert Features(sparse) != Features(sp.csr_array([[0, 0], [0, 1.0]]))
        assert Features(frame) != frame.to_dict()

    def test_repr_says_what_it_wraps(self):
        assert repr(Features(films(7))) == "Features(<7 rows of 5 columns by id>)"
        assert (
            repr(Features(np.ones((1, 1))))
            == "Features(<1 row of 1 column by position>)"
        )

    def test_tables_of_each_kind(self):
        series = Features(TABLES["series"])
        assert series.ids.tolist() == list("abcdefghij")
        assert list(series.table) == ["year"]
        assert list(Features(TABLES["series"].rename(None)).table) == ["feature"]
        vectors = Features({"a": (1, 2), "b": [3, 4]})
        assert vectors.ids.tolist() == ["a", "b"]
        assert vectors.table.tolist() == [[1, 2], [3, 4]]
        attributes = Features({3: {"year": 1990}, 1: pd.Series({"genre": "x"})})
        assert attributes.ids.tolist() == [3, 1]
        assert list(attributes.table) == ["year", "genre"]
        assert attributes.table["year"].isna().tolist() == [False, True]
        assert Features(TABLES["array"]).ids is None
        assert isinstance(Features(TABLES["sparse"]).table, sp.csr_array)

    @pytest.mark.parametrize(
        ("table", "error", "message"),
        [
            (pd.DataFrame({"x": [1, 2]}, index=["a", "a"]), ValueError,
             "repeated ids, among them 'a': keep one row per user"),
            (pd.DataFrame({"x": [1, 2]}, index=["a", None]), ValueError,
             "keys that are not valid user ids. The user ids have 1 missing"),
            (pd.DataFrame({"x": [1]}, pd.MultiIndex.from_tuples([("a", 1)])), TypeError,
             "a MultiIndex with the levels"),
            (pd.DataFrame({"x": []}), ValueError, "no rows"),
            (pd.DataFrame(index=["a"]), ValueError, "empty, with 1 rows and 0 columns"),
            ({}, ValueError, "is an empty mapping"),
            ({"a": [1, 2], "b": [1]}, ValueError,
             "lengths: 2 for the id 'a', 1 for 'b'"),
            ({"a": "text"}, TypeError, "type str for the id 'a'.* pandas Series"),
            ({"year": [1, 2], "genre": ["a", "b"]}, TypeError,
             r"type list for the id 'genre'.*pandas\.DataFrame\(columns, index=ids\)"),
            (np.ones(3), ValueError, r"must have two dimensions.* \(3,\)"),
            (np.ones((0, 3)), ValueError, "empty, with 0 rows"),
            (np.array([["a"]]), TypeError, "array of dtype <U1, but arrays"),
            (np.ma.masked_equal([[1, 2]], 2), ValueError, "masked"),
            (np.eye(2).view(np.matrix), TypeError, "np.matrix"),
            ("text", TypeError, "must be a DataFrame indexed by id.*got str"),
            (ItemTexts(["a"]), TypeError, "got ItemTexts"),
            (3, TypeError, "got int"),
            (None, TypeError, "got NoneType"),
        ],
    )  # fmt: skip
    def test_other_objects_are_refused(self, table, error, message):
        with pytest.raises(error, match=f"^user_features .*{message}"):
            split_features(table, "user_features")
