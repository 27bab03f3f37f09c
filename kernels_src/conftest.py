"""Fixtures of the kernels' own tests, KERNEL/tests/test_*.py, which test a build as its users load it.

Build it first; `LOCAL_KERNELS=hf-models/KERNEL=PATH` tests a build that lies elsewhere.
"""

import os
import sys

import pytest
import torch
from kernels import get_kernel, get_local_kernel

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=needs_gpu)])
def device(request):
    return request.param


@pytest.fixture(scope="module")
def kernel(request, device):
    folder = request.path.parents[1]
    if f"hf-models/{folder.name}=" in os.environ.get("LOCAL_KERNELS", ""):
        return get_kernel(f"hf-models/{folder.name}", revision="v1", backend=device)
    return get_local_kernel(folder, backend=device)


@pytest.fixture
def operators(kernel):
    return sys.modules[f"{kernel.__name__}._ops"].ops


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def path(request, device, kernel, monkeypatch):
    """What the device runs: a GPU its own code, a processor that of each path that it has."""
    if (request.param == "cuda") != (device == "cuda"):
        pytest.skip(f"not for {device}")
    if device == "cpu":
        folder = request.path.parents[1].name
        monkeypatch.setenv(f"{folder.replace('-', '_').upper()}_CPU_PATH", request.param)
        try:
            kernel.cpu_path()
        except RuntimeError as error:
            pytest.skip(str(error).splitlines()[0])
    return request.param
