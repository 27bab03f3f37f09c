"""`hf-models push`, `hf-models publish-all` and `hf-models kernels push`."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from .common import Verbose, one_line_errors

Repo = Annotated[str, typer.Option(help="ORG/NAME on the Hub; made if need be.")]
Private = Annotated[bool, typer.Option("--private", help="Make it private.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, publish nothing.")]


def push(
    folder: Annotated[Path, typer.Argument(help="Folder of a converted or fine-tuned model.")],
    repo: Repo,
    private: Private = False,
    revision: Annotated[str | None, typer.Option(help="Branch; made if need be.")] = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Publish a model on the Hub, with its card and the code that loads it without this package."""
    with one_line_errors(verbose):
        from hf_models.conversion.publish import push_model

        result = push_model(folder, repo, private=private, revision=revision, dry_run=dry_run)
    _print_result(result)


def push_kernel(
    name: Annotated[str, typer.Argument(help="The kernel, such as deformable-conv.")],
    repo: Repo,
    private: Private = False,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Publish the builds of a kernel on this machine, on the branch of its version."""
    with one_line_errors(verbose):
        from hf_models.conversion.publish import push_kernel

        result = push_kernel(name, repo, private=private, dry_run=dry_run)
    _print_result(result)
    if result["commit"]:
        print(f"HF_MODELS_TRUST_KERNELS={repo}@{result['commit']} has models load it from there")


def publish_all(
    org: Annotated[str, typer.Option(help="Organisation or user on the Hub.")],
    source: Annotated[Path, typer.Option("--from", help="Folder of original files, by their published names.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the converted models; `converted` in --from by default.")
    ] = None,
    private: Private = False,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Convert and publish every checkpoint of the zoo whose file is there; run again, it goes on."""
    with one_line_errors(verbose):
        from hf_models.conversion.publish import publish_all

        results = publish_all(org, source, out, private=private, dry_run=dry_run, tell=_print_line)
    counts = Counter(result["state"] for result in results.values())
    print(", ".join(f"{number} {state}" for state, number in sorted(counts.items())), file=sys.stderr)
    if counts["refused"]:
        raise typer.Exit(1)


def _print_line(name: str, result: dict) -> None:
    about = result["reason"] or result["commit"]
    print(f"{name}: {result['state']}" + (f" ({about})" if about else ""), flush=True)


def _print_result(result: dict) -> None:
    if result["commit"] is None:
        for path, size in result["files"].items():
            print(f"{size:>14,}  {path}")
        print(f"{result['repo']}: {len(result['files'])} files to publish; nothing was sent")
    elif result["changed"]:
        print(f"{result['repo']}@{result['commit']}: {len(result['changed'])} files changed")
    else:
        print(f"{result['repo']}@{result['commit']}: nothing to change")
