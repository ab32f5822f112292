"""Where to compute, and with which random numbers."""

from __future__ import annotations

import math
import os

import numpy as np
import torch


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn the `device` parameter of an estimator into a device that is there.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:0", ...} or torch.device
        "auto" takes the GPU where there is one.

    Returns
    -------
    device : torch.device

    Raises
    ------
    ValueError
        If there is no such device on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"device={device!r} names no device; use 'auto', 'cpu', 'cuda' or 'cuda:0'."
        ) from None
    if resolved.type not in ("cpu", "cuda"):
        raise ValueError(
            f"device={device!r} is not supported: the sparse products run on 'cpu' and "
            "'cuda' only."
        )
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device!r}, but PyTorch sees {torch.cuda.device_count()} CUDA "
            "devices here; use device='auto' to take a GPU only where there is one."
        )
    return resolved


def inference_device(device: str | torch.device) -> torch.device:
    """The device for a fitted model: the one asked for, or the CPU where it is absent.

    A model that was fitted on a GPU still predicts on a machine that has none.
    """
    try:
        return resolve_device(device)
    except ValueError:
        return torch.device("cpu")


def make_generator(seed: int, device: torch.device | None = None) -> torch.Generator:
    """A generator of its own for `device` (default: the CPU), seeded with `seed`."""
    generator = torch.Generator(device or torch.device("cpu"))
    generator.manual_seed(seed)
    return generator


def as_tensor(array: np.ndarray, device: torch.device | None = None) -> torch.Tensor:
    """A tensor of an array, which is copied if it is read-only, as a memory map is."""
    return torch.as_tensor(np.require(array, requirements="W"), device=device)


def available_memory() -> float:
    """Bytes of main memory that are free for use; infinite where it is unknown."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":") for line in file)
        return float(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        pass  # not Linux, or an old one
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError):
        return math.inf
