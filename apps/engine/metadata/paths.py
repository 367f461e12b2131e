"""Paths of fields: keys of objects within each other, joined by dots. A backslash makes the next character literal.

The *name* of a field is its path with no more backslashes than it needs, so equal fields have equal names. A name that
begins with `@` is an own field of the chunk, or `@document.` and the path of a field of its document's metadata.
"""

ID, DOCUMENT_ID, CREATED_AT, EXPIRES_AT = "@id", "@document_id", "@created_at", "@expires_at"
TEXT, DOCUMENT = "@text", "@document."
# Fields that are times: microseconds since the epoch, UTC.
TIMES = (CREATED_AT, EXPIRES_AT)
# Before the name of a field, that of the instants of its strings that are dates, and that of the members of its arrays.
# No name begins so.
_INSTANTS, _MEMBERS = "$date.", "$in."


def split_path(path: str) -> list[str]:
    """The keys of a path. Raises ValueError where it ends within an escape."""
    if "\\" not in path:
        return path.split(".")
    keys, characters = [""], iter(path)
    for character in characters:
        if character == ".":
            keys.append("")
            continue
        if character == "\\":
            character = next(characters, "")
            if not character:
                raise ValueError("a backslash at the end of a path makes nothing literal")
        keys[-1] += character
    return keys


def field_name(path: str) -> str:
    """The name of the field at `path`. Raises ValueError as `split_path`."""
    if "\\" not in path:
        return path
    if path.startswith(DOCUMENT):
        return DOCUMENT + ".".join(map(escape_key, split_path(path[len(DOCUMENT) :])))
    first, *others = split_path(path)
    return ".".join([escape_first_key(first), *map(escape_key, others)])


def escape_key(key: str) -> str:
    """A key as it stands in a name."""
    return key.replace("\\", "\\\\").replace(".", "\\.")


def escape_first_key(key: str) -> str:
    """A key of the metadata itself as it stands in a name."""
    return f"\\{escape_key(key)}" if key.startswith(("@", "$")) else escape_key(key)


def instants_of(name: str) -> str:
    """The column of the instants of a field, or of the members of a field."""
    return members_of(instants_of(name[len(_MEMBERS) :])) if name.startswith(_MEMBERS) else _INSTANTS + name


def members_of(name: str) -> str:
    """The column of the members of the arrays of a field, or of their instants."""
    return _MEMBERS + name


def field_of(column: str) -> str:
    """The field that a column is of: itself, or the one whose instants it holds."""
    return column.removeprefix(_INSTANTS)
