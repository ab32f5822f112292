import pytest
import torch

from skrec._core.text_cnn import TextCNN, cut_texts, max_convolution

CPU = torch.device("cpu")
N_WORDS, MAX_WORDS = 12, 20
WINDOWS = (2, 3)


@pytest.fixture
def sequences(generator):
    """Texts of all lengths, from 0 to the width of the array."""
    sequences = torch.randint(1, N_WORDS + 1, (9, MAX_WORDS), generator=generator)
    for i, length in enumerate([0, 1, 2, 3, 7, 12, 18, 19, 20]):
        sequences[i, length:] = 0
    return sequences


def make_network(generator, dtype=torch.float64):
    vectors = torch.randn(N_WORDS + 1, 4, generator=generator, dtype=dtype)
    network = TextCNN(vectors, WINDOWS, 5, 6, 3, generator, CPU)
    for bias in network.filter_biases:
        with torch.no_grad():
            bias.normal_(generator=generator)
    return network


def plain_outputs(network, sequences):
    """The same network with PyTorch's embedding and convolution of padded texts."""
    embedded = torch.nn.functional.embedding(sequences, network.vectors, padding_idx=0)
    features = []
    for filters, bias in zip(network.filters, network.filter_biases, strict=True):
        values = torch.nn.functional.conv1d(
            embedded.transpose(1, 2), filters.permute(2, 1, 0), bias
        )
        features.append(torch.relu(values).amax(2))
    hidden = torch.tanh(torch.cat(features, 1) @ network.hidden + network.hidden_bias)
    return torch.tanh(hidden @ network.output + network.output_bias)


def gradients(network, outputs):
    network.zero_grad()
    outputs.square().sum().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters()}


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)]
)
def test_values_and_gradients_equal_plain_convolution(
    sequences, generator, batch_size, dtype, tolerance
):
    network = make_network(generator, dtype)
    texts = torch.randperm(len(sequences), generator=generator)
    expected = plain_outputs(network, sequences[texts])
    batches = cut_texts(sequences, texts, batch_size, max(WINDOWS))
    found = torch.cat([network(batch) for batch in batches])
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
    wanted = gradients(network, expected)
    for name, grad in gradients(network, found).items():
        torch.testing.assert_close(
            grad, wanted[name], atol=tolerance, rtol=tolerance, msg=name
        )


def test_texts_shorter_than_a_window_are_padded(generator):
    network = make_network(generator)
    short = torch.tensor([[1, 2], [3, 0]])
    (batch,) = cut_texts(short, torch.arange(2), 2, max(WINDOWS))
    padded = torch.nn.functional.pad(short, (0, 1))
    torch.testing.assert_close(network(batch), plain_outputs(network, padded))


def test_texts_that_are_all_shorter_than_a_window_work(generator):
    network = TextCNN(
        torch.randn(N_WORDS + 1, 4, generator=generator),
        (3, 5),
        5,
        6,
        3,
        generator,
        CPU,
    )
    short = torch.tensor([[1, 2, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    (batch,) = cut_texts(short, torch.arange(3), 3, 5)
    found, expected = network(batch), plain_outputs(network, short)
    torch.testing.assert_close(found, expected)
    wanted = gradients(network, expected)
    for name, grad in gradients(network, found).items():
        torch.testing.assert_close(grad, wanted[name], atol=1e-5, rtol=1e-5)


def test_gradients_of_the_maxima_pass_gradcheck(sequences, generator):
    (batch,) = cut_texts(sequences, torch.arange(9), 9, 3)
    vectors = torch.randn(
        len(batch.words), 3, generator=generator, dtype=torch.float64
    ).requires_grad_()
    filters = torch.randn(3, 3, 2, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda v, f: max_convolution(batch, v, f), (vectors, filters.requires_grad_())
    )


def test_batches_have_the_texts_in_their_order_and_their_words_once(sequences):
    texts = torch.tensor([8, 0, 3, 5])
    batches = cut_texts(sequences, texts, 3, 3)
    assert [batch.texts.tolist() for batch in batches] == [[8, 0, 3], [5]]
    for batch in batches:
        assert batch.words[0] == 0
        assert (batch.words.diff() > 0).all()
        for rows, words in batch.buckets:
            originals = sequences[batch.texts[rows]]
            width = words.shape[1]
            assert torch.equal(batch.words[words], originals[:, :width])
            assert not originals[:, width:].any()


def test_buckets_are_not_longer_than_their_texts_need(generator):
    sequences = torch.ones(100, 300, dtype=torch.int64)
    for i in range(100):
        sequences[i, 3 * i :] = 0
    (batch,) = cut_texts(sequences, torch.arange(100), 100, 5)
    cells = sum(words.numel() for _, words in batch.buckets)
    assert cells < 1.2 * (sequences != 0).sum() + 100 * 12


def test_a_bucket_has_texts_of_at_most_a_quarter_and_eight_more_words():
    sequences = torch.ones(5, 30, dtype=torch.int64)
    for i, length in enumerate([18, 8, 19, 8, 0]):
        sequences[i, length:] = 0
    (batch,) = cut_texts(sequences, torch.tensor([0, 1, 2, 3]), 10, 4)
    assert [rows.tolist() for rows, _ in batch.buckets] == [[1, 3, 0], [2]]
    assert [words.shape[1] for _, words in batch.buckets] == [22, 23]


def test_texts_of_equal_length_stay_in_order():
    (batch,) = cut_texts(torch.ones(500, 3).long(), torch.arange(500), 500, 2)
    ((rows, _),) = batch.buckets
    assert torch.equal(rows, torch.arange(500))


def test_a_batch_on_another_device_has_all_its_parts(sequences):
    (batch,) = cut_texts(sequences, torch.arange(9), 9, 3)
    moved = batch.to(torch.device("meta"))
    for before, after in [
        (batch.texts, moved.texts),
        (batch.words, moved.words),
        *zip(sum(batch.buckets, ()), sum(moved.buckets, ()), strict=True),
    ]:
        assert after.device.type == "meta"
        assert after.shape == before.shape


def test_initial_weights_are_uniform_with_the_variance_of_glorot():
    vectors = torch.ones(3, 30, dtype=torch.float64)
    network = TextCNN(
        vectors, (2, 5), 80, 60, 40, torch.Generator().manual_seed(0), CPU
    )
    assert vectors.all()
    assert network.vectors[1:].all()
    sizes = [2 * 30 + 80, 5 * 30 + 80, 2 * 80 + 60, 60 + 40]
    drawn = [*network.filters, network.hidden, network.output]
    for weights, size in zip(drawn, sizes, strict=True):
        limit = (6 / size) ** 0.5
        assert 0.97 * limit < weights.max() < limit
        assert -limit < weights.min() < -0.97 * limit
    biases = [*network.filter_biases, network.hidden_bias, network.output_bias]
    assert not any(bias.any() for bias in biases)
    assert {p.dtype for p in network.parameters()} == {torch.float64}


@pytest.mark.parametrize("squashes", [True, False])
def test_a_network_of_a_state_has_its_outputs(sequences, generator, squashes):
    vectors = torch.randn(N_WORDS + 1, 4, generator=generator)
    options = {} if squashes else {"squashes": False}
    network = TextCNN(vectors, WINDOWS, 5, 6, 3, generator, CPU, **options)
    with torch.no_grad():
        network.output.normal_(generator=generator)
    same = TextCNN.from_weights(network.state_dict(), CPU, **options)
    (batch,) = cut_texts(sequences, torch.arange(9), 9, 3)
    assert torch.equal(same(batch), network(batch))
    assert (network(batch).abs().max() < 1) == squashes


def test_linear_outputs_begin_at_zero(sequences, generator):
    vectors = torch.randn(N_WORDS + 1, 4, generator=generator)
    network = TextCNN(vectors, WINDOWS, 5, 6, 3, generator, CPU, squashes=False)
    (batch,) = cut_texts(sequences, torch.arange(9), 9, 3)
    assert not network(batch).any()


def test_the_padding_vector_stays_zero(sequences, generator):
    network = make_network(generator)
    (batch,) = cut_texts(sequences, torch.arange(9), 9, 3)
    grads = gradients(network, network(batch))
    assert not network.vectors[0].any()
    assert not grads["vectors"][0].any()


def test_dropout_acts_on_the_hidden_units(sequences, generator):
    network = make_network(generator)
    (batch,) = cut_texts(sequences, torch.arange(9), 9, 3)
    outputs = network(batch, drop=torch.zeros_like)
    expected = torch.tanh(network.output_bias).expand(9, -1)
    torch.testing.assert_close(outputs, expected)


def test_word_dropout_removes_a_word_from_all_texts(sequences, generator):
    network = make_network(generator)
    (batch,) = cut_texts(sequences, torch.arange(9), 9, 3)
    word = int(batch.words[3])
    kept = torch.ones(len(batch.words), 1, dtype=torch.float64)
    kept[3] = 0
    outputs = network(batch, drop_words=lambda is_word: is_word * kept)
    with torch.no_grad():
        network.vectors[word] = 0
    torch.testing.assert_close(outputs, network(batch))
