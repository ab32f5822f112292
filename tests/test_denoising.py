import numpy as np
import pytest
import torch
from helpers import random_sparse

from skrec._core.denoising import DenoisingAutoencoder, _append, cut_bags
from skrec._core.sparse import Pattern


@pytest.fixture(params=[(), (5,), (6, 4)])
def network(request, generator):
    network = DenoisingAutoencoder(
        12, request.param, 3, generator, torch.float64, torch.device("cpu")
    )
    with torch.no_grad():
        for bias in (*network.biases, network.decoder_bias):
            bias.normal_(generator=generator)
    return network


@pytest.fixture
def bags(rng):
    X = random_sparse(rng, (8, 12), 0.3)
    pattern = Pattern(torch.tensor(X.indptr), torch.tensor(X.indices), X.shape)
    return X, (pattern, torch.tensor(X.data))


def dense(network, X):
    """Codes and reconstructions, computed with dense products."""
    layers = [w.detach().numpy() for w in network.layers]
    biases = [b.detach().numpy() for b in network.biases]
    hidden, codes = X.toarray(), None
    for i, (weights, bias) in enumerate(zip(layers, biases, strict=True), 1):
        hidden = np.tanh(hidden @ weights + bias)
        if i == network.n_encoders:
            codes = hidden
    decoder = network.decoder.detach().numpy()
    return codes, hidden @ decoder.T + network.decoder_bias.detach().numpy()


def test_codes_and_errors_equal_dense_products(network, bags):
    X, tensors = bags
    order = torch.tensor([3, 0, 1, 2, 7, 6, 5, 4])
    codes, reconstructed = dense(network, X)
    errors = ((X.toarray() - reconstructed) ** 2).sum(axis=1)
    batches = cut_bags(*tensors, order, 3)
    assert [len(batch.texts) for batch in batches] == [3, 3, 2]
    for batch in batches:
        found = network(batch)
        np.testing.assert_allclose(found.detach(), codes[batch.texts])
        error = network.squared_error(batch, found)
        assert error.item() == pytest.approx(errors[batch.texts].sum())


def test_gradients_equal_a_dense_network(network, bags):
    X, tensors = bags
    (batch,) = cut_bags(*tensors, torch.arange(8), 8)
    network.squared_error(batch, network(batch)).backward()
    found = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    whole = torch.tensor(X.toarray())
    hidden = whole
    for weights, bias in zip(network.layers, network.biases, strict=True):
        hidden = torch.tanh(hidden @ weights + bias)
    reconstructed = hidden @ network.decoder.T + network.decoder_bias
    (whole - reconstructed).square().sum().backward()
    for grad, parameter in zip(found, network.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad)


def test_corruption_changes_the_input_of_the_network(network, bags):
    X, tensors = bags
    (batch,) = cut_bags(*tensors, torch.arange(8), 8)
    expected = dense(network, X * 0)[0]
    found = network(batch, torch.zeros_like)
    np.testing.assert_allclose(found.detach(), expected)


def test_initial_weights_are_uniform_with_the_variance_of_glorot():
    one, other = (
        DenoisingAutoencoder(
            200, (100,), 20, torch.Generator().manual_seed(0), torch.float64,
            torch.device("cpu"),
        )
        for _ in range(2)
    )  # fmt: skip
    assert all(map(torch.equal, one.parameters(), other.parameters()))
    for weights in one.penalized():
        limit = (6 / sum(weights.shape)) ** 0.5
        assert 0.97 * limit < weights.max() < limit
        assert -limit < weights.min() < -0.97 * limit
        assert weights.var().item() == pytest.approx(2 / sum(weights.shape), rel=0.07)
    assert not any(bias.any() for bias in (*one.biases, one.decoder_bias))
    assert {p.dtype for p in one.parameters()} == {torch.float64}


@pytest.mark.parametrize(("k", "width"), [(1, 16), (15, 16), (16, 32), (200, 208)])
def test_an_appended_column_is_followed_by_zeros_up_to_a_multiple_of_16(k, width):
    padded = _append(torch.ones(3, k), torch.full((3,), 2.0))
    expected = torch.tensor([1.0] * k + [2.0] + [0.0] * (width - k - 1))
    assert torch.equal(padded, expected.expand(3, -1))
