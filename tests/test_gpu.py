"""What fits and predictions do on another device: the CPU, a simulated GPU, a GPU."""

import importlib
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import MODELS, TEXTS, fit, name_of, small, without_columns
from simulated_gpu import SimulatedGPU
from sklearn.base import clone

import skrec
from skrec import (
    AutoRecRegressor,
    BayesianMFRegressor,
    BiasedMFRegressor,
    CDLRegressor,
    ConvMFRegressor,
    PMFRegressor,
    RBMRegressor,
)
from skrec._core import device as devices
from skrec.model_selection import ratings_to_samples
from skrec.text import ItemTexts

# The small fits stop before they converge.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
DEVICES = ["cpu", "simulated", pytest.param("cuda", marks=pytest.mark.gpu)]
each = pytest.mark.parametrize("recommender", MODELS, ids=name_of)
# These draw on their device, so that their fits are not those of the CPU.
DRAWING = BayesianMFRegressor, RBMRegressor


@pytest.fixture(params=DEVICES)
def device(request):
    """A device to fit on and to predict on, by the name of the parameter `device`."""
    if request.param != "simulated":
        yield request.param
        return
    with SimulatedGPU():
        yield "meta"


@pytest.fixture
def sparse_R(R):
    """Ratings with empty rows and with items that nobody has rated."""
    R = without_columns(R, [4, 17, 49]).tolil()
    R[[0, 33, 79]] = 0
    R = R.tocsr()
    R.eliminate_zeros()
    return R


def predictions(model, R):
    """All kinds of predictions, as arrays."""
    X, y = ratings_to_samples(R)
    top = model.recommend(R[:5], n_items=3)
    return {
        "pairs": model.predict(X[::3]),
        "rows": model.predict(R[:9]),
        "score": np.array([model.score(R), model.score(X, y)]),
        "recommend": top["rating"].to_numpy(),
        "transform": model.transform(R[:9]),
    }


def assert_close(found, expected, atol=1e-4):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.isfinite(found[name]).all(), name
        np.testing.assert_allclose(found[name], values, atol=atol, err_msg=name)


@pytest.fixture(scope="module")
def fitted(R):
    """Estimators fitted on the CPU, with their predictions."""
    found = {}
    for recommender in MODELS:
        model = fit(clone(recommender), R)
        found[name_of(recommender)] = model, predictions(model, R)
    return found


@each
def test_a_device_predicts_what_the_cpu_predicts(recommender, fitted, device, R):
    model, expected = fitted[name_of(recommender)]
    model = pickle.loads(pickle.dumps(model)).set_params(device=device)
    assert_close(predictions(model, R), expected)


@each
def test_a_device_fits_what_the_cpu_fits(recommender, device, sparse_R, monkeypatch):
    # Conjugate gradients with a coarse tolerance stop at the same step as on the CPU.
    monkeypatch.setattr("skrec._core.conjugate_gradients._STEPS_UNSEEN", 1)
    params = {"dtype": "float64"}
    names = recommender.get_params()
    if "max_iter" in names and not isinstance(recommender, DRAWING):
        params["max_iter"] = 2
    params |= {
        name: 0.0
        for name in ("dropout", "word_dropout", "input_dropout")
        if name in names
    }
    found = []
    for place in ("cpu", device):
        model = clone(recommender).set_params(**params, device=place)
        found.append(predictions(fit(model, sparse_R), sparse_R))
        assert model.device_ == place
    if isinstance(recommender, DRAWING):
        assert all(np.isfinite(v).all() for v in found[1].values())
        assert abs(found[1]["score"] - found[0]["score"]).max() < 0.3
    else:
        assert_close(found[1], found[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_indices_may_have_64_bits(dtype, device, R):
    model = small(BiasedMFRegressor, device=device, dtype=dtype)
    wide = R.copy()
    wide.indices, wide.indptr = wide.indices.astype(np.int64), R.indptr.astype(np.int64)
    expected = model.fit(R).predict(R)
    np.testing.assert_allclose(
        clone(model).fit(wide).predict(wide), expected, atol=1e-4
    )


@pytest.mark.parametrize(
    "recommender",
    [
        small(AutoRecRegressor),
        small(PMFRegressor),
        small(BiasedMFRegressor),
        small(BayesianMFRegressor),
    ],
    ids=name_of,
)
def test_predictions_do_not_have_to_fit_in_memory(recommender, device, R, monkeypatch):
    model = fit(clone(recommender).set_params(device=device), R)
    expected = predictions(model, R)
    chunks = []
    for name in ("scores", "scores_at"):
        whole = getattr(type(model._predictor().model), name)

        def part(self, state, *places, whole=whole):
            chunks.append(len(places[0]) if places else 50 * len(state[0]))
            return whole(self, state, *places)

        monkeypatch.setattr(type(model._predictor().model), name, part)
    monkeypatch.setattr("skrec._core.chunks.CHUNK", 800)
    assert_close(predictions(model, R), expected)
    assert len(chunks) > 3
    assert max(chunks) <= 200


def test_items_are_added_on_a_device(device, R):
    few = R[:, :40]
    model = small(ConvMFRegressor, device=device)
    model.fit(few, item_texts=ItemTexts({i: TEXTS[i] for i in range(40)}))
    model.extend_items({i: TEXTS[i] for i in range(40, 50)})
    expected = model.set_params(device="cpu").predict(R)
    np.testing.assert_allclose(
        model.set_params(device=device).predict(R), expected, atol=1e-4
    )
    features = pd.DataFrame({"length": np.arange(50.0)})
    model = small(BiasedMFRegressor, device=device).fit(
        few, item_features=features[:40]
    )
    model.extend_items(features[40:])
    assert np.isfinite(model.predict(R)).all()


@pytest.mark.parametrize(
    "recommender",
    [small(AutoRecRegressor), small(BiasedMFRegressor), small(CDLRegressor)],
    ids=name_of,
)
def test_a_model_of_a_device_moves_to_a_machine_without_it(
    recommender, device, R, monkeypatch, tmp_path
):
    model = fit(clone(recommender).set_params(device=device), R)
    expected = predictions(model, R)
    skrec.save(model, tmp_path / "model.skrec")
    copies = [pickle.loads(pickle.dumps(model)), skrec.load(tmp_path / "model.skrec")]
    monkeypatch.setattr(devices, "_is_present", lambda device: device.type == "cpu")
    for copy in copies:
        assert copy._predictor().model.device == torch.device("cpu")
        assert_close(predictions(copy, R), expected)


def test_the_benchmark_says_whether_there_is_a_gpu(monkeypatch, capsys):
    path = Path(__file__).parents[1] / "examples" / "benchmarks"
    monkeypatch.syspath_prepend(path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu = importlib.import_module("gpu")
    monkeypatch.setattr(gpu, "N_PAIRS", 1000)
    size = ["--users", "60", "--items", "40", "--ratings", "900"]
    gpu.main([*size, "--only", "BiasedMF", "--devices", "cuda", "cpu"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("60 users, 40 items, ")
    assert lines[1] == "not measured on a GPU: PyTorch finds none on this machine"
    measured = [line.split() for line in lines[3:]]
    assert {line[0] for line in measured} == {"cpu"}
    assert all(float(line[-1 - line[::-1].index("s") - 1]) > 0 for line in measured[1:])
    assert any("dense autoencoder" in line for line in lines)
