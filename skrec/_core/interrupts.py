"""Ctrl-C during a training: raised once, and never while results are stored."""

from __future__ import annotations

import signal
import threading


class Interrupts:
    """Context in which Ctrl-C raises once, and waits from then on until the end.

    Without it, a second interrupt could come while the results that the first one has
    left are stored, and an interrupt after the last iteration would lose them all.

    Within the context, another handler replaces Python's. Nothing changes in other
    threads, which get no signals, and if the program has a handler of its own.

    Attributes
    ----------
    may_raise : bool
        Whether an interrupt is raised at once, which the first one and the caller end.
    """

    def __init__(self) -> None:
        self.may_raise = True
        self._is_waiting = False
        self._is_installed = False

    def __enter__(self) -> Interrupts:
        self._is_installed = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._is_installed:
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self._is_installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if error is None:
            self.check()

    def check(self) -> None:
        """Raise an interrupt that has waited, or that was raised and got lost."""
        if self._is_waiting:
            self._is_waiting = False
            raise KeyboardInterrupt

    def settle(self) -> None:
        """Forget the interrupt that the caller handles, and let later ones wait."""
        self.may_raise = self._is_waiting = False

    def _handle(self, number, frame) -> None:
        self._is_waiting = True
        if self.may_raise:
            self.may_raise = False
            raise KeyboardInterrupt
