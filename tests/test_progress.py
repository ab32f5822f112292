"""Tests of the progress of long calls: lines on the console, and progress bars."""

import numpy as np
import pytest
from sklearn.callback import ProgressBar
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingRandomSearchCV

from skrec import BayesianMFRegressor, BiasedMFRegressor, _prediction, _progress
from skrec import _serving as serving
from skrec._core.chunks import row_chunks


@pytest.fixture
def clock(monkeypatch):
    """A clock that is one second further each time one looks."""
    seconds = iter(range(1000))
    monkeypatch.setattr(_progress.time, "monotonic", lambda: float(next(seconds)))


def test_lines_are_printed_every_few_seconds_and_at_the_end(clock, capsys):
    parts = [slice(at, at + 100) for at in range(0, 1200, 100)]
    seen = list(_progress.shown(parts, "X.predict", "users", verbose=1))
    assert seen == parts
    assert capsys.readouterr().out.splitlines() == [
        "[X.predict] 500 of 1,200 users (42%), 5 s",
        "[X.predict] 1,000 of 1,200 users (83%), 10 s",
        "[X.predict] 1,200 of 1,200 users (100%), 12 s",
    ]


def test_a_short_call_and_a_silent_one_print_nothing(clock, capsys):
    parts = [slice(at, at + 1) for at in range(4)]
    list(_progress.shown(parts, "X.predict", "users", verbose=1))
    list(_progress.shown(parts * 5, "X.predict", "users", verbose=0))
    assert capsys.readouterr().out == ""


def test_a_download_of_unknown_length_has_no_percentage(clock, capsys):
    lines = _progress.ProgressLines("url", "bytes", None, verbose=True)
    for done in range(1000, 6000, 1000):
        lines.show(done)
    assert capsys.readouterr().out == "[url] 5,000 bytes, 5 s\n"


@pytest.mark.parametrize(
    ("module", "call", "last"),
    [
        (_prediction, lambda model, R: model.predict(R), "predict] 40 of 40 users"),
        (
            _prediction,
            lambda model, R: model.predict([[0, item] for item in range(30)]),
            "predict] 30 of 30 pairs",
        ),
        (
            serving,
            lambda model, R: model.recommend(model.users_, 3),
            "recommend] 40 of 40 users",
        ),
        (
            serving,
            lambda model, R: model.similar_items(model.items_, 3),
            "similar_items] 30 of 30 items",
        ),
    ],
)
def test_long_calls_of_a_verbose_model_say_how_much_is_done(
    module, call, last, R, capsys, monkeypatch
):
    model = BiasedMFRegressor(n_factors=2).fit(R[:40, :30])
    monkeypatch.setattr(_progress, "SECONDS", 0)
    monkeypatch.setattr(
        module, "row_chunks", lambda n, width: row_chunks(n, 2**24 // 8)
    )
    expected = call(model, R[:40, :30])
    assert capsys.readouterr().out == ""
    found = call(model.set_params(verbose=True), R[:40, :30])
    np.testing.assert_array_equal(found, expected)
    lines = capsys.readouterr().out.splitlines()
    assert 4 <= len(lines) <= 6
    assert f"[BiasedMFRegressor.{last} (100%)" in lines[-1]


@pytest.mark.parametrize(
    ("search", "options"),
    [(GridSearchCV, {}), (HalvingRandomSearchCV, {"n_candidates": 6})],
)
def test_progress_bars_of_a_search_are_readable_at_80_columns(
    search, options, R, capsys, monkeypatch
):
    pytest.importorskip("rich", reason="progress bars need the extra `progress`")
    monkeypatch.setenv("COLUMNS", "80")
    model = BayesianMFRegressor(n_factors=2, burn_in=1, max_iter=3, random_state=0)
    grid = search(model, {"n_factors": list(range(1, 7))}, cv=2, **options)
    grid.set_callbacks(ProgressBar()).fit(R)
    lines = capsys.readouterr().out.splitlines()
    fits = [line for line in lines if "BayesianMFRegressor - fit #" in line]
    assert len(fits) >= 8
    assert all("100%" in line and "━" in line and len(line) <= 80 for line in fits)
