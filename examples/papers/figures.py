"""What the ConvMF paper shows of the data and of the network, without any RMSE.

Each function returns a table, and a function that draws it.
"""

import convmf
import numpy as np
import pandas as pd
from protocol import seeded
from scipy import stats

from skrec import ConvMFRegressor
from skrec.inspection import filter_phrases, phrase_values
from skrec.text import ItemTexts

LIMITS = (1, 5, 10, 20, 50, 100, 200, 500)


def skewness(dataset, quick):
    """Figures 3 and 4: how unevenly the ratings are spread over the items."""
    X, _, _ = convmf.load(dataset)
    lines, curves = [], {}
    for ratio in convmf.RATIOS:
        train, _, _ = convmf.split(X, ratio, 0)
        counts = np.unique(X[train, 1], return_counts=True)[1]
        shares = {f"fewer than {n}": np.mean(counts < n) for n in LIMITS}
        lines.append({"training": ratio, "skewness": stats.skew(counts)} | shares)
        curves[ratio] = np.sort(counts)[::-1]
    table = pd.DataFrame(lines).set_index("training")

    def draw(axes):
        for ratio, counts in curves.items():
            axes.loglog(np.arange(1, len(counts) + 1), counts, label=f"{ratio:.0%}")
        axes.set(xlabel="item, most rated first", ylabel="ratings")
        axes.legend(title="training")

    return table, draw


def phrases(dataset, quick):
    """Table 5: the phrases that filters capture, and what one word is worth.

    The filters are those whose largest values stand out most; the word left out of each
    phrase in turn is the one that matters most.
    """
    X, y, texts = convmf.load(dataset)
    model = seeded(ConvMFRegressor(), 0, quick).fit(X, y, item_texts=ItemTexts(texts))
    found = filter_phrases(model, texts)
    first = found.groupby(["window", "filter"])["value"].transform("first")
    found = found[first >= first.drop_duplicates().nlargest(5).min()]
    lines = []
    for row in found.itertuples():
        words = row.phrase.split()
        values = phrase_values(model, [row.phrase, *_without_each(words)])
        values = values[row.window, row.filter].to_numpy()
        most = int(np.argmin(values[1:]))
        lines.append(
            {
                "window": row.window,
                "filter": row.filter,
                "phrase": row.phrase,
                "value": values[0],
                "without": words[most],
                "value without": values[1 + most],
            }
        )
    table = pd.DataFrame(lines)

    def draw(axes):
        names = table["phrase"] + " | without " + table["without"]
        axes.barh(names, table["value"], color="#4477aa", label="the phrase")
        axes.barh(names, table["value without"], color="#ccbb44", label="without")
        axes.invert_yaxis()
        axes.set(xlabel="value of the filter")
        axes.legend()

    return table, draw


def _without_each(words):
    """The phrase without each of its words in turn."""
    return [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]


FIGURES = {"convmf-fig3": skewness, "convmf-5": phrases}
