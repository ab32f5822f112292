"""Tables in the form of the documentation."""


def rst_table(table):
    """Return a data frame of texts as a simple table of reStructuredText."""
    if table.empty:
        return "none"
    rows = [list(table.columns), *table.astype(str).to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    # An empty first cell would continue the row above.
    lines = [line if line[0] != " " else f"..{line[2:]}" for line in lines]
    return "\n".join([rule, lines[0].rstrip(), rule, *map(str.rstrip, lines[1:]), rule])
