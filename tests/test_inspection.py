import numpy as np
import pytest

from skrec import BiasedMFRegressor, ConvMFRegressor
from skrec.datasets import make_ratings
from skrec.inspection import filter_phrases, phrase_values
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
