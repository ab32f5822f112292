"""Time of the steps of ConvMF, compared with straightforward implementations.

- An ALS sweep over the users and items of MovieLens 1M: conjugate gradients for all
  rows at once, compared with a NumPy loop that solves the normal equations of each row.
- A training pass of the text network over the plots: word-by-filter tables, buckets of
  similar length and sparse gradients, compared with embedding, conv1d and autograd on
  texts padded to 300 words. Both sides take the same Adam step.

The sides alternate in one process. If the folder SKREC_DATA does not have the data,
synthetic ratings and texts of similar size are used.

    python examples/benchmarks/convmf_steps.py [--repeats 5] [--threads 2]
"""

import argparse
import time

import numpy as np
import scipy.sparse as sp
import torch
from threadpoolctl import threadpool_limits

from skrec._core.conjugate_gradients import improve_rows
from skrec._core.sparse import Pattern
from skrec._core.text_cnn import TextCNN, cut_texts
from skrec.datasets import fetch_movielens, make_ratings
from skrec.model_selection import samples_to_ratings
from skrec.text import SequenceVectorizer

LAMBDA = 20.0
P, N_FILTERS, HIDDEN, K, WINDOWS, BATCH = 200, 100, 200, 50, (3, 4, 5), 256
CPU = torch.device("cpu")


def load():
    """Load a rating matrix and texts."""
    try:
        movielens = fetch_movielens("1m", download_if_missing=False)
    except OSError:
        data = make_ratings(6_000, 3_700, density=0.045, text_words=80, random_state=0)
        return "synthetic", data.R, data.item_texts
    R = samples_to_ratings(movielens.data, movielens.target)[0]
    return "MovieLens 1M", R, movielens.item_texts.tolist()


def compare(name, sides, repeats):
    """Run the sides alternately; print median times and the pairwise ratios."""
    times = {side: [] for side in sides}
    for repeat in range(repeats + 1):
        for side, function in sides.items():
            time.sleep(0.2)  # until the threads of the other side are idle
            start = time.perf_counter()
            function()
            if repeat:  # the first repeat is a warm-up
                times[side].append(time.perf_counter() - start)
    ours, plain = times.values()
    ratios = np.divide(plain, ours)
    print(
        f"{name}: {np.median(ours) * 1e3:.0f} ms, baseline "
        f"{np.median(plain) * 1e3:.0f} ms, speedup {np.median(ratios):.1f} "
        f"({ratios.min():.1f} to {ratios.max():.1f})"
    )


# An ALS sweep


def solve_by_loop(R, factors):
    """Compute the ridge solution of each row with NumPy."""
    solutions = np.zeros((R.shape[0], factors.shape[1]), factors.dtype)
    penalty = LAMBDA * np.eye(factors.shape[1], dtype=factors.dtype)
    for row in range(R.shape[0]):
        part = slice(R.indptr[row], R.indptr[row + 1])
        Z = factors[R.indices[part]]
        solutions[row] = np.linalg.solve(Z.T @ Z + penalty, Z.T @ R.data[part])
    return solutions


def compare_sweeps(R, k, repeats):
    """Compare sweeps in the middle of a fit, from the result of the last sweep."""
    by_user = sp.csr_array(R, dtype=np.float32)
    by_user.data -= by_user.data.mean()
    by_item = by_user.T.tocsr()
    pattern = Pattern(
        torch.tensor(by_user.indptr), torch.tensor(by_user.indices), R.shape
    )
    ratings = torch.tensor(by_user.data)
    transposed, transposed_ratings = pattern.transposed, ratings[pattern.order]

    def half_step(pattern, ratings, others, start):
        penalty = torch.full((len(start),), LAMBDA)
        return improve_rows(pattern, ratings, others, penalty, start)

    def sweep(users, items):
        users = half_step(pattern, ratings, items, users)
        return users, half_step(transposed, transposed_ratings, users, items)

    generator = torch.Generator().manual_seed(0)
    users = torch.zeros(R.shape[0], k)
    items = torch.empty(R.shape[1], k).normal_(0, 0.1, generator=generator)
    for _ in range(5):
        users, items = sweep(users, items)

    def loop():
        users = solve_by_loop(by_user, items.numpy())
        return users, solve_by_loop(by_item, users)

    sides = {"ours": lambda: sweep(users, items), "loop": loop}
    for a, b in zip(sides["ours"](), sides["loop"](), strict=True):
        difference = np.linalg.norm(a.numpy() - b) / np.linalg.norm(b)
        print(f"  relative difference of the solutions: {difference:.1e}")
    compare(f"ALS sweep, k = {k}", sides, repeats)


# A training pass of the network


class PlainCNN(torch.nn.Module):
    """The same network with standard PyTorch modules."""

    def __init__(self, n_words):
        super().__init__()
        self.embedding = torch.nn.Embedding(n_words + 1, P, padding_idx=0)
        self.convolutions = torch.nn.ModuleList(
            torch.nn.Conv1d(P, N_FILTERS, w) for w in WINDOWS
        )
        self.hidden = torch.nn.Linear(len(WINDOWS) * N_FILTERS, HIDDEN)
        self.output = torch.nn.Linear(HIDDEN, K)

    def forward(self, sequences):
        embedded = self.embedding(sequences).transpose(1, 2)
        features = [torch.relu(c(embedded)).amax(2) for c in self.convolutions]
        hidden = torch.tanh(self.hidden(torch.cat(features, 1)))
        return torch.tanh(self.output(hidden))


def train(network, optimizer, batches, targets):
    for batch, target in zip(batches, targets, strict=True):
        optimizer.zero_grad()
        (network(batch) - target).square().sum().backward()
        optimizer.step()


def compare_networks(texts, repeats):
    vectorizer = SequenceVectorizer()
    sequences = torch.tensor(vectorizer.fit_transform(texts).astype(np.int64))
    n_words = len(vectorizer.vocabulary_)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(sequences), generator=generator)
    targets = torch.randn(len(sequences), K, generator=generator)[order].split(BATCH)
    vectors = torch.randn(n_words + 1, P, generator=generator)
    ours = TextCNN(vectors, WINDOWS, N_FILTERS, HIDDEN, K, generator, CPU)
    plain = PlainCNN(n_words)
    sides = {}
    for name, network, batches in [
        ("ours", ours, cut_texts(sequences, order, BATCH, max(WINDOWS))),
        ("plain", plain, sequences[order].split(BATCH)),
    ]:
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
        arguments = network, optimizer, batches, targets
        sides[name] = lambda arguments=arguments: train(*arguments)
    words = (sequences != 0).sum(1)
    print(
        f"  {len(sequences)} texts of {int(words.median())} words in the median, "
        f"{n_words} distinct; batches of {BATCH}"
    )
    compare("training pass of the network", sides, repeats)


def main(options):
    torch.set_num_threads(options.threads)
    name, R, texts = load()
    print(f"{name}, {options.threads} threads")
    with threadpool_limits(options.threads):
        for k in options.n_factors:
            compare_sweeps(R, k, options.repeats)
    compare_networks(texts, options.repeats)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-factors", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    main(parser.parse_args())
