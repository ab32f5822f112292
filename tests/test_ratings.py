import datetime
import tracemalloc
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.exceptions import DataConversionWarning

from skrec._data.ratings import (
    PRIOR_RATINGS,
    Ratings,
    Scale,
    Values,
    average,
    check_matrix_weights,
    check_rating_matrix,
    check_ratings,
    select_entries,
    shrunken_means,
)
from skrec._data.stored import refuse_broken
from skrec.model_selection import ratings_to_samples

FORMATS = ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"]
PADDED = {"bsr", "dia"}
X = [["bob", 20], ["ann", 30], ["bob", 10]]
Y = [5.0, 0.0, 3.0]


@pytest.fixture
def stored():
    """A matrix with a stored zero, an empty row and an empty column."""
    return sp.csr_array(
        ([5.0, 0.0, 3.0, 4.0], [0, 3, 1, 0], [0, 2, 3, 3, 4]), shape=(4, 5)
    )


@pytest.fixture
def more():
    """Ratings of cells that are not stored in `stored`."""
    return sp.coo_array(([2.0, 0.0], ([2, 0], [4, 1])), shape=(4, 5))


def ones_like(matrix):
    matrix = check_rating_matrix(matrix)
    matrix.data[:] = 1
    return matrix


def parts_of(ratings):
    """The arrays that constitute a record, and None for those that it lacks."""
    fields = [getattr(ratings, name) for name in Ratings.__dataclass_fields__]
    return [
        part
        for field in fields
        for part in (field if isinstance(field, tuple) else [field])
    ]


def assert_same_record(found, expected):
    for a, b in zip(parts_of(found), parts_of(expected), strict=True):
        np.testing.assert_array_equal(a, b, strict=a is not None)


def arrays_of(matrix):
    """The arrays that constitute a sparse matrix."""
    if matrix.format == "dok":
        return [np.array(list(matrix.items()), dtype=object)]
    if matrix.format == "lil":
        return [np.concatenate(part) for part in (matrix.rows, matrix.data)]
    names = ["data", "indices", "indptr", "row", "col", "offsets"]
    return [getattr(matrix, name) for name in names if hasattr(matrix, name)]


# The record


def test_pairs_become_one_sorted_record():
    ratings = check_ratings(X, Y)
    assert ratings.users.tolist() == ["ann", "bob"]
    assert ratings.items.tolist() == [10, 20, 30]
    assert ratings.indptr.tolist() == [0, 1, 3]
    assert ratings.indices.tolist() == [2, 0, 1]
    assert ratings.values.tolist() == [0, 3, 5]
    assert ratings.weights is None
    assert ratings.shape == (2, 3)
    assert ratings.n_ratings == 3
    assert ratings.rows.tolist() == [0, 1, 1]
    assert ratings.matrix.toarray().tolist() == [[0, 0, 0], [3, 5, 0]]


def test_a_matrix_becomes_a_record_of_its_stored_entries(stored):
    ratings = check_ratings(stored)
    assert ratings.users.tolist() == [0, 1, 2, 3]
    assert ratings.items.tolist() == [0, 1, 2, 3, 4]
    assert ratings.indptr.tolist() == [0, 2, 3, 3, 4]
    assert ratings.indices.tolist() == [0, 3, 1, 0]
    assert ratings.values.tolist() == [5, 0, 3, 4]


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("weighted", [False, True])
def test_both_forms_give_the_same_record(R, rng, index, weighted):
    R = check_rating_matrix(R)
    R = R[np.diff(R.indptr) > 0][:, np.unique(R.indices)]
    R.indices, R.indptr = R.indices.astype(index), R.indptr.astype(index)
    pairs, y = ratings_to_samples(R)
    weights = rng.integers(3, size=R.nnz).astype(float) if weighted else None
    W = None if weights is None else sp.csr_array((weights, R.indices, R.indptr))
    order = rng.permutation(len(y))
    from_pairs = check_ratings(
        pairs[order], y[order], weights if weights is None else weights[order]
    )
    assert_same_record(from_pairs, check_ratings(R, None, W))


def test_the_order_of_samples_does_not_change_the_record(rng):
    users, items = np.divmod(rng.permutation(600)[:200], 20)
    pairs = pd.DataFrame({"user": users.astype(str), "item": items})
    y, weights = rng.standard_normal(200), rng.random(200)
    order = rng.permutation(200)
    found = check_ratings(pairs.iloc[order], y[order], weights[order])
    assert_same_record(found, check_ratings(pairs, y, weights))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_record_is_read_only_and_shares_nothing_with_the_input(stored, weighted):
    W = ones_like(stored) if weighted else None
    pairs, y, w = np.array([[1, 2], [3, 4]]), np.array([5.0, 3.0]), np.array([1.0, 2.0])
    inputs = [*arrays_of(stored), pairs, y, w, *(arrays_of(W) if weighted else [])]
    for ratings in (
        check_ratings(stored, None, W),
        check_ratings(pairs, y, w if weighted else None),
    ):
        for array in parts_of(ratings):
            if array is not None:
                assert not array.flags.writeable
                assert not any(np.shares_memory(array, given) for given in inputs)


def test_selecting_ratings_keeps_all_users_and_items():
    ratings = check_ratings(X, Y, [1, 2, 3]).select(np.array([False, True, False]))
    assert ratings.shape == (2, 3)
    assert ratings.indptr.tolist() == [0, 0, 1]
    assert ratings.indices.tolist() == [0]
    assert ratings.values.tolist() == [3]
    assert ratings.weights.tolist() == [3]


def test_selected_entries_of_a_matrix_keep_stored_zeros(stored):
    found = select_entries(stored, np.array([False, True, True, False]))
    assert found.shape == stored.shape
    assert found.indptr.tolist() == [0, 1, 2, 2, 2]
    assert found.indices.tolist() == [3, 1]
    assert found.data.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("ratings", "dtype", "n_levels"),
    [
        (np.tile([0.5, 5.0, -0.0, 3.0], 300), np.uint8, 4),
        # More levels than codes would save
        (np.arange(3000.0) % 1000 / 10, np.float64, None),
        (np.arange(9000.0) % 1000 / 10, np.uint16, 1000),
        (np.arange(9000.0) / 8, np.float32, None),
        (np.arange(9000.0) / 10, np.float64, None),
    ],
)
def test_ratings_are_stored_in_few_bytes_exactly(monkeypatch, ratings, dtype, n_levels):
    monkeypatch.setattr("skrec._data.ratings._CHUNK", 700)
    found = Values.of(ratings)
    assert found.stored.dtype == dtype
    assert (None if found.levels is None else len(found.levels)) == n_levels
    assert not np.shares_memory(found.stored, ratings)
    np.testing.assert_array_equal(found.decode(), ratings)
    np.testing.assert_array_equal(found.map(np.square).decode(), np.square(ratings))
    narrow = found.decode(np.float32)
    np.testing.assert_array_equal(narrow, ratings.astype(np.float32), strict=True)


@pytest.mark.parametrize("form", ["pairs", "matrix"])
def test_a_record_takes_few_bytes_and_few_more_are_used_to_make_it(rng, form):
    cells = rng.permutation(3_000_000)[:1_000_000]
    X, y = np.column_stack(np.divmod(cells, 1000)), 1.0 + cells % 5
    if form == "matrix":
        X, y = sp.csr_array((y, X.T), shape=(3000, 1000)), None
    tracemalloc.start()
    ratings = check_ratings(X, y)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ratings.n_ratings == len(cells)
    assert held < 5.2 * len(cells)
    assert peak < 36 * len(cells)


def test_memory_is_proportional_to_the_number_of_ratings(rng):
    # A dense matrix of this shape would take 8 TiB.
    users, items = np.arange(2**20), rng.permutation(2**20)
    ratings = check_ratings(np.column_stack([users * 2**40, items - 2**62]), users % 5)
    assert ratings.shape == (2**20, 2**20)
    assert (ratings.indices == items).all()
    assert (ratings.values == users % 5).all()


# Pairs


@pytest.mark.parametrize(
    "y",
    [
        (5, 0, 3),
        np.array([5, 0, 3], np.int8),
        np.array([5, 0, 3], np.float16),
        np.array([5, 0, 3], ">f4"),
        np.array([5, 0.0, 3], object),
        [Decimal(5), Decimal(0), Decimal(3)],
        pd.Series([5, 0, 3], index=[7, 8, 9]),
        pd.Series([5, 0, 3], dtype="Int64"),
        pd.Series([5, 0, 3], dtype="category"),
    ],
)
def test_ratings_may_be_numbers_of_any_type(y):
    assert_same_record(check_ratings(X, y), check_ratings(X, Y))


def test_boolean_ratings_are_zeros_and_ones():
    ratings = check_ratings(X, [True, False, True])
    assert ratings.values.tolist() == [0, 1, 1]


def test_a_column_of_ratings_is_raveled_with_a_warning():
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
        ratings = check_ratings(X, [[5], [0], [3]])
    assert_same_record(ratings, check_ratings(X, Y))


def test_ratings_of_pairs_are_required():
    message = "requires y to be passed, but the target y is None: give one rating for"
    with pytest.raises(ValueError, match=message):
        check_ratings(X)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([5, np.nan, 3], "Input y contains NaN"),
        ([5, None, 3], "Input y contains NaN: remove the pairs"),
        ([5, pd.NA, 3], "Input y contains NaN: remove the pairs"),
        (pd.Series([5, None, 3], dtype="Int64"), "Input y contains NaN"),
        ([5, np.inf, 3], "Input y contains infinity"),
        ([5, 3], "X has 3 user-item pairs, but y has 2 ratings: give one rating for"),
        ([], "X has 3 user-item pairs, but y has 0 ratings"),
        ([[5, 0, 3]], r"y should be a 1d array, got an array of shape \(1, 3\)"),
        (5, r"y should be a 1d array, got an array of shape \(\)"),
        ([5j, 0, 3], "Complex data not supported"),
        (np.ma.array(Y, mask=[0, 1, 0]), "y is a masked array with masked entries"),
    ],
)
def test_bad_ratings_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        check_ratings(X, y)


@pytest.mark.parametrize(
    ("y", "found"),
    [
        (["5", "0", "3"], "<U1"),
        (pd.Series(["5", "0", "3"]), "text or other objects"),
        (np.array(["5", "0", "3"], np.dtypes.StringDType()), "StringDType"),
        ([b"5", b"0", b"3"], "S1"),
        ([5, "0", 3], "<U21|text or other objects"),
        (np.array([5, 0, 3], "timedelta64[s]"), "timedelta64"),
        ([datetime.date(2020, 1, 1)] * 3, "text or other objects"),
    ],
)
def test_ratings_that_are_not_numbers_are_refused(y, found):
    with pytest.raises(TypeError, match=f"y must contain numbers, got.*{found}"):
        check_ratings(X, y)


@pytest.mark.parametrize("name", ["y", "sample_weight"])
def test_sparse_arrays_with_pairs_are_refused(name):
    arguments = {"y": Y, name: sp.csr_array([Y])}
    with pytest.raises(TypeError, match=f"{name} is sparse, but X has user-item pairs"):
        check_ratings(X, **arguments)


def test_a_repeated_pair_is_refused_with_an_example_and_the_remedy():
    message = "repeated user-item pairs, among them user bob with item 10: keep one"
    with pytest.raises(ValueError, match=message):
        check_ratings([*X, X[2]], [*Y, 3])


# Matrices


@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_the_same_record(stored, format, kind):
    R = getattr(sp, f"{format}_{kind}")(stored)
    if format in PADDED:
        stored.eliminate_zeros()
    before = [array.copy() for array in arrays_of(R)]
    assert_same_record(check_ratings(R), check_ratings(stored))
    for array, copy in zip(arrays_of(R), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_padding_of_blocks_and_diagonals_is_not_a_rating():
    R = sp.csr_array([[5.0, 0, 0, 0], [0, 4, 0, 1]])
    for padded in sp.bsr_array(R, blocksize=(2, 2)), sp.dia_array(R):
        assert len(padded.data.ravel()) > 3
        assert_same_record(check_ratings(padded), check_ratings(R))


@pytest.mark.parametrize(
    "dtype",
    ["bool", "int8", "uint8", "int16", "uint32", "int64", "uint64", "f4", "f8", "g"],
)
def test_ratings_of_every_real_type_become_floats(dtype):
    R = sp.csr_array(np.eye(3)).astype(dtype)
    found = check_rating_matrix(R)
    assert found.dtype == np.float64
    assert found.toarray().tolist() == np.eye(3).tolist()


def test_a_stored_false_is_a_rating_of_zero():
    R = sp.csr_array((np.array([True, False]), [0, 1], [0, 2]), shape=(1, 3))
    assert check_ratings(R).values.tolist() == [1, 0]


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_read_only_memory_maps_are_read(stored, tmp_path, format, index):
    R = stored.asformat(format)
    names = ["row", "col"] if format == "coo" else ["indices", "indptr"]
    for name in ["data", *names]:
        array = getattr(R, name)
        array = array if name == "data" else array.astype(index)
        array.tofile(tmp_path / name)
        mapped = np.memmap(tmp_path / name, dtype=array.dtype, mode="r")
        setattr(R, name, mapped)
    assert_same_record(check_ratings(R), check_ratings(stored))


def test_unsorted_indices_are_sorted_in_the_record_only():
    R = sp.csr_array(([1.0, 2, 3], [2, 0, 1], [0, 3]), shape=(1, 3))
    found = check_rating_matrix(R)
    assert found.has_sorted_indices
    assert found.indices.tolist() == [0, 1, 2]
    assert found.data.tolist() == [2, 3, 1]
    assert R.indices.tolist() == [2, 0, 1]


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
def test_entries_that_are_stored_twice_are_refused(format):
    R = {
        "csr": sp.csr_array(([1.0, 2, 0], [1, 0, 1], [0, 0, 3]), shape=(2, 2)),
        "csc": sp.csc_array(([2.0, 1, 0], [1, 1, 1], [0, 1, 3]), shape=(2, 2)),
        "coo": sp.coo_array(([1.0, 2, 0], ([1, 1, 1], [1, 0, 1])), shape=(2, 2)),
    }[format]
    message = r"X stores row 1, column 1 more than once: call its sum_duplicates\(\)"
    with pytest.raises(ValueError, match=message):
        check_ratings(R)


def test_the_same_column_in_two_rows_is_allowed():
    R = sp.csr_array(([1.0, 2], [1, 1], [0, 1, 1, 2]), shape=(3, 2))
    assert check_ratings(R).indices.tolist() == [1, 1]


def test_entries_outside_the_shape_are_refused():
    wide = sp.csr_array(([1.0], [5], [0, 1]), shape=(1, 3))
    tall = sp.coo_array(([1.0], ([0], [0])), shape=(2, 2))
    tall.row[:] = 5
    # SciPy may detect the first one itself, with its own message.
    with pytest.raises(ValueError, match=r"outside its shape|exceeds matrix"):
        check_ratings(wide)
    with pytest.raises(
        ValueError, match=r"X stores entries outside its shape \(2, 2\)"
    ):
        check_ratings(tall)


@pytest.mark.parametrize("shape", [(2**40, 3), (3, 2**40), (2**40, 2**40)])
def test_shapes_beyond_memory_are_refused_without_allocating(shape):
    R = sp.coo_array(([1.0], ([shape[0] - 1], [shape[1] - 1])), shape=shape)
    message = "rows and columns must not exceed 2147483647, because each takes memory"
    with pytest.raises(ValueError, match=message):
        check_ratings(R)


@pytest.mark.parametrize("shape", [(3, 3), (0, 3), (3, 0), (0, 0)])
def test_a_matrix_without_ratings_is_refused(shape):
    with pytest.raises(ValueError, match="without ratings: at least 1 stored entry"):
        check_ratings(sp.csr_array(shape))


@pytest.mark.parametrize(
    ("R", "error", "message"),
    [
        (sp.coo_array(np.ones(3)), ValueError, r"two dimensions.*got shape \(3,\)"),
        (sp.csr_array([[1j]]), TypeError, "contain real numbers, got dtype complex"),
        (sp.csr_array([[1, np.nan]]), ValueError, "NaN or infinity among its stored"),
        (sp.lil_array([[1, np.inf]]), ValueError, "NaN or infinity among its stored"),
        (sp.dia_array([[np.nan]]), ValueError, "NaN or infinity among its stored"),
        (np.eye(2), TypeError, "must be a SciPy sparse matrix or array, got ndarray"),
        (
            sp.csr_array((2, 4)),
            ValueError,
            "has 4 columns, but the model was fitted on 3 items",
        ),
    ],
)
def test_bad_matrices_are_refused_with_their_name(R, error, message):
    with pytest.raises(error, match=f"ratings .*{message}"):
        check_rating_matrix(R, name="ratings", n_items=3 if R.shape == (2, 4) else None)


def test_entries_of_dtype_object_are_refused():
    R = sp.csr_array(np.eye(2))
    R.data = R.data.astype(object)
    with pytest.raises(TypeError, match="X must contain real numbers, got dtype o"):
        check_ratings(R)


def test_a_dense_matrix_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"use X, y = skrec.*table_to_samples\(X\)"):
        check_ratings(np.eye(3), np.ones(3))


# A matrix and further ratings


@pytest.mark.parametrize("format", ["csr", "csc", "coo", "lil"])
def test_ratings_of_a_sparse_y_are_added(stored, more, format):
    ratings = check_ratings(stored, more.asformat(format))
    assert ratings.indptr.tolist() == [0, 3, 4, 5, 6]
    assert ratings.indices.tolist() == [0, 1, 3, 1, 4, 0]
    assert ratings.values.tolist() == [5, 0, 0, 3, 2, 4]
    assert_same_record(ratings, check_ratings(more, stored))


def test_a_y_without_ratings_changes_nothing(stored):
    empty = sp.csr_array(stored.shape)
    assert_same_record(check_ratings(stored, empty), check_ratings(stored))
    assert_same_record(check_ratings(empty, stored), check_ratings(stored))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda y, R: R[[3, 0, 1, 2]] * 0,
            "X and y overlap: both rate row 0, column 0",
        ),
        (lambda y, R: y.tocsr()[:3], r"y has shape \(3, 5\), but X has shape \(4, 5\)"),
        (lambda y, R: y.tocsr()[:, :4], r"y has shape \(4, 4\), but X has shape"),
        (lambda y, R: y * np.nan, "y contains NaN or infinity"),
    ],
)
def test_a_bad_sparse_y_is_refused(stored, more, change, message):
    with pytest.raises(ValueError, match=message):
        check_ratings(stored, change(more, stored))


@pytest.mark.parametrize("y", [np.ones(4), [1, 2, 3, 4], np.ones((4, 5))])
def test_a_dense_y_with_a_matrix_is_refused(stored, y):
    message = "X is a rating matrix, so y must be None or a sparse matrix of the"
    with pytest.raises(TypeError, match=message):
        check_ratings(stored, y)


# Weights


@pytest.mark.parametrize(
    "weights", [[1, 2, 3], np.array([1, 2, 3]), pd.Series([1, 2, 3])]
)
def test_weights_of_pairs_are_sorted_with_them(weights):
    assert check_ratings(X, Y, weights).weights.tolist() == [2, 3, 1]


def test_a_single_weight_applies_to_all_ratings(stored):
    assert check_ratings(X, Y, 2).weights.tolist() == [2, 2, 2]
    assert check_ratings(stored, None, 2).weights.tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("format", ["csr", "csc", "coo", "lil", "dok"])
def test_sparse_weights_belong_to_the_entries_of_the_matrix(stored, format):
    W = stored.copy()
    W.data[:] = [1, 2, 3, 4]
    ratings = check_ratings(stored.tocsc(), None, W.asformat(format))
    assert ratings.weights.tolist() == [1, 2, 3, 4]


def test_a_weight_per_row_applies_to_all_its_ratings(stored, more):
    ratings = check_ratings(stored, None, [1, 2, 3, 4])
    assert ratings.weights.tolist() == [1, 1, 2, 4]
    # Ratings in y too.
    ratings = check_ratings(stored, more, [1, 2, 3, 4])
    assert ratings.weights.tolist() == [1, 1, 1, 2, 3, 4]


def test_sparse_weights_with_a_sparse_y_cover_both(stored, more):
    both = check_ratings(stored, more)
    W = sp.csr_array((np.arange(1.0, 7), both.indices, both.indptr), shape=both.shape)
    assert check_ratings(stored, more, W).weights.tolist() == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match=r"exactly where the ratings \(of X and y"):
        check_ratings(stored, more, ones_like(stored))


def test_a_pair_with_weight_zero_is_ignored_but_its_ids_stay_known():
    ratings = check_ratings(X, Y, [1, 0, 2])
    assert ratings.users.tolist() == ["ann", "bob"]
    assert ratings.items.tolist() == [10, 20, 30]
    assert ratings.indptr.tolist() == [0, 0, 2]
    assert ratings.values.tolist() == [3, 5]
    assert ratings.weights.tolist() == [2, 1]


def test_an_entry_with_weight_zero_is_ignored(stored):
    W = ones_like(stored)
    W.data[1] = 0
    for weights in W, [0, 1, 1, 1]:
        ratings = check_ratings(stored, None, weights)
        assert ratings.shape == stored.shape
        assert 0 not in ratings.values
        assert (ratings.weights == 1).all()


def test_a_pair_may_be_repeated_with_weight_zero():
    ratings = check_ratings([*X, X[0]], [*Y, 1.0], [0, 1, 1, 1])
    assert_same_record(ratings, check_ratings(X, [1.0, *Y[1:]], [1, 1, 1]))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, -1, 1], "Negative values in data passed to `sample_weight`"),
        ([1, np.nan, 1], "Input sample_weight contains NaN"),
        ([1, np.inf, 1], "Input sample_weight contains infinity"),
        ([1, 2], r"sample_weight.shape == \(2,\), expected \(3,\)"),
        ([[1], [2], [3]], "Sample weights must be 1D array or scalar, got 2D array"),
        ([0, 0, 0], "at least one non-zero number"),
        (np.ma.array([1, 2, 3], mask=[0, 1, 0]), "sample_weight is a masked array"),
    ],
)
@pytest.mark.parametrize("form", ["pairs", "matrix"])
def test_bad_weights_are_refused(form, weights, message):
    R = sp.csr_array(np.eye(3))
    with pytest.raises(ValueError, match=message):
        check_ratings(*((X, Y) if form == "pairs" else (R, None)), weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda W: -W, "Negative values in data passed to `sample_weight`"),
        (lambda W: W * np.nan, "sample_weight contains NaN or infinity"),
        (lambda W: W * 0, "sample_weight is zero for all ratings"),
        (lambda W: W[:3], "sample_weight must have a stored entry exactly where"),
        (lambda W: W[:, ::-1], "sample_weight must have a stored entry exactly where"),
        (lambda W: sp.dia_array(W * 0), "a stored entry exactly where"),
    ],
)
def test_bad_sparse_weights_are_refused(stored, change, message):
    with pytest.raises(ValueError, match=message):
        check_ratings(stored, None, change(ones_like(stored)))


def test_positive_weights_of_empty_rows_only_are_refused(stored):
    with pytest.raises(ValueError, match="sample_weight is zero for all ratings"):
        check_ratings(stored, None, [0, 0, 1, 0])


def test_no_weights_stay_none(stored):
    assert check_matrix_weights(None, stored) is None
    assert check_ratings(X, Y).weights is None


# Means, scales and further ids


def twice(x):
    """Sum over two processes that have the same."""
    return 2 * np.asarray(x)


@pytest.mark.parametrize("total", [lambda x: x, twice])
def test_moments_are_weighted(total):
    ratings = check_ratings(X, Y)
    values = ratings.values
    assert ratings.moments(total) == pytest.approx((values.mean(), values.std()))
    assert average(values, None, total) == pytest.approx(values.mean())
    weights = np.array([1.0, 2.0, 5.0])
    ratings = check_ratings(X, Y, weights)
    mean = np.average(Y, weights=weights)
    variance = np.average((np.array(Y) - mean) ** 2, weights=weights)
    assert ratings.moments(total) == pytest.approx((mean, variance**0.5))
    assert ratings.moments(total, is_constant=False)[1] > 0


def test_equal_ratings_have_no_deviation():
    assert check_ratings(X, [0.1] * 3).moments() == (0.1, 0.0)
    assert check_ratings(X[:1], [0.1]).moments() == (0.1, 0.0)
    assert check_ratings(X, Y).moments(is_constant=True)[1] == 0


@pytest.mark.parametrize("weights", [None, np.array([1.0, 2.0, 5.0])])
def test_means_are_shrunk_as_by_further_ratings(weights):
    positions, ratings = np.array([2, 0, 2]), np.array([5.0, 1.0, 4.0])
    w = np.ones(3) if weights is None else weights
    sums = np.array([w[1], 0, 5 * w[0] + 4 * w[2], 0])
    counts = np.array([w[1], 0, w[0] + w[2], 0])
    for total, n in [(lambda x: x, 1), (twice, 2)]:
        found = shrunken_means(positions, 4, ratings, 3.0, weights, total)
        expected = (n * sums + PRIOR_RATINGS * 3.0) / (n * counts + PRIOR_RATINGS)
        np.testing.assert_allclose(found, expected)


def test_standardized_ratings_are_restored():
    ratings, scale = np.array([1.0, 2.5, 5.0]), Scale(3.0, 0.7)
    standard = scale.standardize(ratings)
    np.testing.assert_allclose(standard, (ratings - 3) / 0.7, atol=2.0**-31)
    assert np.array_equal(np.rint(standard * 2**30), standard * 2**30)
    out = np.empty(3)
    assert scale.restore(standard, out) is out
    np.testing.assert_allclose(out, ratings, atol=1e-9)
    np.testing.assert_allclose(scale.restore(standard.astype(np.float32)), ratings)
    assert Scale().standardize(ratings) is ratings
    assert np.array_equal(Scale().restore(ratings), ratings)


def test_further_ids_leave_the_ratings_in_their_places():
    ratings = check_ratings(X, Y)
    items, users = np.array([5, 10, 20, 25, 30]), np.array(["al", "ann", "bob"], object)
    found = ratings.with_items(items).with_users(users)
    assert found.users.tolist() == users.tolist()
    assert found.items.tolist() == items.tolist()
    expected = np.zeros((3, 5))
    expected[np.ix_([1, 2], [1, 2, 4])] = ratings.matrix.toarray()
    np.testing.assert_array_equal(found.matrix.toarray(), expected)
    assert found.indices.dtype == ratings.indices.dtype
    assert found.indptr.dtype == ratings.indptr.dtype
    assert ratings.with_items(ratings.items) is ratings
    assert ratings.with_users(ratings.users) is ratings


def test_more_than_65536_levels_are_no_levels():
    assert Values.of(np.arange(300_000.0) % 70_000).levels is None
    assert len(Values.of(np.arange(300_000.0) % 65_536).levels) == 65_536


@pytest.mark.parametrize(("side", "column"), [("user", 0), ("item", 1)])
def test_the_side_of_a_broken_id_is_named(side, column):
    pairs = np.array([["a", "b"], ["c", "d"]], object)
    pairs[0, column] = "\ud800"
    with pytest.raises(ValueError, match=f"The {side} id .* has a lone surrogate"):
        check_ratings(pairs, [1.0, 2.0])


def test_a_lazy_y_is_refused_by_its_name():
    y = type("DataFrame", (), {"__module__": "dask.dataframe.dask_expr"})()
    with pytest.raises(TypeError, match=r"give y\.compute\(\)"):
        check_ratings(X, y)


# Broken matrices


@pytest.mark.parametrize("format", ["csr", "csc", "bsr"])
def test_room_behind_the_entries_is_left_out(format):
    dense = np.random.default_rng(0).random((6, 4)).round()
    matrix = sp.csr_array(dense).asformat(format)
    assert refuse_broken(matrix, "X") is matrix
    for more in (1, 3):
        roomy = matrix.copy()
        roomy.indices = np.append(matrix.indices, [99] * more)
        blocks = np.full((more, *matrix.data.shape[1:]), np.nan)
        roomy.data = np.concatenate([matrix.data, blocks])
        found = refuse_broken(roomy, "X")
        assert type(found) is type(matrix)
        assert len(found.indices) == len(found.data) == len(matrix.indices)
        np.testing.assert_array_equal(found.toarray(), dense)
        assert np.shares_memory(found.data, roomy.data)
        # Only one of both has room.
        roomy.indices = matrix.indices
        np.testing.assert_array_equal(refuse_broken(roomy, "X").toarray(), dense)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indptr": [0, 1, 3, 3]}, "CSR: indptr has 4 entries, not 3"),
        ({"indptr": [1, 1, 3]}, "indptr starts at 1, not at 0"),
        ({"indptr": [0, 4, 3]}, "indptr decreases"),
        ({"indptr": [0, 1, 5]}, "ends at 5, but there are 3 indices and 3 values"),
        ({"indices": [0, 4, 1]}, r"outside its shape \(0 to 4\)"),
        ({"indices": [0, -1, 1]}, r"outside its shape \(-1 to 1\)"),
        ({"indices": [0.0, 1.0, 2.0]}, r"indices is of shape \(3,\) and dtype float64"),
        ({"indptr": [[0, 1, 3]]}, r"indptr is of shape \(1, 3\) and dtype int64"),
    ],
)
def test_a_broken_matrix_is_refused_with_what_is_wrong(change, message):
    matrix = sp.csr_array(([1.0, 2.0, 3.0], [0, 3, 1], [0, 1, 3]), shape=(2, 4))
    for name, values in change.items():
        setattr(matrix, name, np.array(values))
    with pytest.raises(ValueError, match=message):
        refuse_broken(matrix, "X")
