"""Write docs/client.md, the client's reference, from its docstrings: `make client-reference`. A test compares them."""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "src"))

import vectordb_client
from vectordb_client import errors, filters, jobs, keys, types

PAGE = Path(__file__).parents[1] / "docs" / "client.md"

_HEAD = """# The Python client

This page is made from the docstrings of the package `vectordb_client` by `make client-reference`; tests run its
examples. [sdk/README.md](../sdk/README.md) is where to begin. `AsyncClient` has the same names: calls are awaited, and
lists are for `async for`. In the examples, `client` is a `Client`, `lib` a library of three chunks, `points` one of
vectors, `folder` a path.
"""
_CLASSES: list[tuple[str, type[Any]]] = [
    ("Client", vectordb_client.Client),
    ("client.libraries", vectordb_client.Libraries),
    ("Library", vectordb_client.Library),
    ("library.documents", vectordb_client.Documents),
    ("Job", vectordb_client.Job),
    ("client.jobs", jobs.Jobs),
    ("client.backups", jobs.Backups),
    ("client.keys", keys.Keys),
    ("client.audit", keys.Audit),
    ("Listing", vectordb_client.Listing),
    ("F", filters.F),
    ("Filter", filters.Filter),
    ("Retry", vectordb_client.Retry),
    ("RequestInfo", vectordb_client.RequestInfo),
    ("ResponseInfo", vectordb_client.ResponseInfo),
]


def render() -> str:
    """The page."""
    parts = [_HEAD]
    for title, kind in _CLASSES:
        parts.append(f"## {title}\n\n{_text(kind)}")
        for name, member in vars(kind).items():
            if name.startswith("_"):
                continue
            function = member.__func__ if isinstance(member, classmethod) else member
            if isinstance(member, property):
                parts.append(f"### {title}.{name}\n\n{_text(member)}")
            elif inspect.isfunction(function):
                parts.append(f"### {title}.{name}\n\n```python\n{name}{_signature(function)}\n```\n\n{_text(function)}")
    parts.append("## Results\n\nFrozen dataclasses.\n\n| class | fields | |\n|---|---|---|\n" + "\n".join(_results()))
    tree = inspect.cleandoc(errors.__doc__ or "")
    head, _, drawing = tree.partition("\n\n")
    parts.append(f"## Errors\n\n{head}\n\n```text\n{inspect.cleandoc(drawing)}\n```")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _signature(function: Any) -> str:
    """The parameters with their defaults, and what the call returns."""
    signature = inspect.signature(function)
    parameters = [
        one.replace(annotation=inspect.Parameter.empty)
        for name, one in signature.parameters.items()
        if name not in ("self", "cls")
    ]
    bare = str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    return f"{bare} -> {signature.return_annotation}"


def _text(documented: Any) -> str:
    """The docstring, its examples as blocks of code."""
    text = inspect.cleandoc(documented.__doc__ or "")
    return re.sub(r"(?:^|\n)(>>> .*(?:\n.+)*)", r"\n```pycon\n\1\n```", text)


def _results() -> list[str]:
    rows = []
    for name in sorted(vectordb_client.__all__):
        kind = getattr(vectordb_client, name)
        if inspect.isclass(kind) and kind.__module__.startswith(types.__name__):
            fields = ", ".join(f"`{field}`" for field in kind.__dataclass_fields__)
            first = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
            rows.append(f"| `{name}` | {fields} | {first} |")
    return rows


if __name__ == "__main__":
    PAGE.write_text(render())
