"""What differs from the families' own tests in families that are transformers' networks with other layers."""

import pytest
import torch
from transformers import AutoBackbone

from .model_tester import ModelTester


class ConvNextTester(ModelTester):
    """Of transformers' ConvNeXts, which check little, have no gradient checkpointing and norms in the backbone."""

    config_kwargs = {"hidden_sizes": [32, 32, 64, 64], "depths": [1, 1, 2, 1], "drop_path_rate": 0.1}
    casts_images = False
    test_gradient_checkpointing_changes_nothing = None

    def test_the_smallest_images(self):
        model = self.classifier()
        assert model(self.images(height=32, width=32)).logits.isfinite().all()
        with pytest.raises(RuntimeError, match=r"\(1 x 1\). Kernel size: \(4 x 4\)"):
            model(self.images(height=1, width=1))

    @pytest.mark.parametrize("shape", [(1, 1, 64, 64), (1, 4, 64, 64), (3, 64, 64)])
    def test_wrong_input_is_refused_with_both_values(self, shape):
        with pytest.raises(ValueError, match="channel dimension of the pixel values"):
            self.classifier()(torch.zeros(shape))

    def test_stochastic_depth_grows_linearly_and_only_in_training(self):
        model = self.classifier(drop_path_rate=0.5)
        rates = [getattr(layer.drop_path, "drop_prob", 0) for layer in model.modules() if hasattr(layer, "drop_path")]
        assert rates == pytest.approx([0, 0.125, 0.25, 0.375, 0.5])
        images = self.images(batch_size=16)
        torch.testing.assert_close(model(images).logits, model(images).logits)
        assert not torch.equal(model.train()(images).logits, model(images).logits)

    def test_backbone_loads_a_classifier_checkpoint(self, tmp_path):
        model = self.classifier()
        model.save_pretrained(tmp_path)
        backbone_class = type(AutoBackbone.from_config(self.config()))
        backbone, info = backbone_class.from_pretrained(
            tmp_path, out_features=model.config.stage_names[1:], output_loading_info=True
        )
        assert {name.split(".")[0] for name in info["missing_keys"]} == {"hidden_states_norms"}
        assert not info["mismatched_keys"]
        with torch.no_grad():
            maps = backbone.eval()(self.images()).feature_maps
            hidden = model(self.images(), output_hidden_states=True).hidden_states
        norms = backbone.hidden_states_norms.values()
        torch.testing.assert_close(maps, tuple(norm(h) for norm, h in zip(norms, hidden[1:], strict=True)))
