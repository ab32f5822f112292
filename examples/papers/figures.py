"""Figures and tables of the ConvMF paper that describe the data and the network.

Each function returns a table and a function that draws it.
"""

import convmf
import numpy as np
import pandas as pd
from protocol import seeded
from scipy import stats

from skrec import ConvMFRegressor
from skrec.inspection import filter_phrases, phrase_values
from skrec.text import ItemTexts

LIMITS = (5, 10, 20, 50, 100, 200, 500)
N_OTHERS = 20


def skewness(dataset, quick):
    """Figures 3 and 4: skewness of the distribution of ratings over items."""
    X, _, _ = convmf.load(dataset)
    n_users, n_items = (len(np.unique(X[:, side])) for side in (0, 1))
    print(f"\n{dataset}: {n_users} users, {n_items} items, {len(X)} ratings")
    lines, curves = [], {}
    for ratio in convmf.RATIOS:
        if ratio * len(X) < n_users + n_items:
            continue  # too few to keep one of each user and item
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
    """Table 5: phrases of filters, and the effect of replacing one of their words.

    The five filters with the largest values are shown. Each word of a phrase in turn is
    replaced by randomly drawn words; the table has the word whose replacement lowers
    the value most.
    """
    X, y, texts = convmf.load(dataset)
    model = seeded(ConvMFRegressor(**convmf.NETWORK_ALONE), 0, quick).fit(
        X, y, item_texts=ItemTexts(texts)
    )
    found = filter_phrases(model, texts)
    first = found.groupby(["window", "filter"])["value"].transform("first")
    found = found[first >= first.drop_duplicates().nlargest(5).min()]
    vocabulary = model.vectorizer_.get_feature_names_out()
    others = np.random.default_rng(0).choice(vocabulary, N_OTHERS, replace=False)
    lines = []
    for row in found.itertuples():
        words = row.phrase.split()
        changed = [
            " ".join([*words[:i], other, *words[i + 1 :]])
            for i in range(len(words))
            for other in others
        ]
        values = phrase_values(model, changed)[row.window, row.filter].to_numpy()
        means = values.reshape(-1, N_OTHERS).mean(axis=1)
        worst = int(means.argmin())
        line = [row.window, row.filter, row.phrase, row.value, words[worst]]
        lines.append([*line, means[worst]])
    columns = ["window", "filter", "phrase", "value", "word", "with other words"]
    table = pd.DataFrame(lines, columns=columns)

    def draw(axes):
        names = table["phrase"] + " | " + table["word"]
        axes.barh(names, table["value"], label="the phrase")
        label = f"mean over {N_OTHERS} replacements of the word after the bar"
        axes.barh(names, table["with other words"], label=label)
        axes.invert_yaxis()
        axes.set(xlabel="value of the filter")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1))

    return table, draw


FIGURES = {"convmf-fig3": skewness, "convmf-5": phrases}
