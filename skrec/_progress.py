"""Progress of long predictions and downloads, in lines on the console."""

from __future__ import annotations

import time
from collections.abc import Iterator

# Least number of seconds between two lines. A shorter call prints nothing.
SECONDS = 5.0


class ProgressLines:
    """Lines that say how much of a long call is done, one every few seconds.

    Parameters
    ----------
    task : str
        What is done, with which each line begins.

    unit : str
        What is counted.

    total : int or None
        Count at the end; None if it is unknown.

    verbose : bool or int
        Whether to print anything.
    """

    def __init__(self, task: str, unit: str, total: int | None, verbose: bool | int):
        self.task, self.unit, self.total, self.verbose = task, unit, total, verbose
        self.start = self.printed = time.monotonic()

    def show(self, done: int) -> None:
        """Print a line if it is time for one, or for the last one of several."""
        now = time.monotonic()
        is_last = done == self.total and self.printed > self.start
        if self.verbose and (is_last or now - self.printed >= SECONDS):
            share = "" if not self.total else f" of {self.total:,}"
            percent = "" if not self.total else f" ({done / self.total:.0%})"
            seconds = now - self.start
            print(
                f"[{self.task}] {done:,}{share} {self.unit}{percent}, {seconds:.0f} s",
                flush=True,
            )
            self.printed = now


def shown(
    parts: list[slice], task: str, unit: str, verbose: bool | int
) -> Iterator[slice]:
    """Yield the parts of a long call, and show how many of the units are done."""
    lines = ProgressLines(task, unit, parts[-1].stop, verbose)
    for part in parts:
        yield part
        lines.show(part.stop)
