"""The program `hf-models`.

Rooms are imported inside the commands, so that no command waits for what it does not need.
"""

import typer

from .benchmark import app as benchmark
from .convert import convert, verify
from .demo import demo
from .environment import Version, env
from .evaluate import app as evaluate
from .export import export
from .kernels import app as kernels
from .memory import memory
from .predict import classify, detect, segment
from .publish import publish_all, push
from .quantize import quantize
from .visualize import app as visualize
from .zoo import list_models

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the help is plain: with boxes it is slower, and says `<bool>` behind each switch
)


@app.callback()
def program(version: Version = False) -> None:
    """Vision backbones for transformers: classify, segment, detect, convert, publish, evaluate, see inside, export,
    quantize.

    `hf-models COMMAND --help` explains a command.
    """


# in the order of their use, which is that of the help
for command in (classify, segment, detect, demo):
    app.command()(command)
app.command("list")(list_models)
for command in (convert, verify, push):
    app.command()(command)
app.command("publish-all")(publish_all)
app.command()(export)
app.command()(quantize)
app.add_typer(evaluate, name="evaluate")
app.add_typer(visualize, name="visualize")
app.command()(memory)
app.add_typer(benchmark, name="benchmark")
app.add_typer(kernels, name="kernels")
app.command()(env)


def main() -> None:
    """Entry point of `hf-models`."""
    app()


def convert_main() -> None:
    """Entry point of `python -m hf_models.conversion`."""
    typer.run(convert)
