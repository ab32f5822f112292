"""Predictions on two local workers of Spark; needs the extra `spark` and Java."""

import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from helpers import small

from skrec import BiasedMFRegressor

if shutil.which("java") is None:
    pytest.skip("needs Java for Spark", allow_module_level=True)
sql = pytest.importorskip(
    "pyspark.sql", reason="needs Spark: pip install skrec-ratings[spark]"
)

# Spark has warnings of its own, about its next versions and those of pandas.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def spark():
    builder = sql.SparkSession.builder.master("local[2]")
    options = {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
    }
    # By default, workers run the python3 of the PATH.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        session = builder.config(map=options).getOrCreate()
        yield session
        session.stop()


def test_parts_of_a_spark_frame_are_predicted(spark, pairs):
    X, y = pd.DataFrame(pairs[0], columns=["user", "item"]), pairs[1]
    model = small(BiasedMFRegressor, max_iter=100).fit(X, y)

    def predict(part):
        return part.assign(rating=model.predict(part))

    frame = spark.createDataFrame(X).repartition(3)
    schema = "user long, item long, rating double"
    rows = frame.mapInPandas(lambda parts: map(predict, parts), schema).collect()
    found = pd.DataFrame(rows, columns=["user", "item", "rating"])
    assert len(found) == len(X)
    expected = model.predict(found[["user", "item"]])
    np.testing.assert_array_equal(found["rating"], expected)
