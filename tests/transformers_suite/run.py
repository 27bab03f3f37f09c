"""Runs transformers' own common model, backbone and configuration tests against the families of hf_models.

The tests come from the source distribution of the installed transformers, which leaves some of their helpers out;
`standins/` takes the place of those. Arguments are passed on to pytest: `python run.py -k smt`.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers

HERE = Path(__file__).resolve().parent
WORK = HERE.parents[1] / "build" / "transformers_suite" / transformers.__version__


def download_tests(destination: Path) -> None:
    """Put `tests/` of the installed transformers' source distribution into a new folder."""
    requirement = f"transformers=={transformers.__version__}"
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent) as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "-d", folder, *options, requirement], check=True)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as files:
            members = [member for member in files if member.name.split("/")[1:2] == ["tests"]]
            files.extractall(folder, members=members, filter="data")
        (root,) = (path for path in Path(folder).iterdir() if path.is_dir())
        root.rename(destination)


def main() -> int:
    if not WORK.exists():
        download_tests(WORK)
    shutil.copytree(HERE / "standins", WORK, dirs_exist_ok=True)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(WORK), str(HERE / "external")]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # pytest-xdist already uses the cores
    }
    command = [sys.executable, "-m", "pytest", str(HERE / "external"), "-c", str(HERE / "pytest.ini"), *sys.argv[1:]]
    return subprocess.run(command, cwd=WORK, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
