"""Invented texts whose words depend on factors."""

import numpy as np

# Neither c, f nor s, with which "became" and "beside", stop words, would be possible.
_SYLLABLES = [consonant + vowel for consonant in "bdgklmnprtvz" for vowel in "aeiou"]
_SYLLABLES_PER_WORD = 3
_N_BACKGROUND_WORDS = 300
_N_WORDS_PER_TOPIC = 15
_BACKGROUND_SHARE = 0.3  # of the words of a text
_TOPIC_SHARPNESS = 1.5  # how strongly factors one standard deviation apart differ


def draw_texts(item_factors, text_words, rng):
    """Draw a text of about `text_words` words for each item, telling its factors."""
    n_items, n_factors = item_factors.shape
    n_topics = 2 * n_factors
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


def _draw_vocabulary(n_words, rng):
    """Distinct pronounceable words."""
    n_syllables = len(_SYLLABLES)
    codes = rng.choice(n_syllables**_SYLLABLES_PER_WORD, n_words, replace=False)
    syllables = np.array(_SYLLABLES, dtype=object)
    digits = [
        codes // n_syllables**place % n_syllables
        for place in range(_SYLLABLES_PER_WORD)
    ]
    return syllables[digits].sum(axis=0)


def _draw_topics(item_factors, items, rng):
    """One topic for each word, by the factors of the item whose text has the word."""
    standardized = item_factors / np.sqrt(np.mean(item_factors**2))
    logits = _TOPIC_SHARPNESS * np.hstack([standardized, -standardized])
    cumulated = np.cumsum(np.exp(logits - logits.max(axis=1, keepdims=True)), axis=1)
    cumulated /= cumulated[:, -1:]
    # One sorted sequence for all items: item i has the interval from i to i + 1.
    steps = (cumulated + np.arange(len(item_factors))[:, None]).ravel()
    found = np.searchsorted(steps, items + rng.random_sample(len(items)), side="right")
    n_topics = cumulated.shape[1]
    return np.minimum(found - items * n_topics, n_topics - 1)


def _draw_by_zipf(n, size, rng):
    cumulated = np.cumsum(1 / np.arange(1, n + 1))
    drawn = rng.random_sample(size) * cumulated[-1]
    return np.minimum(np.searchsorted(cumulated, drawn, side="right"), n - 1)
