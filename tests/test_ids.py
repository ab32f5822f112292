import datetime
import re
from decimal import Decimal
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp

from skrec._data import ids as module
from skrec._data.ids import (
    check_ids,
    check_matrix_ids,
    check_pairs,
    factorize,
    merge_ids,
    positions_of,
    union_of_ids,
)

TEXT = np.dtypes.StringDType()
PLAIN = {
    "int64": ([3, 1], np.int64),
    "int8": (np.array([3, 1], np.int8), np.int64),
    "uint16": (np.array([3, 1], np.uint16), np.int64),
    "big-endian": (np.array([3, 1], ">i4"), np.int64),
    "uint64 that int64 lacks": (np.array([2**64 - 1, 1], np.uint64), np.uint64),
    "float16": (np.array([0.5, 1], np.float16), np.float64),
    "float32": (np.array([0.5, 1], np.float32), np.float64),
    "float64": (np.array([0.5, 1]), np.float64),
    "bool": (np.array([True, False]), np.bool_),
    "<U": (np.array(["b", "a"]), object),
    "object strings": (np.array(["b", "a"], object), object),
    "StringDType": (np.array(["b", "a"], TEXT), object),
    "bytes": (np.array([b"b", b"a"]), object),
}
PANDAS_DTYPES = {
    "int8": [3, 1],
    "Int64": [3, 1],
    "UInt64": [2**64 - 1, 1],
    "Float64": [0.5, 1.0],
    "boolean": [True, False],
    "str": ["b", "a"],
    "string[python]": ["b", "a"],
    "object": ["b", "a"],
    "category": ["b", "a"],
    "Sparse[int]": [3, 1],
}
ARROW_DTYPES = {
    "int64[pyarrow]": [3, 1],
    "bool[pyarrow]": [True, False],
    "double[pyarrow]": [0.5, 1.0],
    "string[pyarrow]": ["b", "a"],
    "large_string[pyarrow]": ["b", "a"],
}
MISSING = {
    "float NaN": [1.0, np.nan],
    "None among ints": [1, None],
    "None among strings": ["a", None],
    "NaN among strings": ["a", np.nan],
    "pd.NA": [1, pd.NA],
    "NaN decimal": [Decimal(1), Decimal("nan")],
    "Int64": pd.array([1, None], dtype="Int64"),
    "string": pd.array(["a", None], dtype="string"),
    "category of ints": pd.Categorical([1, None]),
    "StringDType": np.array(["a", None], np.dtypes.StringDType(na_object=None)),
}
TIMES = {
    "datetime64": np.array(["2020", "2021"], "datetime64[s]"),
    "timedelta64": np.array([1, 2], "timedelta64[s]"),
    "datetime": [datetime.datetime(2020, 1, 1), datetime.datetime(2021, 1, 1)],
    "date": [datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)],
    "time": [datetime.time(1), datetime.time(2)],
    "timedelta": [datetime.timedelta(1), datetime.timedelta(2)],
    "np.datetime64 objects": [np.datetime64("2020"), np.datetime64("2021")],
    "with time zone": pd.to_datetime(["2020", "2021"], utc=True),
    "period": pd.period_range("2020", periods=2, freq="D"),
    "category": pd.Categorical(pd.to_datetime(["2020", "2021"])),
}
UNSORTABLE = {
    "int and str": [1, "a"],
    "bytes and str": [b"a", "a"],
    "bool and int": [True, 5],
    "int and a float that lacks its digits": [2**53 + 1, 0.5],
    "objects without order": [object(), object()],
    "partly ordered": [frozenset([1]), frozenset([2])],
    "unhashable": [{"a": 1}, {"b": 2}],
}
EXACT_OBJECTS = {
    "negative and beyond int64": [-1, 2**63 + 1],
    "beyond uint64": [2**70, 1],
    "uuid": [UUID(int=2), UUID(int=1)],
    "decimal": [Decimal("0.5"), Decimal("0.25")],
    "tuple": [("b", 1), ("a", 2)],
}


def by_name(cases):
    return pytest.mark.parametrize("values", cases.values(), ids=cases.keys())


def as_objects(values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def frame_of(column):
    """A DataFrame with a column of ids and a column of strings."""
    return pd.DataFrame({"user": column, "item": ["x", "y"]})


@pytest.mark.parametrize(("ids", "dtype"), PLAIN.values(), ids=PLAIN.keys())
def test_arrays_of_ids_become_one_plain_type(ids, dtype):
    ids = np.asarray(ids)
    users, items = check_pairs(np.column_stack([ids, ids[::-1]]))
    assert users.dtype == items.dtype == dtype
    assert users.tolist() == ids.tolist()
    assert items.tolist() == ids[::-1].tolist()


@pytest.mark.parametrize(("dtype", "values"), PANDAS_DTYPES.items())
def test_data_frame_columns_may_differ_in_type(dtype, values):
    users, items = check_pairs(frame_of(pd.Series(values, dtype=dtype)))
    assert users.tolist() == values
    assert items.tolist() == ["x", "y"]


@pytest.mark.parametrize(("dtype", "values"), ARROW_DTYPES.items())
def test_arrow_columns_are_read(dtype, values):
    users, _ = check_pairs(frame_of(pd.Series(values, dtype=dtype)))
    assert users.tolist() == values


def test_arrow_tables_are_read():
    users, items = check_pairs(pa.table({"user": [3, 1], "item": ["x", "y"]}))
    assert users.tolist() == [3, 1]
    assert items.tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("Int64", [3, 1]),
        ("UInt8", [3, 1]),
        ("Float32", [0.5, 1.0]),
        ("Boolean", [True, False]),
        ("String", ["b", "a"]),
        ("Categorical", ["b", "a"]),
    ],
)
def test_polars_frames_are_read(dtype, values):
    user = pl.Series(values, dtype=getattr(pl, dtype))
    users, items = check_pairs(pl.DataFrame({"user": user, "item": ["x", "y"]}))
    assert users.tolist() == values
    assert items.tolist() == ["x", "y"]


def test_polars_nulls_and_nested_columns_are_refused():
    with pytest.raises(ValueError, match="user ids have 1 missing values"):
        check_pairs(pl.DataFrame({"user": [1, None], "item": ["x", "y"]}))
    with pytest.raises(TypeError, match=r"user ids are of type int64 and shape"):
        check_pairs(pl.DataFrame({"user": [{"a": 1}, {"a": 2}], "item": ["x", "y"]}))


def lazy(module, name):
    """An object of a class of a library that need not be installed."""
    return type(name, (), {"__module__": module})()


LAZY = {
    "polars": (pl.LazyFrame({"user": [1], "item": [2]}), r"X\.collect\(\)"),
    "Dask": (lazy("dask.dataframe.dask_expr", "DataFrame"), r"X\.compute\(\)"),
    "Spark": (lazy("pyspark.sql.dataframe", "DataFrame"), r"X\.toPandas\(\)"),
    "Ray": (lazy("ray.data.dataset", "MaterializedDataset"), r"X\.to_pandas\(\)"),
}


@by_name(LAZY)
def test_lazy_tables_are_refused_with_the_call_that_computes_them(values):
    table, call = values
    with pytest.raises(TypeError, match=f"which has not been computed: give {call}"):
        check_pairs(table)


@pytest.mark.parametrize("row", [list, tuple])
def test_rows_of_lists_keep_integers_with_strings(row):
    users, items = check_pairs([row((3, "x")), row((1, "y"))])
    assert users.dtype == np.int64
    assert users.tolist() == [3, 1]
    assert items.tolist() == ["x", "y"]


def test_columns_with_equal_names_are_distinguished():
    users, items = check_pairs(pd.DataFrame([[1, 2], [3, 4]], columns=["id", "id"]))
    assert users.tolist() == [1, 3]
    assert items.tolist() == [2, 4]


@by_name(EXACT_OBJECTS)
def test_other_values_that_sort_are_kept_exactly(values):
    users, _ = check_pairs(frame_of(as_objects(values)))
    assert users.dtype == object
    assert users.tolist() == values


def test_integers_beyond_int64_are_not_rounded():
    ids = [2**63 + 1, 2**63 + 2]
    found = check_ids(ids, "user")
    assert found.dtype == np.uint64
    assert found.tolist() == ids


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64, bool])
def test_ids_of_the_final_type_are_not_copied(dtype):
    ids = np.array([2**64 - 1 if dtype == np.uint64 else 1, 0], dtype)
    assert np.shares_memory(check_ids(ids, "user"), ids)


def test_missing_ids_in_a_column_of_lists_are_refused():
    with pytest.raises(ValueError, match="The item ids have 1 missing values"):
        check_pairs([[1, "a"], [2, None]])


@by_name(MISSING)
def test_missing_ids_are_refused(values):
    with pytest.raises(ValueError, match=r"The user ids have 1 missing values \(NaN\)"):
        check_pairs(frame_of(pd.Series(values) if isinstance(values, list) else values))


@by_name({"floats": [1.0, np.inf], "objects": as_objects([1, -np.inf])})
def test_infinite_ids_are_refused(values):
    with pytest.raises(ValueError, match="The user ids contain infinity"):
        check_pairs(frame_of(values))


@by_name(TIMES)
def test_times_are_refused(values):
    with pytest.raises(TypeError, match="times cannot be ids: ids may be integers"):
        check_pairs(frame_of(values))


@by_name({"array": np.array([1j, 2]), "objects": as_objects([1j, 2j])})
def test_complex_ids_are_refused(values):
    with pytest.raises(ValueError, match="Complex data not supported as user ids"):
        check_pairs(frame_of(values))


@by_name(UNSORTABLE)
def test_mixed_and_unsortable_ids_are_refused(values):
    message = "The user ids are of mixed or unsortable types .* one type per column"
    with pytest.raises(TypeError, match=message):
        check_pairs(frame_of(as_objects(values)))


def test_mixed_types_are_named():
    with pytest.raises(TypeError, match=r"types \(int, str; each argument must be"):
        check_ids([1, "a"], "user")


def test_floats_wider_than_float64_are_refused():
    if np.longdouble(1).itemsize == 8:
        pytest.skip("longdouble is float64 on this machine")
    with pytest.raises(TypeError, match="The user ids are of type"):
        check_pairs(np.ones((2, 2), np.longdouble))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([1, 2], "Expected 2D array, got 1D array instead"),
        (np.zeros((2, 2, 2)), "Expected 2D array, got 3D array instead"),
        (None, "Expected 2D array, got 0D array instead"),
        ({"user": [1], "item": [2]}, "Expected 2D array, got 0D array instead"),
        (pd.Series([1, 2]), "Expected 2D array, got 1D array instead"),
        (["ab", "cd"], "Expected 2D array, got 1D array instead"),
        ([], "Expected 2D array, got 1D array instead"),
        (np.empty((0, 2)), r"0 sample\(s\) \(shape=\(0, 2\)\)"),
        (pd.DataFrame({"user": [], "item": []}), r"0 sample\(s\)"),
        (np.empty((3, 0)), r"0 feature\(s\) \(shape=\(3, 0\)\) while a minimum of 2"),
        ([[1], [2]], r"1 feature\(s\)"),
        ([[1, 2, 3]], "X has 3 features.*table_to_samples"),
        (pd.DataFrame(np.ones((2, 5))), "X has 5 features.*table_to_samples"),
        ([[1, 2], [3]], "rows of different lengths"),
        ([[1, 2], [3, 4, 5]], "rows of different lengths"),
    ],
)
def test_other_shapes_are_refused(X, message):
    with pytest.raises(ValueError, match=message):
        check_pairs(X)


# NumPy deprecates the class that is tested here.
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_np_matrix_is_refused():
    with pytest.raises(TypeError, match=r"np.matrix is not supported: use np.asarray"):
        check_pairs(np.asmatrix(np.ones((3, 2))))


def test_sparse_pairs_are_refused():
    with pytest.raises(TypeError, match="X is sparse, but user-item pairs are exp"):
        check_pairs(sp.csr_array((3, 2)))


def test_only_masked_arrays_with_masked_entries_are_refused():
    X = np.ma.array([[1, 2], [3, 4]], mask=[[0, 1], [0, 0]])
    with pytest.raises(ValueError, match="X is a masked array with masked entries"):
        check_pairs(X)
    users, _ = check_pairs(np.ma.array([[1, 2], [3, 4]]))
    assert users.tolist() == [1, 3]


@pytest.mark.parametrize(
    "ids",
    [
        ["b", "a"],
        ("b", "a"),
        np.array(["b", "a"]),
        pd.Index(["b", "a"]),
        pd.CategoricalIndex(["b", "a"]),
        pd.Series(["b", "a"]),
        pd.array(["b", "a"], dtype="string"),
    ],
    ids=lambda ids: type(ids).__name__,
)
def test_ids_may_be_any_array_like(ids):
    found = check_ids(ids, "item")
    assert found.dtype == object
    assert found.tolist() == ["b", "a"]


@pytest.mark.parametrize("ids", [[[1, 2]], 3, {1, 2}, "ab", [], pd.DataFrame([[1]])])
def test_ids_of_another_shape_are_refused(ids):
    with pytest.raises(ValueError, match="The item ids must be a 1-D array-like with"):
        check_ids(ids, "item")


@pytest.mark.parametrize(("one", "remedy"), [("ab", "['ab']"), (3, "[3]")])
def test_a_single_id_is_refused_with_the_list_to_give(one, remedy):
    with pytest.raises(ValueError, match=re.escape(f"give a list, {remedy}.")):
        check_ids(one, "item")


def test_masked_ids_are_named_in_the_refusal():
    with pytest.raises(ValueError, match="items is a masked array"):
        check_ids(np.ma.array([1, 2], mask=[0, 1]), "item")


# Row and column numbers


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64"])
def test_row_numbers_may_have_any_numeric_type(dtype):
    check_matrix_ids(np.array([0, 7], dtype), "user")


@pytest.mark.parametrize(
    ("ids", "what", "message"),
    [
        ([-1, 3], "user", "row numbers, .* got numbers from -1 to 3"),
        ([0.5, 3], "item", "column numbers, .* got numbers from 0.5 to 3"),
        (["a", "b"], "user", "row numbers, .* got strings from a to b"),
        ([True, False], "user", "row numbers, .* got numbers from False to True"),
    ],
)
def test_ids_that_are_not_row_numbers_are_refused(ids, what, message):
    with pytest.raises(ValueError, match=message):
        check_matrix_ids(check_ids(ids, what), what)


# Looking up


def positions(ids, known):
    return positions_of(check_ids(ids, "user"), check_ids(known, "user"), "user")


@pytest.mark.parametrize("known", [[1, 2, 5], [1.0, 2.0, 5.0], [1, 2, 5, 2**70]])
@pytest.mark.parametrize(
    "dtype", ["int8", "int64", "uint8", "uint64", "float32", "float64", object]
)
def test_numbers_are_found_by_value_whatever_their_type(known, dtype):
    found = positions(np.array([5, 1, 3], dtype), known)
    assert found.dtype == np.int64
    assert found.tolist() == [2, 0, -1]


@pytest.mark.parametrize(
    ("ids", "known", "expected"),
    [
        ([2.5, 2.0], [1, 2], [-1, 1]),
        ([2**53 + 1], [2.0**53], [-1]),
        ([2.0**53], [2**53, 2**53 + 1], [0]),
        ([-1], np.array([1, 2**64 - 1], np.uint64), [-1]),
        ([2**64 - 1], [-1, 5], [-1]),
        ([2**64 - 1, 1], np.array([1, 2**64 - 1], np.uint64), [1, 0]),
        ([2.0**63], [2**63], [0]),
        ([True, False], [0, 1], [1, 0]),
        ([1e300, 1], [1, 2], [-1, 0]),
    ],
)
def test_numbers_of_two_types_are_compared_exactly(ids, known, expected):
    assert positions(ids, known).tolist() == expected


@pytest.mark.parametrize("known_type", ["<U1", object, TEXT])
@pytest.mark.parametrize("id_type", ["<U1", object, TEXT])
def test_strings_are_found_whatever_their_type(id_type, known_type):
    ids = np.array(["c", "a", "b"], id_type)
    assert positions(ids, np.array(["a", "b"], known_type)).tolist() == [-1, 0, 1]


@by_name(EXACT_OBJECTS)
def test_other_values_are_found(values):
    known = as_objects(values)
    found = positions_of(known[::-1], known, "user")
    assert found.tolist() == [1, 0]


def test_strings_that_utf8_cannot_encode_are_found():
    assert positions(["\ud800", "a\0"], ["a", "a\0", "\ud800"]).tolist() == [2, 1]


def test_known_ids_need_not_be_sorted():
    assert positions([2, 3, 4], pd.Index([3, 1, 2])).tolist() == [2, 0, -1]


@pytest.mark.parametrize(
    ("ids", "known", "message"),
    [
        (["1"], [1], r"strings, but the known user ids are numbers.*astype\('int64'\)"),
        ([1], ["1"], r"numbers, but the known user ids are strings.*astype\('str'\)"),
        ([b"1"], ["1"], "of type bytes, but the known user ids are strings"),
        ([UUID(int=1)], ["1"], "of type UUID, but the known user ids are strings"),
    ],
)
def test_ids_of_another_kind_are_refused(ids, known, message):
    with pytest.raises(TypeError, match=f"The user ids in X are {message}"):
        positions(ids, known)


def test_ids_with_a_lone_surrogate_are_refused():
    ids = np.array(["ann", "b\ud800b", "Zoë \U0001f600"], object)
    with pytest.raises(ValueError, match=r"user id 'b\\ud800b' has a lone surrogate"):
        factorize(ids, "user")
    known, positions = factorize(ids[[0, 2, 0]], "user")
    assert known.tolist() == ["Zoë \U0001f600", "ann"]
    assert positions.tolist() == [1, 0, 1]


# Distinct ids


@pytest.mark.parametrize(
    "ids",
    [
        [7, -3, 7, 5, -3],
        [10**12, 7, 10**12, -5],
        [-(2**63), 2**63 - 1, 0, 0],
        list(range(10_000, 0, -1)),
        [0.5, -1.5, 0.5],
        [True, False, True],
        ["b", "a", "b"],
    ],
    ids=["close", "far", "extreme", "many", "floats", "booleans", "strings"],
)
@pytest.mark.parametrize("chunk", [2, 2**18])
def test_distinct_ids_ascend_and_positions_lead_back(ids, chunk, monkeypatch):
    if len(ids) < 100:
        monkeypatch.setattr(module, "_CHUNK", chunk)
    ids = check_ids(ids, "user")
    distinct, positions = factorize(ids, "user")
    assert distinct.tolist() == sorted(set(ids.tolist()))
    assert distinct.dtype == ids.dtype
    assert positions.dtype == np.int32
    assert distinct[positions].tolist() == ids.tolist()


@pytest.mark.parametrize(
    ("known", "new", "expected"),
    [
        ([2, 8], [5], [2, 5, 8]),
        ([2, 8], [7.5], [2.0, 7.5, 8.0]),
        (["b", "d"], ["a"], ["a", "b", "d"]),
        ([2**63 - 1, 1], np.array([2**64 - 1], np.uint64), [1, 2**63 - 1, 2**64 - 1]),
    ],
)
def test_the_union_of_ids_is_sorted_and_exact(known, new, expected):
    known, new = check_ids(known, "item"), check_ids(new, "item")
    found = union_of_ids(known, new)
    assert found.tolist() == expected
    assert [type(i) for i in found.tolist()] == [type(i) for i in expected]
    assert union_of_ids(known, new[:0]) is known


def test_values_of_known_and_new_ids_are_merged():
    known, new = check_ids(["d", "b"], "item"), check_ids(["a", "c"], "item")
    ids, merge = merge_ids(known, new, "item")
    assert ids.tolist() == ["a", "b", "c", "d"]
    values = np.array([[4, 40], [2, 20]], np.float32)
    found = merge(values, np.array([[1, 10], [3, 30]]))
    assert found.dtype == np.float32
    assert found.tolist() == [[1, 10], [2, 20], [3, 30], [4, 40]]
    assert merge(np.array([4, 2]), 0).tolist() == [0, 2, 0, 4]
