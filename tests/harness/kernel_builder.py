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


def cpu_variant(name: str) -> Path:
    """A kernel's build for the CPU: named, because a PyTorch for GPUs would choose another one in the folder."""
    (variant,) = (built_kernel(name) / "build").glob("torch*-cpu-*")  # not what an interrupted build left
    return variant


EMULATED = """
[general]
name = "{name}"
version = 1
edition = 5
license = "MIT"
backends = ["cpu"]
[torch]
include = ["."]
src = {torch}
[torch.stable-abi]
cpu = "2.11"
[kernel.emulated]
backend = "cpu"
include = ["."]
src = {cuda}
"""


def as_cpp(path: str) -> str:
    """The name under which a C++ compiler takes a CUDA source for its own."""
    return f"{path.removesuffix('.cu')}.cpp" if path.endswith(".cu") else path


def emulated_variant(name: str) -> Path:
    """A build for CPU tensors of the kernel's CUDA source, with the emulator in the place of a GPU."""
    skip_without_compiler()
    build, folder = load_build(), KERNELS_SRC / name / "build" / "emulated"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        files = build.source_files(KERNELS_SRC / name)
        config = build.tomllib.loads(files["build.toml"].read_text())
        emulator = [path for path in KERNELS_SRC.glob("common/emulator/*") if path.is_file()]
        files |= {path.relative_to(KERNELS_SRC).as_posix(): path for path in emulator}
        (cuda,) = (kernel["src"] for kernel in config["kernel"].values() if kernel["backend"] == "cuda")
        for path, file in files.items():
            target = folder / as_cpp(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        sources = [as_cpp(path) for path in cuda] + [path for path in files if path.startswith("common/emulator/")]
        toml = EMULATED.format(name=name, torch=config["torch"]["src"], cuda=sources)
        (folder / "build.toml").write_text(toml)
        build._check_library = lambda library: None  # it stays on this machine
        return build.build_kernel(folder)


def large_kernel():
    """The function of the compiled large-kernel convolution."""
    return get_local_kernel(cpu_variant("large-kernel-conv")).depthwise_conv2d
