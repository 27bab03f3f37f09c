"""Builds a kernel of this repository for tests, once for all processes; skips where nothing compiles."""

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import pytest
from filelock import FileLock
from kernels import get_local_kernel

KERNELS_SRC = Path(__file__).resolve().parents[2] / "kernels_src"


def load_build():
    """The module kernels_src/build.py."""
    spec = importlib.util.spec_from_file_location("kernels_src_build", KERNELS_SRC / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def skip_without_compiler() -> None:
    """Skip the test where no kernel can be built."""
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        pytest.skip(f"no C++ compiler: {compiler} is not there")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        pytest.skip("no Python.h: the headers of Python are not installed")


def built_kernel(name: str) -> Path:
    """The folder of a kernel, with a build for this machine in it."""
    skip_without_compiler()
    folder = KERNELS_SRC / name
    (folder / "build").mkdir(exist_ok=True)
    with FileLock(folder / "build" / ".lock"):
        load_build().build_kernel(folder)
    return folder


def large_kernel():
    """The function of the compiled large-kernel convolution."""
    (variant,) = (built_kernel("large-kernel-conv") / "build").glob("*-cpu-*")
    return get_local_kernel(variant).depthwise_conv2d
