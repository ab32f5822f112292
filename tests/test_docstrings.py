"""Docstrings say what the code does, and the same thing in the same words."""

import ast
import functools
import inspect
import re
from collections import Counter, defaultdict

import pandas as pd
import pytest
from helpers import RECOMMENDERS, TEXT_CLASSES, name_of
from numpydoc.docscrape import ClassDoc, FunctionDoc
from sklearn.base import clone

import skrec
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples

CLASSES = [
    value
    for value in (getattr(skrec, name) for name in skrec.__all__)
    if hasattr(value, "fit")
]

# Classes (without "Regressor") whose description of an entry is not the common one.
EXCEPTIONS = {
    "ConvergenceWarning": (
        "AutoRec RBM CDL ConvMF CTR LLORMA BayesianMF",
        "not all objectives converge",
    ),
    "alpha": ("RBM", "the scale is that of a log-likelihood"),
    "baseline": ("RBM", "a machine, not a network"),
    "batch_size": ("AutoRec RBM", "a batch has rows or cases, not texts"),
    "device": ("Baseline CTR", "a part of the fit runs on the CPU"),
    "early_stopping": ("LLORMA", "counts local models"),
    "fit_biases": (
        "CTR ConvMF",
        "the prior mean of the biases is their mean, needs penalties as numbers",
    ),
    "hidden_layer_sizes": ("CDL", "layers on both sides of the code"),
    "input_dropout": ("CDL", "drops words, not ratings"),
    "intercept_": ("AutoRec Baseline BayesianMF", "no fit_intercept"),
    "item_biases_": ("Baseline PMF", "effects, zeros"),
    "implicit": ("BayesianMF", "a boolean"),
    "item_effects_": ("RBM", "always standardized, not only an input"),
    "item_factors_": ("AutoRec Baseline BayesianMF", "codes, ones, samples"),
    "item_prior_covariance_": ("BayesianMF", "always estimated"),
    "item_prior_mean_": ("BayesianMF", "always estimated"),
    "item_feature_blocks_": ("ConvMF", "also of the texts"),
    "item_encoder_": ("AutoRec BayesianMF", "whatever the penalties"),
    "item_feature_weights_": (
        "AutoRec BayesianMF ConvMF",
        "of hidden units, of all factors, also of the texts",
    ),
    "item_features": ("AutoRec", 'only with kind="item"'),
    "item_texts": ("AutoRec", 'only with kind="item"'),
    "kind": ("RBM", "cases, not rows to reconstruct"),
    "lambda_u": ("Baseline BiasedMF ConvMF LLORMA SVDpp", "auto, other vectors"),
    "lambda_v": ("Baseline CDL CTR ConvMF PMF", "no auto, other means"),
    "lambda_w": ("ConvMF", "another scale with estimated penalties"),
    "learning_rate_init": ("CDL ConvMF", "a constant step size"),
    "loss_curve_": ("AutoRec Baseline BayesianMF LLORMA RBM", "other losses"),
    "max_iter": (
        "AutoRec BayesianMF CDL ConvMF LLORMA RBM SVDpp",
        "other work in an iteration",
    ),
    "memory": ("AutoRec BayesianMF BiasedMF ConvMF SVDpp", "also encoders"),
    "n_factors": (
        "BayesianMF BiasedMF CDL CTR ConvMF LLORMA SVDpp",
        "other advice, or also the size of something else",
    ),
    "n_hidden": ("RBM", "names the symbol of the paper"),
    "n_iter_no_change": ("LLORMA", "also counts local models"),
    "noise_variance_": ("BayesianMF", "always estimated"),
    "random_state": ("Baseline", "nothing is random"),
    "sample_weight": ("BayesianMF RBM", "weights precisions, gradients"),
    "tol": ("LLORMA", "for each local model"),
    "user_biases_": ("Baseline PMF", "zeros"),
    "user_feature_blocks_": ("ConvMF", "also of the texts"),
    "user_encoder_": ("AutoRec BayesianMF", "whatever the penalties"),
    "user_feature_weights_": (
        "AutoRec BayesianMF ConvMF",
        "of hidden units, of all factors, also of the texts",
    ),
    "user_features": ("AutoRec", 'only with kind="user"'),
    "user_links_": ("BayesianMF", "samples"),
    "user_prior_covariance_": ("BayesianMF", "always estimated"),
    "user_prior_mean_": ("BayesianMF", "always estimated"),
    "user_effects_": ("RBM", "always standardized, not only an input"),
    "user_factors_": (
        "AutoRec Baseline BayesianMF BiasedMF ConvMF LLORMA RBM SVDpp",
        "adds where they come from",
    ),
    "validation_scores_": ("Baseline BayesianMF LLORMA", "always empty, per model"),
    "vectorizer": ("CDL CTR", "bags of words, not sequences"),
    "warm_start": ("AutoRec CDL CTR ConvMF RBM", "continues other parameters"),
}


def entries(doc, section):
    """Names, types and descriptions of a section, one entry for each name."""
    for entry in doc[section]:
        for name in (entry.name or entry.type).split(","):
            yield name.strip(), entry.type, " ".join(" ".join(entry.desc).split())


@functools.cache
def wordings():
    """Descriptions by the name of the entry, then by the name of the class."""
    found = defaultdict(dict)
    for cls in CLASSES:
        own, fit = ClassDoc(cls), FunctionDoc(cls.fit)
        sections = [(own, "Parameters"), (own, "Attributes")]
        sections += [(fit, "Parameters"), (fit, "Raises"), (fit, "Warns")]
        for doc, section in sections:
            for name, _, description in entries(doc, section):
                found[name][cls.__name__.removesuffix("Regressor")] = description
    return found


@pytest.mark.parametrize("cls", CLASSES)
def test_parameters_are_documented_in_order_with_their_defaults(cls):
    documented = list(entries(ClassDoc(cls), "Parameters"))
    parameters = inspect.signature(cls).parameters
    assert [name for name, *_ in documented] == list(parameters)
    for name, kind, _ in documented:
        found = re.search(r"default=(.*)$", kind)
        assert found, f"{name} has no default in {kind!r}"
        assert repr(ast.literal_eval(found[1])) == repr(parameters[name].default)


@pytest.mark.parametrize("name", sorted(wordings()))
def test_what_classes_share_is_worded_identically(name):
    described = wordings()[name]
    exceptions = set(EXCEPTIONS.get(name, ("", ""))[0].split())
    common = Counter(d for cls, d in described.items() if cls not in exceptions)
    assert len(common) == 1
    different = {cls for cls, text in described.items() if text not in common}
    assert different == exceptions  # unneeded exceptions fail, too


def test_exceptions_are_about_documented_entries():
    assert set(EXCEPTIONS) <= set(wordings())


def test_user_factors_mean_one_thing():
    meaning = "Factors of the users: what `transform` returns for the users in `fit`."
    assert all(d.startswith(meaning) for d in wordings()["user_factors_"].values())


@pytest.mark.filterwarnings("ignore:.* stopped at max_iter")
@pytest.mark.parametrize("recommender", RECOMMENDERS, ids=name_of)
def test_attributes_are_those_of_a_fitted_model(recommender):
    data = make_ratings(30, 20, random_state=0)
    X, y = ratings_to_samples(data.R)
    texts = {"item_texts": dict(enumerate(data.item_texts))}
    arguments = texts if isinstance(recommender, TEXT_CLASSES) else {}
    frame = pd.DataFrame(X, columns=["user", "item"])
    model = clone(recommender).fit(frame, y, **arguments)
    attributes = {n for n in vars(model) if n.endswith("_") and not n.startswith("_")}
    if isinstance(getattr(type(model), "user_factors_", None), property):
        attributes.add("user_factors_")
    documented = {name for name, *_ in entries(ClassDoc(type(model)), "Attributes")}
    assert documented == attributes


@pytest.mark.parametrize("cls", CLASSES)
def test_public_methods_document_their_arguments(cls):
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if name.startswith("_") or not method.__module__.startswith("skrec"):
            continue
        doc = FunctionDoc(method)
        assert "".join(doc["Summary"]), f"{name} has no summary"
        documented = [n for n, *_ in entries(doc, "Parameters")]
        signature = inspect.signature(inspect.unwrap(method))
        expected = [n for n in signature.parameters if n != "self"]
        assert [n.lstrip("*") for n in documented] == expected, name
