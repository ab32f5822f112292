import numpy as np
import pytest
import scipy.sparse as sp
from helpers import Interrupt, StopAfter, random_sparse, standardized, to_ratings
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import r2_score, root_mean_squared_error
from sklearn.model_selection import cross_val_score

from skrec import BaselineRegressor, BayesianMFRegressor
from skrec._core.gibbs import GibbsSampler
from skrec._core.variational import Factorization
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples


def make(**params):
    sweeps = {"max_iter": 30, "burn_in": 10, "thinning": 5}
    return BayesianMFRegressor(
        **({"n_factors": 3, "random_state": 0} | sweeps | params)
    )


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "implicit"])
def implicit(request):
    return request.param


@pytest.fixture(scope="module")
def model(R, implicit):
    return make(implicit=implicit).fit(R)


def samples_of(model):
    """Yield the vectors of users and items in each kept sample, in float64."""
    n_samples = model.user_bias_samples_.shape[1]
    users = model.user_factors_.astype(float) * n_samples
    for s, (p, q) in enumerate(
        zip(
            np.split(users, n_samples, axis=1),
            np.split(model.item_factors_.astype(float), n_samples, axis=1),
            strict=True,
        )
    ):
        yield (
            np.column_stack([p, model.user_bias_samples_[:, s]]),
            np.column_stack([q, model.item_bias_samples_[:, s]]),
        )


def sums_of(model):
    """Sums of each sample, of shape (n_samples, n_users, n_items)."""
    return np.stack(
        [u[:, :-1] @ v[:, :-1].T + u[:, -1:] + v[:, -1] for u, v in samples_of(model)]
    )


def std_of(model, variance):
    """Standard deviation of a rating, given the variance of its standardized mean."""
    return model.rating_std_ * np.sqrt(variance + model.noise_variance_)


def conditional(model, row):
    """Yield mean and covariance of the vector of a row's user in each sample."""
    precision = np.linalg.inv(model.user_prior_covariance_.astype(float))
    noise = model.noise_variance_
    for s, (_, v) in enumerate(samples_of(model)):
        Z = np.column_stack([v[:, :-1], np.ones(len(v))])[row.indices]
        targets = standardized(model, row.data) - v[row.indices, -1]
        prior = model.user_prior_mean_.astype(float)
        if model.user_links_ is not None:
            links = model.user_links_[s][row.indices].astype(float)
            prior = prior + links.sum(axis=0) / np.sqrt(row.nnz)
        covariance = np.linalg.inv(precision + Z.T @ Z / noise)
        yield covariance @ (precision @ prior + Z.T @ targets / noise), covariance


def test_pairs_are_predicted_as_the_mean_of_the_samples(model, pairs):
    X, _ = pairs
    each = sums_of(model)[:, X[:, 0], X[:, 1]]
    ratings, std = model.predict(X, return_std=True)
    expected = to_ratings(model, each.mean(axis=0))
    np.testing.assert_allclose(ratings, expected, atol=1e-4)
    np.testing.assert_allclose(std, std_of(model, each.var(axis=0)), atol=1e-4)


def test_rows_are_predicted_from_the_conditional_distribution(model, R):
    rows = R[:4]
    ratings, std = model.predict(rows, return_std=True)
    for u in range(4):
        found = []
        pairs = zip(conditional(model, rows[[u]]), samples_of(model), strict=True)
        for (mean, covariance), (_, v) in pairs:
            Z = np.column_stack([v[:, :-1], np.ones(len(v))])
            center = Z @ mean + v[:, -1]
            found.append((center, np.einsum("ij,jk,ik->i", Z, covariance, Z)))
        centers, variances = map(np.array, zip(*found, strict=True))
        expected = to_ratings(model, centers.mean(axis=0))
        np.testing.assert_allclose(ratings[u], expected, atol=1e-4)
        expected = std_of(model, centers.var(axis=0) + variances.mean(axis=0))
        np.testing.assert_allclose(std[u], expected, atol=1e-4)


def test_transform_concatenates_the_conditional_means(model, R):
    means = np.stack([mean for mean, _ in conditional(model, R[[3]])])
    expected = means[:, :-1].ravel() / len(means)
    np.testing.assert_allclose(model.transform(R[[3]])[0], expected, atol=1e-5)
    assert len(model.get_feature_names_out()) == len(expected)


def test_chunk_sizes_do_not_change_predictions(model, R, pairs, monkeypatch):
    before = *model.predict(R, True), *model.predict(pairs[0], True), model.score(R)
    monkeypatch.setattr("skrec._core.chunks.CHUNK", 1000)
    after = *model.predict(R, True), *model.predict(pairs[0], True), model.score(R)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_unseen_users_and_items_get_means_and_the_spread_of_ratings(model, R, pairs):
    ratings, std = model.predict([[1000, 3], [2, 1000], [1000, 1000]], True)
    expected = [model.item_means_[3], model.user_means_[2], model.global_mean_]
    np.testing.assert_allclose(ratings, expected)
    np.testing.assert_allclose(std, np.std(pairs[1]))
    empty = sp.csr_array((1, R.shape[1]))
    ratings, std = model.predict(empty, return_std=True)
    np.testing.assert_allclose(ratings[0], model.item_means_)
    np.testing.assert_allclose(std, np.std(pairs[1]))


def test_predictions_are_accurate_and_their_uncertainty_is_calibrated(implicit):
    data = make_ratings(300, 100, density=0.2, noise=0.5, random_state=1)
    X, y = ratings_to_samples(data.R)
    is_test = np.random.default_rng(0).random(len(y)) < 0.2
    model = make(implicit=implicit, max_iter=80, clip=False)
    model.fit(X[~is_test], y[~is_test])
    ratings, std = model.predict(X[is_test], return_std=True)
    means = np.append(model.item_means_, model.global_mean_)
    baseline = means[np.searchsorted(model.items_, X[is_test, 1])]
    assert r2_score(y[is_test], ratings) > r2_score(y[is_test], baseline) + 0.05
    scores = (y[is_test] - ratings) / std
    assert np.std(scores) == pytest.approx(1, abs=0.1)
    assert np.mean(np.abs(scores) < 1.96) == pytest.approx(0.95, abs=0.03)


def test_averaging_beats_a_single_sample(pairs):
    X, y = pairs
    is_test = np.random.default_rng(0).random(len(y)) < 0.2
    errors = []
    for max_iter in (11, 60):
        model = make(max_iter=max_iter).fit(X[~is_test], y[~is_test])
        errors.append(root_mean_squared_error(y[is_test], model.predict(X[is_test])))
    assert errors[1] < 0.95 * errors[0]


def test_burn_in_and_thinning_select_the_samples(R):
    model = make(max_iter=30, burn_in=10, thinning=8).fit(R)
    whole = make(max_iter=30, burn_in=10, thinning=1).fit(R)
    assert model.n_iter_ == len(model.loss_curve_) == 30
    assert whole.user_bias_samples_.shape == (R.shape[0], 20)
    np.testing.assert_array_equal(
        model.user_bias_samples_, whole.user_bias_samples_[:, [0, 8, 16]]
    )
    assert model.user_factors_.shape == (R.shape[0], 9)


def test_burn_in_must_leave_a_sample(R):
    with pytest.raises(ValueError, match="burn_in=30 leaves no sample of max_iter=30"):
        make(burn_in=30).fit(R)


def test_the_scale_of_the_ratings_does_not_matter(R, implicit):
    model = make(implicit=implicit, dtype="float64")
    ratings, std = model.fit(R).predict(R, return_std=True)
    scaled = R.copy()
    scaled.data = scaled.data * 1e6 - 3e7
    found = clone(model).fit(scaled).predict(scaled, return_std=True)
    np.testing.assert_allclose((found[0] + 3e7) / 1e6, ratings, atol=1e-3)
    np.testing.assert_allclose(found[1] / 1e6, std, rtol=1e-3)


def test_equal_weights_only_scale_the_noise_variance(pairs, implicit):
    # Weights are relative to the noise, whose variance is estimated.
    X, y = pairs
    plain = make(implicit=implicit, dtype="float64").fit(X, y)
    scaled = clone(plain).fit(X, y, sample_weight=np.full(len(y), 0.3))
    assert scaled.noise_variance_ == pytest.approx(0.3 * plain.noise_variance_)
    np.testing.assert_allclose(scaled.predict(X), plain.predict(X), atol=1e-6)


def test_few_ratings_of_each_user_are_not_overfitted(implicit):
    # 5 training ratings a user, most of whose variance is noise
    R = make_ratings(800, 300, density=6.25 / 300, noise=2.0, random_state=0).R
    X, y = ratings_to_samples(R)
    is_test = np.random.default_rng(0).random(len(y)) < 0.2
    model = make(implicit=implicit, n_factors=10, max_iter=300)
    model.fit(X[~is_test], y[~is_test])
    error = np.mean(model.loss_curve_[-50:])
    assert error == pytest.approx(model.noise_variance_, rel=0.1)
    assert error > 0.85
    effects = BaselineRegressor().fit(X[~is_test], y[~is_test])
    errors = [
        root_mean_squared_error(y[is_test], m.predict(X[is_test]))
        for m in (model, effects)
    ]
    assert errors[0] < 1.01 * errors[1]


def test_equal_ratings_are_predicted_as_they_are(R, implicit):
    rows = R.copy()
    rows.data[:] = 3.7
    model = make(implicit=implicit, clip=False).fit(rows)
    np.testing.assert_allclose(model.predict(rows), 3.7, atol=0.02)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_sets_the_precision_of_the_factors(R, implicit, dtype):
    model = make(implicit=implicit, dtype=dtype).fit(R)
    for name in ("user_factors_", "item_factors_", "user_biases_", "item_biases_"):
        assert getattr(model, name).dtype == dtype


@pytest.mark.parametrize("epoch", [4, 17])
def test_an_interrupt_keeps_the_samples_so_far(R, implicit, epoch):
    model = make(implicit=implicit).set_callbacks(Interrupt(epoch))
    with pytest.raises(KeyboardInterrupt):
        model.fit(R)
    assert model.n_iter_ == epoch + 1
    assert model.user_bias_samples_.shape[1] == (1 if epoch < 10 else 2)
    expected = make(implicit=implicit).set_callbacks(StopAfter(epoch + 1)).fit(R)
    np.testing.assert_array_equal(model.predict(R), expected.predict(R))


def test_an_interrupt_within_a_sweep_keeps_the_last_one(R, monkeypatch):
    error, calls = GibbsSampler.error, []

    def interrupted(self):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return error(self)

    expected = make(max_iter=3, burn_in=2).fit(R)
    monkeypatch.setattr(GibbsSampler, "error", interrupted)
    model = make()
    with pytest.raises(KeyboardInterrupt):
        model.fit(R)
    assert model.n_iter_ == 3
    np.testing.assert_array_equal(model.item_factors_, expected.item_factors_)


@pytest.mark.parametrize("cls", [Factorization, GibbsSampler])
def test_an_interrupt_within_the_first_sweeps_stores_nothing(pairs, monkeypatch, cls):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(cls, "sweep", interrupted)
    model, (X, y) = make(), pairs
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_a_failed_draw_warns_and_keeps_the_samples_so_far(R, monkeypatch):
    error, calls = GibbsSampler.error, []

    def failing(self):
        calls.append(None)
        if len(calls) == 16:
            self.users.vectors[0] = np.nan
        return error(self)

    monkeypatch.setattr(GibbsSampler, "error", failing)
    with pytest.warns(
        ConvergenceWarning, match="diverged in epoch 16: .*dtype='float64'"
    ):
        model = make().fit(R)
    assert model.user_bias_samples_.shape[1] == 1
    assert np.isfinite(model.predict(R)).all()


def test_cross_validation_over_users_scores_unseen_users(R, implicit):
    assert cross_val_score(make(implicit=implicit), R, cv=3).mean() > 0.15


def test_users_and_items_without_ratings_are_allowed(implicit, rng):
    R = sp.csr_array(
        sp.block_diag([random_sparse(rng, (30, 20), 0.4), sp.csr_array((2, 3))])
    )
    model = make(implicit=implicit).fit(R)
    ratings, std = model.predict(R, return_std=True)
    assert np.isfinite(ratings).all()
    np.testing.assert_array_equal(ratings[-1], model.item_means_)
    np.testing.assert_array_equal(std[:, -1], model.rating_std_)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"implicit": "yes"}, "implicit"),
        ({"burn_in": -1}, "burn_in"),
        ({"thinning": 0}, "thinning"),
    ],
)
def test_bad_parameters_are_refused(R, params, match):
    with pytest.raises(ValueError, match=match):
        make(**params).fit(R)


def with_cold_items(R, implicit, **params):
    """Model whose first ten items, and five users, have features and no ratings."""
    data = make_ratings(R.shape[0], R.shape[1], random_state=0)
    X, y = ratings_to_samples(R)
    kept = (X[:, 1] >= 10) & (X[:, 0] >= 5)
    params = {"implicit": implicit, "dtype": "float64", "clip": False} | params
    return make(**params).fit(
        X[kept],
        y[kept],
        item_features=dict(enumerate(data.item_factors)),
        user_features=dict(enumerate(data.user_factors)),
    )


def test_samples_of_rows_without_ratings_are_their_prior_means(R, implicit):
    model = with_cold_items(R, implicit)
    for users, items in samples_of(model):
        np.testing.assert_allclose(users[:5], model._user_described_means[:5])
        np.testing.assert_allclose(items[:10], model._item_described_means[:10])
    assert len(np.unique(model._item_described_means[:10, -1])) == 10

    # An unseen user gets about the mean of other users' predictions.
    pairs = np.array([(user, item) for user in range(5, 80) for item in range(10)])
    counts = np.diff(model._seen.indptr)[5:]
    predicted = model.predict(pairs).reshape(75, 10)
    found = model.predict([[1000, item] for item in range(10)])
    np.testing.assert_allclose(found, counts @ predicted / counts.sum(), atol=0.02)


def test_standard_deviations_include_the_prior_covariances(R, implicit):
    """They are those of vectors drawn from the prior."""
    model = with_cold_items(R, implicit)
    rng = np.random.default_rng(0)
    item_root, user_root = (
        np.linalg.cholesky(covariance)
        for covariance in (model.item_prior_covariance_, model.user_prior_covariance_)
    )
    pairs = [(7, 3), (2, 20), (2, 3)]  # new item, new user, both
    draws = [[], [], []]
    for users, items in samples_of(model):
        for (user, item), found in zip(pairs, draws, strict=True):
            u, v = np.tile(users[user], (20000, 1)), np.tile(items[item], (20000, 1))
            if user < 5:
                u += rng.standard_normal(u.shape) @ user_root.T
            if item < 10:
                v += rng.standard_normal(v.shape) @ item_root.T
            found.append((u[:, :-1] * v[:, :-1]).sum(1) + u[:, -1] + v[:, -1])
    expected = [std_of(model, np.var(np.concatenate(found))) for found in draws]
    std = model.predict(pairs, return_std=True)[1]
    np.testing.assert_allclose(std, expected, rtol=0.01)


def test_standard_deviations_of_cold_items_for_rows(R, implicit):
    model = with_cold_items(R, implicit)
    row = R[[9]].copy()
    assert (row.indices < 10).any()
    found = model.predict(row, return_std=True)[1][0, :10]
    C, noise = model.item_prior_covariance_, model.noise_variance_
    precision = np.linalg.inv(model.user_prior_covariance_)
    # Ratings of cold items have a larger variance, that of the average user.
    z = np.append(model.user_prior_mean_[:-1], 1)
    inner = model.user_prior_covariance_ * C
    cold = z @ C @ z + inner[:-1, :-1].sum()
    noises = noise + np.where(row.indices < 10, cold, 0)
    centers, variances = [], []
    for s, (_, items) in enumerate(samples_of(model)):
        Z = np.column_stack([items[:, :-1], np.ones(len(items))])
        rated = Z[row.indices]
        targets = standardized(model, row.data) - items[row.indices, -1]
        prior = model.user_prior_mean_
        if implicit:
            links = model.user_links_[s][row.indices]
            prior = prior + links.sum(axis=0) / np.sqrt(row.nnz)
        S = np.linalg.inv(precision + (rated.T / noises) @ rated)
        mean = S @ (precision @ prior + (rated.T / noises) @ targets)
        z = np.append(mean[:-1], 1)
        centers.append(Z[:10] @ mean + items[:10, -1])
        own = np.einsum("ij,jk,ik->i", Z[:10], S, Z[:10])
        variances.append(own + z @ C @ z + (S * C)[:-1, :-1].sum())
    variance = np.var(centers, axis=0) + np.mean(variances, axis=0)
    np.testing.assert_allclose(found, std_of(model, variance))


def test_standard_deviations_of_cold_items_are_calibrated():
    data = make_ratings(200, 150, density=0.2, n_factors=2, noise=0.5, random_state=1)
    X, y = ratings_to_samples(data.R)
    train = X[:, 1] >= 40
    features = dict(enumerate(data.item_factors))
    model = make(max_iter=60, clip=False)
    model.fit(X[train], y[train], item_features=features)
    ratings, std = model.predict(X[~train], return_std=True)
    assert np.std((y[~train] - ratings) / std) == pytest.approx(1, abs=0.1)


def test_added_items_and_users_are_like_those_of_the_fit(R, implicit):
    """Samples, links and standard deviations of rows that have only features."""
    model = with_cold_items(R, implicit)
    X, _ = ratings_to_samples(R)
    expected = model.predict(X, return_std=True)
    new_items, new_users = model.item_factors_[:2], model.user_factors_[:2]
    encoded = make_ratings(R.shape[0], R.shape[1], random_state=0)
    model.extend_items({1000 + j: encoded.item_factors[j] for j in range(2)})
    model.extend_users({-2 + i: encoded.user_factors[i] for i in range(2)})
    found = model.predict(X, return_std=True)
    # The correction for self-selection depends on the number of cold items.
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-2)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-10)
    np.testing.assert_allclose(model.item_factors_[-2:], new_items)
    np.testing.assert_allclose(model.user_factors_[:2], new_users)
    of_new = [[-2, 20], [7, 1000], [-2, 1001]]
    of_old = [[0, 20], [7, 0], [0, 1]]
    for a, b in zip(*(model.predict(p, True) for p in (of_new, of_old)), strict=True):
        np.testing.assert_allclose(a, b)
    if implicit:
        assert model.user_links_.shape[1] == len(model.items_)
        assert not model.user_links_[:, -2:].any()
    rows = sp.hstack([R, sp.csr_array((R.shape[0], 2))]).tocsr()
    assert np.isfinite(model.predict(rows[:5], return_std=True)).all()
