"""Accuracy of models on real data, speed beside their peers. Installed as `hf_models.evaluate`."""

if __name__ == "evaluate":
    raise ImportError(
        "evaluate: this folder of the hf_models repository hides the library of the same name, because Python was "
        "started in the repository. Import `hf_models.evaluate` (after `pip install -e .`), or start Python elsewhere."
    )
