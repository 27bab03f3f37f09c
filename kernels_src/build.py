"""Build a kernel for this machine, without nix, in the layout that the `kernels` library loads.

    python build.py deformable-conv [--backend cpu|cuda] [--output DIR]

Reads the kernel's build.toml (edition 5 of kernel-builder's format), compiles its sources against the stable ABI of
LibTorch and Python's limited API, and writes DIR/torch-stable-abi<version>-<backend>-<platform>/. One build serves
every PyTorch from that version on. Needs g++ or clang++ (`CXX` names another), for CUDA nvcc too; no source is
compiled for the building machine only.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

try:
    from hf_models.errors import InputError
except ModuleNotFoundError:  # run as a script where the package is not installed

    class InputError(ValueError):
        """What the user gave cannot be used."""


SOURCES = Path(__file__).resolve().parent  # where the kernels of this project lie
BACKENDS = ("cpu", "cuda")
MANYLINUX = "manylinux_2_28"
PYTHON_ABI = "3.9"
# What newer glibc and libstdc++ would supply: with copies in the library it runs on the older ones of manylinux_2_28.
COMPATIBILITY = """\
#include <new>
#include <sstream>
extern "C" { char __libc_single_threaded = 0; }
template class std::basic_stringstream<char>;
template class std::basic_ostringstream<char>;
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


def build_kernel(folder: str | Path, backend: str = "cpu", output: str | Path | None = None) -> Path:
    """Build one variant of the kernel in `folder`.

    Args:
        folder: Folder with a build.toml.
        backend: cpu or cuda.
        output: Folder of the variants; `folder`/build by default.

    Returns:
        The variant's folder. It appears when it is complete and checked, and replaces one that is there, unless that
        one is of the same sources.

    Raises:
        InputError: The folder is no kernel, has no such backend, or does not compile; or a tool is missing.
    """
    folder = Path(folder).resolve()
    config = _read_config(folder, backend)
    output = Path(output).resolve() if output else folder / "build"
    name = _unique_name(folder, config, backend)
    variant = output / _variant(config, backend)
    if _is_built(variant, name):
        return variant
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{variant.name}-", dir=output) as work:
        objects, built = Path(work) / "objects", Path(work) / "variant"
        objects.mkdir()
        python = folder / "torch-ext" / _python_name(config)
        shutil.copytree(python, built, ignore=shutil.ignore_patterns("__pycache__"))
        library = built / f"{name}.abi3.so"
        _link(library, _compile(folder, config, backend, name, objects), backend)
        _check_library(library)
        _run([os.environ.get("STRIP", "strip"), "--strip-unneeded", library])
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
    return _unique_name(folder, _read_config(folder, backend), backend)


def _read_config(folder: Path, backend: str) -> dict:
    if backend not in BACKENDS:
        raise InputError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend}.")
    path = folder / "build.toml"
    if not path.is_file():
        raise InputError(f"{folder}: no kernel, it has no build.toml.")
    try:
        config = tomllib.loads(path.read_text())
        backends, abi = config["general"]["backends"], config["torch"]["stable-abi"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise InputError(f"{path}: not as expected: {error}.") from error
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


def _unique_name(folder: Path, config: dict, backend: str) -> str:
    """The name of the module and operator namespace: two builds differ in it unless their sources agree."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    sources = {"build.toml", *config["torch"].get("src", [])}
    sources.update(source for kernel in _kernels(config, backend) for source in kernel["src"])
    package = folder / "torch-ext" / _python_name(config)
    sources.update(str(path.relative_to(folder)) for path in package.rglob("*.py"))
    for source in sorted(sources):
        if not (folder / source).is_file():
            raise InputError(f"{folder / 'build.toml'}: names {source}, which is not there.")
        digest.update(source.encode() + b"\0" + (folder / source).read_bytes() + b"\0")
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


def _compile(folder: Path, config: dict, backend: str, name: str, objects: Path) -> list[Path]:
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
        *_includes(folder, config["torch"].get("include", ["torch-ext"])),
    ]
    for kernel in _kernels(config, backend):
        common += _includes(folder, kernel.get("include", []))
    host = ["-fPIC", "-fvisibility=hidden", "-fno-gnu-unique"]
    if backend == "cuda":
        common += ["-DUSE_CUDA"]
    compatibility = objects / "compatibility.cpp"
    compatibility.write_text(COMPATIBILITY)

    jobs = []  # (command, object)
    groups = [(config["torch"].get("src", []), {}), ([str(compatibility)], {})]
    groups += [(kernel["src"], kernel) for kernel in _kernels(config, backend)]
    for sources, options in groups:
        for source in map(Path, sources):
            target = objects / f"{len(jobs)}_{source.stem}.o"
            if source.suffix == ".cu":
                flags = ["--expt-relaxed-constexpr", "--expt-extended-lambda", "-Xcompiler", ",".join(host)]
                flags += options.get("cuda-flags", []) + _gencode(options.get("cuda-capabilities", []))
                jobs.append(([_nvcc(), "-c", folder / source, "-o", target, *common, *flags], target))
            elif source.suffix in (".cpp", ".cc", ".cxx"):
                flags = [*host, *options.get("cxx-flags", [])]
                jobs.append(([_cxx(), "-c", folder / source, "-o", target, *common, *flags], target))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, [command for command, _ in jobs]))
    return [target for _, target in jobs]


def _includes(folder: Path, folders: list[str]) -> list[str]:
    return [f"-I{folder / include}" for include in folders]


def _gencode(capabilities: list[str]) -> list[str]:
    numbers = [capability.replace(".", "") for capability in capabilities]
    return [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]


def _link(library: Path, objects: list[Path], backend: str) -> None:
    exports = objects[0].parent / "exports.map"
    exports.write_text("{ global: PyInit_*; local: *; };\n")
    # torch is loaded with local symbols, so the library must name it as needed
    options = ",".join(["--no-as-needed", "-ltorch", "-ltorch_cpu", "--as-needed", f"--version-script={exports}"])
    if backend == "cuda":  # nvcc knows where its runtime library lies
        linker = [_nvcc(), "--cudart=shared", "--no-device-link", "-Xlinker", options]
    else:
        linker = [_cxx(), f"-Wl,{options}"]
    _run([*linker, "-shared", "-o", library, *objects, f"-L{Path(torch.__file__).parent / 'lib'}"])


def _check_library(library: Path) -> None:
    """Only stable interfaces may be asked of the outside; checked before the symbols are stripped."""
    undefined = _run([os.environ.get("NM", "nm"), "-D", "-u", "-C", library])
    if unstable := re.findall(r"\b(?:at|c10)::\S+", undefined):
        raise InputError(f"{library.name}: uses unstable symbols of LibTorch: {', '.join(sorted(set(unstable)))}.")
    try:
        from kernel_abi_check import ObjectFile
    except ModuleNotFoundError:
        return
    binary = ObjectFile(str(library))
    violations = [*binary.check_manylinux(MANYLINUX), *binary.check_python_abi(PYTHON_ABI)]
    if violations:
        raise InputError(
            f"{library.name}: not {MANYLINUX} and Python {PYTHON_ABI}: {'; '.join(map(str, violations))}."
        )


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


def _run(command: list) -> str:
    command = list(map(str, command))
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
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
