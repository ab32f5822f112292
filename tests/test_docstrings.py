"""Docstrings say what the code does, and the same thing in the same words."""

import ast
import inspect
import re
from collections import defaultdict

import pytest
from helpers import RECOMMENDERS, TEXT_CLASSES, name_of
from numpydoc.docscrape import ClassDoc, FunctionDoc
from sklearn.base import clone

import skrec
from skrec.datasets import make_ratings

CLASSES = [value for value in vars(skrec).values() if inspect.isclass(value)]

# Entries that mean something else in a class, and why.
EXCEPTIONS = {
    "n_factors": "defaults and what the number stands for differ",
    "lambda_u": "the vectors that are penalized differ",
    "lambda_v": "the prior means that the vectors are shrunk toward differ",
    "max_iter": "the work of an iteration differs",
    "warm_start": "what is continued differs",
    "random_state": "what is random differs",
    "vectorizer": "the kind of document differs",
    "batch_size": "what a batch consists of differs",
    "alpha": "the objective that it belongs to differs",
    "kind": "the sides of the models have different names",
    "tol": "LLORMA uses it for each local model",
    "early_stopping": "LLORMA counts local models, not iterations",
    "n_iter_no_change": "LLORMA counts local models, not iterations",
    "device": "CTR and the baseline compute a part of the fit on the CPU",
    "verbose": "the baseline has a single iteration",
    "loss_curve_": "the loss differs",
    "validation_scores_": "not all estimators stop early",
    "user_factors_": "BayesianMF holds samples side by side",
    "item_factors_": "BayesianMF holds samples side by side",
    "user_biases_": "samples, zeros or effects in some models",
    "item_biases_": "samples or effects in some models",
    "intercept_": "not all estimators have fit_intercept",
    "text_factors_": "where the factors of a text come from differs",
    "text_biases_": "where the biases of a text come from differs",
    "learning_rate_init": "the optimizers differ",
    "learning_rate": "the optimizers differ",
    "hidden_layer_sizes": "the networks differ",
    "dropout": "the networks differ",
    "input_dropout": "the inputs differ",
    "lambda_w": "the networks differ",
    "text_weights_": "the networks differ",
    "clip": "worded once; the baseline is the reference",
}


def entries(doc, section):
    """Names, types and descriptions of a section, one entry for each name."""
    for entry in doc[section]:
        for name in entry.name.split(","):
            yield name.strip(), entry.type, " ".join(" ".join(entry.desc).split())


@pytest.mark.parametrize("cls", CLASSES)
def test_parameters_are_documented_in_order_with_their_defaults(cls):
    documented = list(entries(ClassDoc(cls), "Parameters"))
    parameters = inspect.signature(cls).parameters
    assert [name for name, *_ in documented] == list(parameters)
    for name, kind, _ in documented:
        found = re.search(r"default=(.*)$", kind)
        assert found, f"{name} has no default in {kind!r}"
        assert ast.literal_eval(found[1]) == parameters[name].default


@pytest.mark.parametrize("section", ["Parameters", "Attributes"])
def test_what_classes_share_is_worded_identically(section):
    wordings = defaultdict(set)
    for cls in CLASSES:
        for name, _, description in entries(ClassDoc(cls), section):
            wordings[name].add(description)
    several = {name for name, found in wordings.items() if len(found) > 1}
    assert several <= set(EXCEPTIONS)


@pytest.mark.parametrize("name", ["X", "y"])
def test_arguments_of_fit_are_worded_identically(name):
    wordings = set()
    for cls in CLASSES:
        for found, _, description in entries(FunctionDoc(cls.fit), "Parameters"):
            if found == name:
                wordings.add(description)
    assert len(wordings) == 1


@pytest.mark.filterwarnings("ignore:.* stopped at max_iter")
@pytest.mark.parametrize("recommender", RECOMMENDERS, ids=name_of)
def test_attributes_are_those_of_a_fitted_model(recommender):
    data = make_ratings(30, 20, random_state=0)
    texts = {"item_texts": data.item_texts}
    arguments = texts if isinstance(recommender, TEXT_CLASSES) else {}
    model = clone(recommender).fit(data.R, **arguments)
    attributes = {n for n in vars(model) if n.endswith("_") and not n.startswith("_")}
    attributes.add("feature_names_in_")  # after a fit on a frame
    if isinstance(getattr(type(model), "user_factors_", None), property):
        attributes.add("user_factors_")
    documented = {name for name, *_ in entries(ClassDoc(type(model)), "Attributes")}
    assert documented == attributes


@pytest.mark.parametrize("cls", CLASSES)
def test_public_methods_document_their_arguments(cls):
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if name.startswith("_") or not method.__module__.startswith("skrec"):
            continue
        documented = [n for n, *_ in entries(FunctionDoc(method), "Parameters")]
        signature = inspect.signature(inspect.unwrap(method))
        expected = [n for n in signature.parameters if n != "self"]
        assert [n.lstrip("*") for n in documented] == expected, name
