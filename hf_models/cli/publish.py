"""`hf-models push`, `hf-models publish-all` and `hf-models kernels push`."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from .common import Verbose, one_line_errors

Repo = Annotated[str, typer.Option(help="The repository on the Hub, ORG/NAME. It is made if it is not there.")]
Private = Annotated[bool, typer.Option("--private", help="Make the repository private, if it is made.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, and publish nothing.")]


def push(
    folder: Annotated[Path, typer.Argument(help="The folder of a converted or fine-tuned model.")],
    repo: Repo,
    private: Private = False,
    revision: Annotated[
        str | None, typer.Option(help="The branch to publish on. It is made if it is not there.")
    ] = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Publish a model folder on the Hub. Its card and the code that loads it without this package go with it."""
    with one_line_errors(verbose):
        from hf_models.conversion.publish import push_model

        result = push_model(folder, repo, private=private, revision=revision, dry_run=dry_run)
    _print_result(result, revision or "main")


def push_kernel(
    name: Annotated[str, typer.Argument(help="The kernel, such as deformable-conv.")],
    repo: Repo,
    private: Private = False,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Publish a kernel that was built on this machine. It goes to the branch of its version."""
    with one_line_errors(verbose):
        from hf_models.conversion.publish import push_kernel

        result = push_kernel(name, repo, private=private, dry_run=dry_run)
    _print_result(result, result["branch"])
    if result["commit"]:
        print(f"HF_MODELS_TRUST_KERNELS={repo}@{result['commit']} has models load it from there")


def publish_all(
    org: Annotated[str, typer.Option(help="The organisation or user on the Hub.")],
    source: Annotated[
        Path,
        typer.Option(
            "--from", help="The folder of the original files, with the names that they were published under."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The folder for the converted models. By default `converted` in that of --from."),
    ] = None,
    private: Private = False,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Convert and publish all original files of a folder. Started again, the command goes on where it stopped."""
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


def _print_result(result: dict, branch: str) -> None:
    if result["commit"] is None:
        for path, size in result["files"].items():
            print(f"{size:>14,}  {path}")
        print(f"{result['repo']}, branch {branch}: {len(result['files'])} files to publish; nothing was sent")
        print("To publish them, log in with `hf auth login`, and leave out --dry-run.")
    elif result["changed"]:
        print(f"{result['repo']}@{result['commit']}: {len(result['changed'])} files changed")
    else:
        print(f"{result['repo']}@{result['commit']}: nothing to change")
