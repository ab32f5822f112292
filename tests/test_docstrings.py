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

# Entries that mean something else in some class, and why.
EXCEPTIONS = {
    "alpha": "the objective that it belongs to differs",
    "batch_size": "a batch has items, cases or texts",
    "device": "CTR and the baseline compute a part of the fit on the CPU",
    "dropout": "the networks differ",
    "early_stopping": "LLORMA counts local models",
    "fit_biases": "the prior mean of item biases differs",
    "hidden_layer_sizes": "the networks differ",
    "input_dropout": "ratings or words are left out",
    "intercept_": "AutoRec and the baseline have no fit_intercept",
    "item_biases_": "effects in the baseline, zeros in PMF",
    "item_factors_": "ones in the baseline, samples in BayesianMF, codes in AutoRec",
    "kind": "the sides of the models have different names",
    "lambda_u": "the vectors that are penalized differ",
    "lambda_v": "the prior means differ",
    "learning_rate_init": "the optimizers differ",
    "loss_curve_": "the loss differs",
    "max_iter": "the work of an iteration differs",
    "n_factors": "what the number also stands for differs",
    "n_iter_no_change": "LLORMA counts local models",
    "random_state": "what is random differs",
    "tol": "LLORMA uses it for each local model",
    "user_biases_": "zeros in the baseline and in PMF",
    "user_factors_": "more is said of samples, weights and effects",
    "validation_scores_": "the baseline and BayesianMF do not stop early",
    "vectorizer": "the kind of document differs",
    "verbose": "the baseline has a single iteration",
    "warm_start": "what is continued differs",
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
    assert several == {name for name in EXCEPTIONS if name in wordings}


def test_user_factors_mean_one_thing():
    meaning = "Factors of the users: what `transform` returns for the users in `fit`."
    for cls in CLASSES:
        found = {n: d for n, _, d in entries(ClassDoc(cls), "Attributes")}
        assert found["user_factors_"].startswith(meaning)


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
