"""The compiled deformable operator against the reference, as a user loads it."""

import random
import sys

import pytest
import torch
from kernels import KernelizeFallback, LocalLayerRepository, Mode, get_local_kernel, kernelize, use_kernel_mapping
from kernels import use_kernel_forward_from_hub as layer_name

from hf_models.deformable_aggregate import deformable_aggregate_reference as reference

from ..harness.kernel_builder import built_kernel
from . import test_deformable_conv as reference_tests

PATHS = ["avx512", "avx2", "portable"]


def cpu_variant():
    """Its own folder, because a PyTorch for GPUs would choose another variant; by one path, so that it loads once."""
    (variant,) = (built_kernel("deformable-conv") / "build").glob("*-cpu-*")
    return variant


@pytest.fixture(scope="session")
def kernel():
    return get_local_kernel(cpu_variant())


@pytest.fixture(params=PATHS)
def path(request, kernel, monkeypatch):
    """Every compute path that this processor runs."""
    monkeypatch.setenv("DEFORMABLE_CONV_CPU_PATH", request.param)
    try:
        assert kernel.cpu_path() == request.param
    except RuntimeError as error:
        pytest.skip(str(error).splitlines()[0])
    return request.param


@pytest.fixture
def operators(kernel):
    return sys.modules[f"{kernel.__name__}._ops"].ops


class TestAsReference:
    """What the reference must do, every path must do: goldens, gradients, poison, positions, views, errors."""

    @pytest.fixture(autouse=True)
    def replace(self, kernel, path, monkeypatch):
        monkeypatch.setattr(reference_tests, "deformable_aggregate", kernel.deformable_aggregate)

    test_dcnv3_operator = staticmethod(reference_tests.test_dcnv3_operator)
    test_dcnv4_operator = staticmethod(reference_tests.test_dcnv4_operator)
    test_dcnv4_boundary_positions = staticmethod(reference_tests.test_dcnv4_boundary_positions)
    test_dcnv4_half_precision = staticmethod(reference_tests.test_dcnv4_half_precision)
    test_gradients = staticmethod(reference_tests.test_gradients)
    test_rectangular_kernel = staticmethod(reference_tests.test_rectangular_kernel_on_every_axis)
    test_fused_softmax = staticmethod(reference_tests.test_fused_softmax_is_softmax)
    test_poison = staticmethod(reference_tests.test_a_poisoned_pixel_reaches_only_the_outputs_that_sample_it)
    test_position = staticmethod(reference_tests.test_a_position_that_is_no_position_adds_nothing)
    test_company = staticmethod(reference_tests.test_an_image_does_not_depend_on_its_company)
    test_strided_views_and_empty_batches = staticmethod(reference_tests.test_strided_views_and_empty_batches)
    test_compiles_into_one_graph = staticmethod(reference_tests.test_compiles_into_one_graph)
    test_errors_name_both_values = staticmethod(reference_tests.test_errors_name_both_values)


def random_case(seed):
    """Inputs and options; offsets are whole 1024ths of a pixel, so that no rounding moves a sample across a pixel."""
    pick = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    kernel_size = pick.choice([(3, 3), (3, 3), (3, 3), (1, 1), (2, 3), (1, 5), (5, 5), (7, 7)])
    remove_center = kernel_size in [(3, 3), (5, 5)] and pick.random() < 0.3
    points = kernel_size[0] * kernel_size[1] - remove_center
    groups, channels = pick.choice([1, 2, 3, 5]), pick.choice([16, 32, 64, 1, 5, 20, 48, 80])
    stride, dilation = (pick.choice([1, 1, 2, 3]), pick.choice([1, 2])), (pick.choice([1, 1, 2]), pick.choice([1, 3]))
    padding = tuple(
        pick.choice([0, 1, 2, spread * (size // 2)]) for size, spread in zip(kernel_size, dilation, strict=True)
    )
    out_size = [pick.choice([1, 2, 3, 5]) for _ in range(2)]
    size = [
        max(1, (out - 1) * step + spread * (side - 1) + 1 - 2 * pad)
        for out, step, spread, side, pad in zip(out_size, stride, dilation, kernel_size, padding, strict=True)
    ]
    out_size = [
        (side + 2 * pad - spread * (k - 1) - 1) // step + 1
        for side, pad, spread, k, step in zip(size, padding, dilation, kernel_size, stride, strict=True)
    ]
    dtype = pick.choice([torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16])
    reach = pick.choice([0.5, 2, 3 * max(size)])
    shape = (pick.choice([1, 2]), *out_size, groups, points)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    offset = ((torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 2 - 1) * reach * 1024).round() / 1024
    weight = normal(*shape)
    if pick.random() < 0.3:  # packed as in DCNv4
        packed = torch.cat((offset.flatten(-2), weight), dim=-1).to(dtype)
        offset, weight = packed[..., : 2 * points].unflatten(-1, (points, 2)), packed[..., 2 * points :]
    inputs = [tensor.to(dtype) for tensor in (normal(shape[0], *size, groups, channels), offset, weight)]
    options = {
        "kernel_size": kernel_size,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "offset_scale": pick.choice([1.0, 1.0, 2.0, 0.5]),
        "remove_center": remove_center,
        "softmax": pick.random() < 0.5,
    }
    return inputs, normal(*shape[:3], groups * channels).to(dtype), options


def check_random_cases(kernel, seeds):
    for seed in seeds:
        inputs, gradient, options = random_case(seed)
        ours = [tensor.detach().requires_grad_() for tensor in inputs]
        exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
        out = kernel.deformable_aggregate(*ours, **options)
        expected = reference(*exact, **options)
        out.backward(gradient)
        expected.backward(gradient.double())
        epsilon = torch.finfo(out.dtype).eps
        tolerance = epsilon if out.dtype in (torch.bfloat16, torch.float16) else 50 * epsilon
        pairs = [("output", out, expected)]
        pairs += [
            (name, a.grad, b.grad) for name, a, b in zip(("value", "offset", "weight"), ours, exact, strict=True)
        ]
        for name, actual, wanted in pairs:
            assert actual.dtype == out.dtype
            error = (actual.double() - wanted).abs().max().item() / max(1.0, wanted.abs().max().item())
            assert error <= tolerance, (
                f"seed {seed}, {name}: {error / epsilon:.1f} eps ({options=}, {inputs[0].shape=})"
            )


def test_random_cases(kernel, path):
    check_random_cases(kernel, range(150))


@pytest.mark.slow
def test_many_random_cases(kernel, path):
    check_random_cases(kernel, range(1000, 3000))


def test_sides_of_one_pixel(kernel, path):
    """A single row or column has no second pixel to interpolate with."""
    for size in [(1, 1), (1, 4), (4, 1)]:
        inputs = reference_tests.random_inputs(dtype=torch.float32, size=size, channels=16)
        out = kernel.deformable_aggregate(*inputs, kernel_size=3, padding=1)
        torch.testing.assert_close(out, reference(*inputs, kernel_size=3, padding=1))


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_softmax_of_any_weights(kernel, path, kernel_size):
    """The kernel shifts weights only where it must: far from zero, far apart, infinite, or no number."""
    points = kernel_size**2
    value, offset, weight = reference_tests.random_inputs(
        dtype=torch.float32, channels=16, kernel_size=(kernel_size, kernel_size)
    )
    for row, shift in enumerate((-1000.0, -90.0, 0.0, 90.0, 1000.0)):
        weight[0, row] += shift
    weight[1, 0] *= 60
    weight[1, 1, :, :, : points // 2] = -float("inf")
    weight[1, 2, :, :, 1] = float("inf")
    weight[1, 3, :, :, 2] = float("nan")
    weight[1, 4] = -float("inf")
    options = {"kernel_size": kernel_size, "padding": kernel_size // 2, "softmax": True}
    out = kernel.deformable_aggregate(value, offset, weight, **options)
    expected = reference(value, offset, weight, **options)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_more_elements_than_an_int32_counts(kernel, path):
    """Views into memory that is never written: the second image lies 2^31 elements after the first."""
    small = reference_tests.random_inputs(dtype=torch.bfloat16, channels=16)
    far = 2**31 + 64
    views = []
    for tensor in small:
        view = torch.empty(far + tensor[0].numel(), dtype=tensor.dtype).as_strided(
            tensor.shape, (far, *tensor.stride()[1:])
        )
        views.append(view.copy_(tensor))
    out = kernel.deformable_aggregate(*views, kernel_size=3, padding=1)
    assert torch.equal(out, kernel.deformable_aggregate(*small, kernel_size=3, padding=1))


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("channels", [5, 16, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_poison_stays_where_it_is_sampled(kernel, path, poison, channels, dtype):
    """Non-finite pixels, weights and gradients reach exactly the numbers that they reach in the reference."""
    value, offset, weight = reference_tests.random_inputs(dtype=dtype, size=(8, 8), channels=channels, spread=2.0)
    value[0, 0, 0], value[1, 3, 5, 0, 0], weight[0, 6, 6, 0, 4] = poison, poison, poison
    gradient = torch.ones(2, 8, 8, 2 * channels, dtype=dtype)
    gradient[1, 7, 7, 0] = poison
    results = []
    for function in (kernel.deformable_aggregate, reference):
        inputs = [tensor.clone().requires_grad_() for tensor in (value, offset, weight)]
        out = function(*inputs, kernel_size=3, padding=1)
        out.backward(gradient)
        results.append([out, inputs[0].grad])
    for ours, expected in zip(*results, strict=True):
        assert torch.equal(ours.isfinite(), expected.isfinite())
        finite = expected.isfinite()
        torch.testing.assert_close(ours[finite], expected[finite], rtol=0.02, atol=torch.finfo(dtype).eps * 20)


@pytest.mark.parametrize("softmax", [False, True])
def test_opcheck(operators, softmax):
    inputs = [t.requires_grad_() for t in reference_tests.random_inputs(dtype=torch.float32, channels=16)]
    options = ([3, 3], [1, 1], [1, 1], [1, 1], 1.0, False, softmax)
    torch.library.opcheck(operators.deformable_aggregate_forward.default, (*inputs, *options))
    gradient = torch.ones(2, 5, 6, 32)
    inputs = [tensor.detach() for tensor in inputs]
    torch.library.opcheck(operators.deformable_aggregate_backward.default, (gradient, *inputs, *options))


def test_export(kernel, tmp_path):
    class Model(torch.nn.Module):
        def forward(self, value, offset, weight):
            return kernel.deformable_aggregate(value, offset, weight, kernel_size=3, padding=1, softmax=True)

    inputs = reference_tests.random_inputs(dtype=torch.float32)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(Model(), inputs, dynamic_shapes=({0: batch}, {0: batch}, {0: batch}))
    torch.export.save(program, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2")
    inputs = reference_tests.random_inputs(dtype=torch.float32, batch=3)
    torch.testing.assert_close(program.module()(*inputs), Model()(*inputs))


def test_inductor_trains_in_one_graph(kernel):
    """Packed views keep their strides through the compiler, and the gradient is that of eager mode."""

    def run(value, packed):
        offset, weight = reference_tests.unpack(packed, 2, 9)
        return kernel.deformable_aggregate(value, offset, weight, kernel_size=3, padding=1).square().sum()

    value, offset, weight = reference_tests.random_inputs(dtype=torch.float32, channels=16)
    packed = torch.cat((offset.flatten(-2), weight), dim=-1).flatten(-2)
    gradients = []
    for function in (run, torch.compile(run, fullgraph=True)):
        inputs = [tensor.clone().requires_grad_() for tensor in (value, packed)]
        function(*inputs).backward()
        gradients.append([tensor.grad for tensor in inputs])
    torch.testing.assert_close(*gradients)


def test_packed_views_are_read_without_a_copy(kernel):
    value, offset, weight = reference_tests.random_inputs(dtype=torch.float32, channels=16)
    packed = torch.cat((offset.flatten(-2), weight), dim=-1).flatten(-2)
    half = torch.cat((value, value), dim=3)[:, :, :, :2]  # the first groups of a wider tensor
    views = reference_tests.unpack(packed, 2, 9)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        out = kernel.deformable_aggregate(half, *views, kernel_size=3, padding=1)
    assert not {"aten::clone", "aten::copy_", "aten::contiguous"} & {event.name for event in profile.events()}
    assert torch.equal(out, kernel.deformable_aggregate(value, offset, weight, kernel_size=3, padding=1))


def test_views_of_any_stride(kernel):
    """Where memory cannot be read in place there is a copy, never a wrong number."""
    value, offset, weight = reference_tests.random_inputs(dtype=torch.float32, channels=16)
    expected = kernel.deformable_aggregate(value, offset, weight, kernel_size=3, padding=1)
    channels_first = value.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    cropped = torch.nn.functional.pad(value, (0, 0, 0, 0, 2, 3, 1, 1))[:, 1:-1, 2:-3]
    points_apart = offset.transpose(-1, -2).contiguous().transpose(-1, -2)
    for other in ((channels_first, offset, weight), (cropped, offset, weight), (value, points_apart, weight)):
        assert torch.equal(kernel.deformable_aggregate(*other, kernel_size=3, padding=1), expected)
    weight_apart = weight.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert torch.equal(kernel.deformable_aggregate(value, offset, weight_apart, kernel_size=3, padding=1), expected)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_number_of_threads_changes_nothing(kernel, batch):
    value, offset, weight = reference_tests.random_inputs(
        dtype=torch.float32, batch=batch, size=(17, 19), groups=6, channels=16, spread=3.0
    )
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            inputs = [tensor.clone().requires_grad_() for tensor in (value, offset, weight)]
            out = kernel.deformable_aggregate(*inputs, kernel_size=3, padding=1, softmax=True)
            out.sin().sum().backward()
            results.append([out, *(tensor.grad for tensor in inputs)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_empty_inputs(kernel):
    value, offset, weight = (t[:0].requires_grad_() for t in reference_tests.random_inputs(dtype=torch.float32))
    out = kernel.deformable_aggregate(value, offset, weight, kernel_size=3, padding=1)
    out.sum().backward()
    assert out.shape == (0, 5, 6, 6)
    assert value.grad.shape == value.shape
    # a 1x1 kernel without its centre has no points
    value, offset, weight = reference_tests.random_inputs(dtype=torch.float32, kernel_size=(1, 1))
    out = kernel.deformable_aggregate(value, offset[..., :0, :], weight[..., :0], kernel_size=1, remove_center=True)
    assert (out == 0).all()


def test_the_operator_checks_its_arguments(operators):
    value, offset, weight = reference_tests.random_inputs(dtype=torch.float32)
    options = ([3, 3], [1, 1], [1, 1], [1, 1], 1.0, False, False)
    with pytest.raises(RuntimeError, match=r"offset: expected \(2, 5, 6, 2, 9, 2\), got \(2, 5, 6, 2, 8, 2\)"):
        operators.deformable_aggregate_forward(value, offset[..., :8, :], weight, *options)
    with pytest.raises(RuntimeError, match="share a dtype"):
        operators.deformable_aggregate_forward(value, offset.double(), weight, *options)
    with pytest.raises(RuntimeError, match="float32, float64, bfloat16 or float16"):
        operators.deformable_aggregate_forward(value.int(), offset.int(), weight.int(), *options)
    with pytest.raises(RuntimeError, match=r"grad_output: expected \(2, 5, 6, 6\), got \(2, 5, 6, 5\)"):
        operators.deformable_aggregate_backward(torch.ones(2, 5, 6, 5), value, offset, weight, *options)


def test_an_unknown_path_is_an_error(kernel, monkeypatch):
    monkeypatch.setenv("DEFORMABLE_CONV_CPU_PATH", "sse9")
    with pytest.raises(RuntimeError, match="expected avx512, avx2 or portable, got sse9"):
        kernel.cpu_path()


@layer_name("DeformableAggregation")
class Aggregation(torch.nn.Module):
    kernel_size, stride, padding, dilation, offset_scale, remove_center, softmax = 3, 1, 1, 1, 1.0, False, True

    def forward(self, value, offset, weight):
        return reference(value, offset, weight, kernel_size=3, padding=1, softmax=True)


@pytest.mark.parametrize("mode", [Mode.INFERENCE, Mode.TRAINING, Mode.INFERENCE | Mode.TORCH_COMPILE])
def test_kernelize(kernel, mode):
    layer = LocalLayerRepository(repo_path=cpu_variant(), layer_name="DeformableAggregation")
    inputs = reference_tests.random_inputs(dtype=torch.float32, channels=16)
    expected = Aggregation()(*inputs)
    with use_kernel_mapping({"DeformableAggregation": {"cpu": layer}}, inherit_mapping=False):
        model = kernelize(Aggregation(), mode=mode, device="cpu", use_fallback=KernelizeFallback.NONE)
    torch.testing.assert_close(model(*inputs), expected)
    assert model.forward.__func__ is not Aggregation.forward
