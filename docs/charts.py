"""Draw the charts of the results page from its tables.

    python docs/charts.py

writes docs/images/*.svg. The numbers are read from results.rst, so that charts and
tables agree.
"""

import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

DOCS = Path(__file__).parent
OURS, OTHERS = "#2a6f97", "#d17a22"
# Labels that would cover others, with offsets in points instead of the usual ones.
OFFSETS = {"ConvMF, with plots": (-60, -17), "lenskit BiasedMF": (-40, -17)}
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "skrec",  # the same bytes each time
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.1,
}


def tables(text):
    """Yield the tables of a page, each a list of rows of cells."""
    rows, columns = [], None
    for line in [*text.splitlines(), ""]:
        if re.fullmatch(r"=+( +=+)+", line):
            columns = [match.span() for match in re.finditer("=+", line)]
        elif not line.strip():
            if rows:
                yield rows
            rows, columns = [], None
        elif columns:
            ends = [*(start for start, _ in columns[1:]), None]
            cells = zip((start for start, _ in columns), ends, strict=True)
            rows.append([line[start:end].strip() for start, end in cells])


def find(text, head, first):
    """Return the table with this corner and this first row, as rows by name."""
    for header, *rows in tables(text):
        if header[0] == head and rows[0][0] == first:
            return header[1:], {row[0]: row[1:] for row in rows}
    raise LookupError(f"results.rst has no table {head!r} with a row {first!r}.")


def number(cell):
    """Read a number, which may carry a mark; None if the cell has none."""
    found = re.match(r"-?[\d.]+", cell)
    return float(found[0]) if found else None


def short(name):
    return re.sub(r"``(\w+?)(Regressor)?\(\)``", r"\1", name)


def label_colors(axes, place):
    """Say at the right what the two colors are, from a height downwards."""
    for label, color in ("skrec", OURS), ("other libraries", OTHERS):
        axes.text(
            0.98, place, label, color=color, weight="bold", ha="right",
            transform=axes.transAxes,
        )  # fmt: skip
        place -= 0.07


def draw_accuracy_and_seconds(text):
    """Error against the time of the fit, on MovieLens 1M."""
    _, rows = find(text, "model, ML-1M", "``PMFRegressor()``")
    figure, axes = plt.subplots(figsize=(8, 4.6))
    for name, cells in rows.items():
        rmse, seconds = number(cells[0]), number(cells[1])
        color = OURS if name.startswith("``") else OTHERS
        axes.plot(seconds, rmse, "o", color=color, markersize=8)
        axes.annotate(
            short(name),
            (seconds, rmse),
            xytext=OFFSETS.get(short(name), (7, 4)),
            textcoords="offset points",
            color=color,
        )
    axes.set(
        xscale="log",
        xlim=(0.5, 200),
        xlabel="seconds of the fit, one thread",
        ylabel="RMSE on held-out ratings (lower is better)",
        title="MovieLens 1M, every model with its defaults",
    )
    axes.xaxis.set_major_formatter("{x:g}")
    label_colors(axes, 0.95)
    return figure


def draw_seven_sets(text):
    """Errors relative to damped effects of users and items, on seven data sets."""
    header, ours = find(text, "RMSE", "global mean")
    _, others = find(text, "RMSE", "Surprise BaselineOnly")
    effects = ours.pop("``BaselineRegressor()``")
    # Cells with a mark are of the first split only.
    on_first = ours.pop("the same, first split")
    ours.pop("global mean")
    figure, axes = plt.subplots(figsize=(8, 4.6))
    for place in range(len(header)):
        for rows, shift, color in ((others, 0.14, OTHERS), (ours, -0.14, OURS)):
            below = []
            for cell in filter(None, (cells[place] for cells in rows.values())):
                marked = cell.endswith("*") and on_first[place]
                base = number((on_first if marked else effects)[place])
                below.append(100 - 100 * number(cell) / base)
            at = [place + shift] * len(below)
            axes.plot(below, at, "o", color=color, alpha=0.35, markersize=6)
            axes.plot(max(below), place + shift, "D", color=color, markersize=9)
    axes.axvline(0, color="gray", linewidth=0.8)
    axes.set_yticks(range(len(header)), header)
    axes.invert_yaxis()
    axes.set(
        xlim=(-6, None),
        xlabel="RMSE, percent below damped effects of users and items (more is better)",
        title="Every model with its defaults; the best of each kind is a diamond",
    )
    label_colors(axes, 0.2)
    return figure


def draw_cold_items(text):
    """What features and texts of items without ratings are worth."""
    _, rows = find(text, "cold-start items", "user mean")
    gains = {name: number(cells[3]) for name, cells in rows.items() if cells[3]}
    figure, axes = plt.subplots(figsize=(8, 3.8))
    bars = axes.barh([*gains], [*gains.values()], color=OURS)
    labels = [f"{gain:.3f}" if gain > 0 else "" for gain in gains.values()]
    axes.bar_label(bars, labels, padding=4)
    axes.axvline(0, color="gray", linewidth=0.8)
    axes.invert_yaxis()
    axes.set(
        xlim=(-0.002, 0.06),
        xlabel="RMSE below the means of the users (more is better)",
        title="Items without ratings, MovieLens 1M",
    )
    return figure


def main():
    text = (DOCS / "results.rst").read_text(encoding="utf-8")
    charts = {
        "accuracy_seconds": draw_accuracy_and_seconds,
        "seven_sets": draw_seven_sets,
        "cold_items": draw_cold_items,
    }
    with mpl.rc_context(STYLE):
        for name, draw in charts.items():
            path = DOCS / "images" / f"{name}.svg"
            draw(text).savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    mpl.use("agg")
    main()
