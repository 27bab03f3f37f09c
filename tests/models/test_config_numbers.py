"""Whole numbers where a config wants a float, as people and YAML write them; nothing else is taken for a number."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import AutoConfig, AutoModelForImageClassification

from hf_models.auto import FAMILIES
from hf_models.configuration_base import HierarchicalConfig

from ..harness.hub_tester import TINY

# the fields of others are transformers'
CONFIGS = {config.model_type: config for config, *_ in FAMILIES if issubclass(config, HierarchicalConfig)}
FLOATS = [
    (model_type, name)
    for model_type, config in CONFIGS.items()
    for name, default in vars(config()).items()
    if isinstance(default, float) and not name.startswith("_")
]


@pytest.mark.parametrize(("model_type", "name"), FLOATS)
def test_a_whole_number_is_a_number(model_type, name):
    whole = 0 if name.endswith(("_rate", "_prob")) else 1
    assert getattr(CONFIGS[model_type](**{name: whole}), name) == whole
    for wrong in (None, True, "1"):
        with pytest.raises(StrictDataclassFieldValidationError, match=name):
            CONFIGS[model_type](**{name: wrong})


@pytest.mark.parametrize("model_type", CONFIGS)
def test_models_compute_the_same(model_type, tmp_path):
    numbers = {"mlp_ratio": 2, "offset_scale": 2, "layer_scale_init_value": 1, "mlp_ratios": [2, 2, 2, 2]}
    numbers |= {"bottleneck_ratio": 1, "pooler_expansion": 1, "drop_path_rate": 0}
    logits = []
    for kind in (int, float):
        values = {
            name: [kind(part) for part in value] if isinstance(value, list) else kind(value)
            for name, value in numbers.items()
            if hasattr(CONFIGS[model_type](), name)
        }
        AutoConfig.for_model(model_type, **TINY[model_type], num_labels=3, **values).save_pretrained(tmp_path)
        torch.manual_seed(0)
        model = AutoModelForImageClassification.from_config(AutoConfig.from_pretrained(tmp_path)).eval()
        logits.append(model(torch.ones(1, 3, 64, 64)).logits)
    torch.testing.assert_close(*logits, rtol=0, atol=0)
