"""Generator of texts of invented words that depend on factors."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Without c, f and s, because "became", "beside" and other stop words need them.
_SYLLABLES = [consonant + vowel for consonant in "bdgklmnprtvz" for vowel in "aeiou"]
_SYLLABLES_PER_WORD = 3
_N_BACKGROUND_WORDS = 300
_N_WORDS_PER_TOPIC = 15
_BACKGROUND_SHARE = 0.3  # proportion of background words in a text
_TOPIC_SHARPNESS = 1.5  # change of the logit of a topic per standard deviation


def draw_texts(
    item_factors: NDArray[np.float64], text_words: int, rng: np.random.RandomState
) -> list[str]:
    """Draw a text for each item, whose topics depend on the factors of the item."""
    n_items, n_topics = len(item_factors), 2 * item_factors.shape[1]
    words = _draw_vocabulary(_N_BACKGROUND_WORDS + n_topics * _N_WORDS_PER_TOPIC, rng)
    lengths = 1 + rng.poisson(text_words - 1, size=n_items)
    items = np.repeat(np.arange(n_items), lengths)

    topics = _draw_topics(item_factors, items, rng)
    in_topic = _draw_by_zipf(_N_WORDS_PER_TOPIC, len(items), rng)
    background = _draw_by_zipf(_N_BACKGROUND_WORDS, len(items), rng)
    is_background = rng.random_sample(len(items)) < _BACKGROUND_SHARE
    topical = _N_BACKGROUND_WORDS + topics * _N_WORDS_PER_TOPIC + in_topic
    tokens = words[np.where(is_background, background, topical)].tolist()
    ends = np.cumsum(lengths).tolist()
    return [
        " ".join(tokens[end - length : end])
        for end, length in zip(ends, lengths.tolist(), strict=True)
    ]


def _draw_vocabulary(n_words: int, rng: np.random.RandomState) -> NDArray[Any]:
    """Draw distinct pronounceable words."""
    n_syllables = len(_SYLLABLES)
    codes = rng.choice(n_syllables**_SYLLABLES_PER_WORD, n_words, replace=False)
    syllables = np.array(_SYLLABLES, dtype=object)
    digits = [
        codes // n_syllables**place % n_syllables
        for place in range(_SYLLABLES_PER_WORD)
    ]
    words: NDArray[Any] = syllables[digits].sum(axis=0)
    return words


def _draw_topics(
    item_factors: NDArray[np.float64],
    items: NDArray[np.int64],
    rng: np.random.RandomState,
) -> NDArray[np.int64]:
    """Draw a topic for each word; `items` has the item of each word."""
    standardized = item_factors / np.sqrt(np.mean(item_factors**2))
    logits = _TOPIC_SHARPNESS * np.hstack([standardized, -standardized])
    cumulated = np.cumsum(np.exp(logits - logits.max(axis=1, keepdims=True)), axis=1)
    cumulated /= cumulated[:, -1:]
    # One sorted sequence for all items, with the interval from i to i + 1 for item i.
    steps = (cumulated + np.arange(len(item_factors))[:, None]).ravel()
    found = np.searchsorted(steps, items + rng.random_sample(len(items)), side="right")
    n_topics = cumulated.shape[1]
    return np.minimum(found - items * n_topics, n_topics - 1)


def _draw_by_zipf(n: int, size: int, rng: np.random.RandomState) -> NDArray[np.int64]:
    cumulated = np.cumsum(1 / np.arange(1, n + 1))
    drawn = rng.random_sample(size) * cumulated[-1]
    return np.minimum(np.searchsorted(cumulated, drawn, side="right"), n - 1)
