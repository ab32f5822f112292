"""Rate of each kernel, as a share of what the machine can do.

Measures the bandwidth of a copy and the rate of a matrix product, then each kernel on a
matrix of the size of MovieLens 1M, all in one process. The least time of a kernel is
the larger one of the bytes that it must move divided by the bandwidth, and of its
operations divided by the rate of the product. The share is this time divided by the
measured one. Bytes count each array once, as if all that is read again were in a cache.

    python examples/benchmarks/roofline.py [--data ml-1m synthetic] [--threads 1]
"""

import argparse
import time
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from skrec._core.sparse import Pattern, sddmm, spmm
from skrec.datasets import fetch_movielens, make_ratings
from skrec.model_selection import samples_to_ratings


class Kernel(NamedTuple):
    """A kernel with what it must do.

    Attributes
    ----------
    name : str
        Name of the kernel.

    run : callable
        Function that runs it once.

    n_bytes, n_operations : float
        Bytes that it must move, and its floating-point operations.
    """

    name: str
    run: object
    n_bytes: float
    n_operations: float


def load(name):
    """Load a rating matrix of shape (n_items, n_users)."""
    if name == "ml-1m":
        X, y = fetch_movielens("1m", download_if_missing=False, return_X_y=True)
        return samples_to_ratings(X, y)[0].T.tocsr()
    R = make_ratings(6_000, 4_000, density=0.04, random_state=0).R
    return R.T.tocsr()


def fastest(run, repeats):
    """Seconds of the fastest of some runs, after one that is not counted."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure_machine(repeats):
    """Bandwidth of a copy in bytes per second, and operations per second."""
    source = torch.rand(2**26)
    target = torch.empty_like(source)
    n_bytes = 2 * 4 * len(source)
    bandwidth = n_bytes / fastest(lambda: target.copy_(source), repeats)
    A = torch.rand(2000, 2000)
    rate = 2 * 2000**3 / fastest(lambda: A @ A, repeats)
    return bandwidth, rate


def sparse_kernels(pattern, k):
    """Products of a sparse matrix with dense ones of k columns."""
    n_rows, n_columns = pattern.shape
    values = torch.rand(pattern.nnz)
    A, B = torch.rand(n_rows, k), torch.rand(n_columns, k)
    transposed = pattern.transposed
    # An entry has an index and a value, of 4 bytes each.
    n_bytes = 8 * pattern.nnz + 4 * k * (n_rows + n_columns)
    work = n_bytes, 2 * pattern.nnz * k
    name = f"k = {k}"
    yield Kernel(f"SpMM, {name}", lambda: spmm(pattern, values, B), *work)
    yield Kernel(f"SpMM transposed, {name}", lambda: spmm(transposed, values, A), *work)
    yield Kernel(f"SDDMM, {name}", lambda: sddmm(pattern, A, B), *work)


def gram_kernels(pattern, k):
    """Half step by Gram matrices: products of factors, their sums, and solutions."""
    n_rows, n_columns = pattern.shape
    ones, V = torch.ones(pattern.nnz), torch.rand(n_columns, k)
    row, column = torch.tril_indices(k, k)
    n_pairs = len(row)
    products = V[:, row] * V[:, column]
    yield Kernel(
        f"Products of {k} factors",
        lambda: V.index_select(1, row) * V.index_select(1, column),
        4 * n_columns * (k + n_pairs),
        n_columns * n_pairs,
    )
    yield Kernel(
        f"Gram matrices of {k} factors, by SpMM",
        lambda: spmm(pattern, ones, products),
        8 * pattern.nnz + 4 * n_pairs * (n_rows + n_columns),
        2 * pattern.nnz * n_pairs,
    )
    Z = torch.rand(n_rows, k, 2 * k)
    A = Z @ Z.mT + torch.eye(k)
    yield Kernel(
        f"Cholesky factors of {n_rows} matrices of {k} factors",
        lambda: torch.linalg.cholesky(A),
        8 * n_rows * k**2,
        n_rows * k**3 / 3,
    )


def other_kernels(n_ratings):
    """Softmax of the RBM; convolution and pooling of the text network."""
    logits = torch.rand(3, n_ratings)
    # An exponential counts as one operation.
    work = 8 * logits.numel(), 4 * logits.numel()
    yield Kernel("Softmax of 3 levels", lambda: torch.log_softmax(logits, 0), *work)
    n_texts, length, width, n_filters, n_windows = 128, 100, 3, 100, 98
    texts = torch.rand(n_texts, 50, length)
    filters = torch.rand(n_filters, 50, width)
    yield Kernel(
        "Convolution and pooling of 128 texts",
        lambda: torch.conv1d(texts, filters).amax(2),
        4 * (texts.numel() + filters.numel() + n_texts * n_filters),
        2 * n_texts * n_windows * n_filters * 50 * width,
    )


def main(options):
    torch.set_num_threads(options.threads)
    for name in options.data:
        R = load(name)
        pattern = Pattern(torch.tensor(R.indptr), torch.tensor(R.indices), R.shape)
        bandwidth, rate = measure_machine(options.repeats)
        kernels = [
            *sparse_kernels(pattern, 64),
            *sparse_kernels(pattern, 500),
            *gram_kernels(pattern, 10),
            *other_kernels(pattern.nnz),
        ]
        lines = {}
        for kernel in kernels:
            seconds = fastest(kernel.run, options.repeats)
            times = kernel.n_bytes / bandwidth, kernel.n_operations / rate
            lines[kernel.name] = {
                "ms": f"{1e3 * seconds:.2f}",
                "MB": f"{kernel.n_bytes / 1e6:.1f}",
                "GB/s": f"{kernel.n_bytes / seconds / 1e9:.1f}",
                "Gflop": f"{kernel.n_operations / 1e9:.3f}",
                "Gflop/s": f"{kernel.n_operations / seconds / 1e9:.1f}",
                "bound": ("bytes", "operations")[int(np.argmax(times))],
                "share": f"{max(times) / seconds:.0%}",
            }
        print(f"{name}: {R.shape[0]} x {R.shape[1]}, {R.nnz} entries")
        print(f"{options.threads} threads, float32")
        print(f"copy {bandwidth / 1e9:.1f} GB/s, product {rate / 1e9:.1f} Gflop/s")
        print(pd.DataFrame(lines).T.to_string(), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["ml-1m", "synthetic"]
    parser.add_argument("--data", nargs="+", choices=names, default=["synthetic"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    with threadpool_limits(options.threads):
        main(options)
