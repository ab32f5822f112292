import pytest
import torch

from skrec._core.device import (
    available_memory,
    inference_device,
    make_generator,
    resolve_device,
)


def test_auto_selects_a_gpu_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("auto") == torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "match"),
    [
        ("cuda:7", r"device_count\(\) is 1\. Use device='auto'"),
        ("quantum", "names no device; use 'auto'"),
        ("meta", "run on 'cpu' and 'cuda' only"),
    ],
)
def test_a_missing_device_is_refused(monkeypatch, device, match):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=match):
        resolve_device(device)


def test_a_fitted_model_falls_back_to_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert inference_device("cuda") == torch.device("cpu")
    assert inference_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device='gpu' names no device"):
        inference_device("gpu")


def test_generators_do_not_touch_the_global_generator():
    state = torch.get_rng_state()
    first, second = make_generator(3), make_generator(3)
    assert torch.rand(5, generator=first).equal(torch.rand(5, generator=second))
    assert torch.get_rng_state().equal(state)


def test_some_memory_is_available():
    assert available_memory() > 2**20
