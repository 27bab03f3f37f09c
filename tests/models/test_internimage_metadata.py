"""InternImage with metadata: the head against a second implementation, its conversion, the encoding of its input."""

import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForImageClassification

from hf_models.conversion import convert, verify
from hf_models.errors import InputError
from hf_models.internimage_metadata import InternImageMetadataHead, encode_metadata
from hf_models.modeling_internimage import InternImageForImageClassification

from ..harness.conversion_tester import MANIFESTS, read_manifest, write_original
from ..harness.seeded_checkpoint import seeded_array, seeded_input, seeded_state_dict
from . import test_internimage as image_only

NAME = "internimage_tiny_h"
WIDTH = 16
BERLIN_IN_JUNE = {"month": 6, "latitude": 52.5, "longitude": 13.4}


class TestInternImageWithMetadata(image_only.TestInternImage):
    config_kwargs = {**image_only.TestInternImage.config_kwargs, "metadata_hidden_size": WIDTH}

    def metadata(self, batch_size=2):
        return torch.randn(batch_size, 7, generator=torch.Generator().manual_seed(2))

    def test_norms_have_the_epsilons_of_the_original(self):
        model = InternImageForImageClassification(self.config())
        inside = (*model.metadata_head.temporal.modules(), *model.metadata_head.spatial.modules())
        norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
        assert {norm.eps for norm in norms if norm in inside} == {1e-5}
        assert {norm.eps for norm in norms if norm not in inside} == {1e-6}

    def test_metadata_is_added_to_the_scores_of_the_image(self):
        model, images, metadata = self.classifier(), self.images(), self.metadata()
        with torch.no_grad():
            by_image = model.classifier(model.base_model(images).pooler_output)
            logits = model(images, metadata=metadata).logits
            torch.testing.assert_close(logits, by_image + model.metadata_head(metadata))
            one_by_one = [model(images[i : i + 1], metadata=metadata[i : i + 1]).logits for i in range(2)]
        torch.testing.assert_close(torch.cat(one_by_one), logits, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(logits, by_image)

    def test_metadata_that_is_not_given_is_zeros(self):
        model, images = self.classifier(), self.images()
        with torch.no_grad():
            assert torch.equal(model(images).logits, model(images, metadata=torch.zeros(2, 7)).logits)
            assert not torch.allclose(model(images).logits, model(images, metadata=self.metadata()).logits)

    def test_metadata_gets_gradients_and_takes_part_in_the_loss(self):
        model, metadata = self.classifier(), self.metadata().requires_grad_()
        outputs = model(self.images(), labels=torch.tensor([1, 2]), metadata=metadata)
        outputs.loss.backward()
        torch.testing.assert_close(outputs.loss, F.cross_entropy(outputs.logits, torch.tensor([1, 2])))
        assert metadata.grad.abs().min() > 0
        assert all(parameter.grad is not None for parameter in model.metadata_head.parameters())

    def test_half_precision_takes_metadata_in_float32(self):
        model = self.classifier().to(torch.bfloat16)
        assert model(self.images(), metadata=self.metadata()).logits.dtype == torch.bfloat16

    @pytest.mark.parametrize("shape", [(7,), (2, 4), (1, 7), (3, 7)])
    def test_wrong_metadata_is_refused_with_both_values(self, shape):
        with pytest.raises(ValueError, match=r"expected \(batch_size, 7\) for 2 images, got \(" + str(shape[0])):
            self.classifier()(self.images(), metadata=torch.zeros(shape))

    def test_without_classes_there_is_no_head(self):
        model = InternImageForImageClassification(self.config(num_labels=0))
        assert model.metadata_head is None and model(self.images()).logits.shape == (2, model.config.pooled_size)

    def test_width_must_be_positive(self):
        with pytest.raises(ValueError, match="metadata_hidden_size must be positive, got 0"):
            self.config(metadata_hidden_size=0)


def test_a_model_without_the_head_refuses_metadata():
    tester = image_only.TestInternImage()
    with pytest.raises(ValueError, match=r"this model takes none \(config\.metadata_hidden_size is None\)"):
        tester.classifier()(tester.images(), metadata=torch.zeros(2, 7))


# --- the original's names and what it computes


def metadata_manifest() -> dict:
    """`internimage_tiny_h` with the tensors that the original's class with metadata adds."""
    manifest = read_manifest(NAME)
    shapes = {"meta_norm.weight": [2 * WIDTH], "meta_norm.bias": [2 * WIDTH]}
    shapes |= {"meta_head.weight": [10, 2 * WIDTH], "meta_head.bias": [10]}
    for head, size in (("meta_head_1", 4), ("meta_head_2", 3)):
        shapes |= {f"{head}.0.weight": [WIDTH, size], f"{head}.0.bias": [WIDTH]}
        for norm in ("2", "3.norm_fn1", "3.norm_fn2"):
            shapes |= {f"{head}.{norm}.weight": [WIDTH], f"{head}.{norm}.bias": [WIDTH]}
        for linear in ("3.w1", "3.w2"):
            shapes |= {f"{head}.{linear}.weight": [WIDTH, WIDTH], f"{head}.{linear}.bias": [WIDTH]}
    manifest["tensors"] |= {name: [shape, "float32"] for name, shape in shapes.items()}
    return manifest


def original_head(state: dict[str, torch.Tensor], metadata: torch.Tensor) -> torch.Tensor:
    """What the original adds to the logits, by its names, in float64 and without a module."""
    state = {name: tensor.double() for name, tensor in state.items()}

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x, name, eps):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    embedded = []
    for head, part in (("meta_head_1", metadata[:, :4]), ("meta_head_2", metadata[:, 4:])):
        x = norm(linear(part.double(), f"{head}.0").clamp(min=0), f"{head}.2", 1e-5)
        y = norm(linear(x, f"{head}.3.w1").clamp(min=0), f"{head}.3.norm_fn1", 1e-5)
        y = norm(linear(y, f"{head}.3.w2").clamp(min=0), f"{head}.3.norm_fn2", 1e-5)
        embedded.append(x + y)
    return linear(norm(torch.cat(embedded, dim=-1), "meta_norm", 1e-6), "meta_head")


def test_head_equals_a_second_implementation_at_the_published_width():
    width, num_labels = 64, 50
    names = {"temporal": "meta_head_1", "spatial": "meta_head_2", "norm": "meta_norm", "classifier": "meta_head"}
    inside = {
        "projection": "0",
        "norm": "2",
        "fc1": "3.w1",
        "norm1": "3.norm_fn1",
        "fc2": "3.w2",
        "norm2": "3.norm_fn2",
    }
    head = InternImageMetadataHead(width, num_labels, eps=1e-6)
    state = {}
    for name, parameter in head.named_parameters():
        first, *rest, leaf = name.split(".")
        original = ".".join((names[first], *(inside[part] for part in rest), leaf))
        state[original] = torch.from_numpy(seeded_array(original, tuple(parameter.shape)))
        parameter.data.copy_(state[original])
    metadata = torch.stack([encode_metadata(), encode_metadata(month=2), encode_metadata(**BERLIN_IN_JUNE)])
    with torch.no_grad():
        torch.testing.assert_close(head(metadata).double(), original_head(state, metadata), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(head.double()(metadata), original_head(state, metadata), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stated", [True, False])
def test_conversion_computes_what_the_original_did(stated, tmp_path):
    """The recorded logits of the original for the image, and what the second implementation adds to them.

    The width is that of the weights, whether the arguments state it or not: in the original it is a default.
    """
    manifest = metadata_manifest()
    if stated:
        manifest["config"]["meta_dim"] = WIDTH
    source, config = write_original(tmp_path, manifest)
    report = convert(source, tmp_path / "out", original_config=config, progress=False)
    assert set(report["written"].values()) == set(manifest["tensors"]) and report["dropped"] == {}
    assert verify(tmp_path / "out", source=source, progress=False)["tensors"] == len(manifest["tensors"])

    model, info = AutoModelForImageClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()) and model.config.metadata_hidden_size == WIDTH
    images = torch.from_numpy(seeded_input(manifest["input_shape"], manifest["seed"]))
    by_image = load_file(MANIFESTS.parent / "expected" / f"{NAME}.safetensors")["logits"]
    state = seeded_state_dict(manifest, manifest["seed"])
    for metadata in (None, encode_metadata(**BERLIN_IN_JUNE)[None]):
        with torch.inference_mode():
            logits = model.eval()(images, metadata=metadata).logits
        added = original_head(state, torch.zeros(1, 7) if metadata is None else metadata)
        expected = by_image + added
        assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()

    _, info = AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert all(key.startswith(("classifier.", "metadata_head.")) for key in info["unexpected_keys"])


def test_width_that_the_weights_do_not_have_is_named(tmp_path):
    manifest = metadata_manifest()
    manifest["config"]["meta_dim"] = 64
    source, config = write_original(tmp_path, manifest)
    with pytest.raises(InputError, match="meta_dim"):
        convert(source, tmp_path / "out", original_config=config, progress=False)


def test_fine_tuning_with_another_number_of_classes(tmp_path):
    tester = TestInternImageWithMetadata()
    tester.classifier().save_pretrained(tmp_path)
    model = AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert model.metadata_head.classifier.out_features == 7
    assert model(tester.images(), metadata=tester.metadata()).logits.shape == (2, 7)


def test_attention_pooler_with_metadata():
    """The published model has both."""
    tester = image_only.TestInternImageAttentionPooler()
    model = tester.classifier(metadata_hidden_size=WIDTH)
    assert model(tester.images(), metadata=torch.zeros(2, 7)).logits.shape == (2, 10)


# --- encoding


def test_encoding():
    torch.testing.assert_close(encode_metadata(), torch.zeros(7), rtol=0, atol=0)
    sin60, cos60 = math.sin(math.pi / 3), 0.5
    for given, expected in (
        ({"month": 12}, [0, 1, 0, 0, 0, 0, 0]),
        ({"month": 3}, [1, 0, 0, 0, 0, 0, 0]),
        ({"month": 2}, [sin60, cos60, 0, 0, 0, 0, 0]),
        ({"latitude": 0, "longitude": 0}, [0, 0, 0, 0, 1, 0, 0]),
        ({"latitude": 0.0, "longitude": 90.0}, [0, 0, 0, 0, 0, 1, 0]),
        ({"latitude": -90, "longitude": 45}, [0, 0, 0, 0, 0, 0, -1]),
        ({"month": 9, "latitude": 60, "longitude": 180}, [-1, 0, 0, 0, -cos60, 0, sin60]),
        ({"month": 6, "latitude": 30, "longitude": -60}, [0, -1, 0, 0, sin60 * cos60, -sin60 * sin60, 0.5]),
    ):
        encoded = encode_metadata(**given)
        assert encoded.shape == (7,) and encoded.dtype == torch.float32
        torch.testing.assert_close(encoded, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"month": 0}, r"month must be a whole number from 1 .* got 0"),
        ({"month": 13}, r"to 12 \(December\), got 13"),
        ({"month": 1.5}, "got 1.5"),
        ({"latitude": 90.5, "longitude": 0}, "latitude must be in degrees from -90 to 90, got 90.5"),
        ({"latitude": 0, "longitude": 270}, "longitude must be in degrees from -180 to 180, got 270"),
        ({"latitude": math.nan, "longitude": 0}, "latitude .* got nan"),
        ({"latitude": 10}, "give both or neither, got 10, None"),
        ({"longitude": 10}, "give both or neither, got None, 10"),
    ],
)
def test_encoding_of_what_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        encode_metadata(**given)
