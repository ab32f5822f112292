"""Model files: equal bits, and a refusal of all that is not a model."""

import hashlib
import os
import pickle
import re
import stat
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import MODELS, TEXT_CLASSES, TEXTS, fit, name_of, small
from make_model_file import X as PAIRS
from make_model_file import y as RATINGS
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, SplineTransformer, StandardScaler

import skrec
from skrec import (
    AutoRecRegressor,
    BaselineRegressor,
    BiasedMFRegressor,
    ConvMFRegressor,
    CTRRegressor,
    io,
)
from skrec.model_selection import RatingKFold, ratings_to_samples
from skrec.text import WordVectors

# Few iterations are enough for a file.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*stopped at max_iter:sklearn.exceptions.ConvergenceWarning"
)
FILES = sorted((Path(__file__).parent / "data").glob("model_*.skrec"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.skrec"


@pytest.fixture
def content(path):
    """The bytes of a small model file."""
    model = BaselineRegressor(lambda_u=1.0, lambda_v=1.0).fit(PAIRS, RATINGS)
    skrec.save(model, path)
    return path.read_bytes()


def reload(model, path):
    skrec.save(model, path)
    return skrec.load(path)


@pytest.mark.parametrize("estimator", MODELS, ids=name_of)
def test_loaded_models_equal_saved_ones(estimator, R, path):
    texts = {"item_texts": TEXTS} if isinstance(estimator, TEXT_CLASSES) else {}
    model = clone(estimator).fit(R, **texts)
    loaded = reload(model, path)
    X, y = ratings_to_samples(R)
    assert type(loaded) is type(model)
    assert loaded.get_params().keys() == model.get_params().keys()
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    np.testing.assert_array_equal(loaded.predict(R), model.predict(R))
    assert loaded.score(X, y) == model.score(X, y)
    users = model.users_[:3]
    pd.testing.assert_frame_equal(loaded.recommend(users, 4), model.recommend(users, 4))


@pytest.mark.parametrize("cls", [BiasedMFRegressor, AutoRecRegressor])
def test_warm_starts_continue_from_loaded_models(cls, R, path):
    model = small(cls, warm_start=True, max_iter=3, tol=0.5).fit(R)
    loaded = reload(model, path)
    np.testing.assert_array_equal(loaded.fit(R).predict(R), model.fit(R).predict(R))


@pytest.mark.parametrize("cls", [ConvMFRegressor, CTRRegressor])
def test_loaded_models_accept_new_items(cls, R, path):
    model = small(cls).fit(R, item_texts=TEXTS)
    loaded = reload(model, path)
    for extended in (model, loaded):
        extended.extend_items({50: TEXTS[3]})
    X = [[0, 50], [1, 50]]
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


@pytest.mark.parametrize(
    "encoder",
    [
        None,
        make_column_transformer(
            (OneHotEncoder(), ["genre"]),
            (make_pipeline(StandardScaler(), SplineTransformer()), ["year"]),
        ),
    ],
    ids=["default", "own"],
)
def test_encoders_of_features_are_saved(encoder, R, path):
    frame = pd.DataFrame(
        {"genre": [f"g{i % 4}" for i in range(50)], "year": np.arange(50.0)}
    )
    model = small(BiasedMFRegressor)
    if encoder is not None:
        model.set_params(item_encoder=encoder)
    model.fit(R, item_features=frame)
    loaded = reload(model, path)
    np.testing.assert_array_equal(loaded.predict(R), model.predict(R))


def test_columns_of_any_kind_are_saved(R, path):
    n = np.arange(50)
    frame = pd.DataFrame(
        {
            "number": np.where(n % 3 == 0, np.nan, n),
            "category": [f"c{i % 4}" for i in n],
            "date": pd.date_range("2000", periods=50),
            "labels": ["|".join("abc"[: 1 + i % 3]) for i in n],
            "lists": [["x", "y"][: 1 + i % 2] for i in n],
            "text": [
                f"a long story of {('dogs', 'cats')[i % 2]} in town {i % 7}" for i in n
            ],
            "vector": list(np.random.default_rng(0).normal(size=(50, 3))),
            "truth": n % 2 == 0,
        }
    )
    model = small(BiasedMFRegressor).fit(R, item_features=frame)
    loaded = reload(model, path)
    np.testing.assert_array_equal(loaded.predict(R), model.predict(R))
    np.testing.assert_array_equal(
        loaded.item_encoder_.transform(frame), model.item_encoder_.transform(frame)
    )


def test_searches_are_saved(R, path):
    X, y = ratings_to_samples(R)
    for cv in (KFold(2, shuffle=True), RatingKFold(2)):
        grid = {"n_factors": [1, 2]}
        search = GridSearchCV(small(BiasedMFRegressor), grid, cv=cv).fit(X, y)
        np.testing.assert_array_equal(
            reload(search, path).predict(X), search.predict(X)
        )


def test_every_flipped_byte_is_refused(content):
    for i in range(len(content)):
        damaged = bytearray(content)
        damaged[i] ^= 1 << i % 8
        with pytest.raises(ValueError, match=r"model\.skrec is .*damaged"):
            io._check(bytes(damaged), "model.skrec", io._MODEL)


def test_every_truncation_is_refused(content, path):
    for n in range(len(content)):
        with pytest.raises(ValueError, match=r"model\.skrec is .*damaged"):
            io._check(content[:n], "model.skrec", io._MODEL)
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"model\.skrec is damaged or truncated"):
        skrec.load(path)


def test_files_name_their_versions_and_newer_ones_are_refused(
    content, path, monkeypatch
):
    versions, _ = io._check(content, path, io._MODEL)
    assert versions["skrec"] == skrec.__version__
    assert {"scikit-learn", "torch"} < versions.keys()
    monkeypatch.setattr(io, "_FORMAT", 0)
    with pytest.raises(ValueError, match="format 1 is newer than format 0"):
        skrec.load(path)


def test_word_vectors_are_saved(R, path):
    words = sorted(set(" ".join(TEXTS.values()).split()))[:9]
    vectors = WordVectors(words, np.ones((len(words), 3), np.float32))
    model = small(ConvMFRegressor, word_vectors=vectors, embedding_dim=3)
    loaded = reload(model.fit(R, item_texts=TEXTS), path)
    np.testing.assert_array_equal(loaded.predict(R), model.predict(R))


def test_a_checkpoint_is_no_model(path):
    io.write_state(path, {"epoch": 1})
    with pytest.raises(ValueError, match="is not a model file of skrec"):
        skrec.load(path)


def test_what_a_killed_save_left_is_removed_later(path):
    old, recent = (path.with_name(f"{io._prefix(path)}{n}.part") for n in (1, 2))
    for left in (old, recent):
        left.write_bytes(b"half")
    os.utime(old, (0, time.time() - 2 * io._ABANDONED))
    skrec.save(BaselineRegressor().fit(PAIRS, RATINGS), path)
    assert skrec.load(path).predict(PAIRS).shape == (len(PAIRS),)
    assert set(path.parent.iterdir()) == {path, recent}


def test_savers_of_the_same_file_do_not_meet(path, monkeypatch):
    """A second process saves while the first one is in the middle of it."""
    content, replace = [b"first" * 99, b"second"], Path.replace

    def while_another_writes(temporary, target):
        if content:
            io._write(path, content.pop())
        return replace(temporary, target)

    monkeypatch.setattr(Path, "replace", while_another_writes)
    io._write(path, content.pop(0))
    assert path.read_bytes() == b"first" * 99
    assert list(path.parent.iterdir()) == [path]


def test_places_that_cannot_be_written_are_refused_by_name(path):
    model = BaselineRegressor().fit(PAIRS, RATINGS)
    folder = path.parent
    with pytest.raises(FileNotFoundError, match=r"no/model.* is no folder: create it"):
        skrec.save(model, folder / "no" / "model")
    with pytest.raises(OSError, match="exists and is no file"):
        skrec.save(model, folder)
    assert not list(folder.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and links")
def test_permissions_stay_and_links_are_not_followed(path):
    model = BaselineRegressor().fit(PAIRS, RATINGS)
    skrec.save(model, path)
    path.chmod(0o600)
    skrec.save(model, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    link = path.with_name("link")
    link.symlink_to(path)
    path.write_bytes(b"other")
    skrec.save(model, link)
    assert path.read_bytes() == b"other"
    assert not link.is_symlink()


def test_names_of_any_length_are_written(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    name = "m" * 255
    skrec.save(BaselineRegressor().fit(PAIRS, RATINGS), name)
    assert os.listdir() == [name]


FULL = """
import resource, signal, sys
from skrec import io
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    io._write(Path(sys.argv[1]), bytes(2000))
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_full_disk_keeps_the_previous_file(content, path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "File too large" in done.stdout
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("model", [BaselineRegressor, {"a": 1}, None])
def test_only_estimators_are_saved(model, path):
    with pytest.raises(TypeError, match="only estimators can be saved"):
        skrec.save(model, path)


def forge(path, payload, header=b'{"format": 1, "skrec": "0.1.0"}'):
    """Write a file whose checksum is right."""
    body = len(header).to_bytes(4, "big") + header + payload
    path.write_bytes(io._MODEL + hashlib.sha256(body).digest() + body)


def zipped(compression, **members):
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name.replace("_", "."), content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "BadZipFile"),
        (zipped(zipfile.ZIP_STORED, schema_json=b"{}"), "TypeError"),
        (zipped(zipfile.ZIP_STORED, schema_json=b"[" * 10**5), "RecursionError"),
        (zipped(zipfile.ZIP_STORED, other=b"{}"), "KeyError"),
        (zipped(zipfile.ZIP_DEFLATED, schema_json=b" " * 10**6), "is compressed"),
    ],
)
def test_forged_files_are_refused(path, payload, message):
    forge(path, payload)
    with pytest.raises(ValueError, match=rf"model\.skrec was not written.*{message}"):
        skrec.load(path)


@pytest.mark.parametrize(
    "header", [b"", b"[]", b"{}", b'{"format": "1"}', b"\xff", b"[" * 10**5]
)
def test_forged_headers_are_refused(path, header):
    forge(path, b"", header)
    with pytest.raises(ValueError, match=r"model\.skrec was not written .* versions"):
        skrec.load(path)


def test_a_file_that_is_replaced_while_it_is_read_is_the_old_or_the_new(path):
    """Readers never see a part, however often the file is replaced."""
    models = [BaselineRegressor(lambda_u=u).fit(PAIRS, RATINGS) for u in (1.0, 2.0)]
    contents = []
    for model in models:
        skrec.save(model, path)
        contents.append(path.read_bytes())
    found, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            found.add(io._check(path.read_bytes(), path, io._MODEL)[1])

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for n in range(20):
            io._write(path, contents[n % 2])
    finally:
        stop.set()
        thread.join()
    assert found <= {io._check(c, path, io._MODEL)[1] for c in contents}


def tensors_in(value, seen=None):
    """Whether a tensor is among the attributes of an object, at any depth."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return False
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        return True
    if isinstance(value, dict):
        return any(tensors_in(v, seen) for v in value.values())
    if isinstance(value, (list, tuple)):
        return any(tensors_in(v, seen) for v in value)
    return hasattr(value, "__dict__") and tensors_in(vars(value), seen)


@pytest.mark.parametrize("estimator", MODELS, ids=name_of)
def test_models_from_a_gpu_load_on_other_machines(estimator, R, path):
    """As a machine with more GPUs leaves them: arrays, and the name of a device."""
    model = fit(clone(estimator), R)
    assert not tensors_in({k: v for k, v in vars(model).items() if k != "_predictors"})
    expected = model.predict(R)
    model.set_params(device=torch.device("cuda", 3)).device_ = "cuda:3"
    for loaded in (reload(model, path), pickle.loads(pickle.dumps(model))):
        assert loaded.device_ == "cuda:3"
        np.testing.assert_array_equal(loaded.predict(R), expected)


class Stranger(BaselineRegressor):
    """A type that skrec does not know."""


def test_other_types_are_refused_when_saved_and_when_loaded(path, monkeypatch):
    model = Stranger().fit(PAIRS, RATINGS)
    with pytest.raises(ValueError, match=r"does not trust: .*Stranger"):
        skrec.save(model, path)
    assert not path.exists()
    trusted = [*io._TRUSTED, f"{__name__}.Stranger"]
    with monkeypatch.context() as context:
        context.setattr(io, "_TRUSTED", trusted)
        skrec.save(model, path)
    with pytest.raises(ValueError, match=r"not trusted: .*Stranger"):
        skrec.load(path)


def test_a_failed_save_keeps_the_previous_file(content, path, monkeypatch):
    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        skrec.save(BaselineRegressor().fit(PAIRS, RATINGS), path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_of_all_versions_load(file):
    with warnings.catch_warnings():
        # Another version warns.
        warnings.simplefilter("ignore", UserWarning)
        loaded = skrec.load(file)
    model = BaselineRegressor(lambda_u=1.0, lambda_v=1.0).fit(PAIRS, RATINGS)
    np.testing.assert_allclose(loaded.predict(PAIRS), model.predict(PAIRS), rtol=1e-6)


def test_a_file_of_the_first_version_is_there():
    assert "model_0.1.0.skrec" in [file.name for file in FILES]


def test_pickles_warn_across_versions(monkeypatch):
    model = BaselineRegressor().fit(PAIRS, RATINGS)
    content = pickle.dumps(model)
    loaded = pickle.loads(content)
    assert vars(loaded).keys() == vars(model).keys()
    monkeypatch.setattr("skrec._base.__version__", "99.0")
    saved = re.escape(skrec.__version__)
    with pytest.warns(UserWarning, match=rf"saved by skrec {saved}, but skrec 99\.0"):
        pickle.loads(content)


def test_pickles_of_versions_with_other_parameters_are_refused(monkeypatch):
    model = BaselineRegressor().fit(PAIRS, RATINGS)
    del model.lambda_u
    content = pickle.dumps(model)
    monkeypatch.setattr("skrec._base.__version__", "99.0")
    with pytest.raises(ValueError, match=r"\['lambda_u'\] were no parameters or had"):
        pickle.loads(content)
