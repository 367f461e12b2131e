"""What an agent is told of a call that is refused: the API's sentences, with remedies that tools have.

The API advises programs: to POST something, to send vectors, to look into `errors`. An agent has the arguments of a
tool and the other tools.
"""

from collections.abc import Container, Mapping
from typing import Any

from apps.access.authorization import has_scope
from apps.access.requests import Principal
from apps.api.errors import Problem
from apps.libraries.fields import Input
from apps.libraries.ids import LIBRARY_RULE, is_library_id

# Arguments can have more faults than an agent can do something about.
_MOST_FAULTS = 10
# Where the tools that store put the one chunk of a call.
_CHUNK = "/chunks/0/"
_WITHOUT_MODEL = "The library {library!r} has no embedding model, so "
_NO_PLACE = (
    _WITHOUT_MODEL + "no text can be stored in it here. Choose another library; describe_library shows its model."
)
_MODEL_NEEDED = {
    "search": _WITHOUT_MODEL + "it is searched by words alone: set mode to lexical, or leave it out.",
    "remember": _NO_PLACE,
    "put_document": _NO_PLACE,
}


def explain(problem: Problem, tool: str, arguments: type[Input], given: Mapping[str, Any], principal: Principal) -> str:
    """What is wrong with a call of a tool, which takes `arguments` and was `given` some, and what to do about it; each
    fault on its line."""
    library = given.get("library")
    if problem.code == "not_found" and isinstance(library, str):
        return _explain_absence(library, tool, principal)
    if problem.code == "embedding_required" and tool in _MODEL_NEEDED:
        return _MODEL_NEEDED[tool].format(library=library)
    if not problem.faults:
        return problem.detail
    # Programs fill arguments that they have nothing for.
    optional = {name for name, field in arguments.model_fields.items() if not field.is_required()}
    empty = {f"/{name}" for name in optional & given.keys() if given[name] in (None, "")}
    faults = [_sentence(*fault, empty) for fault in problem.faults[:_MOST_FAULTS]]
    more = len(problem.faults) - len(faults)
    return "\n".join([*faults, f"{more} more are wrong."] if more else faults)


def _explain_absence(library: str, tool: str, principal: Principal) -> str:
    said = f"There is no library {library!r} that you may see."
    # A search token has no tool that lists.
    if has_scope(principal, "read"):
        said += " list_libraries lists those that there are."
    if tool == "remember":
        can_be = is_library_id(library)
        said += " With create_library, remember makes it." if can_be else f" A new one's id {LIBRARY_RULE}."
    return said


def _sentence(pointer: str, detail: str, empty: Container[str]) -> str:
    place = f"/{pointer.removeprefix(_CHUNK)}" if pointer.startswith(_CHUNK) else pointer
    advice = "; leave it out where there is none" if place in empty and "leave it out" not in detail else ""
    return f"{place or 'The call'} {detail}{advice}."
