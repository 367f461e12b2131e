"""What a search token's `include` leaves of queries: the most that they may show of chunks."""

from collections.abc import Mapping, Sequence

from apps.access.requests import Refused, current_principal
from apps.engine.metadata.paths import DOCUMENT, DOCUMENT_ID
from apps.search.query.spec import QuerySpec

_PART = "metadata."


def limit_shown(specs: Mapping[str, QuerySpec]) -> Mapping[str, QuerySpec]:
    """The queries, which are named by their pointers, showing no more than whoever asks may see. Raise Refused for one
    that asks for more by name."""
    allowed = current_principal.get().include
    return specs if allowed is None else {at: _limit(spec, at, allowed) for at, spec in specs.items()}


def _limit(spec: QuerySpec, at: str, allowed: Sequence[str]) -> QuerySpec:
    if spec.group_by not in (None, DOCUMENT_ID) and not _may_show(_name_of(spec.group_by), allowed):
        raise Refused("forbidden", f"{at}/group_by would show a field that this search token does not include.")
    if spec.is_set("include"):
        for name in spec.include:
            if not _may_show(name, allowed):
                raise Refused(
                    "forbidden", f"{at}/include: this search token includes {', '.join(allowed) or 'nothing'}."
                )
        return spec
    shown = [name for name in spec.include if _may_show(name, allowed)]
    if "metadata" not in shown:
        shown += [name for name in allowed if name.startswith(_PART)]
    return spec.model_copy(update={"include": tuple(shown)})


def _name_of(field: str) -> str:
    """What `include` must name for the values of a field to be shown."""
    return "document" if field.startswith(DOCUMENT) else f"{_PART}{field}"


def _may_show(name: str, allowed: Sequence[str]) -> bool:
    """Whether `name` is allowed, or a part of what is."""
    return any(name == one or name.startswith(f"{one}.") for one in allowed)
