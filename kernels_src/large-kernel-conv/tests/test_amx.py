"""The bfloat16 path for processors with AMX, on emulated tile registers: its code but for five instructions."""

import ctypes
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

FOLDER = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def convolve(tmp_path_factory):
    """The function of emulated_amx.cpp, on tensors."""
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        pytest.skip(f"no C++ compiler: {compiler} is not there")
    library, source = tmp_path_factory.mktemp("amx") / "amx.so", FOLDER / "large_kernel_conv_cpu"
    includes = [f"-I{folder}" for folder in (source, FOLDER, FOLDER.parent)]  # common/ lies in one of the latter
    command = [compiler, "-shared", "-fPIC", "-O2", "-std=c++17", *includes, "-o", library]
    subprocess.run([*command, FOLDER / "tests" / "emulated_amx.cpp", source / "path_portable.cpp"], check=True)
    function = ctypes.CDLL(str(library)).convolve

    def call(input, weight, bias, chunks):
        output = torch.empty_like(input)
        sizes = (ctypes.c_int64 * 6)(*input.shape, *weight.shape[2:])
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (input, weight, bias, output)]
        channels_last = ctypes.c_int64(not input.is_contiguous())
        function(*pointers, sizes, channels_last, ctypes.c_int64(chunks))
        return output

    return call


def exact(input, weight, bias):
    padding = [size // 2 for size in weight.shape[2:]]
    return F.conv2d(input.double(), weight.double(), bias.double(), padding=padding, groups=input.shape[1])


@pytest.mark.parametrize("seed", range(40))
def test_random_cases(convolve, seed):
    """One rounding of exact sums; where the float32 sum lies between two bfloat16, either of them."""
    pick, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    batch, channels = pick.choice([1, 2, 3, 5]), pick.choice([1, 3, 8, 9])
    height, width = (pick.choice([1, 7, 14, 15, 16, 17, 30, 33, 56, 65]) for _ in range(2))
    kernel_size = [pick.choice([3, 5, 13, 17, 19, 27, 31, 51]) for _ in range(2)]
    input, weight, bias = (
        torch.randn(*shape, generator=generator).bfloat16()
        for shape in ((batch, channels, height, width), (channels, 1, *kernel_size), (channels,))
    )
    if pick.random() < 0.5:
        input = input.to(memory_format=torch.channels_last)
    out, expected = convolve(input, weight, bias, pick.randint(1, batch)), exact(input, weight, bias)
    slack = 1e-6 * exact(input.abs(), weight.abs(), bias.abs())
    assert (out >= (expected - slack).bfloat16()).all()
    assert (out <= (expected + slack).bfloat16()).all()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_poison_reaches_only_the_windows_that_have_it(convolve, poison):
    input, weight, bias = torch.randn(2, 3, 20, 20), torch.randn(3, 1, 5, 5), torch.randn(3)
    input[1, 2, 10, 10] = poison
    out = convolve(input.bfloat16(), weight.bfloat16(), bias.bfloat16(), 1)
    finite = torch.ones(2, 3, 20, 20, dtype=torch.bool)
    finite[1, 2, 8:13, 8:13] = False
    assert torch.equal(out.isfinite(), finite)
