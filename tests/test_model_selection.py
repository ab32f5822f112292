import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from skrec.model_selection import ratings_to_samples, samples_to_ratings

# A stored zero, an empty row and an empty column.
R = sp.csr_array(([5.0, 0.0, 3.0, -1.5], [0, 3, 1, 0], [0, 2, 3, 3, 4]), shape=(4, 5))


def assert_identical(found, expected):
    assert isinstance(found, sp.csr_array)
    assert found.shape == expected.shape
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found.indptr, expected.indptr)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.data, expected.data)


def test_samples_are_the_stored_entries_in_order():
    X, y = ratings_to_samples(R)
    assert X.dtype == np.int64
    assert y.dtype == np.float64
    assert X.tolist() == [[0, 0], [0, 3], [1, 1], [3, 0]]
    assert y.tolist() == [5, 0, 3, -1.5]


@pytest.mark.parametrize("container", [sp.csr_matrix, sp.csc_array, sp.coo_array])
def test_matrix_to_samples_and_back_changes_nothing(container):
    X, y = ratings_to_samples(container(R))
    found, users, items = samples_to_ratings(X, y, users=range(4), items=range(5))
    assert_identical(found, R)
    assert users.tolist() == [0, 1, 2, 3]
    assert items.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("users", "items"),
    [(None, None), (["dan", "cy", "bob", "ann"], [20, 10, 30, 40])],
    ids=["own ids", "given ids"],
)
def test_samples_to_matrix_and_back_only_sorts_them(users, items):
    samples = {("cy", 30, 0.0), ("ann", 10, 2.0), ("cy", 10, 3.0), ("bob", 20, 4.0)}
    pairs, y = [sample[:2] for sample in samples], [sample[2] for sample in samples]
    found, users, items = samples_to_ratings(pairs, y, users, items)
    X, ratings = ratings_to_samples(found)
    back = zip(users[X[:, 0]], items[X[:, 1]], ratings, strict=True)
    assert set(back) == samples


def test_rows_and_columns_follow_the_ids_given():
    found, users, items = samples_to_ratings(
        [["a", 1], ["b", 2]], [3, 4], pd.Index(["c", "b", "a"]), np.array([2, 1, 0])
    )
    assert found.toarray().tolist() == [[0, 0, 0], [4, 0, 0], [0, 3, 0]]
    assert users.tolist() == ["c", "b", "a"]
    assert items.tolist() == [2, 1, 0]


def test_ids_not_given_are_those_of_the_samples_ascending():
    found, users, items = samples_to_ratings([["b", 2], ["a", 1]], [3, 4], items=[2, 1])
    assert found.toarray().tolist() == [[0, 4], [3, 0]]
    assert users.tolist() == ["a", "b"]
    assert items.tolist() == [2, 1]


def test_given_ids_may_be_of_another_type_of_number():
    found, *_ = samples_to_ratings([[1.0, 2.0]], [3], users=[0, 1], items=[2])
    assert found.toarray().tolist() == [[0], [3]]


def test_samples_may_be_a_data_frame_with_strings():
    X = pd.DataFrame({"user": pd.Series(["b", "a"], dtype="category"), "item": [7, 7]})
    found, users, _ = samples_to_ratings(X, pd.Series([1, 2]))
    assert users.tolist() == ["a", "b"]
    assert found.toarray().tolist() == [[2], [1]]


def test_results_are_writable_and_share_nothing_with_the_input():
    ids = np.array([1, 2])
    X, y = np.array([[1, 1], [2, 2]]), np.array([3.0, 4.0])
    for results in samples_to_ratings(X, y, ids, ids), samples_to_ratings(X, y):
        found, users, items = results
        found.data[:] = 9
        users[:] = 9
        items[:] = 9
    assert ids.tolist() == [1, 2]
    assert y.tolist() == [3, 4]
    source = R.copy()
    _, ratings = ratings_to_samples(source)
    ratings[:] = 9
    assert_identical(source, R)


def test_an_id_that_is_not_given_is_refused():
    message = r"X has user bob, which is not among the 2 users given: add it to users"
    with pytest.raises(ValueError, match=message):
        samples_to_ratings([["ann", 1], ["bob", 2]], [3, 4], users=["ann", "cy"])
    with pytest.raises(
        ValueError, match="X has item 2, which is not among the 1 items"
    ):
        samples_to_ratings([["ann", 1], ["bob", 2]], [3, 4], items=[1])


def test_a_repeated_given_id_is_refused():
    with pytest.raises(ValueError, match="items has 7 more than once: give each item"):
        samples_to_ratings([[1, 7]], [3], items=[7, 8, 7])


def test_given_ids_of_another_type_are_refused():
    with pytest.raises(
        TypeError, match="user ids in X are numbers, but the known user ids"
    ):
        samples_to_ratings([[1, 7]], [3], users=["1"])


def test_a_repeated_pair_is_refused():
    with pytest.raises(ValueError, match="repeated user-item pairs, among them user 1"):
        samples_to_ratings([[1, 7], [1, 7]], [3, 4], users=[1], items=[7])


def test_missing_ratings_are_refused():
    with pytest.raises(
        ValueError, match="requires y to be passed, but the target y is"
    ):
        samples_to_ratings([[1, 7]], None)


def test_a_dense_matrix_is_refused():
    with pytest.raises(
        TypeError, match="R must be a SciPy sparse matrix or array, got"
    ):
        ratings_to_samples(np.eye(3))


def test_a_matrix_instead_of_samples_is_refused():
    with pytest.raises(TypeError, match="X is already a rating matrix"):
        samples_to_ratings(R, None)
