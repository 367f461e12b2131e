"""Index types by name, and which one `auto` takes. A new type is one module and one line here.

A type's module is imported when the type is first asked for: some of them load a library of their own.
"""

from dataclasses import dataclass
from pkgutil import resolve_name

from apps.engine.errors import InvalidParameter
from apps.engine.indexes.bare import Bare
from apps.engine.indexes.base import Parameter, Params, VectorIndex, check_parameters

AUTO, BRUTE_FORCE = "auto", "brute_force"
# Of rows without vectors; nobody can choose it.
BARE = "none"
INDEX_TYPES = {
    BRUTE_FORCE: "apps.engine.indexes.brute_force:BruteForce",
    "kd_tree": "apps.engine.indexes.kd_tree:KdTree",
    "lsh": "apps.engine.indexes.lsh:Lsh",
    "quantized": "apps.engine.indexes.quantized:Quantized",
    "ivf": "apps.engine.indexes.ivf:Ivf",
    "hnsw": "apps.engine.indexes.hnsw:Hnsw",
}


@dataclass(frozen=True)
class AutoThresholds:
    """What `auto` takes, by the measurements in docs/benchmarks.md.

    In few dimensions a tree is exact and quickest. Else few rows are scanned by 8-bit codes, more rows by 4-bit codes,
    and many rows lie in lists, of which a query scans some. `by_rows` has the least number of rows for a type,
    descending.
    """

    tree_dimensions: int = 8
    tree_rows: int = 1000
    by_rows: tuple[tuple[int, str], ...] = ((250_000, "ivf"), (20_000, "quantized"))


AUTO_THRESHOLDS = AutoThresholds()


def index_type(name: str) -> type[VectorIndex]:
    """The index class for a name of the registry; raises InvalidParameter for another."""
    if name == BARE:
        return Bare
    if name not in INDEX_TYPES:
        known = ", ".join([AUTO, *INDEX_TYPES])
        raise InvalidParameter("index_type", f"{name!r} is not an index type; there are: {known}")
    found: type[VectorIndex] = resolve_name(INDEX_TYPES[name])
    return found


def import_all() -> None:
    """Import every type and its library, so that processes which are forked from this one share the memory."""
    for name in INDEX_TYPES:
        index_type(name)


def chosen_kind(name: str, rows: int, dimension: int, thresholds: AutoThresholds = AUTO_THRESHOLDS) -> str:
    """The type of an index over `rows` rows in a library of the type `name`, which may be `auto`."""
    if name != AUTO:
        return name
    if dimension <= thresholds.tree_dimensions and rows >= thresholds.tree_rows:
        return "kd_tree"
    return next((kind for least, kind in thresholds.by_rows if rows >= least), BRUTE_FORCE)


def check_params(name: str, params: dict[str, object]) -> None:
    """Raise InvalidParameter for build parameters that the type does not take; `auto` takes none."""
    if name == AUTO and params:
        raise InvalidParameter(next(iter(params)), f"is no parameter of {AUTO}; name an index type that takes it")
    if name != AUTO:
        index_type(name).check_params(params)


def check_search_params(name: str, params: Params) -> None:
    """Raise InvalidParameter for the first of the search parameters `params` that the type does not take."""
    check_parameters(params, search_parameters(name), f"is no search parameter of {name}")


def search_parameters(name: str) -> dict[str, Parameter]:
    """The search parameters that a library takes whose index type is `name`; under `auto`, those of all types."""
    kinds = INDEX_TYPES if name == AUTO else (name,)
    return {parameter.name: parameter for kind in kinds for parameter in index_type(kind).search_parameters}
