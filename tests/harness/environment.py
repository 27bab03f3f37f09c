"""A Python environment of its own, for tests of what a user meets outside of this one."""

import os
import subprocess
import sys
import venv
from pathlib import Path


class Environment:
    """A virtual environment on the libraries that are installed here, and a home folder; both are new.

    Args:
        folder: Where they are made.
        package: Whether hf_models is there as it is here. Without, an editable install of it is not seen.
    """

    def __init__(self, folder: Path, *, package: bool):
        self.prefix, self.home = folder / "environment", folder / "home"
        self.home.mkdir(parents=True)
        venv.create(self.prefix, symlinks=os.name != "nt")
        libraries = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
        # Python follows the .pth files of a folder, by which an editable install is found, only where it is added thus
        lines = [f"import site; site.addsitedir({path!r})" if package else path for path in libraries]
        (site_packages,) = self.prefix.glob("[lL]ib/**/site-packages")
        (site_packages / "libraries.pth").write_text("\n".join(lines) + "\n")

        self.python = self.prefix / ("Scripts" if os.name == "nt" else "bin") / "python"
        self.variables = {"PATH": os.environ["PATH"], "HOME": str(self.home), "HF_HUB_OFFLINE": "1"}

    def run(self, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess:
        """Run Python in a folder, with no variables but `self.variables`: without the Hub, among others."""
        command = [self.python, *arguments]
        return subprocess.run(command, cwd=cwd, env=self.variables, capture_output=True, text=True)
