"""transformers' common tests for every family, with the configurations of its `tests/models/test_<model_type>.py`.

ConvNext of transformers itself is the yardstick: tests that it skips are the only ones a family may skip.
"""

import importlib.util
import sys
import unittest
from importlib.machinery import ModuleSpec
from pathlib import Path

from backbone_suite import BackboneSuite, ModelSuite, ViTSuite
from transformers import ConvNextBackbone, ConvNextConfig, ConvNextForImageClassification, ConvNextModel

from hf_models.auto import FAMILIES

CONVNEXT = (ConvNextConfig, ConvNextModel, ConvNextForImageClassification, ConvNextBackbone)
CONVNEXT_KWARGS = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}


def own_module(name: str):
    """A module of our tests."""
    if "own_tests" not in sys.modules:  # here the name `tests` is that of transformers' own
        spec = ModuleSpec("own_tests", None, is_package=True)
        spec.submodule_search_locations = [str(Path(__file__).parents[2])]
        sys.modules["own_tests"] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"own_tests.{name}")


def own_tests(model_type: str) -> dict[str, dict]:
    """Name -> `config_kwargs` of each class in a family's test file."""
    module, tester = own_module(f"models.test_{model_type}"), own_module("harness.model_tester").ModelTester
    classes = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    return {
        name.removeprefix("Test"): value.config_kwargs
        for name, value in classes.items()
        if issubclass(value, tester) and value is not tester
    }


def add_suites(family: tuple[type, ...], configurations: dict[str, dict]) -> None:
    """Add the test classes of a family to this module, under names that begin with its model_type."""
    config, *models = family
    model_suite = ModelSuite if hasattr(config(), "hidden_sizes") else ViTSuite
    suites = {name: (model_suite, kwargs, models) for name, kwargs in configurations.items()}
    suites["Backbone"] = (BackboneSuite, next(iter(configurations.values())), models[-1:])
    for name, (suite, kwargs, classes) in suites.items():
        name = f"{config.model_type}__{name}"
        attributes = {"config_class": config, "config_kwargs": kwargs, "all_model_classes": tuple(classes)}
        globals()[name] = type(name, (suite, unittest.TestCase), attributes)


add_suites(CONVNEXT, {"ConvNext": CONVNEXT_KWARGS})
for registered in FAMILIES:
    add_suites(registered, own_tests(registered[0].model_type))
