"""Build a kernel for this machine, without nix, in the layout that the `kernels` library loads.

    python build.py deformable-conv [--backend cpu|cuda] [--output DIR]

Reads the kernel's build.toml (edition 5 of kernel-builder's format), compiles its sources against the stable ABI of
LibTorch and Python's limited API, and writes DIR/torch-stable-abi<version>-<backend>-<platform>/. One build serves
every PyTorch from that version on. Needs g++ or clang++ (`CXX` names another), for CUDA nvcc too; no source is
compiled for the building machine only.

What all kernels share lies in common/ beside their folders. It is laid into the folder of a kernel when that is built
or published, so that a published kernel needs nothing else. Only files that build.toml names are there at a build,
because kernel-builder, which builds without this file, has only those too.
"""

import argparse
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch

try:
    from hf_models.errors import InputError
except ModuleNotFoundError:  # run as a script where the package is not installed

    class InputError(ValueError):
        """What the user gave cannot be used."""


SOURCES = Path(__file__).resolve().parent  # where the kernels of this project lie
BACKENDS = ("cpu", "cuda")
MANYLINUX = "manylinux_2_28"
PYTHON_ABI = "3.9"
LIMITS = f"{MANYLINUX} and Python {PYTHON_ABI}"  # what published kernels must run on
# What newer glibc and libstdc++ would supply: with copies in the library it runs on the older ones of manylinux_2_28.
# PyTorch's headers call dlsym from 2.14 on. In glibc 2.34 it moved to another library and got a new version, which the
# linker would ask for; `--wrap=dlsym` sends the calls here, to the version that every glibc has.
COMPATIBILITY = """\
#include <new>
#include <sstream>
extern "C" { char __libc_single_threaded = 0; }
template class std::basic_stringstream<char>;
template class std::basic_ostringstream<char>;
extern "C" void* __real_dlsym(void*, const char*);
#if defined(__x86_64__)
__asm__(".symver __real_dlsym,dlsym@GLIBC_2.2.5");
#elif defined(__aarch64__)
__asm__(".symver __real_dlsym,dlsym@GLIBC_2.17");
#endif
extern "C" void* __wrap_dlsym(void* handle, const char* name) { return __real_dlsym(handle, name); }
namespace std {
void __throw_bad_array_new_length() { throw bad_array_new_length(); }
}
"""
OPS = """\
import torch

from . import {name}

ops = torch.ops.{name}


def add_op_namespace_prefix(op_name: str):
    return f"{name}::{{op_name}}"
"""

logger = logging.getLogger(__name__)


def build_kernel(
    folder: str | Path,
    backend: str = "cpu",
    output: str | Path | None = None,
    tell: Callable[[int, int], None] = lambda compiled, files: None,
) -> Path:
    """Build one variant of the kernel in `folder`.

    Args:
        folder: Folder with a build.toml.
        backend: cpu or cuda.
        output: Folder of the variants; `folder`/build by default.
        tell: Is called when a file is compiled, with the number of those that are and of all.

    Returns:
        The variant's folder. It appears when it is complete and checked, and replaces one that is there, unless that
        one is of the same sources.

    Raises:
        InputError: The folder is no kernel, has no such backend, or does not compile; or a tool is missing.
    """
    folder = Path(folder).resolve()
    config = _read_config(folder, backend)
    output = Path(output).resolve() if output else folder / "build"
    files = _named_files(folder, config, [backend])
    name = _unique_name(files, config, backend)
    variant = output / _variant(config, backend)
    if _is_built(variant, name):
        return variant
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{variant.name}-", dir=output) as work:
        source, objects, built = (Path(work) / part for part in ("source", "objects", "variant"))
        objects.mkdir()
        for path, file in files.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, source / path)
        shutil.copytree(source / "torch-ext" / _python_name(config), built)
        library = built / f"{name}.abi3.so"
        _link(library, _compile(source, config, backend, name, objects, tell), backend)
        _check_library(library)
        (built / "_ops.py").write_text(OPS.format(name=name))
        _write_metadata(built, config, backend, name)
        shutil.rmtree(variant, ignore_errors=True)
        built.rename(variant)
    return variant


def build_id(folder: str | Path, backend: str = "cpu") -> str:
    """The `id` that a build of the kernel in `folder` has in its metadata.json; it changes with every source.

    Raises:
        InputError: The folder is no kernel, or has no such backend.
    """
    folder = Path(folder).resolve()
    config = _read_config(folder, backend)
    return _unique_name(_named_files(folder, config, [backend]), config, backend)


def source_files(folder: str | Path) -> dict[str, Path]:
    """All that a kernel is built from, on every backend.

    Args:
        folder: Folder with a build.toml.

    Returns:
        Path in the folder of a published kernel -> the file here.

    Raises:
        InputError: The folder is no kernel, or a file is missing.
    """
    folder = Path(folder).resolve()
    config = _parse_config(folder)
    return _named_files(folder, config, config["general"]["backends"])


def _parse_config(folder: Path) -> dict:
    path = folder / "build.toml"
    if not path.is_file():
        raise InputError(f"{folder}: no kernel, it has no build.toml.")
    try:
        config = tomllib.loads(path.read_text())
        config["general"]["name"], config["general"]["backends"], config["torch"]["stable-abi"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise InputError(f"{path}: not as expected: {error}.") from error
    return config


def _read_config(folder: Path, backend: str) -> dict:
    """The kernel's build.toml, if this backend can be built from it here."""
    if backend not in BACKENDS:
        raise InputError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend}.")
    config, path = _parse_config(folder), folder / "build.toml"
    backends, abi = config["general"]["backends"], config["torch"]["stable-abi"]
    if backend not in backends or backend not in abi:
        raise InputError(f"{path}: no backend {backend}, it has {', '.join(backends)}.")
    minimum = tuple(map(int, abi[backend].split(".")))
    if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < minimum:
        raise InputError(f"{path}: needs PyTorch {abi[backend]} or later, this is {torch.__version__}.")
    return config


def _python_name(config: dict) -> str:
    return config["general"]["name"].replace("-", "_")


def _kernels(config: dict, backend: str) -> list[dict]:
    return [kernel for kernel in config.get("kernel", {}).values() if kernel["backend"] == backend]


def _named_files(folder: Path, config: dict, backends: list[str]) -> dict[str, Path]:
    """build.toml, the files that it names for these backends, and the Python package, in the order of their paths."""
    paths = {"build.toml", *config["torch"].get("src", [])}
    paths.update(path for backend in backends for kernel in _kernels(config, backend) for path in kernel["src"])
    package = folder / "torch-ext" / _python_name(config)
    paths.update(path.relative_to(folder).as_posix() for path in package.rglob("*.py"))
    files = {}
    for path in sorted(paths):
        # a published kernel has common/ in its folder, the kernels of this repository have it beside theirs
        places = [folder / path] + [folder.parent / path] * path.startswith("common/")
        files[path] = next((place for place in places if place.is_file()), None)
        if files[path] is None:
            raise InputError(f"{folder / 'build.toml'}: names {path}, which is not there.")
    return files


def _unique_name(files: dict[str, Path], config: dict, backend: str) -> str:
    """The name of the module and operator namespace: two builds differ in it unless their sources agree."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path, file in files.items():
        digest.update(path.encode() + b"\0" + file.read_bytes() + b"\0")
    return f"_{_python_name(config)}_{backend}_{digest.hexdigest()[:7]}"


def _is_built(variant: Path, name: str) -> bool:
    try:
        return json.loads((variant / "metadata.json").read_text())["id"] == name
    except (OSError, ValueError, KeyError):
        return False


def _variant(config: dict, backend: str) -> str:
    abi = config["torch"]["stable-abi"][backend].replace(".", "")
    compute = "cpu" if backend == "cpu" else "cu" + _cuda_version().replace(".", "")
    return f"torch-stable-abi{abi}-{compute}-{platform.machine()}-{platform.system().lower()}"


def _compile(
    source: Path, config: dict, backend: str, name: str, objects: Path, tell: Callable[[int, int], None]
) -> list[Path]:
    """Compile in the folder `source`, whose own path so stays out of what is compiled."""
    major, minor = map(int, config["torch"]["stable-abi"][backend].split("."))
    headers = Path(torch.__file__).parent / "include"
    python_abi = int(PYTHON_ABI.split(".")[0]) << 24 | int(PYTHON_ABI.split(".")[1]) << 16
    common = [
        "-O3",
        "-std=c++17",
        f"-DTORCH_TARGET_VERSION=0x{major << 56 | minor << 48:016x}",
        f"-DTORCH_EXTENSION_NAME={name}",
        f"-DPy_LIMITED_API=0x{python_abi:08x}",
        f"-D{backend.upper()}_KERNEL",
        f"-I{headers}",
        f"-I{sysconfig.get_path('include')}",
    ]
    host = ["-fPIC", "-fvisibility=hidden", "-fno-gnu-unique"]
    if backend == "cuda":
        common += ["-DUSE_CUDA"]
    compatibility = objects / "compatibility.cpp"
    compatibility.write_text(COMPATIBILITY)

    jobs = []  # (command, object)
    for section in (config["torch"], {"src": [str(compatibility)]}, *_kernels(config, backend)):
        includes = [f"-I{folder}" for folder in section.get("include", [])]
        for path in map(Path, section.get("src", [])):
            target = objects / f"{len(jobs)}_{path.stem}.o"
            if path.suffix == ".cu":
                flags = ["--expt-relaxed-constexpr", "--expt-extended-lambda", "-Xcompiler", ",".join(host)]
                flags += section.get("cuda-flags", []) + _gencode(section.get("cuda-capabilities", []))
                jobs.append(([_nvcc(), "-c", path, "-o", target, *common, *includes, *flags], target))
            elif path.suffix in (".cpp", ".cc", ".cxx"):
                flags = [*host, *section.get("cxx-flags", [])]
                jobs.append(([_cxx(), "-c", path, "-o", target, *common, *includes, *flags], target))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = [pool.submit(_run, command, source) for command, _ in jobs]
        for compiled, job in enumerate(as_completed(running), 1):
            job.result()
            tell(compiled, len(jobs))
    return [target for _, target in jobs]


def _gencode(capabilities: list[str]) -> list[str]:
    numbers = [capability.replace(".", "") for capability in capabilities]
    return [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]


def _link(library: Path, objects: list[Path], backend: str) -> None:
    exports = objects[0].parent / "exports.map"
    exports.write_text("{ global: PyInit_*; local: *; };\n")
    # torch is loaded with local symbols, so the library must name it as needed
    options = ["--no-as-needed", "-ltorch", "-ltorch_cpu", "--as-needed", "-ldl", "--wrap=dlsym"]
    options = ",".join([*options, f"--version-script={exports}"])
    if backend == "cuda":  # nvcc knows where its runtime library lies
        linker = [_nvcc(), "--cudart=shared", "--no-device-link", "-Xlinker", options]
    else:
        linker = [_cxx(), f"-Wl,{options}"]
    _run([*linker, "-shared", "-o", library, *objects, f"-L{Path(torch.__file__).parent / 'lib'}"])


def _check_library(library: Path) -> None:
    """Refuse what would not load in another PyTorch; warn of what only other systems lack."""
    undefined = _run([os.environ.get("NM", "nm"), "-D", "-u", "-C", library])
    if unstable := re.findall(r"\b(?:at|c10)::\S+", undefined):
        raise InputError(f"{library.name}: uses unstable symbols of LibTorch: {', '.join(sorted(set(unstable)))}.")
    if lacking := _lacking_elsewhere(library):
        logger.warning(f"{library.name}: runs here, but cannot be published: {LIMITS} lack {', '.join(lacking)}.")


def check_portable(library: Path) -> None:
    """Refuse a library that does not run on every system for which kernels are published.

    Raises:
        InputError: It uses what older systems lack; or kernel-abi-check, which finds that, is not installed.
    """
    lacking = _lacking_elsewhere(library)
    if lacking is None:
        raise InputError("kernel-abi-check: not installed, and builds are checked with it. Install it with pip.")
    if lacking:
        raise InputError(f"{library.name}: {LIMITS} lack {', '.join(lacking)}. Build it on an older system.")


def _lacking_elsewhere(library: Path) -> list[str] | None:
    """Functions that a library uses and `LIMITS` lack; `None` where the tool that finds them is not installed.

    The tool reads the table of symbols that `strip` would remove.
    """
    try:
        from kernel_abi_check import ObjectFile
    except ModuleNotFoundError:
        return None
    binary = ObjectFile(str(library))
    return [symbol.name for symbol in (*binary.check_manylinux(MANYLINUX), *binary.check_python_abi(PYTHON_ABI))]


def _write_metadata(built: Path, config: dict, backend: str, name: str) -> None:
    from kernels._rust import Digest, DigestAlgorithm  # `kernels` has no public way to make a digest

    general = config["general"]
    capabilities = {arch for kernel in _kernels(config, backend) for arch in kernel.get("cuda-capabilities", [])}
    metadata = {
        "name": general["name"],
        "id": name,
        "version": general["version"],
        "license": general["license"],
        "python-depends": general.get("python-depends", []),
        "backend": {"type": backend, **({"archs": sorted(capabilities, key=float)} if capabilities else {})},
        "digest": {"algorithm": "sha256", "files": Digest.hash_variant(DigestAlgorithm.SHA256, built).files},
    }
    (built / "metadata.json").write_text(json.dumps(metadata, indent=2, sort_keys=True) + "\n")


def _cxx() -> str:
    for compiler in filter(None, (os.environ.get("CXX"), "g++", "clang++")):
        if shutil.which(compiler):
            return compiler
    raise InputError("C++ compiler: none found. Install g++, or name one in CXX.")


def _nvcc() -> str:
    nvcc = shutil.which("nvcc") or shutil.which(Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "nvcc")
    if not nvcc:
        raise InputError("nvcc: not found. Install the CUDA toolkit, or set CUDA_HOME.")
    return nvcc


def _cuda_version() -> str:
    return re.search(r"release (\d+\.\d+)", _run([_nvcc(), "--version"]))[1]


def _run(command: list, folder: Path | None = None) -> str:
    command = list(map(str, command))
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout
    except FileNotFoundError as error:
        raise InputError(f"{command[0]}: not found.") from error
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "error" in line] or error.stderr.splitlines()[-1:]
        raise InputError(f"{Path(command[0]).name} failed: {' '.join(lines[:1])}") from error


def main() -> None:
    """Entry point of the script."""
    parser = argparse.ArgumentParser(description="Build a kernel for this machine.")
    parser.add_argument("folder", type=Path, help="kernel folder, with a build.toml")
    parser.add_argument("--backend", choices=BACKENDS, default="cpu")
    parser.add_argument("--output", type=Path, help="folder of the variants; FOLDER/build by default")
    arguments = parser.parse_args()
    try:
        print(build_kernel(arguments.folder, arguments.backend, arguments.output))
    except InputError as error:
        sys.exit(" ".join(str(error).split()))


if __name__ == "__main__":
    main()
