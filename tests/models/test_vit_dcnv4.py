import pytest
import torch
from transformers import AutoBackbone
from transformers.models.ijepa.modeling_ijepa import IJepaEmbeddings

from hf_models.configuration_vit_dcnv4 import ViTDCNv4Config

from ..harness.model_tester import ModelTester


class TestViTDCNv4(ModelTester):
    config_class = ViTDCNv4Config
    config_kwargs = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    config_kwargs |= {"image_size": 64, "patch_size": 8}
    test_stochastic_depth_grows_linearly_and_only_in_training = None  # I-JEPA has none

    def test_shapes_of_every_output(self):
        outputs = self.classifier()(self.images(width=96), output_hidden_states=True)
        assert outputs.logits.shape == (2, 10)
        assert [tuple(tokens.shape) for tokens in outputs.hidden_states] == 4 * [(2, 8 * 12, 32)]
        features = self.classifier().base_model(self.images(width=96))
        assert features.last_hidden_state.shape == (2, 8 * 12, 32)
        assert features.hidden_states is None

    def test_backbone_gives_the_stages_asked_for(self):
        backbone = AutoBackbone.from_config(self.config(out_features=["stem", "stage1", "stage3"])).eval()
        maps = backbone(self.images(height=64, width=96)).feature_maps
        assert [tuple(feature.shape) for feature in maps] == 3 * [(2, 32, 8, 12)]
        assert backbone.channels == [32, 32, 32] and backbone.config.stage_strides == [8, 8, 8, 8]

    def test_the_smallest_images(self):
        model = self.classifier()
        assert model(self.images(height=8, width=8)).logits.isfinite().all()
        with pytest.raises(RuntimeError, match=r"\(1 x 1\). Kernel size: \(8 x 8\)"):
            model(self.images(height=1, width=1))

    def test_backbone_loads_a_classifier_checkpoint(self, tmp_path):
        model = self.classifier()
        model.save_pretrained(tmp_path)
        backbone_class = type(AutoBackbone.from_config(self.config()))
        backbone, info = backbone_class.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(info.values())
        with torch.no_grad():
            (features,) = backbone.eval()(self.images(width=96)).feature_maps
            tokens = model.base_model(self.images(width=96)).last_hidden_state
        torch.testing.assert_close(features.flatten(2).mT, tokens)

    def test_impossible_configurations_are_refused(self):
        for change, message in (
            ({"group_width": 24}, r"group_width must divide hidden_size=\[32\], got 24"),
            ({"group_width": 0}, "group_width must divide"),
            ({"out_features": ["stage4"]}, "out_features must be a subset"),
        ):
            with pytest.raises(ValueError, match=message):
                self.config(**change)

    def test_positions_are_those_of_i_jepa(self):
        model = self.classifier().ijepa
        for height, width in ((64, 64), (64, 96), (40, 24)):
            images = self.images(height=height, width=width)
            embeddings = model.embeddings(images, interpolate_pos_encoding=True)
            expected = IJepaEmbeddings.interpolate_pos_encoding(model.embeddings, embeddings, height, width)
            patches = model.embeddings.patch_embeddings(images)
            torch.testing.assert_close(embeddings, patches + expected)
        oblong = self.classifier(image_size=[32, 64])
        assert oblong(self.images(height=32, width=64)).logits.isfinite().all()

    def test_square_images_export_for_all_sizes(self):
        model = self.classifier()
        rows, columns = (8 * torch.export.Dim(name, min=2, max=32) for name in ("rows", "columns"))
        program = torch.export.export(model, (self.images(),), dynamic_shapes=({2: rows, 3: columns},), strict=False)
        images = self.images(height=40, width=96)
        torch.testing.assert_close(program.module()(images).logits, model(images).logits, rtol=1e-4, atol=1e-4)

    def test_sizes_may_be_fixed(self):
        """As in transformers, with `interpolate_pos_encoding=False`."""
        model = self.classifier()
        with pytest.raises(ValueError, match="doesn't match model"):
            model(self.images(width=96), interpolate_pos_encoding=False)
