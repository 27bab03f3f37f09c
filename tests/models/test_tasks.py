"""What a model is for is said by the Auto classes that its config names."""

import pytest
import transformers
from transformers import AutoConfig

from hf_models.auto import FAMILIES
from hf_models.configuration_internimage import InternImageConfig
from hf_models.detection import registration
from hf_models.inference.tasks import TASKS, auto_class_of, model_class_of, task_of
from hf_models.remote_code import auto_map_of
from hf_models.segmentation.registration import SEGMENTERS

BACKBONES = [config.model_type for config, *_ in FAMILIES]
HEADS = [config.model_type for config, _ in SEGMENTERS] + ["upernet", "mask2former"]
DETECTORS = [config.model_type for config, _ in registration.DETECTORS] + ["detr", "deformable_detr", "rt_detr"]


@pytest.mark.parametrize("model_type", [*BACKBONES, *HEADS, *DETECTORS])
def test_a_config_names_the_auto_classes_that_know_it(model_type):
    """What `trust_remote_code=True` finds without the package is what is registered with it."""
    backbone = {} if model_type in BACKBONES else {"backbone_config": InternImageConfig(out_features=["stage4"])}
    config = AutoConfig.for_model(model_type, **backbone)
    auto_map = auto_map_of(config)
    assert auto_map.pop("AutoConfig").endswith(f"{type(config).__name__}")
    for auto_class, reference in auto_map.items():
        registered = getattr(transformers, auto_class)._model_mapping[type(config)]
        assert reference.split(".")[1].removeprefix("Hub") == registered.__name__
    assert auto_class_of(config).__name__ in auto_map
    assert model_class_of(config) is auto_class_of(config)._model_mapping[type(config)]
    assert "auto_classes" not in config.to_dict()


def test_task_of():
    assert {task_of(AutoConfig.for_model(model_type)) for model_type in BACKBONES} == {"image-classification"}
    assert {task_of(AutoConfig.for_model(model_type)) for model_type in HEADS} == {"image-segmentation"}
    assert {task_of(AutoConfig.for_model(model_type)) for model_type in DETECTORS} == {"object-detection"}
    panoptic = AutoConfig.for_model("detr", architectures=["DetrForSegmentation"])
    assert task_of(panoptic) == "image-segmentation"  # of several classes for one config, the one that was saved
    assert task_of(AutoConfig.for_model("vit")) == "image-classification"
    assert task_of(AutoConfig.for_model("bert")) is None and auto_map_of(AutoConfig.for_model("bert")) == {}
    assert auto_map_of(AutoConfig.for_model("upernet")) == {}, "its backbone is not from here"
    assert set(TASKS.values()) <= transformers.pipelines.SUPPORTED_TASKS.keys()
