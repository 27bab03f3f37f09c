"""The program `hf-models`.

Rooms are imported inside the commands, so that no command waits for what it does not need.
"""

import typer

from .benchmark import app as benchmark
from .convert import convert, verify
from .demo import demo
from .evaluate import app as evaluate
from .export import export
from .kernels import app as kernels
from .predict import classify, segment
from .publish import publish_all, push
from .visualize import app as visualize
from .zoo import list_models

app = typer.Typer(
    help="Vision backbones for transformers: classify, segment, convert, publish, evaluate, see inside, export.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
# in the order of their use, which is that of the help
for command in (classify, segment, demo):
    app.command()(command)
app.command("list")(list_models)
for command in (convert, verify, push):
    app.command()(command)
app.command("publish-all")(publish_all)
app.command()(export)
app.add_typer(evaluate, name="evaluate")
app.add_typer(visualize, name="visualize")
app.add_typer(benchmark, name="benchmark")
app.add_typer(kernels, name="kernels")


def main() -> None:
    """Entry point of `hf-models`."""
    app()


def convert_main() -> None:
    """Entry point of `python -m hf_models.conversion`."""
    typer.run(convert)
