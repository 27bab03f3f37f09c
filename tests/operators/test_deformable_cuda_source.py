"""The CUDA kernel's source on the CPU: compiled against an emulated device, it must do what the reference does.

This shows that indices, synchronisation and arithmetic are right. It does not show that the kernel runs on a GPU.
"""

import shutil
import sys

import pytest
import torch
from filelock import FileLock
from kernels import get_local_kernel

from hf_models.deformable_aggregate import deformable_aggregate_reference as reference

from ..harness.kernel_builder import KERNELS_SRC, load_build, skip_without_compiler
from . import test_deformable_conv as reference_tests
from . import test_deformable_kernel as kernel_tests

BUILD_TOML = """
[general]
name = "deformable-conv"
version = 1
edition = 5
license = "MIT"
backends = ["cpu"]
[torch]
src = ["torch-ext/torch_binding.cpp", "torch-ext/torch_binding.h"]
[torch.stable-abi]
cpu = "2.11"
[kernel.emulated]
backend = "cpu"
depends = ["torch"]
include = ["deformable_conv_common", "deformable_conv_cpu", "deformable_conv_cuda", "tests"]
src = [{sources}]
"""


@pytest.fixture(scope="session")
def kernel():
    """The kernel for CPU tensors, made of the CUDA kernel's source."""
    skip_without_compiler()
    source = KERNELS_SRC / "deformable-conv"
    folder = source / "build" / "emulated"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        for part in ("torch-ext", "deformable_conv_common", "deformable_conv_cpu", "deformable_conv_cuda", "tests"):
            shutil.rmtree(folder / part, ignore_errors=True)
            shutil.copytree(source / part, folder / part)
        operator = folder / "deformable_conv_cuda" / "deformable_conv_cuda.cu"
        operator.rename(operator.with_suffix(".cpp"))
        sources = [*folder.glob("deformable_conv_c*/*"), *folder.glob("tests/cuda_emulator.*")]
        names = [path.relative_to(folder) for path in sources if "deformable_conv_cpu" not in path.parts]
        toml = BUILD_TOML.format(sources=", ".join(f'"{name}"' for name in sorted(names)))
        (folder / "build.toml").write_text(toml)
        build = load_build()
        build._check_library = lambda library: None  # it stays on this machine
        build.build_kernel(folder)
    return get_local_kernel(folder)


@pytest.fixture(params=["forward", "reverse"])
def path(request, kernel, monkeypatch):
    """The order in which the lanes of a warp take turns: no result may depend on it."""
    monkeypatch.setenv("EMULATOR_ORDER", request.param)
    return request.param


@pytest.fixture
def operators(kernel):
    return sys.modules[f"{kernel.__name__}._ops"].ops


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


TestAsReference = kernel_tests.TestAsReference
test_sides_of_one_pixel = kernel_tests.test_sides_of_one_pixel
test_softmax_of_any_weights = kernel_tests.test_softmax_of_any_weights
test_more_elements_than_an_int32_counts = kernel_tests.test_more_elements_than_an_int32_counts
test_poison_stays_where_it_is_sampled = kernel_tests.test_poison_stays_where_it_is_sampled
test_opcheck = kernel_tests.test_opcheck
test_packed_views_are_read_without_a_copy = kernel_tests.test_packed_views_are_read_without_a_copy
test_views_of_any_stride = kernel_tests.test_views_of_any_stride
test_empty_inputs = kernel_tests.test_empty_inputs
test_the_operator_checks_its_arguments = kernel_tests.test_the_operator_checks_its_arguments


def test_it_is_the_emulated_kernel_that_is_tested(kernel):
    assert kernel.cpu_path() == "emulated"


def test_random_cases(kernel, path):
    kernel_tests.check_random_cases(kernel, range(40))


def test_random_cases_in_order(kernel, path, deterministic):
    kernel_tests.check_random_cases(kernel, range(100, 120))


@pytest.mark.slow
def test_many_random_cases(kernel, path):
    kernel_tests.check_random_cases(kernel, range(1000, 2000))


def results(function, inputs, **options):
    """Output and gradients."""
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    out = function(*inputs, **options)
    out.sin().sum().backward()
    return [out.detach(), *(tensor.grad for tensor in inputs)]


@pytest.mark.parametrize("channels", [67, 300])
def test_more_channels_than_a_warp_takes_at_once(kernel, path, channels):
    """With more points, too, than shared memory takes at once."""
    inputs = reference_tests.random_inputs(batch=1, size=(2, 3), groups=1, channels=channels, kernel_size=(4, 5))
    options = {"kernel_size": (4, 5), "padding": (1, 2), "stride": 1, "softmax": True}
    inputs = (inputs[0], *(tensor[:, :1] for tensor in inputs[1:]))
    for ours, expected in zip(
        results(kernel.deformable_aggregate, inputs, **options), results(reference, inputs, **options), strict=True
    ):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_memory_that_is_not_aligned(kernel, path, dtype):
    value, offset, weight = reference_tests.random_inputs(dtype=dtype, channels=16)
    expected = kernel.deformable_aggregate(value, offset, weight, kernel_size=3, padding=1)
    for shift in (1, 2, 4):
        moved = [torch.cat((t.new_zeros(shift), t.flatten()))[shift:].view(t.shape) for t in (value, offset, weight)]
        assert torch.equal(kernel.deformable_aggregate(*moved, kernel_size=3, padding=1), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_deterministic_bits_depend_on_nothing_else(kernel, monkeypatch, deterministic, dtype):
    """Neither on the order of threads nor on the other images of the batch."""
    inputs = reference_tests.random_inputs(dtype=dtype, batch=3, channels=20, spread=3.0)
    options = {"kernel_size": 3, "padding": 1, "softmax": True}
    together = results(kernel.deformable_aggregate, inputs, **options)
    monkeypatch.setenv("EMULATOR_ORDER", "reverse")
    assert all(map(torch.equal, together, results(kernel.deformable_aggregate, inputs, **options)))
    for i in range(3):
        alone = results(kernel.deformable_aggregate, [tensor[i : i + 1] for tensor in inputs], **options)
        assert all(torch.equal(a[i : i + 1], b) for a, b in zip(together, alone, strict=True))
