"""Damaged files: an error of the documented type, or a valid result, and no other.

The environment variable HYPOTHESIS_PROFILE=nightly runs 100 times the examples.
"""

import gzip
import os
import pickle
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import Interrupt
from sklearn.base import clone
from test_datasets_jester import FIRST, csv
from test_datasets_movielens import CASES

import skrec
from skrec import BiasedMFRegressor, Checkpoint
from skrec.datasets import (
    DataFileError,
    _lines,
    _movielens,
    fetch_movielens,
    load_amazon,
    load_douban,
    load_filmtrust,
    load_jester,
    load_netflix,
)
from skrec.text import load_word_vectors

N_EXAMPLES = 4000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 40
# What the formats give a meaning to, beside random bytes.
PIECES = [b"\n", b"\r", b"\0", b",", b"::", b"\t", b'"', b"-", b"nan", b"1e9", b"\xff"]
PIECES += [
    b"9" * 25,
    b" ",
    b"|",
    b"{",
    b"[" * 9,
    b"0",
    b".",
    b"2003-02-30",
    b"\xc2\x85",
]

REVIEW = (
    b'{"reviewerID": "A", "asin": "B", "overall": 4.0, "reviewText": "good", '
    b'"unixReviewTime": 1394409600}\n'
)
NETFLIX = b"1:\n7,4,2003-12-31\n8,5,2004-02-29\n2:\n7,1,2005-01-02\n"


def mutated(content, rng):
    """Change, remove, repeat or insert bytes at up to three places."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(content) + 1)
        to = min(len(content), at + rng.choice([0, 0, 1, 1, 2, 8, 64]))
        new = rng.choice(
            [rng.choice(PIECES), rng.randbytes(1), content[at:to] * 2, b""]
        )
        content = content[:at] + new + content[to:]
        if rng.random() < 0.1:
            content = content[: rng.randrange(len(content) + 1)]
    return content


def attempt(named, load, *args, raised=DataFileError, **options):
    """Return what is loaded; None if the file is refused by name."""
    try:
        return load(*args, **options)
    except raised as error:
        message = str(error)
    assert str(named) in message
    return None


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def npz(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    user, item = np.array([1, 2, 2]), np.array([3, 3, 4])
    rating, is_test = np.array([1.0, 2, 3]), np.array([True, False, True])
    np.savez(path, user=user, item=item, rating=rating, is_test=is_test)
    return path.read_bytes()


def douban(path):
    h5py = pytest.importorskip("h5py", reason="the official file of Douban needs it")
    path.parent.mkdir(parents=True)
    train = np.array([[1.0, 0, 1], [0, 1, 0]])
    test = np.array([[0.0, 0, 0], [1, 0, 0]])
    with h5py.File(path, "w") as file:
        file["Otraining"], file["Otest"], file["M"] = train, test, 3 * train + test
    return path.read_bytes()


# File, its bytes or what writes it, and what loads it.
FILES = {
    "filmtrust": (
        "filmtrust/ratings.txt",
        b"1 1 3.5\n1 2 0.5\n2 2 4\n",
        load_filmtrust,
    ),
    "jester": ("jester/jester-data-1.csv", csv(FIRST * 2).encode(), load_jester),
    "netflix": ("netflix/training_set/mv_0000001.txt", NETFLIX, load_netflix),
    "amazon": (
        "amazon/reviews_V.json",
        REVIEW * 3,
        lambda data_home: load_amazon("V", data_home=data_home),
    ),
    "douban": ("douban/training_test_dataset.mat", douban, load_douban),
}
COMPRESSED = {
    "npz": ("douban/ratings.npz", npz, load_douban),
    "amazon": (
        "amazon/reviews_V.json.gz",
        gzip.compress(REVIEW * 3, mtime=0),
        FILES["amazon"][2],
    ),
}
MEMBERS = {
    version: [name for name in files if not name.endswith(("base", "test"))]
    for version, (_, files, *_) in CASES.items()
    if version in ("100k", "1m", "10m", "25m")
}


def prepare(home, name, content):
    path = home / name
    return path, content(path) if callable(content) else content


@pytest.fixture
def unverified(monkeypatch):
    """Archives of the fixed versions without their published checksums."""
    archives = {name: a._replace(md5=None) for name, a in _movielens.ARCHIVES.items()}
    monkeypatch.setattr(_movielens, "ARCHIVES", archives)


def fetch(home, version, files):
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    with zipfile.ZipFile(home / f"{CASES[version][0]}.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return fetch_movielens(version, data_home=home, download_if_missing=False)


def tables(dataset):
    return [value for value in dataset.values() if isinstance(value, pd.DataFrame)]


# -- a malformed line in the middle of each file --------------------------------------


@pytest.mark.parametrize("block", [1, 1 << 24])
@pytest.mark.parametrize("name", ["filmtrust", "jester", "netflix", "amazon"])
def test_a_malformed_line_in_the_middle_is_named(tmp_path, monkeypatch, name, block):
    monkeypatch.setattr(_lines, "_BLOCK", block)
    filename, content, load = FILES[name]
    lines = content.splitlines(keepends=True)
    lines[1:1] = [b"\n", b"x" + lines[1]]
    save(tmp_path / filename, b"".join(lines))
    with pytest.raises(DataFileError, match="line 3") as raised:
        load(data_home=tmp_path)
    assert (raised.value.path, raised.value.line) == (str(tmp_path / filename), 3)


@pytest.mark.usefixtures("unverified")
@pytest.mark.parametrize("block", [1, 1 << 24])
@pytest.mark.parametrize(
    ("version", "member"), [(v, name) for v, names in MEMBERS.items() for name in names]
)
def test_a_malformed_line_of_a_member_is_named(
    tmp_path, monkeypatch, version, member, block
):
    monkeypatch.setattr(_lines, "_BLOCK", block)
    files = dict(CASES[version][1])
    lines = files[member].splitlines(keepends=True)
    lines[1:1] = [b"x" + lines[-1]]
    with pytest.raises(DataFileError, match=f"{Path(member).name}, line 2") as raised:
        fetch(tmp_path / "home", version, files | {member: b"".join(lines)})
    archive = tmp_path / "home" / f"{CASES[version][0]}.zip"
    assert (raised.value.path, raised.value.line) == (str(archive), 2)


@pytest.mark.usefixtures("unverified")
@pytest.mark.parametrize("name", ["texts.csv.gz", "users.csv.gz", "u1.base"])
def test_a_malformed_line_in_the_cache_is_named(tmp_path, name):
    fetch(tmp_path / "home", "100k", CASES["100k"][1])
    path = tmp_path / "home" / "ml-100k" / name
    read, write = (gzip.decompress, gzip.compress) if "gz" in name else (bytes, bytes)
    lines = read(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(write(b"".join([lines[0], b"x" + lines[1], *lines[1:]])))
    with pytest.raises(DataFileError, match=f"{name}.* line 2") as raised:
        fetch_movielens("100k", data_home=tmp_path / "home")
    assert (raised.value.path, raised.value.line) == (str(path), 2)


@pytest.mark.usefixtures("unverified")
@pytest.mark.parametrize(
    ("version", "member", "line"),
    [
        ("1m", "ml-1m/ratings.dat", b"1:5:2::3::4\n"),
        ("1m", "ml-1m/ratings.dat", b"1::2::3::4::5\n"),
        ("25m", "ml-25m/ratings.csv", b"1,2,3,4,5\r\n"),
        ("25m", "ml-25m/ratings.csv", b"1,2,3.00000001,4\r\n"),
        ("100k", "ml-100k/u.data", b"1\t2\t3\t9999999999999999999\n"),
    ],
)
def test_no_part_of_a_line_is_dropped_or_rounded(tmp_path, version, member, line):
    files = dict(CASES[version][1])
    content = files[member] + line
    with pytest.raises(DataFileError, match="line "):
        fetch(tmp_path / "home", version, files | {member: content})


@pytest.mark.usefixtures("unverified")
def test_a_carriage_return_in_a_title_survives_the_cache(tmp_path):
    files = CASES["1m"][1] | {"ml-1m/movies.dat": b"1::a\rb::Drama\n"}
    assert fetch(tmp_path / "home", "1m", files).movies["title"].tolist() == ["a\rb"]


@pytest.mark.usefixtures("unverified")
def test_ratings_without_the_official_header_are_refused(tmp_path):
    files = CASES["25m"][1] | {"ml-25m/ratings.csv": b"1,2,3,4\n1,3,3,4\n"}
    with pytest.raises(DataFileError, match="line 1 is '1,2,3,4") as raised:
        fetch(tmp_path / "home", "25m", files)
    assert raised.value.line == 1


def test_the_error_survives_a_process_pool():
    error = pickle.loads(pickle.dumps(DataFileError("message", Path("a"), 3)))
    assert (str(error), error.path, error.line) == ("message", "a", 3)


# -- random damage ---------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_refused_or_valid(tmp_path, name):
    path, content = prepare(tmp_path, *FILES[name][:2])
    rng = random.Random(name)
    for _ in range(N_EXAMPLES):
        save(path, mutated(content, rng))
        dataset = attempt(path, FILES[name][2], data_home=tmp_path)
        if dataset is None:
            continue
        assert len(dataset.data) == len(dataset.target) > 0
        assert np.isfinite(dataset.target).all()
        assert dataset.data.notna().to_numpy().all()


@pytest.mark.parametrize("name", COMPRESSED)
def test_damaged_files_with_a_checksum_never_give_other_values(tmp_path, name):
    path, content = prepare(tmp_path, *COMPRESSED[name][:2])
    load = COMPRESSED[name][2]
    save(path, content)
    expected = load(data_home=tmp_path)
    rng = random.Random(name)
    for _ in range(N_EXAMPLES):
        save(path, mutated(content, rng))
        dataset = attempt(path, load, data_home=tmp_path)
        if dataset is None:
            continue
        pd.testing.assert_frame_equal(dataset.data, expected.data)
        pd.testing.assert_series_equal(dataset.target, expected.target)


@pytest.mark.usefixtures("unverified")
@pytest.mark.parametrize("version", MEMBERS)
def test_damaged_members_are_refused_or_valid(tmp_path, version):
    files = CASES[version][1]
    rng = random.Random(version)
    for _ in range(N_EXAMPLES):
        member = rng.choice(list(files))
        changed = files | {member: mutated(files[member], rng)}
        # Not the member: a damaged rating may only show in the file of a split.
        home = tmp_path / "home"
        dataset = attempt(home, fetch, home, version, changed)
        if dataset is None:
            continue
        assert dataset.target.between(0.5, 5).all()
        assert dataset.movies.index.is_unique


@pytest.mark.usefixtures("unverified")
def test_damaged_archives_never_give_other_values(tmp_path):
    home = tmp_path / "home"
    expected = fetch(home, "1m", CASES["1m"][1])
    content = (home / "ml-1m.zip").read_bytes()
    rng = random.Random(0)
    for _ in range(N_EXAMPLES):
        shutil.rmtree(home / "ml-1m", ignore_errors=True)
        save(home / "ml-1m.zip", mutated(content, rng))
        options = {"data_home": home, "download_if_missing": False}
        dataset = attempt(home / "ml-1m.zip", fetch_movielens, "1m", **options)
        if dataset is None:
            continue
        pd.testing.assert_frame_equal(dataset.data, expected.data)


@pytest.mark.parametrize("name", ["ratings.npz", "texts.csv.gz", "users.csv.gz"])
@pytest.mark.usefixtures("unverified")
def test_damaged_caches_never_give_other_values(tmp_path, name):
    home = tmp_path / "home"
    expected = fetch(home, "1m", CASES["1m"][1])
    path = home / "ml-1m" / name
    content = path.read_bytes()
    rng = random.Random(name)
    for _ in range(N_EXAMPLES):
        save(path, mutated(content, rng))
        dataset = attempt(path.name, fetch_movielens, "1m", data_home=home)
        if dataset is None:
            continue
        for found, table in zip(tables(dataset), tables(expected), strict=True):
            pd.testing.assert_frame_equal(found, table)


@pytest.mark.parametrize("name", ["vectors.txt", "vectors.bin", "vectors.npz"])
def test_damaged_word_vectors_are_refused_or_valid(tmp_path, name):
    path = tmp_path / name
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    words = ["cat", "new york", "stone", "a"]
    if name.endswith("txt"):
        rows = (
            f"{w} {' '.join(map(str, v))}\n"
            for w, v in zip(words, vectors, strict=True)
        )
        path.write_text("4 3\n" + "".join(rows))
    elif name.endswith("bin"):
        words[1] = "york"
        rows = (
            w.encode() + b" " + v.tobytes() for w, v in zip(words, vectors, strict=True)
        )
        path.write_bytes(b"4 3\n" + b"\n".join(rows))
    else:
        np.savez(path, words=np.array(words), vectors=vectors)
    content = path.read_bytes()
    rng = random.Random(name)
    for _ in range(N_EXAMPLES):
        save(path, mutated(content, rng))
        found = attempt(path, load_word_vectors, path, raised=ValueError)
        if found is None:
            continue
        assert len(found.words) == len(set(found.words)) == len(found.vectors)
        assert np.isfinite(found.vectors).all()
        if name.endswith("npz"):
            np.testing.assert_array_equal(found.vectors, vectors)


def small_model(**parameters):
    return BiasedMFRegressor(
        n_factors=2, lambda_u=1.0, lambda_v=1.0, random_state=0, **parameters
    )


def test_damaged_model_files_are_refused(R, tmp_path):
    path = tmp_path / "model.skrec"
    model = small_model(max_iter=50, tol=0.1).fit(R)
    skrec.save(model, path)
    content = path.read_bytes()
    rng = random.Random(0)
    for _ in range(N_EXAMPLES):
        damaged = mutated(content, rng)
        save(path, damaged)
        loaded = attempt(path, skrec.load, path, raised=ValueError)
        assert (loaded is None) == (damaged != content)


def test_damaged_checkpoints_are_refused(R, tmp_path):
    path = tmp_path / "checkpoint"
    model = small_model(max_iter=4, tol=0.0)
    killed = clone(model)
    killed.set_callbacks(Checkpoint(path, every=0), Interrupt(1, RuntimeError))
    with pytest.raises(RuntimeError):
        killed.fit(R)
    content = path.read_bytes()
    resumed = clone(model).set_callbacks(Checkpoint(path))
    rng = random.Random(0)
    for _ in range(N_EXAMPLES):
        damaged = mutated(content, rng)
        if damaged == content:
            continue
        save(path, damaged)
        with pytest.raises(ValueError, match="checkpoint"):
            resumed.fit(R)
        assert path.read_bytes() == damaged
