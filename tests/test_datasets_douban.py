import os
import sys
from pathlib import Path

import numpy as np
import pytest

from skrec.datasets import load_douban

# Three users, four items: the second user rated nothing.
M = np.array([[5, 0, 0, 1], [0, 0, 0, 0], [0, 3, 2, 0]])
TEST = np.array([[0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]])
TRAIN = (M != 0) - TEST
EXPECTED = [(0, 0, 5, False), (0, 3, 1, True), (2, 1, 3, True), (2, 2, 2, False)]


@pytest.fixture
def h5py():
    reason = "only the official file of Douban needs h5py"
    return pytest.importorskip("h5py", reason=reason)


@pytest.fixture
def write(tmp_path, h5py):
    """Write an official file."""
    (tmp_path / "douban").mkdir()

    def write(**changes):
        matrices = {"M": M, "Otraining": TRAIN, "Otest": TEST} | changes
        # MATLAB's order of the elements: h5py sees the transposed matrices.
        matrices = {
            name: matrix.T.astype(np.float64)
            for name, matrix in matrices.items()
            if matrix is not None
        }
        path = tmp_path / "douban" / "training_test_dataset.mat"
        with h5py.File(path, "w") as file:
            for name, matrix in matrices.items():
                file[name] = matrix
        return tmp_path

    return write


def write_compact(home):
    user, item, rating, is_test = map(np.array, zip(*EXPECTED, strict=True))
    np.savez(
        home / "douban" / "ratings.npz",
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        rating=rating.astype(np.float32),
        is_test=is_test,
    )


def rows(douban):
    columns = [*douban.data.to_numpy().T.tolist(), douban.target.tolist()]
    return [*zip(*columns, douban.is_test.tolist(), strict=True)]


def test_ratings_and_split_equal_the_file(write):
    douban = load_douban(data_home=write())
    assert rows(douban) == EXPECTED
    assert douban.data.columns.tolist() == ["user", "item"]
    assert (douban.data.dtypes == np.int64).all()
    assert douban.target.dtype == np.float64
    assert douban.target.name == "rating"
    assert douban.is_test.dtype == bool


def test_the_compact_file_needs_no_h5py(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "douban").mkdir()
    (tmp_path / "douban" / "training_test_dataset.mat").write_bytes(b"")
    write_compact(tmp_path)
    assert rows(load_douban(data_home=tmp_path)) == EXPECTED


@pytest.mark.parametrize("subset", ["train", "test"])
def test_a_subset_is_a_part_of_the_split(tmp_path, subset):
    (tmp_path / "douban").mkdir()
    write_compact(tmp_path)
    expected = [row for row in EXPECTED if row[-1] == (subset == "test")]
    douban = load_douban(data_home=tmp_path, subset=subset)
    assert rows(douban) == expected
    X, y = load_douban(data_home=tmp_path, subset=subset, return_X_y=True)
    assert X.index.tolist() == y.index.tolist() == [0, 1]
    assert X.to_numpy().tolist() == [list(row[:2]) for row in expected]
    assert y.tolist() == [row[2] for row in expected]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OSError, match=r"has neither training_test_dataset.mat nor ra"):
        load_douban(data_home=tmp_path)


def test_a_missing_h5py_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "douban").mkdir()
    (tmp_path / "douban" / "training_test_dataset.mat").write_bytes(b"")
    with pytest.raises(ImportError, match=r"mat' needs h5py.*pip install h5py"):
        load_douban(data_home=tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Otest": None}, "Otest"),
        ({"M": M.ravel()}, "M is not a dense matrix"),
        ({"Otest": TEST[:2]}, "differ in shape"),
        ({"Otest": TEST * 0}, "together are not the ratings in M"),
        ({"Otest": TEST + (M == 0)}, "together are not the ratings in M"),
        ({"Otest": M}, "in both Otraining and Otest"),
        ({"M": M * 0, "Otraining": M * 0, "Otest": M * 0}, "it has no ratings"),
        ({"M": M * 2}, r"M\[\d, \d\] is .*from 1 to 5"),
        ({"M": np.where(M, M, np.nan), "Otraining": 1 - TEST}, r"\] is nan"),
        ({"M": np.where(M == 3, 3.5, M)}, r"\] is 3.5"),
    ],
)
def test_a_damaged_file_is_named(write, changes, reason):
    home = write(**changes)
    match = rf"dataset.mat' is not in the official format of Douban \(.*{reason}"
    with pytest.raises(OSError, match=match):
        load_douban(data_home=home)


@pytest.mark.usefixtures("h5py")
def test_a_file_that_is_not_hdf5_is_named(tmp_path):
    (tmp_path / "douban").mkdir()
    (tmp_path / "douban" / "training_test_dataset.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(OSError, match="mat' is not in the official format of Douban"):
        load_douban(data_home=tmp_path)


def test_an_unknown_subset_is_refused():
    with pytest.raises(ValueError, match=r"The 'subset' parameter.* Got 'valid' inste"):
        load_douban(subset="valid")


def test_facts_on_real_data():
    if not (Path(os.environ.get("SKREC_DATA", "")) / "douban").is_dir():
        pytest.skip("needs Douban in the folder SKREC_DATA")
    douban = load_douban()
    assert len(douban.data) == len(douban.target) == len(douban.is_test) == 136_891
    assert douban.data.nunique().tolist() == [2_999, 3_000]
    assert sorted(douban.target.unique()) == [1, 2, 3, 4, 5]
    assert len(load_douban(subset="train").data) == 123_202
    assert len(load_douban(subset="test").data) == 13_689
