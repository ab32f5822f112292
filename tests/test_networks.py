import numpy as np
import pytest
import torch
from helpers import random_sparse

from skrec._core import networks
from skrec._core.batches import InputTransform
from skrec._core.networks import (
    ACTIVATIONS,
    Autoencoder,
    AutoencoderWeights,
    OutputActivation,
)
from skrec._core.sparse import Pattern
from skrec._core.training import PenalizedLoss

CPU = torch.device("cpu")


def make_network(
    n_visible, sizes, generator, activation="sigmoid", output="identity", centered=False
):
    weights = AutoencoderWeights.draw(
        n_visible, sizes, activation, 0.5, generator, torch.float64
    )
    # Scaled up so that every part of the network has an effect.
    weights.encoder[0] *= 50
    weights.decoder *= 50
    for bias in weights.encoder_biases:
        bias.normal_(generator=generator)
    output = OutputActivation(output, 1.0, 5.0)
    return Autoencoder(weights, activation, output, CPU, centered)


@pytest.fixture
def data(rng):
    matrix = random_sparse(rng, (6, 10), 0.4)
    pattern = Pattern(
        torch.tensor(matrix.indptr), torch.tensor(matrix.indices), matrix.shape
    )
    return matrix, pattern, torch.tensor(matrix.data)


def reconstruct_densely(matrix, weights, activation, output):
    """h(r) = f(W g(... g(V r + mu)) + b), the formula of the paper."""
    code = torch.tensor(matrix.toarray())
    for weight, bias in zip(weights.encoder, weights.encoder_biases, strict=True):
        code = ACTIVATIONS[activation](code @ weight + bias)
    return OutputActivation(output, 1.0, 5.0)(
        code @ weights.decoder.T + weights.decoder_bias
    )


@pytest.mark.parametrize(
    ("sizes", "n", "layers"),
    [
        ([7], 1, [0]),
        ([7, 7], 1, [0]),
        ([7, 5, 7], 1, [0]),
        ([7, 5, 7], 2, [0, 1, 2]),
        ([7, 5, 5, 7], 2, [0, 1, 3]),
        ([7, 5, 4, 5, 7], 2, [0, 1, 4]),
        ([7, 5, 4, 5, 7], 5, [0, 1, 2, 3, 4]),
    ],
)
def test_outer_layers_are_an_autoencoder(data, generator, sizes, n, layers):
    matrix, pattern, values = data
    network = make_network(10, sizes, generator)
    network.use_outer(n)
    found = network.decode(pattern, network.encode(pattern, values))
    weights = network.weights()
    weights.encoder = [weights.encoder[i] for i in layers]
    weights.encoder_biases = [weights.encoder_biases[i] for i in layers]
    dense = reconstruct_densely(matrix, weights, "sigmoid", "identity")
    torch.testing.assert_close(found, dense[pattern.row, pattern.col])
    found.sum().backward()
    moved = {id(p) for p in network.parameters() if p.grad is not None}
    assert moved == {id(p) for p in network.used()}
    biases = {id(network.decoder_bias), *map(id, network.encoder_biases)}
    assert {id(p) for p in network.penalized()} == moved - biases


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("output", sorted(ACTIVATIONS))
def test_reconstructions_equal_the_dense_formula(data, generator, activation, output):
    matrix, pattern, values = data
    network = make_network(10, [7], generator, activation, output)
    found = network.decode(pattern, network.encode(pattern, values))
    dense = reconstruct_densely(matrix, network.weights(), activation, output)
    torch.testing.assert_close(
        found.detach(), dense[pattern.row.long(), pattern.col.long()]
    )


@pytest.mark.parametrize("sizes", [[7], [5, 4], [6, 3, 6]])
def test_reconstructions_equal_the_dense_formula_at_any_depth(data, generator, sizes):
    matrix, pattern, values = data
    network = make_network(10, sizes, generator, "tanh")
    found = network.decode(pattern, network.encode(pattern, values))
    dense = reconstruct_densely(matrix, network.weights(), "tanh", "identity")
    torch.testing.assert_close(
        found.detach(), dense[pattern.row.long(), pattern.col.long()]
    )


@pytest.mark.parametrize("sizes", [[7], [5, 4]])
def test_a_centered_code_is_less_that_of_an_empty_row(data, generator, sizes):
    _, pattern, values = data
    centered = make_network(10, sizes, generator, centered=True)
    plain = Autoencoder(centered.weights(), "sigmoid", centered.out_activation, CPU)
    empty = Pattern(torch.tensor([0, 0]), torch.tensor([], dtype=torch.int32), (1, 10))
    of_empty = plain.encode(empty, values[:0])
    assert of_empty.any()
    found = centered.encode(pattern, values)
    torch.testing.assert_close(found, plain.encode(pattern, values) - of_empty)
    assert not centered.encode(empty, values[:0]).any()


def test_side_information_adds_to_the_sums_of_the_first_layer(data, generator, rng):
    matrix, pattern, values = data
    weights = AutoencoderWeights.draw(
        10, [5, 4], "tanh", 0.5, generator, torch.float64, n_side=3
    )
    assert weights.side.shape == (3, 5)
    assert 0 < weights.side.std() < 0.03
    weights.side *= 50
    weights.encoder[1] *= 2
    network = Autoencoder(weights, "tanh", OutputActivation("identity", 1, 5), CPU)
    side = torch.tensor(rng.standard_normal((6, 3)))
    sums = torch.tensor(matrix.toarray()) @ weights.encoder[0]
    for given, added in [(side, side @ weights.side), (None, 0)]:
        expected = ((sums + added).tanh() @ weights.encoder[1]).tanh()
        torch.testing.assert_close(network.encode(pattern, values, given), expected)
    torch.testing.assert_close(network.weights().side, weights.side)
    for parameters in (network.penalized(), network.used()):
        assert any(p is network.side for p in parameters)


def test_dropout_applies_to_every_hidden_layer(data, generator):
    matrix, pattern, values = data
    network = make_network(10, [5, 4], generator, "tanh")
    weights = network.weights()
    inner = torch.tensor(matrix.toarray()) @ weights.encoder[0]
    inner = 2 * (inner + weights.encoder_biases[0]).tanh()
    expected = 2 * (inner @ weights.encoder[1] + weights.encoder_biases[1]).tanh()
    found = network.encode(pattern, values, drop=lambda units: 2 * units)
    torch.testing.assert_close(found, expected)


def test_dropped_units_of_a_centered_network_are_zero(data, generator):
    _, pattern, values = data
    network = make_network(10, [5, 4], generator, centered=True)
    codes = network.encode(pattern, values, drop=lambda units: units * 0)
    assert not codes.any()


@pytest.mark.parametrize("penalty", [None, 0.7])
def test_left_out_ratings_equal_rows_without_them(data, generator, penalty):
    matrix, pattern, values = data
    network = make_network(10, [5, 4], generator, centered=True)
    transform = InputTransform(center=-3.0, mean_count=2.5, exponent=0.5, unit=1.3)
    found = network.leave_one_out(pattern, values, transform, penalty)
    row = matrix.tocoo().row
    for j in range(matrix.nnz):
        kept = np.flatnonzero((row == row[j]) & (np.arange(matrix.nnz) != j))
        crow, col = torch.tensor([0, len(kept)]), torch.tensor(matrix.indices[kept])
        others = Pattern(crow, col, (1, 10))
        ratings = values[kept]
        mean = 0.0
        if penalty is not None:
            mean = ratings.sum() / (len(kept) + penalty)
        code = network.encode(others, transform(others, ratings - mean))
        item = matrix.indices[j]
        expected = mean + code @ network.decoder[item] + network.decoder_bias[item]
        torch.testing.assert_close(found[j : j + 1], expected.detach())


def test_gradients_of_the_objective_equal_the_dense_formula(data, generator):
    matrix, pattern, values = data
    network = make_network(10, [5, 4], generator)
    penalty = 0.7

    def loss(_):
        codes = network.encode(pattern, values)
        return (network.decode(pattern, codes) - values).square().sum()

    parameters = list(network.parameters())
    found = PenalizedLoss(loss, parameters, network.penalized(), penalty)(None)

    weights = network.weights()
    dense = [*weights.encoder, *weights.encoder_biases, weights.decoder]
    for tensor in (*dense, weights.decoder_bias):
        tensor.requires_grad_()
    error = reconstruct_densely(matrix, weights, "sigmoid", "identity") - torch.tensor(
        matrix.toarray()
    )
    observed = torch.tensor(matrix.toarray() != 0)
    expected = (error * observed).square().sum()
    for weight in (*weights.encoder, weights.decoder):
        expected = expected + penalty / 2 * weight.square().sum()
    expected.backward()

    assert found == pytest.approx(expected.item())
    for found, weight in zip(network.encoder, weights.encoder, strict=True):
        torch.testing.assert_close(found.grad, weight.grad)
    torch.testing.assert_close(network.decoder.grad, weights.decoder.grad)
    torch.testing.assert_close(network.decoder_bias.grad, weights.decoder_bias.grad)
    for found, bias in zip(network.encoder_biases, weights.encoder_biases, strict=True):
        torch.testing.assert_close(found.grad, bias.grad)


def test_weights_do_not_share_memory_with_the_network(generator):
    weights = AutoencoderWeights.draw(10, [7], "tanh", 1.0, generator, torch.float32)
    before = weights.decoder.clone()
    network = Autoencoder(weights, "tanh", OutputActivation("identity", 1, 5), CPU)
    with torch.no_grad():
        network.decoder.zero_()
    assert torch.equal(weights.decoder, before)
    network = make_network(10, [7], generator)
    weights = network.weights()
    weights.decoder.zero_()
    weights.encoder[0].zero_()
    assert network.decoder.any()
    assert network.encoder[0].any()


@pytest.mark.parametrize(("activation", "gain"), [("tanh", 1), ("sigmoid", 4)])
def test_initial_weights_have_the_scale_of_the_paper(generator, activation, gain):
    weights = AutoencoderWeights.draw(
        2000, [100, 50], activation, 3.5, generator, torch.float32
    )
    assert weights.encoder[0].std().item() == pytest.approx(0.01, rel=0.01)
    assert weights.decoder.std().item() == pytest.approx(0.01, rel=0.01)
    assert weights.encoder[1].std().item() == pytest.approx(
        gain * (2 / 150) ** 0.5, rel=0.05
    )
    assert (weights.decoder_bias == 3.5).all()


def test_initial_weights_are_drawn_by_the_generator_in_the_given_precision():
    one, other = (
        AutoencoderWeights.draw(
            8, [3, 2], "tanh", 3.5, torch.Generator().manual_seed(1), torch.float64,
            n_side=2,
        )
        for _ in range(2)
    )  # fmt: skip
    tensors = [
        [w.side, w.decoder, w.decoder_bias, *w.encoder, *w.encoder_biases]
        for w in (one, other)
    ]
    assert all(map(torch.equal, *tensors))
    assert {t.dtype for t in tensors[0]} == {torch.float64}


@pytest.mark.parametrize(("name", "low"), [("sigmoid", 1.0), ("tanh", 1.0)])
def test_bounded_outputs_map_onto_the_training_range(name, low):
    output = OutputActivation(name, low, 5.0)
    ends = output(torch.tensor([-50.0, 0.0, 50.0]))
    np.testing.assert_allclose(ends, [1, 3, 5], atol=1e-6)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_outputs_start_near_the_mean_with_a_nonzero_slope(name):
    output = OutputActivation(name, 1.0, 5.0)
    start = torch.tensor(output.start(3.5), requires_grad=True)
    rating = output(start)
    rating.backward()
    assert rating.item() == pytest.approx(3.5, abs=0.2)
    assert start.grad.abs() > 0.1


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_bounded_outputs_start_a_twentieth_of_the_range_from_its_ends(name):
    output = OutputActivation(name, 1.0, 5.0)
    assert output.range == (1.0, 5.0)
    starts = torch.tensor([output.start(rating) for rating in (1.0, 1.5, 4.5, 5.0)])
    torch.testing.assert_close(output(starts), torch.tensor([1.2, 1.5, 4.5, 4.8]))


def test_outputs_of_a_constant_range_start_finite():
    assert np.isfinite(OutputActivation("sigmoid", 3.0, 3.0).start(3.0))


def test_activations_match_the_documentation():
    assert sorted(networks.ACTIVATIONS) == [
        "elu",
        "identity",
        "relu",
        "selu",
        "sigmoid",
        "tanh",
    ]
