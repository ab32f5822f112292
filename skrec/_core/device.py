"""Devices, their memory, and generators."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterator

import numpy as np
import torch

from .threads import is_forked, threads_kept


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn the `device` parameter of an estimator into a device of this machine.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:0", ...} or torch.device
        Device. "auto" takes a GPU if there is one, and the CPU otherwise.

    Returns
    -------
    device : torch.device

    Raises
    ------
    ValueError
        If this machine has no such device.
    """
    resolved = _parse_device(device)
    if not _is_present(resolved):
        raise ValueError(
            f"device={device!r} is not available: torch.cuda.device_count() is "
            f"{torch.cuda.device_count()}. Use device='auto' to take a GPU only if one "
            "is available."
        )
    return resolved


def inference_device(device: str | torch.device) -> torch.device:
    """Device for a fitted model: the requested one, or the CPU if it is absent.

    A model that was fitted on a GPU can predict on a machine without one.

    Raises
    ------
    ValueError
        If `device` is not a supported device on any machine.
    """
    wanted = _parse_device(device)
    return wanted if _is_present(wanted) else torch.device("cpu")


def _parse_device(device: str | torch.device) -> torch.device:
    """The device that `device` names, whether this machine has it or not."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        parsed = torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"device={device!r} names no device; use 'auto', 'cpu', 'cuda' or 'cuda:0'."
        ) from None
    if parsed.type not in ("cpu", "cuda"):
        raise ValueError(
            f"device={device!r} is not supported: the sparse products run on 'cpu' and "
            "'cuda' only. Use 'auto', 'cpu', 'cuda' or 'cuda:0'."
        )
    return parsed


def _is_present(device: torch.device) -> bool:
    return device.type == "cpu" or (device.index or 0) < torch.cuda.device_count()


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Compute as in a fresh process, whatever the program has set in PyTorch.

    Gradients are on, inference mode and autocast are off, and new tensors are float32
    on the CPU unless they say otherwise. The program's settings are restored, and so is
    the number of threads if it was changed meanwhile. A process that was forked from
    one that has computed is left with one thread.
    """
    if is_forked():
        # Not restored: another thread may compute at the end of the context.
        torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(threads_kept())
        stack.enter_context(_single_precision)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


class _SinglePrecision:
    """Context in which new tensors are float32, which several threads may enter.

    The setting is one for all threads of the process: the first one to enter changes
    it, and the last one to leave restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._outside = torch.float32
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave_in_child)

    def _leave_in_child(self) -> None:
        """Restore the setting where the threads that are inside do not exist."""
        self._lock = threading.Lock()
        if self._n_inside:
            self._n_inside = 0
            torch.set_default_dtype(self._outside)

    def __enter__(self) -> None:
        with self._lock:
            found = torch.get_default_dtype()
            if not self._n_inside or found != torch.float32:
                self._outside = found
            self._n_inside += 1
            torch.set_default_dtype(torch.float32)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if not self._n_inside:
                torch.set_default_dtype(self._outside)


_single_precision = _SinglePrecision()


def make_generator(seed: int, device: torch.device | None = None) -> torch.Generator:
    """Make a new generator on `device` (default: the CPU), seeded with `seed`."""
    generator = torch.Generator(device or torch.device("cpu"))
    generator.manual_seed(seed)
    return generator


def as_tensor(array: np.ndarray, device: torch.device | None = None) -> torch.Tensor:
    """Make a tensor of an array, which is copied if it is read-only (a memory map)."""
    return torch.as_tensor(np.require(array, requirements="W"), device=device)


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """Copy a tensor on any device to an array."""
    return tensor.cpu().numpy().copy(order="C")


def available_memory() -> float:
    """Free main memory in bytes; infinite if unknown."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":") for line in file)
        return float(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        pass  # not Linux, or a kernel without MemAvailable
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError):
        return math.inf
