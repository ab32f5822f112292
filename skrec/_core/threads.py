"""Number of threads of the kernels."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator

import torch
from joblib import cpu_count
from threadpoolctl import LibController, ThreadpoolController

# Fewer ratings for each thread do not pay: threads that wait for each other occupy
# processors, and if others need these, waiting takes most of the time. Measured with
# examples/benchmarks/threads.py.
RATINGS_PER_THREAD = 200_000

# Time that a text takes, in ratings.
RATINGS_PER_TEXT = 50


def threads_for(n_ratings: int, n_texts: int = 0) -> int:
    """Number of threads that pays for a fit to this many ratings and texts.

    It is at most the number of threads that PyTorch uses at present, and at most the
    number of processors that this process may use. It depends on nothing else, such as
    the load on the machine, so that repeated fits have the same result.
    """
    allowed = min(torch.get_num_threads(), cpu_count())
    worthwhile = (n_ratings + RATINGS_PER_TEXT * n_texts) // RATINGS_PER_THREAD
    return max(1, min(allowed, worthwhile))


def set_threads(n_threads: int) -> None:
    """Set the number of threads of PyTorch's kernels, for the calling thread only.

    `torch.set_num_threads` would change it for the whole process.
    """
    for library in _openmp():
        library.set_num_threads(n_threads)


@contextlib.contextmanager
def threads_kept() -> Iterator[None]:
    """Restore the number of threads of each library at the end."""
    before = [(library, library.get_num_threads()) for library in _openmp()]
    try:
        yield
    finally:
        for library, n_threads in before:
            library.set_num_threads(n_threads)


def is_forked() -> bool:
    """Whether this process was forked from one that had called this function before.

    Its threads do not exist here, and OpenMP and MKL would wait for them forever.
    """
    return os.getpid() != _first_process()


@functools.cache
def _first_process() -> int:
    return os.getpid()


@functools.cache
def _openmp() -> list[LibController]:
    """OpenMP libraries that are loaded; PyTorch's is one of them."""
    return ThreadpoolController().select(user_api="openmp").lib_controllers
