"""transformers' common tests for the detectors, with small configurations of our own tests."""

import unittest

from backbone_suite import BackboneModelTester
from test_families import own_module
from tests.test_modeling_common import ModelTesterMixin, floats_tensor

from hf_models.modeling_backbone_fcos import BackboneFCOSForObjectDetection
from hf_models.modeling_backbone_rcnn import BackboneRCNNForObjectDetection
from hf_models.modeling_dino_detector import DinoDetectorForObjectDetection


class DetectorTester(BackboneModelTester):
    """Makes the configuration and the inputs that the common tests ask for."""

    batch_size = 3
    is_training = False

    def __init__(self, make_config):
        super().__init__(type(make_config()), {})
        self.get_config = make_config

    def prepare_config_and_inputs_for_common(self):
        pixel_values = floats_tensor([self.batch_size, self.num_channels, self.image_size, self.image_size])
        return self.get_config(), {"pixel_values": pixel_values}


class DetectorSuite(ModelTesterMixin):
    """Tests of a detector as a model; mix into a `unittest.TestCase`."""

    has_attentions = False
    test_can_init_all_missing_weights_before_2023 = True
    test_resize_embeddings = False
    # what a detector has none of, and what depends on what is found
    test_model_get_set_embeddings = test_torch_export = None
    test_hidden_states_output = None  # the backbone's, which have tests of their own

    def setUp(self):
        self.model_tester = DetectorTester(self.make_config)

    def test_reverse_loading_mapping(self):
        """What `fit_channels_of` registers for the backbones keeps the name of the weight."""
        super().test_reverse_loading_mapping(check_keys_were_modified=False)


class backbone_rcnn__Detector(DetectorSuite, unittest.TestCase):
    all_model_classes = (BackboneRCNNForObjectDetection,)
    test_can_load_ignoring_mismatched_shapes = None  # takes `box_stds` for an initialisation

    def make_config(self):
        return own_module("harness.rcnn_tester").small_config()


class backbone_fcos__Detector(DetectorSuite, unittest.TestCase):
    all_model_classes = (BackboneFCOSForObjectDetection,)

    def make_config(self):
        return own_module("models.test_backbone_fcos").small_config()


class dino_detector__Detector(DetectorSuite, unittest.TestCase):
    all_model_classes = (DinoDetectorForObjectDetection,)

    def make_config(self):
        return own_module("models.test_dino_detector").tiny_config(num_queries=10, max_detections=10)
