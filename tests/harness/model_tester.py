"""The tests that every family must pass; `test_<family>.py` gives the classes and a tiny configuration."""

import json
import re

import pytest
import torch
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    BitImageProcessorPil,
    pipeline,
)

from hf_models.layers import DropPath


class ModelTester:
    """Base of the family tests.

    A subclass sets `config_class` and `config_kwargs`: a tiny model with every kind of layer.
    """

    config_class: type
    config_kwargs: dict
    smallest_side = 1  # of images, in pixels
    casts_images = True  # whether models take images of another dtype than their own
    half_precision_error = 3e-2  # of the largest logit
    amplifies_rounding = False  # whether rounding its random weights alone moves the logits by more than 3 %

    def config(self, **kwargs):
        return self.config_class(**{"num_labels": 10, **self.config_kwargs, **kwargs})

    def classifier(self, seed=0, **kwargs):
        """A classifier whose offsets move, whose norms shift and whose branches all contribute."""
        torch.manual_seed(seed)
        model = AutoModelForImageClassification.from_config(self.config(**kwargs)).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                scale = 0.5 if name.endswith("bias") else 0.1
                parameter += scale * torch.randn(parameter.shape, generator=generator)
            for name, buffer in model.named_buffers():
                if name.endswith("running_mean"):
                    buffer += 0.1 * torch.randn(buffer.shape, generator=generator)
                elif name.endswith("running_var"):
                    buffer += 0.2 * torch.rand(buffer.shape, generator=generator)
        return model

    def images(self, batch_size=2, height=64, width=64, seed=1):
        return torch.randn(batch_size, 3, height, width, generator=torch.Generator().manual_seed(seed))

    def test_auto_classes_know_the_family(self):
        config = self.config()
        model_type = self.config_class.model_type
        assert type(AutoConfig.for_model(model_type)) is self.config_class
        for auto in (AutoModel, AutoModelForImageClassification, AutoBackbone):
            assert auto.from_config(config).config_class is self.config_class

    def test_shapes_of_every_output(self):
        config = self.config()
        outputs = self.classifier()(self.images(), output_hidden_states=True)
        assert outputs.logits.shape == (2, 10)
        shapes = [tuple(hidden.shape) for hidden in outputs.hidden_states]
        channels = [config.hidden_sizes[0], *config.hidden_sizes]
        sides = [64 // stride for stride in config.stage_strides]
        assert shapes == [(2, size, side, side) for size, side in zip(channels, sides, strict=True)]
        features = self.classifier().base_model(self.images())
        assert features.last_hidden_state.shape == shapes[-1]
        assert features.pooler_output.shape == (2, config.pooled_size)
        assert features.hidden_states is None

    def test_tuples_and_config_switches(self):
        model, images = self.classifier(), self.images()
        logits = model(images).logits
        torch.testing.assert_close(model(images, return_dict=False)[0], logits)
        model.config.output_hidden_states = True
        assert len(model(images).hidden_states) == len(model.config.stage_names)

    def test_backbone_gives_the_stages_asked_for(self):
        config = self.config()
        backbone = AutoBackbone.from_config(self.config(out_features=config.stage_names)).eval()
        maps = backbone(self.images(height=64, width=96)).feature_maps
        assert [feature.shape[1] for feature in maps] == backbone.channels
        strides = [(64 // feature.shape[2], 96 // feature.shape[3]) for feature in maps]
        assert strides == [(stride, stride) for stride in config.stage_strides]
        assert strides[-1] == (config.output_stride, config.output_stride)
        backbone.out_indices = [1, config.num_stages]
        assert [feature.shape[1] for feature in backbone(self.images()).feature_maps] == backbone.channels

    @pytest.mark.parametrize(("height", "width"), [(33, 65), (70, 94), (97, 32)])
    def test_odd_and_non_square_sizes(self, height, width):
        backbone = AutoBackbone.from_config(self.config()).eval()
        assert backbone(self.images(height=height, width=width)).feature_maps[-1].isfinite().all()

    def test_the_smallest_images(self):
        side, model = self.smallest_side, self.classifier()
        assert model(self.images(height=side, width=side)).logits.isfinite().all()
        if side > 1:
            with pytest.raises((RuntimeError, ValueError), match=r"\(1 x 1\). Kernel size: \(2 x 2\)|got .* \(1, 1\)"):
                model(self.images(height=1, width=1))

    @pytest.mark.parametrize("shape", [(1, 1, 64, 64), (1, 4, 64, 64), (3, 64, 64)])
    def test_wrong_input_is_refused_with_both_values(self, shape):
        message = r"expected \(batch_size, 3, height, width\) with 3 channels .*got " + re.escape(str(shape))
        with pytest.raises(ValueError, match=message):
            self.classifier()(torch.zeros(shape))

    def test_loss_falls_after_a_step_on_new_classes(self, tmp_path):
        self.classifier().save_pretrained(tmp_path)
        model = AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
        assert model.config.num_labels == model.classifier.out_features == 7
        labels = torch.tensor([0, 5])
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        before = model(self.images(), labels=labels).loss
        before.backward()
        optimizer.step()
        assert model(self.images(), labels=labels).loss < before

    def test_gradient_checkpointing_changes_nothing(self):
        model = self.classifier().train()
        for module in model.modules():
            if isinstance(module, DropPath):
                module.rate = 0.0
        gradients = []
        for checkpointing in (False, True):
            if checkpointing:
                model.activation_checkpointing_enable()
            model.zero_grad()
            model(self.images(), labels=torch.tensor([1, 2])).loss.backward()
            gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        assert all(gradient is not None for gradient in gradients[0].values())
        torch.testing.assert_close(gradients[0], gradients[1])

    def test_stochastic_depth_grows_linearly_and_only_in_training(self):
        model = self.classifier(drop_path_rate=0.5)
        rates = [module.rate for module in model.modules() if isinstance(module, DropPath)]
        assert rates[0] == 0
        assert rates[-1] == 0.5
        assert rates == sorted(rates)
        images = self.images(batch_size=16)
        torch.testing.assert_close(model(images).logits, model(images).logits)
        model.train()
        assert not torch.equal(model(images).logits, model(images).logits)

    def test_an_image_does_not_depend_on_its_company(self):
        model, images = self.classifier(), self.images(batch_size=5)
        with torch.no_grad():
            together = model(images).logits
            alone = torch.cat([model(image[None]).logits for image in images])
            turned = model(images.flip(0)).logits.flip(0)
        tolerance = 1e-5 * together.abs().max()
        assert (together - alone).abs().max() < tolerance
        assert (together - turned).abs().max() < tolerance

    def test_memory_layout_of_the_input_changes_nothing(self):
        model, images = self.classifier(), self.images()
        with torch.no_grad():
            torch.testing.assert_close(
                model(images.contiguous(memory_format=torch.channels_last)).logits, model(images).logits
            )

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_stays_close(self, dtype, tmp_path):
        model, images = self.classifier(), self.images()
        model.save_pretrained(tmp_path)
        half = AutoModelForImageClassification.from_pretrained(tmp_path, dtype=dtype).eval()
        with torch.no_grad():
            expected, logits = model(images).logits, half(images if self.casts_images else images.to(dtype)).logits
            error = (logits.float() - expected).abs().max()
            if self.amplifies_rounding:  # then less the error of the same network in float32 with its weights rounded
                error -= (half.float()(self.images()).logits - expected).abs().max()
        assert logits.dtype == dtype
        assert error < self.half_precision_error * expected.abs().max()

    @pytest.mark.parametrize("auto", [AutoModel, AutoModelForImageClassification])
    def test_saves_and_loads_whole(self, auto, tmp_path):
        model = self.classifier()
        model.save_pretrained(tmp_path)
        loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["mismatched_keys"]
        heads = {name for name in model.state_dict() if not name.startswith(f"{model.base_model_prefix}.")}
        head = set() if auto is AutoModelForImageClassification else heads
        assert set(info["unexpected_keys"]) <= head
        expected = model if auto is AutoModelForImageClassification else model.base_model
        with torch.no_grad():
            torch.testing.assert_close(loaded.eval()(self.images())[0], expected(self.images())[0])

    def test_backbone_loads_a_classifier_checkpoint(self, tmp_path):
        model = self.classifier()
        model.save_pretrained(tmp_path)
        backbone_class = type(AutoBackbone.from_config(self.config()))
        backbone, info = backbone_class.from_pretrained(
            tmp_path, out_features=model.config.stage_names[1:], output_loading_info=True
        )
        assert not any(info.values()), "a backbone has no head, and nobody has to be told"
        with torch.no_grad():
            maps = backbone.eval()(self.images()).feature_maps
            hidden = model(self.images(), output_hidden_states=True).hidden_states
        torch.testing.assert_close(maps, hidden[1:])

    def test_grey_images_give_what_they_gave_as_rgb(self, tmp_path):
        model = self.classifier()
        model.save_pretrained(tmp_path)
        grey = AutoModelForImageClassification.from_pretrained(tmp_path, num_channels=1).eval()
        images = self.images()[:, :1]
        with torch.no_grad():
            logits, expected = grey(images).logits, model(images.expand(-1, 3, -1, -1)).logits
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)

    def test_device_map_and_meta_initialisation(self, tmp_path):
        model = self.classifier()
        model.save_pretrained(tmp_path)
        with torch.device("meta"):
            empty = AutoModelForImageClassification.from_config(self.config())
        assert all(parameter.is_meta for parameter in empty.parameters())
        mapped = AutoModelForImageClassification.from_pretrained(tmp_path, device_map="cpu").eval()
        with torch.no_grad():
            torch.testing.assert_close(mapped(self.images()).logits, model(self.images()).logits)

    def test_compiles_into_one_graph_for_all_sizes(self):
        model = self.classifier()
        torch._dynamo.reset()  # the families share code of transformers, and PyTorch compiles it 8 times at most
        compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
        # sides that differ: from equal ones PyTorch concludes that they always are
        images, others = self.images(width=96), self.images(batch_size=3, height=160, width=128)
        with torch.no_grad():
            torch.testing.assert_close(compiled(images).logits, model(images).logits, rtol=1e-4, atol=1e-4)
            with torch.compiler.set_stance("fail_on_recompile"):
                torch.testing.assert_close(compiled(others).logits, model(others).logits, rtol=1e-4, atol=1e-4)

    def test_exports_with_dynamic_batch_and_size(self):
        model = self.classifier()
        batch = torch.export.Dim("batch", min=1, max=64)
        # sides that are multiples of the last stride, which every pooler takes
        stride = model.config.output_stride
        height, width = (stride * torch.export.Dim(name, min=2, max=32) for name in ("rows", "columns"))
        exported = torch.export.export(
            model,
            args=(),
            kwargs={"pixel_values": self.images(height=64, width=96)},
            dynamic_shapes={"pixel_values": {0: batch, 2: height, 3: width}},
        ).module()
        images = self.images(batch_size=3, height=128, width=64)
        with torch.no_grad():
            torch.testing.assert_close(
                exported(pixel_values=images).logits, model(images).logits, rtol=1e-4, atol=1e-4
            )

    def test_initialisation_ignores_loaded_weights(self, tmp_path):
        """Loading draws no random numbers over weights that were read."""
        model = self.classifier()
        model.save_pretrained(tmp_path)
        state = AutoModelForImageClassification.from_pretrained(tmp_path).state_dict()
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(state[name], tensor, rtol=0, atol=0, msg=name)

    def test_pipeline_classifies_a_picture(self, tmp_path):
        from PIL import Image

        self.classifier().save_pretrained(tmp_path)
        processor = BitImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
        processor.save_pretrained(tmp_path)
        answers = pipeline("image-classification", model=str(tmp_path))(Image.new("RGB", (90, 70), "red"), top_k=3)
        assert [set(answer) for answer in answers] == [{"label", "score"}] * 3

    def test_config_survives_json(self, tmp_path):
        config = self.config(out_indices=[1, 3])
        config.save_pretrained(tmp_path)
        loaded = AutoConfig.from_pretrained(tmp_path)
        assert json.loads(loaded.to_json_string()) == json.loads(config.to_json_string())
        assert loaded.out_features == ["stage1", "stage3"]

    def test_impossible_configurations_are_refused(self):
        sizes = list(self.config().hidden_sizes)
        for change, message in (
            ({"hidden_sizes": sizes[:-1]}, f"one value for each of the {len(sizes)} stages"),
            ({"hidden_sizes": [-8, *sizes[1:]]}, "hidden_sizes must be positive, got"),
            ({"drop_path_rate": 1.5}, "drop_path_rate must lie in"),
        ):
            with pytest.raises(ValueError, match=message):
                self.config(**change)
