"""RoIAlign: the compiled kernel against the reference, for CPUs and the CUDA source, and the derivatives of both."""

import random

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hf_models import roi_align as roi_align_module
from hf_models.roi_align import roi_align, roi_align_reference

from ..harness.detection_goldens import golden
from ..harness.kernel_tester import TRANSFORMED_GRADIENTS, CompiledKernel, EmulatedKernel, KernelTester
from ..harness.operator_tester import OperatorTester, results


def random_inputs(dtype=torch.float64, batch=2, channels=5, size=(7, 9), count=6, seed=0):
    """Features, and regions of every size on them; some reach over the edges, one has no area."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64).to(dtype)
    scale = torch.tensor([size[1], size[0]] * 2) * 4.0  # pixels of an image whose features have a stride of 4
    edges = (torch.rand(count, 4, generator=generator) * 1.6 - 0.3) * scale
    boxes = torch.cat((edges[:, :2].minimum(edges[:, 2:]), edges[:, :2].maximum(edges[:, 2:])), dim=1)
    boxes[-1, 2] = boxes[-1, 0]
    image = torch.arange(count)[:, None] % batch
    return features, torch.cat((image, boxes), dim=1).to(torch.promote_types(dtype, torch.float32))


class RoiAlignTester(OperatorTester):
    """What the operator takes, does and refuses. The regions are an option, because they have no gradient."""

    inputs = ("features",)
    batched = inputs

    @staticmethod
    def reference(features, rois, output_size, spatial_scale):
        return roi_align_reference(features, rois.to(features.dtype), output_size, spatial_scale)

    def small_case(self, dtype=torch.float32, batch=2, kind="ordinary"):
        shape = {
            "tiny": {"batch": 1, "channels": 2, "size": (4, 3), "count": 3},
            "ordinary": {},
            "large": {"channels": 40, "size": (20, 30), "count": 50},
        }[kind]
        features, rois = random_inputs(dtype, **{"batch": batch, **shape})
        return (features,), {"rois": rois, "output_size": 3, "spatial_scale": 0.25}

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("kind", ["ordinary", "large"])
    def test_an_image_does_not_depend_on_its_company(self, function, kind, dtype):
        (features,), options = self.small_case(dtype, batch=3, kind=kind)
        together, image = function(features, **options), options["rois"][:, 0]
        for i in range(3):
            alone = options["rois"][image == i] * torch.tensor([0.0, 1, 1, 1, 1])
            self.assert_same(function(features[i : i + 1], **{**options, "rois": alone}), together[image == i])

    def test_no_images(self, function):
        features, rois = random_inputs(torch.float32)
        out, gradient = results(function, (features[:0],), rois=rois[:0], output_size=3, spatial_scale=0.25)
        assert out.shape == (0, 5, 3, 3) and gradient.shape == (0, 5, 7, 9)

    def test_no_regions(self, function):
        features, rois = random_inputs(torch.float32)
        out, gradient = results(function, (features,), rois=rois[:0], output_size=3, spatial_scale=0.25)
        assert out.shape == (0, 5, 3, 3) and not gradient.any()

    @pytest.mark.parametrize("name", ["roi_align_7_stride8", "roi_align_14_stride4", "roi_align_7_stride32"])
    def test_it_is_the_originals(self, function, name):
        about, tensors = golden(name)
        out = function(tensors["input"], tensors["rois"], about["output_size"], 1 / about["stride"])
        expected = tensors["output"]
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-5 * expected.abs().max().item())

    def test_regions_that_are_no_regions_give_zeros(self, function):
        features, rois = random_inputs(torch.float32)
        rois[0, 1:] = torch.tensor([20.0, 20, 10, 10])
        rois[1, 1:] = torch.tensor([500.0, 500, 600, 600])
        rois[2, 1:] = 5.0
        out = function(features, rois, 3, 0.25)
        assert not out[:3].any() and not out[-1].any() and out[3].any()

    def test_a_poisoned_pixel_reaches_only_what_samples_it(self, function):
        features, rois = random_inputs(torch.float32)
        features[0, :, 3, 4] = float("nan")
        rois[:, 0], rois[:, 1:] = 0, torch.tensor([1.0, 1, 35, 27])
        out = function(features, rois, 3, 0.25)
        touched = torch.zeros(3, 3, dtype=torch.bool)
        touched[1, 1] = True
        assert torch.equal(out.isnan(), touched.expand_as(out))


class TestReference(RoiAlignTester):
    refusals = []
    refused_derivatives = ("double_backward", "double_backward_trick", "batched_gradients")  # by `embedding_bag`
    test_compiles_into_one_graph = None  # what a region reads depends on its size, and so does the graph

    @pytest.fixture
    def function(self, monkeypatch):
        monkeypatch.setattr(roi_align_module, "get_function", lambda *_: None)
        monkeypatch.setattr(roi_align_module, "torchvision_roi_align", None)
        return roi_align


class DetectionOps(KernelTester, RoiAlignTester):
    kernel_name, function_name = "detection-ops", "roi_align"
    operator = staticmethod(roi_align)
    refused_derivatives = (*TRANSFORMED_GRADIENTS, "jvp", "jacfwd", "dual_numbers")
    gradients_of_every_order = True
    cpu_paths = ("avx512", "avx2", "portable")
    benchmark = "P3"
    refusals = [
        (lambda f: (f[0],), ValueError, r"features: expected \(N, C, H, W\), got \(5, 7, 9\)"),
    ]
    operator_refusals = [
        (
            "roi_align_forward",
            lambda f: (f, torch.ones(3, 4), 3, 0.25),
            r"rois: expected \(R, 5\), got \(3, 4\)",
        ),
        ("roi_align_forward", lambda f: (f, torch.ones(3, 5).double(), 3, 0.25), "rois: expected float32"),
        ("roi_align_forward", lambda f: (f, torch.ones(3, 5), 0, 0.25), "output_size: expected at least 1, got 0"),
        (
            "roi_align_backward",
            lambda f: (torch.ones(3, 5, 3, 2), torch.ones(3, 5), list(f.shape), 0.25),
            r"grad_output: expected \(3, 5, 2, 2\), got \(3, 5, 3, 2\)",
        ),
    ]

    def random_case(self, seed):
        pick = random.Random(seed)
        dtype = pick.choice([torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16])
        features, rois = random_inputs(
            dtype,
            batch=pick.choice([1, 2]),
            channels=pick.choice([16, 1, 5, 20, 33]),
            size=(pick.choice([1, 2, 5, 9, 14]), pick.choice([1, 2, 3, 8, 15])),
            count=pick.choice([1, 2, 5]),
            seed=seed,
        )
        if pick.random() < 0.5:
            features = features.contiguous(memory_format=torch.channels_last)
        output_size = pick.choice([7, 1, 2, 3, 14])
        gradient = torch.randn(len(rois), features.shape[1], output_size, output_size).to(dtype)
        options = {"rois": rois, "output_size": output_size, "spatial_scale": pick.choice([0.25, 0.125, 1.0])}
        return (features,), gradient, options

    def operator_calls(self):
        features, rois = random_inputs(torch.float32)
        yield "roi_align_forward", features.clone().requires_grad_(), rois, 3, 0.25
        gradient = torch.ones(6, 5, 3, 3, requires_grad=True)
        yield "roi_align_backward", gradient, rois, list(features.shape), 0.25

    def test_flops_are_those_of_the_reference(self, on_kernel):
        """None, as the work depends on the regions."""
        (features,), options = self.small_case()
        for function in (on_kernel, self.reference):
            with FlopCounterMode(display=False) as counter:
                function(features, **options)
            assert counter.get_total_flops() == 0

    def test_a_region_far_larger_than_the_features(self, function):
        features, rois = random_inputs(torch.float32, count=2)
        rois[0, 1:] = torch.tensor([-3e6, -2e6, 1e6, 2e6])
        rois[1, 1:] = torch.tensor([-1e30, -1e30, 1e30, 1e30])
        assert function(features, rois, 7, 0.25).isfinite().all()


class TestCompiled(CompiledKernel, DetectionOps):
    test_kernelize_replaces_a_layer = None  # nobody has a layer for it

    def test_a_region_of_no_image(self, default_function):
        features, rois = random_inputs(torch.float32)
        for image in (2, -1, float("nan")):
            rois[3, 0] = image
            with pytest.raises(RuntimeError, match="rois: expected images 0 to 1, got"):
                default_function(features, rois, 3, 0.25)


class TestCudaSource(EmulatedKernel, DetectionOps):
    def test_a_region_of_no_image(self, default_function):
        features, rois = random_inputs(torch.float32)
        rois[3, 0] = 2
        assert not default_function(features, rois, 3, 0.25)[3].any()
