import pytest
import torch
from transformers import AutoModelForImageClassification

from hf_models.configuration_convnext_large_kernel import ConvNextLargeKernelConfig

from ..harness import adopted_tester


class TestConvNextLargeKernel(adopted_tester.ConvNextTester):
    config_class = ConvNextLargeKernelConfig


class TestConvNextLargeKernelBranches(TestConvNextLargeKernel):
    """The form that is trained from scratch: each large kernel with a small one beside it."""

    config_kwargs = {**TestConvNextLargeKernel.config_kwargs, "small_kernel_size": 5}

    def test_merging_keeps_the_function_and_survives_saving(self, tmp_path):
        model, images = self.classifier(), self.images(height=70, width=94)
        with torch.no_grad():
            expected = model(images).logits
            assert model.merge_reparameterization() is model
            assert (model(images).logits - expected).abs().max() < 1e-5 * expected.abs().max()
            model.save_pretrained(tmp_path)
            loaded, info = AutoModelForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
            assert not any(info.values())
            torch.testing.assert_close(loaded.eval()(images).logits, model(images).logits)
        plain = AutoModelForImageClassification.from_config(self.config(small_kernel_size=None))
        assert loaded.state_dict().keys() == plain.state_dict().keys()

    @pytest.mark.parametrize("sizes", [(30, 29, 27, 13), (31, 29, 27, 3), (31, 29, 27)])
    def test_impossible_kernels_are_refused(self, sizes):
        with pytest.raises(ValueError, match="kernel_sizes must"):
            self.config(kernel_sizes=sizes)
