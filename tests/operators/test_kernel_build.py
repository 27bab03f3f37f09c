"""kernels_src/build.py: what it refuses, and what it writes."""

import ctypes
import json
import platform
import re
import shutil
import struct
import subprocess

import pytest
from kernels._rust import Build, Digest, DigestAlgorithm, Metadata

from hf_models.errors import InputError

from ..harness.kernel_builder import KERNELS_SRC, built_kernel, load_build, skip_without_compiler

BUILD_TOML = """
[general]
name = "toy"
version = 1
edition = 5
license = "MIT"
backends = ["cpu"]
[torch]
src = ["torch-ext/torch_binding.cpp"]
[torch.stable-abi]
cpu = "{abi}"
"""


def toy_kernel(folder, source="int main;\n", abi="2.11"):
    (folder / "torch-ext" / "toy").mkdir(parents=True)
    (folder / "build.toml").write_text(BUILD_TOML.format(abi=abi))
    (folder / "torch-ext" / "torch_binding.cpp").write_text(source)
    (folder / "torch-ext" / "toy" / "__init__.py").write_text("")
    return folder


def test_the_official_builder_reads_every_build_toml():
    folders = [path.parent for path in KERNELS_SRC.glob("*/build.toml")]
    assert folders
    for folder in folders:
        Build.open(folder)


def test_a_build_says_what_it_is():
    folder = built_kernel("deformable-conv")
    (variant,) = (folder / "build").glob("torch-stable-abi211-cpu-*")
    metadata = Metadata.read_from_file(variant / "metadata.json")
    assert str(metadata.name) == "deformable-conv"
    assert metadata.id in {path.name.removesuffix(".abi3.so") for path in variant.iterdir()}
    recorded = json.loads((variant / "metadata.json").read_text())["digest"]["files"]
    actual = Digest.hash_variant(DigestAlgorithm.SHA256, variant).files
    assert {name: actual[name] for name in recorded} == recorded
    assert load_build().build_kernel(folder) == variant  # up to date, so nothing is compiled


def architectures(library):
    """Those with machine code in the library's fat binary, which is a header and a list of entries, each as here."""
    start = library.index(b"\x50\xed\x55\xba")
    _, _, header, size = struct.unpack_from("<IHHQ", library, start)
    entry, end, found = start + header, start + header + size, []
    while entry < end:
        kind, _, header, size, _, _, architecture = struct.unpack_from("<HHIQQII", library, entry)
        found += [architecture] if kind == 2 else []
        entry += header + size
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deformable-conv", "large-kernel-conv", "detection-ops"])
def test_the_cuda_build_has_every_architecture(tmp_path, name):
    if not shutil.which("nvcc"):
        pytest.skip("no nvcc: the CUDA toolkit is not installed")
    variant = load_build().build_kernel(KERNELS_SRC / name, "cuda", tmp_path)
    assert variant.name.startswith("torch-stable-abi211-cu")
    (library,) = variant.glob("*.abi3.so")
    assert architectures(library.read_bytes()) == [80, 90, 100, 120]
    metadata = json.loads((variant / "metadata.json").read_text())
    assert metadata["backend"] == {"type": "cuda", "archs": ["8.0", "9.0", "10.0", "12.0"]}


@pytest.mark.parametrize(
    ("change", "backend", "message"),
    [
        (lambda folder: (folder / "build.toml").unlink(), "cpu", "no kernel, it has no build.toml"),
        (lambda folder: (folder / "build.toml").write_text("[general"), "cpu", "not as expected"),
        (
            lambda folder: (folder / "torch-ext" / "torch_binding.cpp").unlink(),
            "cpu",
            "names torch-ext/torch_binding",
        ),
        (lambda folder: None, "cuda", "no backend cuda, it has cpu"),
        (lambda folder: None, "tpu", "expected one of cpu, cuda, got tpu"),
    ],
)
def test_unusable_kernels(tmp_path, change, backend, message):
    folder = toy_kernel(tmp_path)
    change(folder)
    with pytest.raises(InputError, match=message):
        load_build().build_kernel(folder, backend)


def test_a_build_sees_only_what_build_toml_names(tmp_path):
    """As kernel-builder does, which copies no other file."""
    skip_without_compiler()
    folder = toy_kernel(tmp_path, '#include "forgotten.h"\n')
    (folder / "torch-ext" / "forgotten.h").write_text("int main;\n")
    with pytest.raises(InputError, match=r"failed: .*forgotten\.h"):
        load_build().build_kernel(folder)


def test_what_kernels_share_is_a_source_of_each(tmp_path):
    """It lies beside the kernel, or in its folder where it was published alone, and a change of it is a new build."""
    build, folder = load_build(), toy_kernel(tmp_path / "toy")
    toml = folder / "build.toml"
    toml.write_text(toml.read_text().replace("src = [", 'src = ["common/shared.h", '))

    def build_name():
        files = build.source_files(folder)
        return build._unique_name(files, build._read_config(folder, "cpu"), "cpu")

    with pytest.raises(InputError, match=r"names common/shared\.h, which is not there"):
        build_name()
    names = []
    for place in (tmp_path, folder):
        (place / "common").mkdir()
        for text in ("// one\n", "// two\n"):
            (place / "common" / "shared.h").write_text(text)
            assert build.source_files(folder)["common/shared.h"] == place / "common" / "shared.h"
            names.append(build_name())
    assert names[0] == names[2] != names[1] == names[3]


def test_a_newer_torch_is_asked_for(tmp_path):
    with pytest.raises(InputError, match=r"needs PyTorch 9\.9 or later"):
        load_build().build_kernel(toy_kernel(tmp_path, abi="9.9"))


def test_a_compiler_error_is_one_line_and_leaves_nothing(tmp_path):
    built_kernel("deformable-conv")  # skips without a compiler
    folder = toy_kernel(tmp_path, "#error does not compile\n")
    with pytest.raises(InputError, match=r"failed: .*does not compile") as error:
        load_build().build_kernel(folder)
    assert "\n" not in str(error.value)
    assert not list((folder / "build").iterdir())


def test_progress_counts_the_files(tmp_path):
    skip_without_compiler()
    told = []
    load_build().build_kernel(toy_kernel(tmp_path, "int toy;\n"), tell=lambda *numbers: told.append(numbers))
    assert told == [(1, 2), (2, 2)]  # the kernel's only file, and what every kernel gets


CALLS_DLSYM = """
#include <dlfcn.h>
extern "C" __attribute__((visibility("default"))) void* PyInit_toy() { return dlsym(RTLD_DEFAULT, "malloc"); }
"""


def test_dlsym_is_asked_of_every_glibc(tmp_path, caplog):
    """PyTorch's headers call it from 2.14 on; the version that a linker takes by itself is that of glibc 2.34."""
    skip_without_compiler()
    build = load_build()
    (library,) = build.build_kernel(toy_kernel(tmp_path, CALLS_DLSYM)).glob("*.so")
    symbols = subprocess.run(["nm", "-D", library], check=True, capture_output=True, text=True).stdout
    if platform.machine() in ("x86_64", "aarch64"):
        assert re.findall(r"dlsym@(\S+)", symbols) == [
            "GLIBC_2.2.5" if platform.machine() == "x86_64" else "GLIBC_2.17"
        ]
        assert not caplog.records
        build.check_portable(library)
    toy = ctypes.CDLL(str(library)).PyInit_toy
    toy.restype = ctypes.c_void_p
    assert toy()


def test_what_only_newer_systems_have_does_not_stop_a_build(tmp_path, caplog):
    """It is said, and what is published is checked again."""
    skip_without_compiler()
    pytest.importorskip("kernel_abi_check")
    if tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 34):
        pytest.skip("closefrom is of glibc 2.34")
    source = 'extern "C" void closefrom(int);\nextern "C" void PyInit_toy() { closefrom(99); }\n'
    build = load_build()
    (library,) = build.build_kernel(toy_kernel(tmp_path, source)).glob("*.so")
    assert f"{library.name}: runs here, but cannot be published" in caplog.text and "lack closefrom" in caplog.text
    with pytest.raises(
        InputError, match=r"manylinux_2_28 and Python 3\.9 lack closefrom\. Build it on an older system"
    ):
        build.check_portable(library)


def test_unstable_symbols_are_refused(tmp_path):
    built_kernel("deformable-conv")
    source, library = tmp_path / "a.cpp", tmp_path / "a.so"
    source.write_text("namespace at { void unstable(); }\nvoid f() { at::unstable(); }\n")
    subprocess.run(["g++", "-shared", "-fPIC", source, "-o", library], check=True)
    with pytest.raises(InputError, match=r"a.so: uses unstable symbols of LibTorch: at::unstable\(\)"):
        load_build()._check_library(library)
