import pytest
import torch
from transformers import AutoModelForImageClassification

from hf_models.configuration_replknet import RepLKNetConfig
from hf_models.large_kernel_conv import LargeKernelDepthwiseConv2d
from hf_models.modeling_replknet import RepLKNetForImageClassification

from ..harness.kernel_builder import large_kernel
from ..harness.model_tester import ModelTester


class TestRepLKNet(ModelTester):
    config_class = RepLKNetConfig
    config_kwargs = {
        "hidden_sizes": (8, 16, 24, 32),
        "depths": (1, 1, 2, 1),
        "kernel_sizes": (31, 29, 27, 13),
        "drop_path_rate": 0.1,
    }

    @pytest.mark.parametrize("fold_batch_norm", [False, True])
    def test_merging_keeps_the_function_and_survives_saving(self, fold_batch_norm, tmp_path):
        model, images = self.classifier(), self.images(height=70, width=94)
        with torch.no_grad():
            expected = model(images).logits
            merged = model.merge_reparameterization(fold_batch_norm=fold_batch_norm)
            assert merged is model
            assert (model(images).logits - expected).abs().max() < 1e-5 * expected.abs().max()
            model.save_pretrained(tmp_path)
            loaded, info = AutoModelForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
            assert not info["missing_keys"]
            assert not info["unexpected_keys"]
            torch.testing.assert_close(loaded.eval()(images).logits, model(images).logits)
        norms = [name for name, module in loaded.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
        assert not any("large_kernel." in name for name in norms)
        assert (norms == ["replknet.pooler.norm"]) is fold_batch_norm

    def test_merging_twice_and_folding_later_are_the_same(self):
        model, images = self.classifier(), self.images()
        with torch.no_grad():
            expected = model(images).logits
            model.merge_reparameterization(fold_batch_norm=False)
            model.merge_reparameterization()
            model.merge_reparameterization()
            assert (model(images).logits - expected).abs().max() < 1e-5 * expected.abs().max()

    def test_norms_have_the_epsilon_of_the_original(self):
        model = RepLKNetForImageClassification(self.config())
        assert {m.eps for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-5}

    def test_feature_maps_stay_channels_last(self):
        """The layout in which large depthwise kernels are fast."""
        hidden = self.classifier()(self.images(), output_hidden_states=True).hidden_states
        assert all(feature.is_contiguous(memory_format=torch.channels_last) for feature in hidden)

    def test_state_dict_is_that_of_plain_convolutions(self):
        for name, module in self.classifier().named_modules():
            if isinstance(module, LargeKernelDepthwiseConv2d):
                conv = torch.nn.Conv2d(
                    module.in_channels,
                    module.out_channels,
                    module.kernel_size,
                    padding=module.padding,
                    groups=module.groups,
                    bias=module.bias is not None,
                )
                shapes = [{key: t.shape for key, t in m.state_dict().items()} for m in (module, conv)]
                assert shapes[0] == shapes[1], name

    def test_results_do_not_depend_on_the_kernel(self, monkeypatch):
        model, images = self.classifier(), self.images()
        results = []
        for function in (None, large_kernel()):
            monkeypatch.setattr("hf_models.large_kernel_conv.get_function", lambda *_, function=function: function)
            with torch.no_grad():
                results.append(model(images, output_hidden_states=True))
        assert all(t.is_contiguous(memory_format=torch.channels_last) for t in results[1].hidden_states)
        torch.testing.assert_close(results[1].logits, results[0].logits, rtol=1e-5, atol=1e-5)

    def test_kernels_must_be_odd(self):
        with pytest.raises(ValueError, match=r"kernel_sizes must be odd .*got 30"):
            self.config(kernel_sizes=(30, 29, 27, 13))


class TestRepLKNetMerged(ModelTester):
    """The form for deployment: one kernel a layer, BatchNorm folded into the convolutions."""

    config_class = RepLKNetConfig
    config_kwargs = {**TestRepLKNet.config_kwargs, "reparameterized": True, "batch_norm_folded": True}


class TestRepLKNetXL(TestRepLKNet):
    """RepLKNet-XL: no small kernel, wider large-kernel blocks."""

    config_kwargs = {**TestRepLKNet.config_kwargs, "small_kernel_size": None, "bottleneck_ratio": 1.5}
