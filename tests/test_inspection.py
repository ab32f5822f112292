import builtins

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from skrec import AutoRecRegressor, BiasedMFRegressor, ConvMFRegressor
from skrec.datasets import make_ratings
from skrec.inspection import (
    CalibrationDisplay,
    ErrorByCountDisplay,
    ExplanationDisplay,
    FactorMapDisplay,
    RatingDistributionDisplay,
    TrainingCurvesDisplay,
    filter_phrases,
    phrase_values,
)
from skrec.model_selection import ratings_to_samples
from skrec.text import SequenceVectorizer

WINDOWS = (2, 3)


@pytest.fixture(scope="module")
def data():
    return make_ratings(40, 30, density=0.3, random_state=0)


@pytest.fixture(scope="module")
def model(data):
    model = ConvMFRegressor(
        n_filters=4, window_sizes=WINDOWS, embedding_dim=5, max_iter=3,
        learning_rate_init=0.05, lambda_w=0.1, random_state=0,
    )  # fmt: skip
    return model.fit(data.R, item_texts=data.item_texts)


def value(model, words, i, n):
    """Value of a filter for the words in its window, by the formula."""
    weights, vocabulary = model.text_weights_, model.vectorizer_.vocabulary_
    vectors = [weights["vectors"][vocabulary[word]] for word in words]
    sums = sum(v @ weights[f"filters.{i}"][o, :, n] for o, v in enumerate(vectors))
    return max(0, sums + weights[f"filter_biases.{i}"][n])


def known_words(model, text):
    return [word for word in text.split() if word in model.vectorizer_.vocabulary_]


def test_the_value_of_a_text_is_the_largest_of_its_windows(model, data):
    text = data.item_texts[3]
    words = known_words(model, text)
    values = phrase_values(model, [text])
    for i, window in enumerate(WINDOWS):
        for n in range(4):
            whole = range(len(words) - window + 1)
            largest = max(value(model, words[o : o + window], i, n) for o in whole)
            assert values.loc[text, (window, n)] >= largest - 1e-5


def test_a_phrase_is_followed_by_padding(model):
    words = list(model.vectorizer_.vocabulary_)
    for phrase in (words[:3], [words[0], words[5], words[2]]):
        values = phrase_values(model, [" ".join(phrase)])
        for n in range(4):
            expected = max(value(model, phrase[o:], 1, n) for o in range(4))
            assert values[3, n].item() == pytest.approx(expected, abs=1e-5)


def test_phrases_have_the_highest_values_of_all_windows(model, data):
    phrases = filter_phrases(model, data.item_texts, n_phrases=2)
    assert len(phrases) == 2 * 8
    for (window, n), part in phrases.groupby(["window", "filter"]):
        i = WINDOWS.index(window)
        assert part["value"].is_monotonic_decreasing
        assert part["phrase"].is_unique
        for row in part.itertuples():
            words = known_words(model, data.item_texts[row.item])
            assert row.phrase in " ".join(words)
            if len(row.phrase.split()) == window:
                expected = value(model, row.phrase.split(), i, n)
                assert row.value == pytest.approx(expected, abs=1e-5)
        every = [
            value(model, words[o : o + window], i, n)
            for words in (known_words(model, text) for text in data.item_texts)
            for o in range(len(words) - window + 1)
        ]
        assert part["value"].max() >= max(every) - 1e-5


def test_truncated_texts_have_no_windows_beyond_their_end(data):
    cut = SequenceVectorizer(max_words=5)
    model = ConvMFRegressor(
        n_filters=4, window_sizes=WINDOWS, embedding_dim=5, vectorizer=cut, max_iter=3,
        learning_rate_init=0.05, lambda_w=0.1, random_state=0,
    )  # fmt: skip
    model.fit(data.R, item_texts=data.item_texts)
    values = phrase_values(model, data.item_texts)
    phrases = filter_phrases(model, data.item_texts, n_phrases=1)
    for i, window in enumerate(WINDOWS):
        for n in range(4):
            largest = []
            for text in data.item_texts:
                words = known_words(model, text)[:5]
                whole = range(len(words) - window + 1)
                assert len(words) == 5
                largest.append(
                    max(value(model, words[o : o + window], i, n) for o in whole)
                )
            np.testing.assert_allclose(values[window, n], largest, atol=1e-5)
            found = phrases.query("window == @window and filter == @n")["value"]
            assert found.item() == pytest.approx(max(largest), abs=1e-5)


def test_a_single_phrase_is_accepted_and_an_empty_list_refused(model, data):
    text = data.item_texts[0]
    assert phrase_values(model, text).equals(phrase_values(model, [text]))
    with pytest.raises(ValueError, match="phrases is empty"):
        phrase_values(model, [])


def test_models_without_filters_are_refused(data):
    with pytest.raises(ValueError, match="without filters"):
        phrase_values(BiasedMFRegressor().fit(data.R), ["a phrase"])
    with pytest.warns(UserWarning, match="no item_texts|stopped at"):
        model = ConvMFRegressor(max_iter=1).fit(data.R)
    with pytest.raises(ValueError, match="without filters"):
        filter_phrases(model, ["a phrase"])


# Displays


@pytest.fixture
def ax():
    """Axes of a figure, all of which are closed afterward."""
    yield plt.subplots()[1]
    plt.close("all")


@pytest.fixture(scope="module")
def factors(data):
    return BiasedMFRegressor(n_factors=3, random_state=0).fit(data.R)


SOME = [[user, 0] for user in range(10)], [4.0] * 10
FROM_ESTIMATOR = {
    CalibrationDisplay: SOME,
    ErrorByCountDisplay: SOME,
    ExplanationDisplay: (3, 4),
    FactorMapDisplay: (),
    TrainingCurvesDisplay: (),
}


@pytest.mark.parametrize("display", FROM_ESTIMATOR)
def test_displays_draw_on_the_given_axes_or_on_new_ones(display, factors, data, ax):
    arguments = FROM_ESTIMATOR[display]
    drawn = display.from_estimator(factors, *arguments, ax=ax)
    assert isinstance(drawn, display)
    assert drawn.ax_ is ax
    assert drawn.figure_ is ax.figure
    assert ax.has_data()
    assert drawn.plot() is drawn
    assert drawn.ax_ is not ax
    assert drawn.figure_ is drawn.ax_.figure is not ax.figure


@pytest.mark.parametrize("display", FROM_ESTIMATOR)
def test_displays_refuse_what_is_no_fitted_recommender(display, factors):
    arguments = FROM_ESTIMATOR[display]
    with pytest.raises(NotFittedError):
        display.from_estimator(BiasedMFRegressor(), *arguments)
    with pytest.raises(TypeError, match="model must be a recommender of skrec"):
        display.from_estimator(make_pipeline(factors), *arguments)


def test_displays_say_that_they_need_matplotlib(factors, monkeypatch):
    found = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    for display in (
        TrainingCurvesDisplay([1.0]),
        RatingDistributionDisplay(*[[1]] * 4),
    ):
        name = type(display).__name__
        with pytest.raises(ImportError, match=rf"{name}.plot requires matplotlib"):
            display.plot()


def test_ratings_are_counted_by_value_and_by_item(ax):
    # Item 0 has 11 ratings, and each of the items 1 to 10 has one.
    X = [[user, 0] for user in range(11)] + [[0, item] for item in range(1, 11)]
    y = [5] * 11 + [2] * 7 + [3] * 3
    display = RatingDistributionDisplay.from_ratings(X, y)
    bars = display.ax_[0].patches
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx(
        [2, 3, 5]
    )
    assert [bar.get_height() for bar in bars] == [7, 3, 11]
    tail = display.ax_[1].lines[0]
    assert tail.get_xdata().tolist() == list(range(1, 12))
    assert tail.get_ydata().tolist() == [11] + [1] * 10
    assert display.top_share == 12 / 21  # two of eleven items
    assert "57%" in display.ax_[1].get_title()


def test_both_forms_of_ratings_are_counted_alike(data, ax):
    R = sp.hstack([sp.csr_array((40, 5)), data.R])  # 5 items without ratings
    of_matrix = RatingDistributionDisplay.from_ratings(R)
    of_pairs = RatingDistributionDisplay.from_ratings(*ratings_to_samples(data.R))
    for name in ("values", "counts", "item_counts", "top_share"):
        np.testing.assert_array_equal(getattr(of_matrix, name), getattr(of_pairs, name))
    assert of_matrix.counts.sum() == of_matrix.item_counts.sum() == R.nnz


def test_many_distinct_ratings_are_counted_in_intervals(ax):
    X = [[user, 0] for user in range(100)]
    display = RatingDistributionDisplay.from_ratings(X, np.arange(100.0))
    assert display.counts.tolist() == [5] * 20
    np.testing.assert_allclose(display.values, 4.95 * (np.arange(20) + 0.5))


def test_distributions_draw_on_two_axes(data, ax):
    axes = plt.subplots(1, 2)[1]
    display = RatingDistributionDisplay.from_ratings(data.R, ax=axes)
    assert list(display.ax_) == list(axes)
    assert display.figure_ is axes[0].figure
    with pytest.raises(ValueError, match=r"ax must have two axes, .* shape \(\)"):
        display.plot(ax)
    with pytest.raises(ValueError, match="requires y to be passed"):
        RatingDistributionDisplay.from_ratings([[0, 1]])


def test_training_curves_are_those_of_the_model(data, factors, ax):
    model = AutoRecRegressor(early_stopping=True, max_iter=20, random_state=0)
    display = TrainingCurvesDisplay.from_estimator(model.fit(data.R), ax=ax)
    for axes, values in (
        (ax, model.loss_curve_),
        (display.validation_ax_, model.validation_scores_),
    ):
        (line,) = axes.lines
        assert line.get_xdata().tolist() == list(range(1, len(values) + 1))
        assert line.get_ydata().tolist() == list(values)
    assert len(model.validation_scores_) > 1
    assert TrainingCurvesDisplay.from_estimator(factors).validation_ax_ is None


def test_explanations_draw_all_contributions_but_the_mean(factors, ax):
    parts = factors.explain(3, 4)
    display = ExplanationDisplay.from_estimator(factors, 3, 4, n_bars=3, ax=ax)
    others = parts.drop("mean", level="kind")
    order = np.argsort(-np.abs(others.to_numpy()))
    expected = others.to_numpy()[order]
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == pytest.approx([*expected[:3], expected[3:].sum()])
    labels = [label.get_text() for label in ax.get_yticklabels()]
    kind, name = others.index[order[0]]
    assert labels[0] == f"{kind} {name}".strip()
    assert labels[3] == f"{len(expected) - 3} others"
    assert ax.yaxis_inverted()  # the largest is at the top
    mean = parts["mean"].item()
    assert ax.get_title() == f"{parts.sum():.2f} = mean {mean:.2f} + contributions"
    display.plot(n_bars=len(expected))
    widths = [bar.get_width() for bar in display.ax_.patches]
    assert widths == pytest.approx(expected)


def test_explanations_pass_their_arguments_on(factors, model, data, ax):
    display = ExplanationDisplay.from_estimator(factors, data.R[[5]], 4, by="item")
    assert display.contributions.equals(factors.explain(data.R[[5]], 4, by="item"))
    text = data.item_texts[4]
    display = ExplanationDisplay.from_estimator(model, 3, 4, by="item", item_text=text)
    assert "text window" in display.contributions.index.get_level_values("kind")
    with pytest.raises(ValueError, match="n_bars == 0, must be >= 1"):
        ExplanationDisplay.from_estimator(factors, 3, 4, n_bars=0)


def test_names_of_an_explanation_are_cut_and_no_formulas(ax):
    index = [("mean", ""), ("item", "$" + 99 * "a"), ("item", "$b$")]
    index = pd.MultiIndex.from_tuples(index, names=["kind", "name"])
    ExplanationDisplay(pd.Series([3.0, 0.5, 0.1], index)).plot(ax)
    long, short = ax.get_yticklabels()
    assert long.get_text() == "item $" + 33 * "a" + "…"
    assert (short.get_text(), short.get_parse_math()) == ("item $b$", False)
    ax.figure.canvas.draw()


@pytest.fixture(scope="module")
def split(data):
    """Three quarters of the pairs, and the others, with an unseen user and item."""
    X, y = ratings_to_samples(data.R)
    is_held = np.arange(len(y)) % 4 == 0
    held = np.vstack([X[is_held], [[99, 0], [0, 99]]])
    return X[~is_held], y[~is_held], held, np.append(y[is_held], [5.0, 1.0])


def drawn_bars(ax):
    """Label, height and text of each bar."""
    labels = [label.get_text() for label in ax.get_xticklabels()]
    heights = [bar.get_height() for bar in ax.patches]
    return list(
        zip(labels, heights, [text.get_text() for text in ax.texts], strict=True)
    )


def expected_bars(counts, errors):
    """The bars of `drawn_bars`, by a loop over the bins."""
    bars = []
    for low, high in ((0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 63)):
        inside = (counts >= low) & (counts <= high)
        if inside.any():
            label = str(low) if low == high else f"{low}-{high}"
            rmse = np.sqrt(np.mean(errors[inside] ** 2))
            bars.append((label, pytest.approx(rmse), str(inside.sum())))
    return bars


@pytest.mark.parametrize("by", ["user", "item"])
def test_errors_of_pairs_are_grouped_by_training_ratings(split, by, ax):
    X_train, y_train, X, y = split
    model = BiasedMFRegressor(n_factors=3, random_state=0).fit(X_train, y_train)
    ErrorByCountDisplay.from_estimator(model, X, y, by=by, ax=ax)
    column = ["user", "item"].index(by)
    counts = np.array([np.sum(X_train[:, column] == i) for i in X[:, column]])
    assert 0 in counts
    assert drawn_bars(ax) == expected_bars(counts, y - model.predict(X))
    assert ax.get_xlabel() == f"number of training ratings of the {by}"


@pytest.mark.parametrize("by", ["user", "item"])
@pytest.mark.parametrize("left_out", [True, False])
def test_errors_of_rows_are_grouped_by_training_ratings(data, by, left_out, ax):
    model = BiasedMFRegressor(n_factors=3, random_state=0).fit(data.R[:25])
    rows = data.R[25:].tocsr()
    given, held = rows, rows
    if not left_out:
        (X, y), shape = ratings_to_samples(rows), rows.shape
        is_held = np.arange(len(y)) % 3 == 0
        given, held = (
            sp.csr_array((y[some], tuple(X[some].T)), shape=shape)
            for some in (~is_held, is_held)
        )
    target = None if left_out else held
    ErrorByCountDisplay.from_estimator(model, given, target, by=by, ax=ax)
    X, y = ratings_to_samples(held)
    if left_out:
        predicted = []
        for user, item in X:
            is_other = (X[:, 0] == user) & (X[:, 1] != item)
            entries = (np.zeros(is_other.sum(), int), X[is_other, 1])
            row = sp.csr_array((y[is_other], entries), shape=(1, rows.shape[1]))
            predicted.append(model.predict(row)[0, item])
    else:
        predicted = model.predict(given)[X[:, 0], X[:, 1]]
    if by == "item":
        counts = np.bincount(data.R[:25].tocsr().indices, minlength=30)[X[:, 1]]
    else:
        counts = np.diff(given.indptr)[X[:, 0]] - left_out
    assert drawn_bars(ax) == expected_bars(counts, y - predicted)


def test_errors_refuse_wrong_input_by_name(factors, split):
    X, y = split[2:]
    draw = ErrorByCountDisplay.from_estimator
    with pytest.raises(ValueError, match="by must be 'item' or 'user', got 'rating'"):
        draw(factors, X, y, by="rating")
    with pytest.raises(ValueError, match="requires y to be passed"):
        draw(factors, X)
    with pytest.raises(ValueError, match="but y has 3 ratings"):
        draw(factors, X, y[:3])


def test_calibration_compares_standard_deviations_with_errors(split, ax):
    X_train, y_train, X, y = split
    model = BiasedMFRegressor(n_factors=3, random_state=0).fit(X_train, y_train)
    CalibrationDisplay.from_estimator(model, X, y, n_bins=3, ax=ax)
    mean, std = model.predict(X, return_std=True)
    order = np.argsort(std, kind="stable")
    thirds = np.array_split(order, 3)
    bins, diagonal = ax.lines
    expected = [np.sqrt(np.mean(std[third] ** 2)) for third in thirds]
    np.testing.assert_allclose(bins.get_xdata(), expected)
    expected = [np.sqrt(np.mean((y - mean)[third] ** 2)) for third in thirds]
    np.testing.assert_allclose(bins.get_ydata(), expected)
    assert diagonal.get_slope() == 1
    x, at = diagonal.get_xy1()
    assert x == at


def test_calibration_takes_rows_with_held_out_ratings(data, ax):
    model = BiasedMFRegressor(n_factors=3, random_state=0).fit(data.R[:25])
    X, y = ratings_to_samples(data.R[25:])
    given, held = (
        sp.csr_array((y[i::2], tuple(X[i::2].T)), shape=(15, 30)) for i in (0, 1)
    )
    display = CalibrationDisplay.from_estimator(model, given, held, n_bins=1)
    mean, std = (
        values[X[1::2, 0], X[1::2, 1]] for values in model.predict(given, True)
    )
    np.testing.assert_allclose(display.predicted_std, np.sqrt(np.mean(std**2)))
    errors = y[1::2] - mean
    np.testing.assert_allclose(display.rmse, np.sqrt(np.mean(errors**2)))


def test_calibration_refuses_wrong_input_by_name(factors, data, split):
    X, y = split[2:]
    draw = CalibrationDisplay.from_estimator
    network = AutoRecRegressor(max_iter=2, random_state=0).fit(data.R)
    with pytest.raises(TypeError, match="does, got AutoRecRegressor"):
        draw(network, X, y)
    with pytest.raises(ValueError, match="y must be passed"):
        draw(factors, data.R, None)
    with pytest.raises(ValueError, match="n_bins == 0, must be >= 1"):
        draw(factors, X, y, n_bins=0)
    with pytest.raises(ValueError, match="n_bins is 10, but there are only 4 held-out"):
        draw(factors, X[:4], y[:4])


def test_maps_show_principal_components_of_the_item_factors(data, factors, ax):
    counts = np.bincount(data.R.tocsr().indices, minlength=30)
    most = np.argsort(-counts, kind="stable")[:4]
    names = {int(item): f"${item}$" for item in most[1:]}
    FactorMapDisplay.from_estimator(factors, names, n_names=4, ax=ax)
    V = factors.item_factors_ - factors.item_factors_.mean(axis=0)
    U, S, _ = np.linalg.svd(V.astype(float), full_matrices=False)
    points = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(np.abs(points), np.abs(U * S)[:, :2], atol=1e-5)
    texts = [text.get_text() for text in ax.texts]
    assert texts == [str(most[0]), *names.values()]
    for text, item in zip(ax.texts, most, strict=True):
        assert tuple(text.xy) == tuple(points[item])
        assert not text.get_parse_math()
    share = S[0] ** 2 / np.sum(S**2)
    assert f"({share:.0%} of the variance)" in ax.get_xlabel()


def test_maps_leave_out_items_of_which_nothing_is_known(data, ax):
    R = data.R.copy()
    R.resize(R.shape[0], R.shape[1] + 5)
    model = BiasedMFRegressor(n_factors=3, random_state=0).fit(R)
    names = pd.Series(["first"], index=[0])
    display = FactorMapDisplay.from_estimator(model, names, n_names=50)
    assert display.coordinates.index.tolist() == list(range(30))
    assert sorted(display.labels) == sorted(["first", *map(str, range(1, 30))])


def test_maps_refuse_wrong_input_by_name(data, factors):
    draw = FactorMapDisplay.from_estimator
    with pytest.raises(TypeError, match="to name, got list"):
        draw(factors, ["a", "b"])
    with pytest.raises(ValueError, match="n_names == -1, must be >= 0"):
        draw(factors, n_names=-1)
    single = BiasedMFRegressor(n_factors=1, random_state=0).fit(data.R)
    with pytest.raises(ValueError, match="model has 1 factors of 30 items"):
        draw(single)
