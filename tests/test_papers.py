import importlib
import json
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from skrec import BaselineRegressor, ConvMFRegressor, PMFRegressor
from skrec.text import SequenceVectorizer

PAPERS = Path(__file__).parents[1] / "examples" / "papers"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(PAPERS)
    protocol, convmf, word_vectors, run = (
        importlib.import_module(name)
        for name in ("protocol", "convmf", "word_vectors", "run")
    )

# Longer than the window of neighbors, and padded with 0
SEQUENCES = np.array([[1, 2, 3, 1, 4, 2, 5], [4, 2, 5, 0, 0, 0, 0]])


def pairs(n_ratings=300, n_users=20, n_items=15):
    rng = np.random.default_rng(0)
    found = rng.choice(n_users * n_items, n_ratings, replace=False)
    return np.column_stack(np.divmod(rng.permutation(found), n_items))


@pytest.mark.parametrize("ratio", [0.2, 0.8])
def test_a_split_keeps_each_user_and_item_in_training(ratio):
    X = pairs(250)
    train, validation, test = convmf.split(X, ratio, 1)
    assert len(train) == 250 * ratio
    assert abs(len(validation) - len(test)) <= 1
    joined = np.concatenate([train, validation, test])
    assert np.array_equal(np.sort(joined), np.arange(250))
    for side in (0, 1):
        assert np.array_equal(np.unique(X[train, side]), np.unique(X[:, side]))


def test_a_split_that_cannot_keep_each_user_is_refused():
    with pytest.raises(ValueError, match="5% of the ratings are too few to keep one"):
        convmf.split(pairs(), 0.05, 0)


def test_the_candidate_is_chosen_by_its_validation_error():
    # The candidate with an intercept is better on validation ratings, and worse on the
    # test ratings.
    X, y = np.array([[0.0], [0.0], [0.0], [0.0]]), np.array([2.0, 2.0, 2.0, 0.0])
    parts = ([0, 1], [2], [3])
    candidates = {"fit_intercept": [False, True]}
    model = type("Model", (LinearRegression,), {"n_iter_": 1})()
    found = convmf.choose(model, candidates, X, y, parts, {})
    assert found["params"] == "{'fit_intercept': True}"
    assert (found["validation"], found["rmse"]) == (0.0, 2.0)
    assert len(found["all"]) == 2


@pytest.fixture
def reviews(tmp_path, monkeypatch):
    """Write reviews, each of one word of its own."""
    lines = []
    for number, (user, item) in enumerate(pairs()):
        lines.append(
            {
                "reviewerID": f"u{user}",
                "asin": f"i{item}",
                "overall": 1 + number % 5,
                "unixReviewTime": number,
                "reviewText": f"word{number}",
            }
        )
    (tmp_path / "amazon").mkdir()
    path = tmp_path / "amazon" / "reviews_Musical_Instruments_5.json"
    path.write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setenv("SKREC_DATA", str(tmp_path))
    monkeypatch.setattr(convmf, "choose", lambda *arguments: arguments)


@pytest.mark.usefixtures("reviews")
@pytest.mark.parametrize("documents", ["all", "training"])
def test_documents_have_the_reviews_of_training_only_on_demand(documents):
    *_, X, _, parts, given = convmf.measure_reviews(
        ConvMFRegressor(), {}, "ami", 0, documents
    )
    texts = given["item_texts"]
    documents_of = zip(texts.ids, texts.texts, strict=True)
    found = {item: set(text.split()) for item, text in documents_of}
    used = np.arange(len(X)) if documents == "all" else parts[0]
    expected = {item: set() for item in X[used, 1]}
    for position in used:
        expected[X[position, 1]].add(f"word{position}")
    assert found == expected
    assert len(set().union(*found.values())) == (300 if documents == "all" else 240)


@pytest.mark.usefixtures("reviews")
def test_models_without_texts_get_no_reviews():
    *_, given = convmf.measure_reviews(PMFRegressor(), {}, "ami", 0)
    assert given == {}


def test_word_vectors_are_those_of_the_source(monkeypatch):
    texts = pd.Series(["a cat sleeps", "the dog barks"] * 3)
    data = pairs(), np.ones(300), texts
    monkeypatch.setattr(convmf, "load", lambda dataset: data)
    monkeypatch.setattr(convmf, "choose", lambda estimator, *_: estimator)
    loaded = []

    def load_vectors(*arguments):
        loaded.append(arguments)
        return ["cat"], np.ones((1, 2))

    monkeypatch.setattr(convmf, "load_vectors", load_vectors)
    used = convmf.measure(ConvMFRegressor(), {}, "ml-1m", 0, vectors="here")
    assert loaded == [("here", texts)]
    assert used.word_vectors[0] == ["cat"]
    plain = convmf.measure(ConvMFRegressor(), {}, "ml-1m", 0)
    assert plain.word_vectors is None


def test_vectors_of_neighbors_factorize_their_information():
    found = word_vectors.from_neighbors(SEQUENCES, 5)
    counts = np.zeros((5, 5))
    for row in SEQUENCES:
        for i, first in enumerate(row):
            for j, second in enumerate(row):
                if first and second and 0 < abs(i - j) <= word_vectors.WINDOW:
                    counts[first - 1, second - 1] += 1
    occurrences = counts.sum(axis=0)
    smooth = occurrences**0.75 / (occurrences**0.75).sum()
    with np.errstate(divide="ignore"):
        information = np.log(counts / np.outer(occurrences, smooth))
    ppmi = np.maximum(information, 0)
    assert 0 < np.count_nonzero(ppmi) < 25
    # With U S V' = PPMI and the vectors U S^1/2, their inner products are U S U'.
    inner = found @ found.T
    np.testing.assert_allclose(inner @ inner, ppmi @ ppmi.T, atol=1e-9)


@pytest.mark.parametrize(
    ("word", "pieces"),
    [("war", [0]), ("warship", [0, 3]), ("ships", [1, 4]), ("warx", []), ("x", [])],
)
def test_word_pieces_are_the_longest_from_the_left(word, pieces):
    names = ["war", "ship", "w", "##ship", "##s", "##hip", "##ar", "ships##"]
    vocabulary = {name: number for number, name in enumerate(names)}
    assert word_vectors.word_pieces(word, vocabulary) == pieces


def safetensors(arrays):
    header, content = {"__metadata__": {"format": "pt"}}, b""
    for name, (kind, array) in arrays.items():
        offsets = [len(content), len(content) + array.nbytes]
        entry = {"dtype": kind, "shape": array.shape, "data_offsets": offsets}
        header[name] = entry
        content += array.tobytes()
    start = json.dumps(header).encode()
    return len(start).to_bytes(8, "little") + start + content


def test_safetensors_are_read_by_name():
    single = np.arange(6, dtype="<f4").reshape(2, 3)
    half = np.array([0.5, -2.0], dtype="<f2")
    ids = np.arange(4, dtype="<i8")
    arrays = {"ids": ("I64", ids), "half": ("F16", half), "single": ("F32", single)}
    found = word_vectors.read_safetensors(safetensors(arrays))
    assert found.keys() == {"half", "single"}
    np.testing.assert_array_equal(found["half"], half)
    np.testing.assert_array_equal(found["single"], single)


def test_vectors_of_minilm_are_means_of_pieces(tmp_path):
    table = np.arange(8, dtype="<f4").reshape(4, 2)
    vocabulary = {"[UNK]": 0, "war": 1, "##ship": 2, "cat": 3}
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as model:
        tokenizer = {"model": {"vocab": vocabulary}}
        model.writestr("tokenizer.json", json.dumps(tokenizer))
        name = "embeddings.word_embeddings.weight"
        model.writestr("model.safetensors", safetensors({name: ("F32", table)}))
    words, vectors = word_vectors.read_minilm(tmp_path, ["cat", "dog", "warship"])
    assert words == ["cat", "warship"]
    np.testing.assert_array_equal(vectors, [[6, 7], [3, 4]])


def test_vectors_of_glove_are_those_of_their_words(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "data").mkdir()
    index = pd.DataFrame({"index": ["the", "cat", "dog"]})
    index.to_parquet(tmp_path / "data" / "glove_6B_index.parquet")
    table = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "data" / "glove_6B_50d_emb.npy", table)
    words, vectors = word_vectors.read_glove(tmp_path, ["cat", "cow", "the"])
    assert words == ["the", "cat"]
    np.testing.assert_array_equal(vectors, table[:2])


def test_long_vectors_are_reduced_and_short_ones_are_not(monkeypatch):
    texts = [" ".join(f"w{i}" for i in range(j, j + 10)) for j in range(0, 90, 5)]
    n_words = len(SequenceVectorizer().fit(texts).vocabulary_)
    rng = np.random.default_rng(0)
    wide = 5 + rng.normal(size=(n_words, 60))
    reader = lambda table: (str, lambda path, words: (words, table))  # noqa: E731
    monkeypatch.setattr(
        word_vectors, "SOURCES", {"wide": reader(wide), "short": reader(wide[:, :3])}
    )
    words, reduced = word_vectors.load("wide", texts)
    assert (len(words), reduced.shape) == (n_words, (n_words, 50))
    np.testing.assert_allclose(reduced.mean(axis=0), 0, atol=1e-9)
    _, kept = word_vectors.load("short", texts)
    np.testing.assert_array_equal(kept, wide[:, :3])


def test_only_sources_that_are_here_are_available(monkeypatch):
    absent = partial(word_vectors.folder_of, "no_such_package")
    present = partial(word_vectors.folder_of, "skrec")
    sources = {"absent": (absent, None), "present": (present, None)}
    monkeypatch.setattr(word_vectors, "SOURCES", sources)
    assert word_vectors.available() == ["present", word_vectors.PLOTS]


def test_results_of_earlier_runs_are_kept(tmp_path, capsys):
    path = tmp_path / "cells.json"
    calls = []

    def measure(estimator, grid, dataset, seed, ratio=0.8):
        calls.append((seed, ratio))
        return {"rmse": 1.0 + seed}

    model = BaselineRegressor()
    cells = {
        f"cell {seed}": (measure, (model, {}, "data", seed), {"ratio": 0.2})
        for seed in (0, 1)
    }
    protocol.run_cells({"cell 0": cells["cell 0"]}, path, 1)
    found = protocol.run_cells(cells, path, 1)
    assert calls == [(0, 0.2), (1, 0.2)]
    assert found == {"cell 0": {"rmse": 1.0}, "cell 1": {"rmse": 2.0}}
    assert json.loads(path.read_text()) == found
    assert (
        "[1/1] BaselineRegressor(), data, seed 1, ratio 0.2" in capsys.readouterr().out
    )


def test_keys_of_cells_have_all_parameters():
    params = ConvMFRegressor().get_params()
    keys = {protocol.key_of(protocol.Line("", ConvMFRegressor()), "ami", 0, False)}
    for name in params:
        line = protocol.Line("", ConvMFRegressor(**{name: "other"}))
        keys.add(protocol.key_of(line, "ami", 0, False))
    assert len(keys) == 1 + len(params)


@pytest.mark.parametrize("papers", [[0.9, None], [None, None], [0.9, 0.8]])
def test_a_table_shows_a_dash_where_the_paper_has_no_error(papers):
    table = pd.DataFrame({"system": ["A", "B"], "paper": papers, "rmse": [[], []]})
    shown = [line.split() for line in run.to_text(table).splitlines()[1:]]
    expected = ["-" if paper is None else str(paper) for paper in papers]
    assert shown == [["A", expected[0]], ["B", expected[1]]]


def test_keys_of_cells_tell_options_and_defaults_apart():
    line = protocol.Line("name", PMFRegressor())
    other_default = protocol.Line("name", PMFRegressor(tol=1.0))
    other_option = protocol.Line("name", PMFRegressor(), options={"ratio": 0.2})
    keys = {
        protocol.key_of(line, "ml-1m", 0, False),
        protocol.key_of(other_default, "ml-1m", 0, False),
        protocol.key_of(other_option, "ml-1m", 0, False),
        protocol.key_of(line, "ml-1m", 1, False),
        protocol.key_of(line, "ml-1m", 0, True),
    }
    assert len(keys) == 5
    same = protocol.Line("another name", PMFRegressor())
    assert protocol.key_of(same, "ml-1m", 0, False) in keys
