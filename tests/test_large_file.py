import importlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

EXAMPLES = Path(__file__).parents[1] / "examples"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(EXAMPLES)
    large_file = importlib.import_module("large_file")


@pytest.fixture
def shuffled(tmp_path, rng, monkeypatch):
    """Path of a file in random order, read in small batches, and its matrix."""
    monkeypatch.setattr(large_file, "BATCH", 64)
    mask = rng.random((50, 30)) < 0.3
    mask[7] = False  # a user without ratings
    user, item = np.nonzero(mask)
    rating = rng.integers(1, 6, len(user))
    order = rng.permutation(len(user))
    arrays = [
        pa.array(column[order], field.type)
        for column, field in zip((user, item, rating), large_file.SCHEMA, strict=True)
    ]
    path = tmp_path / "ratings.parquet"
    pq.write_table(pa.Table.from_arrays(arrays, schema=large_file.SCHEMA), path)
    return path, sp.csr_array((rating, (user, item)), shape=(50, 30)).toarray()


def test_rows_in_any_order_become_a_matrix(shuffled):
    path, expected = shuffled
    R = large_file.read_matrix(path)
    assert (R.indices.dtype, R.data.dtype) == (np.int32, np.float32)
    assert R.nnz == np.count_nonzero(expected)
    np.testing.assert_array_equal(R.toarray(), expected)


def test_each_rank_reads_its_own_users(shuffled):
    path, expected = shuffled
    for rank in range(3):
        part = large_file.read_matrix(path, rank, 3).toarray()
        np.testing.assert_array_equal(part, expected[rank::3])


def test_numbers_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "ratings.parquet"
    table = pa.table({"user": [0], "item": [2**32], "rating": [3.0]})
    pq.write_table(table, path)
    with pytest.raises(pa.ArrowInvalid, match="4294967296"):
        large_file.read_matrix(path)


def test_a_file_is_written_once_and_fitted(tmp_path, capsys):
    path = tmp_path / "ratings.parquet"
    large_file.main(path, 20_000, 2)
    printed = capsys.readouterr().out
    assert "Read 100 users, 17,7" in printed
    assert "20,000 ratings" in printed
    assert printed.count("\n    0 ") == 5  # recommendations for user 0
    large_file.main(path, 20_000, 1)
    assert "Wrote" not in capsys.readouterr().out
