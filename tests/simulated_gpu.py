"""A device of its own that computes on the CPU and notes what a GPU would wait for.

A program waits for a GPU when it reads a result, copies data, or calls an operation
whose result has a size that depends on the data. `SimulatedGPU` shows each of these on
a machine without a GPU. Like a GPU, it refuses operations on tensors of two devices.
The device is called "meta", the only one besides the CPU that every build of PyTorch
has; its tensors have data here, because no operation arrives there.
"""

from __future__ import annotations

import collections
import contextlib
import traceback
from collections.abc import Iterator
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from skrec._core import device as devices

aten = torch.ops.aten
DEVICE = torch.device("meta")
# Operations whose CUDA versions wait, because they allocate or raise by their results.
_WAITING = {
    "aten::_linalg_check_errors",
    "aten::_linalg_eigh",
    "aten::_local_scalar_dense",
    "aten::_unique2",
    "aten::bincount",
    "aten::equal",
    "aten::linalg_cholesky",
    "aten::masked_select",
    "aten::nonzero",
    "aten::unique_consecutive",
    "aten::unique_dim",
}
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_"}


class DeviceTensor(torch.Tensor):
    """Tensor of the simulated device, whose data are those of a tensor of the CPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held):
        is_strided = held.layout == torch.strided
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
            strides=held.stride() if is_strided else None,
            storage_offset=held.storage_offset() if is_strided else None,
        )
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} runs outside of `SimulatedGPU`")

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, **kwargs):
        raise TypeError("a tensor of a device has no array: call cpu() first")

    def __array__(self, *args, **kwargs):
        return self.numpy()


class _Generator(torch.Generator):
    """Generator on the CPU, whichever device it is made for."""

    def __new__(cls, device=None):
        return super().__new__(cls, "cpu")


class _Constructors(TorchFunctionMode):
    """Makes `as_tensor` copy to a device as `to` does, which can be noted."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.as_tensor and kwargs.get("device") is not None:
            kwargs = dict(kwargs)
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


class SimulatedGPU(TorchDispatchMode):
    """Context in which ``device="meta"`` is the simulated device.

    Attributes
    ----------
    waits : Counter of (str, str)
        How often a program would have waited, by the kind of operation and the line of
        skrec that called it.

    uploads, downloads : int
        Numbers copied to and from the device.

    peak : int
        Most numbers in a tensor of the device.
    """

    def __init__(self):
        super().__init__()
        self.waits = collections.Counter()
        self.uploads = self.downloads = self.peak = 0

    @property
    def count(self) -> int:
        return sum(self.waits.values())

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        enter = self.stack.enter_context
        enter(mock.patch.object(devices, "_parse_device", torch.device))
        enter(mock.patch.object(devices, "_is_present", return_value=True))
        enter(mock.patch.object(torch, "Generator", _Generator))
        # The engine has no thread for this device: the caller computes gradients.
        enter(torch.autograd.set_multithreading_enabled(False))
        # Arrays and lists become tensors of the CPU, before they move to a device.
        self.stack.callback(
            torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors()
        )
        torch._C._set_only_lift_cpu_tensors(True)
        enter(_Constructors())
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.stack.close()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [a for a in tree_leaves((args, kwargs)) if torch.is_tensor(a)]
        if any(t.is_meta and not isinstance(t, DeviceTensor) for t in tensors):
            raise RuntimeError(f"{func} on a tensor without data, such as a list index")
        own = {id(t.held): t for t in tensors if isinstance(t, DeviceTensor)}
        device = kwargs.get("device")
        is_own = bool(own) if device is None else torch.device(device) == DEVICE
        if device is not None:
            kwargs["device"] = "cpu"
        if func is aten._to_copy.default:
            self._note_copy(func, bool(own), is_own, args[0])
        elif func is aten.copy_.default:
            is_own = isinstance(args[0], DeviceTensor)
            self._note_copy(func, isinstance(args[1], DeviceTensor), is_own, args[1])
        elif own:
            self._note(func, args, kwargs, tensors)
        held = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        if not is_own:
            return held
        if torch.Tag.inplace_view in func.tags:
            with no_dispatch():  # the wrapper gets the new shape, too
                func(*args, **kwargs)

        def wrapped(value):
            if not torch.is_tensor(value) or isinstance(value, DeviceTensor):
                return value
            self.peak = max(self.peak, value.numel())
            # An operation in place returns its argument.
            return own[id(value)] if id(value) in own else DeviceTensor(value)

        return tree_map(wrapped, held)

    def _note_copy(self, func, was_own, is_own, source):
        if was_own == is_own:
            return
        self._add("upload" if is_own else "download")
        if is_own:
            self.uploads += source.numel()
        else:
            self.downloads += source.numel()

    def _note(self, func, args, kwargs, tensors):
        name = func._schema.name
        if name in _INDEXING:
            for index in args[1]:
                if index is None:
                    continue
                if not isinstance(index, DeviceTensor):
                    self._add("index of the CPU")
                elif index.dtype == torch.bool and (
                    # A mask that is filled with one number needs no positions.
                    name == "aten::index" or args[2].numel() > 1
                ):
                    self._add(f"{name} by mask")
            return
        others = [t for t in tensors if not isinstance(t, DeviceTensor)]
        if any(t.dim() > 0 for t in others):
            raise RuntimeError(f"{func} on tensors of two devices")
        if name in _WAITING:
            self._add(name)
        if name == "aten::repeat_interleave" and kwargs.get("output_size") is None:
            self._add(name)

    def _add(self, kind):
        frames = traceback.extract_stack()
        own = [f for f in frames if "/skrec/" in f.filename]
        place = "elsewhere"
        if own:
            file = own[-1].filename.rpartition("/skrec/")[2]
            place = f"{file}:{own[-1].lineno} {own[-1].name}"
        self.waits[kind, place] += 1


def _held(value):
    return value.held if isinstance(value, DeviceTensor) else value


def waits_of_steps(fit, few: int, many: int) -> Iterator[tuple[tuple[str, str], float]]:
    """Waits in a step, from two fits with few and with many steps.

    `fit` is a function of the number of steps.
    """
    counts = []
    for n_steps in (few, many):
        with SimulatedGPU() as gpu:
            fit(n_steps)
        counts.append(gpu.waits)
    difference = counts[1].copy()
    difference.subtract(counts[0])
    for place, n in difference.most_common():
        if n:
            yield place, n / (many - few)
