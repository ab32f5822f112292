"""What the processes that fit one model together tell each other: sums and decisions.

Users are dealt out to the ranks of a group, and everything that has the size of the
items is the same on all ranks. Solvers and trainers take a `Group`. The group `ALONE`
of a single process returns what it is given, so that there is one code for both.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

Number = TypeVar("Number", bool, int, float)
Value = TypeVar("Value")

# Seconds in which a rank that is alive notices that another one has left the group
_PATIENCE = 5.0
# Rows that are drawn at a time; see `Share.draw`.
_DRAWN = 2**16


class RankError(RuntimeError):
    """Raised on the other ranks when a rank of a group fails or does not answer."""


class Group:
    """Group of one process.

    Attributes
    ----------
    rank, size : int
        Number of this process, and number of processes.
    """

    rank, size = 0, 1

    def enter(self, step: str) -> None:
        """Note the name of the present step, for error messages."""

    def sum(self, x: Tensor) -> Tensor:
        """Sum of a tensor over all ranks, which may overwrite the tensor."""
        return x

    def total(self, x: Any) -> Any:
        """Sum of a number or of an array over all ranks."""
        return x

    def sum_forward(self, x: Tensor) -> Tensor:
        """Sum over all ranks, each of which has the gradient of the sum."""
        return x

    def sum_backward(self, x: Tensor) -> Tensor:
        """The tensor, which is the same on all ranks, with the sum of its gradients."""
        return x

    def lead(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        solve: Callable[[Callable[[np.ndarray], np.ndarray]], np.ndarray],
        n: int,
    ) -> np.ndarray:
        """Let rank 0 solve a problem, so that all take as many steps.

        Parameters
        ----------
        function : callable
            Function of an array of n numbers that all ranks compute together.

        solve : callable
            Function that rank 0 calls with `function`. It returns the solution, an
            array of n numbers, which all ranks get.

        n : int
            Number of unknowns.
        """
        return solve(function)

    def first(self, x: Number) -> Number:
        """Number that rank 0 has, for decisions that all ranks must take alike."""
        return x

    def copy_first(self, x: Tensor) -> Tensor:
        """Tensor that rank 0 has, which overwrites those of the others."""
        return x

    def once(self, make: Callable[[], Value]) -> Value:
        """Value that rank 0 makes, for all ranks."""
        return make()

    def all(self, flag: bool) -> bool:
        """Whether a condition holds on all ranks."""
        return flag

    def gather(self, value: Any) -> list[Any]:
        """Values of all ranks, in order."""
        return [value]

    def meet(self, value: Any) -> list[Any]:
        """Values of all ranks; if one of them has failed, raise its error on all."""
        return [value]

    def local_device(self, device: str | torch.device) -> str | torch.device:
        """Device of this rank for the `device` of an estimator."""
        return device


ALONE = Group()


class Layout(NamedTuple):
    """How the rows of one side and their entries are dealt out to ranks.

    Each rank has some of the users with all their ratings, and all items with the
    ratings by its users.

    Attributes
    ----------
    rows : Group
        Group over which to sum what is summed over rows.

    entries : Group
        Group over which to sum what is summed over the entries of each row.
    """

    rows: Group = ALONE
    entries: Group = ALONE

    @property
    def group(self) -> Group:
        """Group of all ranks."""
        return self.rows if self.rows.size > 1 else self.entries


WHOLE = Layout()


class Share(NamedTuple):
    """Users of this rank among those of all ranks.

    Attributes
    ----------
    first, size : int
        Position of the first user in the order of ranks, and number of users.

    total : int
        Number of users of all ranks.
    """

    first: int
    size: int
    total: int

    def draw(self, draw: Callable[[int], Tensor]) -> Tensor:
        """Draw random rows for all users, and keep those of this rank.

        Parameters
        ----------
        draw : callable
            Function that draws a number of rows. All ranks begin with generators in the
            same state and end with the same state, as one process would.
        """
        if self.size == self.total:
            return draw(self.total)
        # Pieces of a multiple of 16 numbers, which PyTorch draws at a time. The last
        # piece is never smaller.
        starts = list(range(0, max(1, self.total - 15), _DRAWN))
        kept = []
        for start, end in zip(starts, [*starts[1:], self.total], strict=True):
            piece = draw(end - start)
            own = slice(
                *(
                    min(max(self.first + n - start, 0), end - start)
                    for n in (0, self.size)
                )
            )
            kept.append(piece[own])
        return torch.cat(kept)


class Ranks(Group):
    """Group of several processes, on a process group of PyTorch of its own.

    Parameters
    ----------
    processes : ProcessGroup
        Process group.
    """

    def __init__(self, processes: dist.ProcessGroup):
        self._processes: dist.ProcessGroup | None = processes
        self._store = processes.get_group_store()
        self.rank, self.size = processes.rank(), processes.size()
        self._step, self._has_met = "the start", False

    def enter(self, step):
        self._step = step

    def sum(self, x):
        x = x.contiguous()
        self._run(dist.all_reduce, x)
        return x

    def total(self, x):
        sums = self.sum(torch.tensor(np.asarray(x))).numpy()
        return sums if isinstance(x, np.ndarray) else sums.item()

    def sum_forward(self, x):
        return _SumForward.apply(x, self)

    def sum_backward(self, x):
        return _SumBackward.apply(x, self)

    def lead(self, function, solve, n):
        def tell(message):
            return self.copy_first(torch.from_numpy(message)).numpy()

        def function_of_all(x):
            tell(np.append(x, 1.0))
            return function(x)

        if self.rank == 0:
            found = solve(function_of_all)
            tell(np.append(found, 0.0))
            return found
        while True:
            message = tell(np.empty(n + 1))
            if message[-1] == 0.0:
                return message[:-1]
            function(message[:-1])

    def first(self, x):
        found = self.copy_first(torch.tensor(x, dtype=torch.float64))
        return type(x)(found.item())

    def copy_first(self, x):
        x = x.contiguous()
        self._run(dist.broadcast, x, group_src=0)
        return x

    def once(self, make):
        values = [make() if self.rank == 0 else None]
        self._run(dist.broadcast_object_list, values, group_src=0)
        return values[0]

    def all(self, flag):
        holds = torch.tensor(int(flag))
        self._run(dist.all_reduce, holds, op=dist.ReduceOp.MIN)
        return bool(holds)

    def gather(self, value):
        values: list[Any] = [None] * self.size
        self._run(dist.all_gather_object, values, value)
        return values

    def gather_first(self, value: Any) -> list[Any] | None:
        """Values of all ranks on rank 0; None on the others."""
        values: list[Any] | None = [None] * self.size if self.rank == 0 else None
        self._run(dist.gather_object, value, values, group_dst=0)
        return values

    def meet(self, value, error: Exception | None = None):
        self._has_met = True
        found = self.gather((value, _portable(error)))
        for rank, (_, others) in enumerate(found):
            if others is not None:
                raised = error if rank == self.rank and error else others
                raised.add_note(f"This is the error of rank {rank}.")
                raise raised
        return [own for own, _ in found]

    def local_device(self, device):
        if device != "auto" or not torch.cuda.is_available():
            return device
        local = int(os.environ.get("LOCAL_RANK", self.rank))
        return f"cuda:{local % torch.cuda.device_count()}"

    def fail(self, error: BaseException) -> None:
        """Tell the other ranks that this one leaves because of an error."""
        if self._processes is None:
            return
        if isinstance(error, Exception) and not self._has_met:
            self.meet(None, error)
        reason = f"{type(error).__name__}: {error}".rstrip(": .")
        self._leave(f"Rank {self.rank} failed in {self._step} with {reason}")

    def close(self) -> None:
        """Close the connections to the other ranks."""
        if self._processes is not None:
            dist.destroy_process_group(self._processes)
            self._processes = None

    def _run(self, operation: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Run an operation of all ranks."""
        try:
            operation(*args, group=self._processes, **options)
        except RuntimeError as error:
            raise RankError(self._explain()) from error

    def _leave(self, reason: str) -> None:
        """Leave the group, and a message for those who notice it."""
        with contextlib.suppress(RuntimeError):  # the process of the store may be gone
            self._store.set(str(self.rank), reason)
        self.close()

    def _explain(self) -> str:
        """Leave the group, in which an operation has failed; find out why."""
        self._leave("")
        silent = [rank for rank in range(self.size) if rank != self.rank]
        end = time.monotonic() + _PATIENCE
        with contextlib.suppress(RuntimeError):  # nobody can be asked
            while silent and time.monotonic() < end:
                for rank in tuple(silent):
                    if self._store.check([str(rank)]):
                        reason = self._store.get(str(rank)).decode()
                        if reason:
                            return f"{reason}. Fit again on all ranks."
                        silent.remove(rank)
                        late = rank
                time.sleep(0.1)
        names = ", ".join(map(str, silent or [late]))
        return (
            f"Rank {names} did not answer rank {self.rank} in {self._step}: it died, "
            "hangs, or cannot be reached. Fit again on all ranks."
        )


class _SumForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group):
        return group.sum(x.clone())

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class _SumBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return ctx.group.sum(grad.clone()), None


@contextlib.contextmanager
def open_group(timeout: float | None = None) -> Iterator[Ranks]:
    """Open a group of all ranks of the default process group, for one `with` block.

    Parameters
    ----------
    timeout : float or None
        Seconds that a rank waits for another one. None means the timeout of the default
        process group.
    """
    # Sums of tensors on a GPU need NCCL if the program uses it; the rest is on the CPU.
    uses_nccl = "nccl" in str(dist.get_backend_config())
    try:
        processes = dist.new_group(
            backend="cpu:gloo,cuda:nccl" if uses_nccl else "gloo",
            timeout=None if timeout is None else timedelta(seconds=timeout),
        )
    except RuntimeError as error:
        raise RankError(
            "Not all ranks have opened a group: each rank of the process group must "
            "make this call."
        ) from error
    ranks = Ranks(processes)
    try:
        yield ranks
    except BaseException as error:
        ranks.fail(error)
        raise
    finally:
        ranks.close()


def _portable(error: Exception | None) -> Exception | None:
    """Error that can be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
