"""Index types by name, and which one `auto` takes. A new type is one module and one line here.

The modules are imported when a type is first asked for: some of them load a library of their own.
"""

import importlib

from apps.engine.brute_force import BruteForce
from apps.engine.errors import InvalidParameter
from apps.engine.index import Parameter, Params, VectorIndex

AUTO = "auto"
_MODULES = {
    BruteForce.kind: ("brute_force", "BruteForce"),
    "kd_tree": ("kd_tree", "KdTree"),
    "lsh": ("lsh", "Lsh"),
    "quantized": ("quantized", "Quantized"),
    "hnsw": ("hnsw", "Hnsw"),
}
INDEX_TYPES: tuple[str, ...] = tuple(_MODULES)

# From so many rows on, `auto` takes the type; docs/benchmarks.md has the measurements.
_AUTO_FROM: tuple[tuple[int, str], ...] = ()


def index_type(name: str) -> type[VectorIndex]:
    """The index class for a name of the registry; raises InvalidParameter for another."""
    try:
        module, attribute = _MODULES[name]
    except KeyError:
        known = ", ".join([AUTO, *INDEX_TYPES])
        raise InvalidParameter("index_type", f"{name!r} is not an index type; there are: {known}") from None
    found: type[VectorIndex] = getattr(importlib.import_module(f"apps.engine.{module}"), attribute)
    return found


def chosen_kind(name: str, rows: int) -> str:
    """The type that `rows` rows of a library get whose index type is `name`, which may be `auto`."""
    if name != AUTO:
        return name
    return next((kind for least, kind in _AUTO_FROM if rows >= least), BruteForce.kind)


def is_wished(name: str, params: Params, kind: str, built_with: Params, rows: int) -> bool:
    """Whether `rows` rows in an index of type `kind`, built with `built_with`, are as a library wishes whose index type
    is `name` with `params`."""
    return kind == chosen_kind(name, rows) and (name == AUTO or dict(params) == dict(built_with))


def check_params(name: str, params: dict[str, object]) -> None:
    """Raise InvalidParameter for build parameters that the type does not take; `auto` takes none."""
    index_type(BruteForce.kind if name == AUTO else name).check_params(params)


def search_parameters(name: str) -> dict[str, Parameter]:
    """The search parameters that a library takes whose index type is `name`; under `auto`, those of all types that it
    may choose."""
    kinds = [BruteForce.kind, *(kind for _, kind in _AUTO_FROM)] if name == AUTO else [name]
    return {parameter.name: parameter for kind in kinds for parameter in index_type(kind).search_parameters}
