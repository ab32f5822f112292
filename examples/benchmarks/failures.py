"""What the other processes of a fit say when one of them fails, and after how long.

    python examples/benchmarks/failures.py --ranks 3 --timeout 20

fits a model in several processes on this machine, one of which fails in the third
epoch: it raises an error, is interrupted, is killed, or is stopped. Each of the others
prints the seconds from the failure to its error, and the error.
"""

import argparse
import os
import signal
import tempfile
import time

import torch
import torch.distributed as dist

import skrec.distributed
from skrec import BiasedMFRegressor
from skrec._factorization.variational_trainer import VariationalTrainer
from skrec.datasets import make_ratings

EPOCH = 3


def fail_by_error():
    raise MemoryError("no more")


FAILURES = {
    "raises": fail_by_error,
    "interrupted": lambda: os.kill(os.getpid(), signal.SIGINT),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def run(rank, folder, failure, args, results):
    """Fit a model on a rank; send what happens."""
    torch.set_num_threads(1)
    # A shell may start a program in the background without.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    store = dist.FileStore(f"{folder}/store", args.ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=args.ranks)
    original = VariationalTrainer.step

    def step(self, epoch, keep):
        if rank == args.failing and epoch + 1 == EPOCH:
            results.put((rank, time.time(), None))
            FAILURES[failure]()
        return original(self, epoch, keep)

    VariationalTrainer.step = step
    R = make_ratings(args.ranks * 100, 50, random_state=rank).R
    try:
        skrec.distributed.fit(BiasedMFRegressor(), R, timeout=args.timeout)
    except BaseException as error:
        if rank != args.failing:
            results.put((rank, time.time(), f"{type(error).__name__}: {error}"))


def main():
    """Let a rank fail in each way, and print what the others say."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--failing", type=int, default=1, help="number of the rank")
    parser.add_argument("--timeout", type=float, default=20.0)
    parser.add_argument("--failures", nargs="+", choices=FAILURES, default=[*FAILURES])
    args = parser.parse_args()
    for failure in args.failures:
        # A process that is killed may keep the lock of a queue.
        results = torch.multiprocessing.get_context("spawn").SimpleQueue()
        with tempfile.TemporaryDirectory() as folder:
            context = torch.multiprocessing.spawn(
                run, (folder, failure, args, results), nprocs=args.ranks, join=False
            )
            found = [results.get() for _ in range(args.ranks)]
            for process in context.processes:
                process.kill()
        start = next(when for rank, when, _ in found if rank == args.failing)
        print(f"Rank {args.failing} {failure}:", flush=True)
        for rank, when, text in sorted(found, key=lambda one: one[0]):
            if text is not None:
                print(f"  rank {rank} after {when - start:.1f} s: {text}")


if __name__ == "__main__":
    main()
