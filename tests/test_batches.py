import numpy as np
import pytest
import torch
from helpers import random_sparse

from skrec._core.batches import (
    InputTransform,
    Rows,
    damped_means,
    damped_means_without,
    drop,
    keep_all,
)
from skrec._core.sparse import Pattern

COUNTS = [3, 0, 1, 6]


@pytest.fixture
def pattern():
    """Rows of different sizes, one of which is empty."""
    col = torch.cat([torch.arange(count) for count in COUNTS])
    return Pattern(torch.tensor([0, *np.cumsum(COUNTS)]), col, (4, 8))


@pytest.fixture
def ratings():
    return torch.tensor([1.0, 2, 4, 5, 3, 1, 2, 5, 4, 2], dtype=torch.float64)


# Inputs of networks


def test_inputs_are_centered_in_their_unit_and_scaled_by_the_count(pattern, ratings):
    transform = InputTransform(center=3.0, mean_count=2.5, exponent=0.5, unit=2.0)
    n = np.repeat(COUNTS, COUNTS)
    expected = (ratings.numpy() - 3) / 2 / np.sqrt(n / 2.5)
    np.testing.assert_allclose(transform(pattern, ratings), expected)
    np.testing.assert_allclose(transform.shift(ratings), (ratings.numpy() - 3) / 2)
    assert torch.equal(InputTransform()(pattern, ratings), ratings)


def test_rows_left_empty_have_the_scale_of_one_rating():
    transform = InputTransform(mean_count=4.0, exponent=0.5)
    scales = transform.scale(torch.tensor([0, 1, 4, 16]), torch.float64)
    assert scales.dtype == torch.float64
    assert scales.tolist() == [2, 2, 1, 0.5]


def test_damped_means_are_sums_over_counts_and_the_penalty(pattern, ratings):
    means = damped_means(pattern, ratings, 0.5)
    np.testing.assert_allclose(means, [7 / 3.5, 0, 5 / 1.5, 17 / 6.5])
    others = damped_means_without(pattern, ratings, 0.5)
    expected = [6 / 2.5, 5 / 2.5, 3 / 2.5, 0, 14 / 5.5, 16 / 5.5]
    np.testing.assert_allclose(others[:6], expected, atol=1e-12)


# Dropout


def test_dropout_keeps_the_mean(generator):
    values = torch.full((100_000,), 3.0)
    dropped = drop(values, 0.2, generator)
    assert dropped.unique().tolist() == [0, 3.75]
    assert (dropped == 0).double().mean().item() == pytest.approx(0.2, abs=0.005)
    again = drop(values, 0.2, torch.Generator().manual_seed(0))
    assert torch.equal(dropped, again)


def test_no_dropout_draws_nothing(generator):
    values, state = torch.ones(5), generator.get_state()
    assert drop(values, 0, generator) is values
    assert keep_all(values) is values
    assert torch.equal(generator.get_state(), state)


def test_draws_of_dropout_have_the_precision_of_the_values(generator):
    dropped = drop(torch.ones(4, dtype=torch.float64), 0.5, generator)
    expected = torch.rand(
        4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    assert torch.equal(dropped, 2.0 * (expected >= 0.5))


# Batches of rows


@pytest.fixture
def rows(rng):
    matrix = random_sparse(rng, (23, 9), 0.2)
    pattern = Pattern(
        torch.tensor(matrix.indptr), torch.tensor(matrix.indices), matrix.shape
    )
    n = pattern.nnz
    return Rows(
        pattern,
        torch.arange(n),
        torch.arange(n) + 100,
        torch.arange(n) + 200,
        torch.arange(23).unsqueeze(1),
        torch.arange(23) + 300,
    )


def test_batches_have_each_row_with_all_that_belongs_to_it_once(rows, generator):
    batches = rows.cut(5, generator)
    assert [len(batch.side) for batch in batches] == [5, 5, 5, 5, 3]
    order = torch.cat([batch.side for batch in batches]).squeeze(1)
    assert order.tolist() != list(range(23))
    assert sorted(order.tolist()) == list(range(23))
    for batch in batches:
        assert torch.equal(batch.effects, batch.side.squeeze(1) + 300)
        entries = batch.inputs
        assert torch.equal(batch.targets, entries + 100)
        assert torch.equal(batch.weights, entries + 200)
        assert torch.equal(batch.pattern.col, rows.pattern.col[entries])
        row = batch.side.squeeze(1)[batch.pattern.row]
        assert torch.equal(rows.pattern.row[entries].long(), row)
    again = rows.cut(5, torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat([batch.inputs for batch in again]).sort().values,
                       rows.inputs)  # fmt: skip
    assert torch.equal(again[0].inputs, batches[0].inputs)


@pytest.mark.parametrize("batch_size", [None, 23, 100])
def test_large_batches_are_the_rows_themselves(rows, generator, batch_size):
    (batch,) = rows.cut(batch_size, generator)
    assert batch is rows


def test_batches_without_ratings_are_left_out(pattern, ratings, generator):
    rows = Rows(pattern, ratings, ratings)
    batches = rows.cut(1, generator)
    assert sorted(batch.pattern.nnz for batch in batches) == [1, 3, 6]
    assert all(batch.weights is None for batch in batches)
    assert all(batch.side is None and batch.effects is None for batch in batches)


def test_rows_on_another_device_have_all_their_parts(rows):
    moved = rows.to(torch.device("meta"))
    assert moved.pattern.col.device.type == moved.pattern.crow.device.type == "meta"
    assert {tensor.device.type for tensor in moved[1:]} == {"meta"}
    assert [t.shape for t in moved[1:]] == [t.shape for t in rows[1:]]
    bare = Rows(*rows[:3]).to(torch.device("meta"))
    assert bare[3:] == (None, None, None)
