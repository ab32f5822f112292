"""Refusal of tables that are only a plan of a computation."""

from __future__ import annotations

from typing import Any

# First part of the module, end of the name of the class, what it is called, how to
# compute it, and how to predict for it part by part
_LAZY = (
    (
        "dask",
        ("DataFrame", "Series", "Array", "Bag"),
        "a Dask collection",
        "compute()",
        "X.map_partitions(model.predict, meta=('rating', float))",
    ),
    (
        "polars",
        ("LazyFrame",),
        "a polars LazyFrame",
        "collect()",
        "X.map_batches(lambda part: pl.DataFrame({'rating': model.predict(part)}), "
        "schema={'rating': pl.Float64})",
    ),
    (
        "pyspark",
        ("DataFrame",),
        "a Spark DataFrame",
        "toPandas()",
        "X.mapInPandas(lambda parts: (part.assign(rating=model.predict(part)) for part "
        "in parts), schema)",
    ),
    (
        "ray",
        ("Dataset",),
        "a Ray Dataset",
        "to_pandas()",
        "X.map_batches(lambda part: part.assign(rating=model.predict(part)), "
        "batch_format='pandas')",
    ),
)


def refuse_lazy(values: Any, name: str) -> None:
    """Raise an error for a table that has not been computed.

    Raises
    ------
    TypeError
        If `values` is a lazy table of a known library.
    """
    cls = type(values)
    package = cls.__module__.partition(".")[0]
    for library, endings, what, compute, by_parts in _LAZY:
        if package == library and cls.__name__.endswith(endings):
            raise TypeError(
                f"{name} is {what}, which has not been computed: give "
                f"{name}.{compute}, if it fits in memory. Predictions part by part: "
                f"{by_parts}."
            )
