"""A fit to many ratings in a Parquet file, on a machine of little memory.

Writes synthetic ratings to a Parquet file, reads them in batches into a sparse matrix
of 8 bytes a rating, and fits a matrix factorization by alternating least squares. There
is never a table of all ratings. The largest memory of the process is printed.

    pip install -c constraints.txt -e ".[scale]"
    python examples/large_file.py [--ratings 1e8] [--file ratings.parquet]

If the file exists, it is read instead. It has the columns user, item and rating, and
its users and items are numbers from 0. With several processes each reads its own users:
`read_matrix` takes their rank, and `skrec.distributed.fit` the matrix. The fitted model
then numbers the users of rank 0 first, then those of rank 1, and so on.
"""

import argparse
import resource
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning

from skrec import PMFRegressor

SCHEMA = pa.schema({"user": pa.int32(), "item": pa.int32(), "rating": pa.float32()})
BATCH = 2**22  # rows read at a time
PER_USER, N_FACTORS = 200, 4  # of the synthetic ratings
NOISE = 0.8


def write_file(path, n_ratings, n_items=17_747):
    """Write synthetic ratings of a low rank, some users at a time."""
    rng = np.random.default_rng(0)
    n_users, step = n_ratings // PER_USER, BATCH // PER_USER
    items = rng.standard_normal((n_items, N_FACTORS), np.float32)
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, n_users, step):
            user = np.arange(start, min(start + step, n_users), dtype=np.int32)
            # Multiples of a number are distinct items, because n_items is prime.
            first, stride = rng.integers(1, n_items, (2, len(user), 1))
            item = (first + stride * np.arange(PER_USER)) % n_items
            factors = rng.standard_normal((len(user), N_FACTORS), np.float32) / 2
            rating = 3.5 + np.einsum("uk,upk->up", factors, items[item])
            rating += NOISE * rng.standard_normal(item.shape, np.float32)
            columns = (
                np.repeat(user, PER_USER),
                item.astype(np.int32).ravel(),
                (rating * 2).round().clip(1, 10).ravel() / 2,
            )
            arrays = map(pa.array, columns)
            writer.write_table(pa.Table.from_arrays(list(arrays), schema=SCHEMA))


def batches(path):
    """Yield users, items and ratings of some rows at a time."""
    for batch in pq.ParquetFile(path).iter_batches(BATCH, columns=SCHEMA.names):
        # Numbers that the types of the schema cannot hold are refused.
        yield tuple(column.to_numpy() for column in batch.cast(SCHEMA).columns)


def read_matrix(path, rank=0, n_ranks=1):
    """Read the ratings of a rank's users, in any order, into a matrix.

    Rank r has the users r, r + n_ranks, and so on. The first reading counts the ratings
    of each user, the second one stores them.
    """
    counts, n_items = np.zeros(0, np.int64), 0
    for user, item, _ in batches(path):
        own = user[user % n_ranks == rank] // n_ranks
        more = np.bincount(own, minlength=len(counts))
        more[: len(counts)] += counts
        counts, n_items = more, max(n_items, int(item.max(initial=-1)) + 1)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    if indptr[-1] < 2**31:
        indptr = indptr.astype(np.int32)
    indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    free = indptr[:-1].copy()
    for user, item, rating in batches(path):
        own = np.flatnonzero(user % n_ranks == rank)
        own = own[np.argsort(user[own], kind="stable")]
        users, first, n = np.unique(
            user[own] // n_ranks, return_index=True, return_counts=True
        )
        place = np.arange(len(own)) + np.repeat(free[users] - first, n)
        indices[place], data[place] = item[own], rating[own]
        free[users] += n
    return sp.csr_array((data, indices, indptr), shape=(len(counts), n_items))


def memory():
    """Largest memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def report(what, since):
    print(f"{what}: {time.process_time() - since:.1f} s of CPU, peak {memory():.2f} GB")


def main(path, n_ratings, max_iter):
    if not path.exists():
        since = time.process_time()
        write_file(path, n_ratings)
        size = path.stat().st_size / n_ratings
        report(f"Wrote {n_ratings:,} ratings, {size:.1f} bytes each", since)
    since = time.process_time()
    R = read_matrix(path)
    report(f"Read {R.shape[0]:,} users, {R.shape[1]:,} items, {R.nnz:,} ratings", since)
    warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter is small on purpose
    since = time.process_time()
    model = PMFRegressor(n_factors=15, max_iter=max_iter, random_state=0).fit(R)
    report(f"Fitted {model.n_iter_} iterations", since)
    print("Recommendations for the first user:")
    print(model.recommend(R[:1], 5).round(2).to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--file", type=Path, help="by default a temporary one")
    parser.add_argument("--ratings", type=float, default=1e6)
    parser.add_argument("--max-iter", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or Path(folder) / "ratings.parquet"
        main(path, int(options.ratings), options.max_iter)
