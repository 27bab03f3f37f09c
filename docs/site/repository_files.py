"""What the site takes from the rest of the repository: the sources of the API pages, and files that pages link to."""

import re
import shutil
import tomllib
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "build" / "docs-sources"  # mkdocs.yml names it too
RELATIVE_LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")


def on_startup(command: str, dirty: bool) -> None:
    """Lay the sources out as they are installed; mkdocstrings, which does not import them, looks for them by path."""
    shutil.rmtree(SOURCES, ignore_errors=True)
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    for package, folder in setuptools["package-dir"].items():
        for path in (ROOT / folder).rglob("*.py"):
            copy = SOURCES / package.replace(".", "/") / path.relative_to(ROOT / folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to outside of docs/, such as `../examples/gallery/erf.png`.

    So one relative link works both where the repository is browsed and in the site. A link to nothing stays one, which
    a strict build refuses.
    """
    pages = [Path(page.abs_src_path) for page in files.documentation_pages()]
    for page in pages:  # which grows
        for link in RELATIVE_LINK.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / link).resolve()
            if not path.is_file() or ROOT not in path.parents or Path(config.docs_dir) in path.parents:
                continue
            name = path.relative_to(ROOT)
            uri = f"../{name.as_posix()}"  # as a link on a page in docs/ resolves
            if uri in files.src_uris:
                continue
            is_page = path.suffix == ".md"
            file = File(
                uri,
                config.docs_dir,
                config.site_dir,
                use_directory_urls=False,
                dest_uri=f"repository/{(name.with_suffix('.html') if is_page else name).as_posix()}",
                inclusion=InclusionLevel.NOT_IN_NAV,
            )
            files.append(file)
            if is_page:
                pages.append(path)
    return files
