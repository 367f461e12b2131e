"""Index types by name. A new type is one module and one line here."""

from apps.engine.brute_force import BruteForce
from apps.engine.errors import InvalidParameter
from apps.engine.index import VectorIndex

AUTO = "auto"
INDEX_TYPES: dict[str, type[VectorIndex]] = {BruteForce.kind: BruteForce}


def index_type(name: str) -> type[VectorIndex]:
    """The index class for a name of the registry, or for `auto`; raises InvalidParameter for another."""
    if name == AUTO:
        return BruteForce
    try:
        return INDEX_TYPES[name]
    except KeyError:
        known = ", ".join([AUTO, *INDEX_TYPES])
        raise InvalidParameter("index_type", f"{name!r} is not an index type; there are: {known}") from None
