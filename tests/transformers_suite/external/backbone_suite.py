"""transformers' common tests for a hierarchical backbone; a family adds its classes and a small configuration."""

import copy
import unittest

import torch
from tests.test_backbone_common import BackboneTesterMixin
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor
from transformers.testing_utils import torch_device


class BackboneModelTester:
    """Makes the configuration and the inputs that the common tests ask for."""

    batch_size = 13
    image_size = 32
    num_channels = 3
    num_labels = 10
    is_training = True

    def __init__(self, config_class: type, config_kwargs: dict):
        self.config_class = config_class
        self.config_kwargs = {name: list(v) if isinstance(v, tuple) else v for name, v in config_kwargs.items()}

    def get_config(self):
        config = self.config_class(num_channels=self.num_channels, num_labels=self.num_labels, **self.config_kwargs)
        config.out_features = config.stage_names[-3:]
        return config

    def map_shapes(self, config):
        """Channels, height and width of the feature map of the stem and of each stage."""
        channels = [config.hidden_sizes[0], *config.hidden_sizes]
        strides = getattr(config, "stage_strides", [4, 4, 8, 16, 32])  # ConvNext's config does not say
        return [
            (c, self.image_size // stride, self.image_size // stride)
            for c, stride in zip(channels, strides, strict=True)
        ]

    def hidden_shapes(self, config):
        """Of each hidden state."""
        return self.map_shapes(config)

    def prepare_config_and_inputs(self):
        pixel_values = floats_tensor([self.batch_size, self.num_channels, self.image_size, self.image_size])
        return self.get_config(), pixel_values, ids_tensor([self.batch_size], self.num_labels)

    def prepare_config_and_inputs_for_common(self):
        config, pixel_values, _ = self.prepare_config_and_inputs()
        return config, {"pixel_values": pixel_values}


class ViTModelTester(BackboneModelTester):
    """The same for a ViT, whose hidden states are (patches, channels)."""

    def map_shapes(self, config):
        return [(config.hidden_size, *2 * [self.image_size // stride]) for stride in config.stage_strides]

    def hidden_shapes(self, config):
        return [(height * width, channels) for channels, height, width in self.map_shapes(config)]


class ModelSuite(ModelTesterMixin):
    """Tests of the base model, the classifier and the backbone as models; mix into a `unittest.TestCase`."""

    config_class: type
    config_kwargs: dict
    model_tester_class = BackboneModelTester
    common_properties = ["num_channels", "hidden_sizes"]
    test_resize_embeddings = False
    test_can_init_all_missing_weights_before_2023 = True
    has_attentions = False

    def setUp(self):
        self.model_tester = self.model_tester_class(self.config_class, self.config_kwargs)
        self.config_tester = ConfigTester(
            self,
            config_class=self.config_class,
            has_text_modality=False,
            common_properties=self.common_properties,
            **self.model_tester.config_kwargs,
        )

    def test_reverse_loading_mapping(self):
        """What `fit_channels_of` registers keeps the name of the weight."""
        super().test_reverse_loading_mapping(check_keys_were_modified=False)

    def test_config(self):
        self.config_tester.run_common_tests()

    @unittest.skip(reason="A backbone has no inputs_embeds")
    def test_inputs_embeds(self):
        pass

    @unittest.skip(reason="A backbone has no input or output embeddings")
    def test_model_get_set_embeddings(self):
        pass

    @unittest.skip(reason="A backbone has no feed-forward chunking")
    def test_feed_forward_chunking(self):
        pass

    def test_outputs(self):
        """Shapes of what each class returns."""
        config, pixel_values, labels = self.model_tester.prepare_config_and_inputs()
        batch_size, shapes = self.model_tester.batch_size, self.model_tester.map_shapes(config)
        model_class, classifier_class, backbone_class = self.all_model_classes
        pixel_values, labels = pixel_values.to(torch_device), labels.to(torch_device)
        with torch.no_grad():
            outputs = model_class(config).to(torch_device).eval()(pixel_values)
            last = self.model_tester.hidden_shapes(config)[-1]
            self.assertEqual(outputs.last_hidden_state.shape, (batch_size, *last))
            outputs = classifier_class(config).to(torch_device).eval()(pixel_values, labels=labels)
            self.assertEqual(outputs.logits.shape, (batch_size, self.model_tester.num_labels))
            self.assertEqual(outputs.loss.shape, ())
            feature_maps = backbone_class(config).to(torch_device).eval()(pixel_values).feature_maps
        self.assertEqual([tuple(feature_map.shape[1:]) for feature_map in feature_maps], shapes[-3:])

    def test_hidden_states_output(self):
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        config_with_hidden_states = copy.deepcopy(config)
        config_with_hidden_states.output_hidden_states = True
        for model_class in self.all_model_classes:
            inputs_for_class = self._prepare_for_class(inputs, model_class)
            for model_config, kwargs in ((config, {"output_hidden_states": True}), (config_with_hidden_states, {})):
                model = model_class(model_config).to(torch_device).eval()
                with torch.no_grad():
                    hidden_states = model(**inputs_for_class, **kwargs).hidden_states
                shapes = [tuple(hidden_state.shape[1:]) for hidden_state in hidden_states]
                self.assertEqual(shapes, self.model_tester.hidden_shapes(config))


class ViTSuite(ModelSuite):
    """The same tests of a ViT."""

    model_tester_class = ViTModelTester
    common_properties = ["num_channels", "hidden_size"]


class BackboneSuite(BackboneTesterMixin):
    """Tests of the Backbone class as a backbone; mix into a `unittest.TestCase`."""

    config_kwargs: dict
    has_attentions = False

    def setUp(self):
        self.model_tester = BackboneModelTester(self.config_class, self.config_kwargs)
