"""What mkdocstrings has to be told about docstrings and classes that are written as in transformers."""

import re
from collections.abc import Iterator

import griffe

REFERENCE = re.compile(r"\[`([\w.]+)`\](?![\[(])")


class ReadDocstrings(griffe.Extension):
    """[`Name`] links to its object, if some page has it; classes under `@strict` are the dataclasses that it makes."""

    def on_package(self, *, pkg: griffe.Module, **kwargs) -> None:
        objects = list(_walk(pkg))
        paths = {thing.name: thing.path for thing in objects}

        def link(match: re.Match) -> str:
            name = match[1]
            return f'<autoref identifier="{paths.get(name, name)}" optional><code>{name}</code></autoref>'

        for thing in objects:
            if thing.docstring:
                thing.docstring.value = REFERENCE.sub(link, thing.docstring.value)
            if thing.is_class and any(str(decorator.value) == "strict" for decorator in thing.decorators):
                dataclass = griffe.ExprCall(
                    griffe.ExprName("dataclasses.dataclass"), [griffe.ExprKeyword("kw_only", "True")]
                )
                thing.decorators.append(griffe.Decorator(dataclass, lineno=None, endlineno=None))


def _walk(thing: griffe.Object) -> Iterator[griffe.Object]:
    yield thing
    for member in thing.members.values():
        if not member.is_alias:
            yield from _walk(member)
