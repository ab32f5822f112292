import os
from pathlib import Path

import numpy as np
import pytest

from skrec.datasets import load_filmtrust

# The pair (1, 7) is repeated.
RATINGS = "1 7 2\n1 2 4\n300 7 3.5\r\n1 7 0.5\n  2\t9  1\n"
EXPECTED = [(1, 2, 4.0), (300, 7, 3.5), (1, 7, 0.5), (2, 9, 1.0)]


@pytest.fixture
def home(tmp_path):
    (tmp_path / "filmtrust").mkdir()
    (tmp_path / "filmtrust" / "ratings.txt").write_text(RATINGS)
    return tmp_path


def write_compact(home, **changes):
    arrays = {
        "user": np.array([3, 3], dtype=np.int32),
        "item": np.array([60_000, 1], dtype=np.uint16),
        "rating": np.array([4, 2.5], dtype=np.float32),
        "is_test": np.array([False, True]),
    } | changes
    arrays = {name: value for name, value in arrays.items() if value is not None}
    np.savez(home / "filmtrust" / "ratings.npz", **arrays)


def test_ratings_equal_the_file_with_the_last_of_repeated_pairs(home):
    filmtrust = load_filmtrust(data_home=home)
    rows = [*filmtrust.data.itertuples(index=False, name=None)]
    found = [(*row, y) for row, y in zip(rows, filmtrust.target, strict=True)]
    assert found == EXPECTED
    assert filmtrust.data.columns.tolist() == ["user", "item"]
    assert filmtrust.data.index.tolist() == filmtrust.target.index.tolist()
    assert filmtrust.data.index.tolist() == [0, 1, 2, 3]
    assert (filmtrust.data.dtypes == np.int64).all()
    assert filmtrust.target.dtype == np.float64
    assert filmtrust.target.name == "rating"
    assert filmtrust.is_test is None


def test_the_compact_file_comes_first(home):
    write_compact(home)
    filmtrust = load_filmtrust(data_home=home)
    assert filmtrust.data.to_numpy().tolist() == [[3, 60_000], [3, 1]]
    assert (filmtrust.data.dtypes == np.int64).all()
    assert filmtrust.target.tolist() == [4, 2.5]
    assert filmtrust.target.dtype == np.float64
    assert filmtrust.is_test.tolist() == [False, True]
    assert filmtrust.is_test.dtype == bool


def test_return_x_y(home):
    X, y = load_filmtrust(data_home=home, return_X_y=True)
    assert X.shape == (4, 2)
    assert len(y) == 4


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OSError, match=r"has neither ratings.txt nor ratings.npz"):
        load_filmtrust(data_home=tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it has no ratings"),
        ("1 2\n", "line 1: '1 2' is not in the format 'user item rating'"),
        ("1 2 3 4\n", "line 1: "),
        ("1 2 3\n1 2 3 4\n", "line 2: "),
        ("1 2 3\n\n1 3\n", "line 3: "),
        ("1 2 x\n", "x"),
        ("1.5 2 3\n", "line 1: "),
        (f"{2**64} 2 3\n", "line 1: "),
        ("1 2 3\n1 2 4.5\n1 2 3\n", "line 2: a rating is 4.5, but"),
        ("1 2 0\n", "a rating is 0, but"),
        ("1 2 3.3\n", "not a multiple of half a star"),
    ],
)
def test_a_damaged_file_is_named(home, text, reason):
    (home / "filmtrust" / "ratings.txt").write_text(text)
    match = rf"ratings.txt' is not in the official format of FilmTrust \(.*{reason}"
    with pytest.raises(OSError, match=match):
        load_filmtrust(data_home=home)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"user": None}, "user"),
        ({"user": np.array([1.0, 2.0])}, "user has the dtype float64"),
        ({"item": np.array(["a", "b"])}, "item has the dtype <U1"),
        ({"rating": np.array(["1", "2"])}, "rating has the dtype <U1"),
        ({"rating": np.array([1, np.nan])}, "a rating in row 1 is nan"),
        (
            {"rating": np.array([1, 4.5])},
            "a rating in row 1 is 4.5, but they are from 0.5 to 4",
        ),
        ({"rating": np.array([1.0])}, "same length"),
        ({"is_test": np.array([0, 1])}, "is_test has the dtype int64"),
        ({"is_test": np.array([None, True])}, "allow_pickle"),
        ({"is_test": np.array([[True, False]])}, "1-dimensional"),
    ],
)
def test_a_damaged_compact_file_is_named(home, changes, reason):
    write_compact(home, **changes)
    with pytest.raises(OSError, match=rf"ratings.npz' is damaged \(.*{reason}.*Replac"):
        load_filmtrust(data_home=home)


def test_a_compact_file_without_ratings_is_named(home):
    ids, ratings, is_test = (np.empty(0, dtype) for dtype in (int, float, bool))
    write_compact(home, user=ids, item=ids, rating=ratings, is_test=is_test)
    with pytest.raises(OSError, match=r"ratings.npz' is damaged \(it has no ratings"):
        load_filmtrust(data_home=home)


@pytest.mark.parametrize("content", ["nothing", "text", "single array", "truncated"])
def test_another_file_with_the_name_of_the_compact_one_is_named(home, content):
    path = home / "filmtrust" / "ratings.npz"
    write_compact(home)
    if content == "single array":
        with path.open("wb") as file:
            np.save(file, np.ones(3))
    else:
        parts = {"nothing": b"", "text": b"text", "truncated": path.read_bytes()[:-30]}
        path.write_bytes(parts[content])
    with pytest.raises(OSError, match=r"ratings.npz' is damaged"):
        load_filmtrust(data_home=home)


def test_wrong_parameters_are_refused():
    with pytest.raises(ValueError, match="The 'data_home' parameter of load_filmtrust"):
        load_filmtrust(data_home=3)
    with pytest.raises(ValueError, match="The 'return_X_y' parameter of load_filmtrus"):
        load_filmtrust(return_X_y="no")


def test_facts_on_real_data():
    if not (Path(os.environ.get("SKREC_DATA", "")) / "filmtrust").is_dir():
        pytest.skip("needs FilmTrust in the folder SKREC_DATA")
    filmtrust = load_filmtrust()
    assert len(filmtrust.data) == len(filmtrust.target) == 35_494
    assert filmtrust.data.nunique().tolist() == [1_508, 2_071]
    assert not filmtrust.data.duplicated().any()
    assert sorted(filmtrust.target.unique()) == [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]
