"""API keys, and the search tokens made of them."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from django.utils import timezone
from pydantic import AfterValidator, Field
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access import keys as services
from apps.access.authorization import KEY_SCOPES, authorize, check_pattern, common
from apps.access.models import Key as KeyRow
from apps.access.search_tokens import MAX_CLAIMS_BYTES, MAX_SECONDS
from apps.api.bodies import parse
from apps.api.parameters import PageParameters, page_data
from apps.api.v1 import examples, schemas
from apps.api.v1.base import ApiView, path_to, respond
from apps.api.v1.operation import operation
from apps.libraries.chunk_fields import ABOUT_INCLUDE, Include, timestamp
from apps.libraries.dialects import frees_room
from apps.libraries.errors import Invalid, NotFound
from apps.libraries.fields import BoundedInt, Expiry, Input, Name, NotNull, validation_error
from apps.libraries.selectors import page_of
from apps.search.query.spec import parse_filter

_MAX_LIBRARIES = 100
_MAX_PER_MINUTE = 1_000_000
_MAX_OVERLAP = 30 * 24 * 3600


def _check_pattern(pattern: str) -> str:
    try:
        return check_pattern(pattern)
    except ValueError as error:
        raise validation_error(str(error)) from None


def _check_filter(filter: dict[str, Any]) -> dict[str, Any]:
    parse_filter(filter)
    return filter


def _check_scopes(scopes: list[str]) -> list[str]:
    if len(set(scopes)) < len(scopes):
        raise validation_error("must name each scope once")
    return scopes


Scopes = Annotated[
    list[Literal["read", "write", "admin"]],
    AfterValidator(_check_scopes),
    Field(min_length=1, max_length=len(KEY_SCOPES), description="`write` includes `read`, `admin` includes both."),
]
Patterns = Annotated[
    list[Annotated[str, AfterValidator(_check_pattern)]],
    Field(
        min_length=1,
        max_length=_MAX_LIBRARIES,
        fail_fast=True,
        description="Ids of libraries, or beginnings of ids with an asterisk behind, such as `docs-*`.",
    ),
]
PerMinute = Annotated[int, BoundedInt(1, _MAX_PER_MINUTE, "of requests")] | None


class KeyLimits(Input):
    """What a key may ask for in a minute; null or left out: as the settings say."""

    reads_per_minute: PerMinute = Field(None, description="Requests that read, queries among them.")
    writes_per_minute: PerMinute = Field(None, description="Requests that change something.")


class KeyCreate(Input):
    """A key to make."""

    name: Name = Field(description="What it is for.")
    scopes: Scopes
    libraries: Annotated[Patterns | None, NotNull()] = Field(None, description="Left out, all libraries.")
    expires_at: Expiry = Field(None, description="From then on it is refused: RFC 3339 with offset; null for never.")
    limits: KeyLimits = Field(default_factory=KeyLimits, description="How much it may ask for.")


class KeyUpdate(Input):
    """What to change about a key. Its secret is changed by `rotate`."""

    name: Name = Field("", description="What it is for.")
    scopes: Annotated[Scopes | None, NotNull()] = None
    libraries: Patterns | None = Field(None, description="null for all libraries.")
    expires_at: Expiry = Field(None, description="From then on it is refused: RFC 3339 with offset; null for never.")
    limits: Annotated[KeyLimits | None, NotNull()] = Field(None, description="Both limits; one left out is none.")

    def columns(self) -> dict[str, Any]:
        """The columns to set."""
        found: dict[str, Any] = {}
        if self.is_set("name"):
            found["name"] = self.name
        if self.scopes is not None:
            found["scopes"] = services.join_scopes(self.scopes)
        if self.is_set("libraries"):
            found["libraries"] = services.join_libraries(self.libraries)
        if self.is_set("expires_at"):
            found["expires_at"] = self.expires_at
        if self.limits is not None:
            found |= {name: getattr(self.limits, name) for name in KeyLimits.model_fields}
        return found


class KeyRotate(Input):
    """How a key gets another secret."""

    overlap_seconds: Annotated[int, BoundedInt(0, _MAX_OVERLAP, "of seconds")] = Field(
        0, description="How long the present secret stays good beside the new one."
    )


class SearchTokenCreate(Input):
    """What a search token allows."""

    libraries: Patterns = Field(description="Those of the key's libraries that it may query.")
    filter: Annotated[dict[str, Any], AfterValidator(_check_filter)] | None = Field(
        None, description="Conditions on metadata (docs/filters.md) that are ANDed to every query and count."
    )
    include: Include = Field((), description=f"The most that its queries may show; left out, all. {ABOUT_INCLUDE}")
    expires_at: Expiry = Field(description="When it ends, within 24 hours: RFC 3339 with offset.")


class Keys(ApiView):
    """The keys of this server. A key is shown when it is made, and never again."""

    example_bodies = {"POST": examples.KEY}
    parameters = PageParameters
    query: PageParameters
    scopes = {"GET": "admin", "POST": "admin"}
    is_server_wide = True

    @operation("list_keys", "List keys", schemas.KeyPage)
    def get(self, request: Request) -> Response:
        return respond(page_data(page_of(KeyRow.objects.all(), self.query.limit, self.query.cursor, _key_data)))

    @operation("create_key", "Make a key", schemas.KeyCreated, KeyCreate, statuses=(201,), has_secret=True)
    def post(self, request: Request) -> Response:
        create = parse(request, KeyCreate)
        made = services.create_key(
            name=create.name,
            scopes=create.scopes,
            libraries=create.libraries,
            expires_at=create.expires_at,
            reads_per_minute=create.limits.reads_per_minute,
            writes_per_minute=create.limits.writes_per_minute,
        )
        return respond(_new_key_data(made), 201, path_to("keys", made.row.public_id))


class Key(ApiView):
    """One key, without its secret."""

    example_bodies = {"PATCH": examples.KEY_UPDATE}
    scopes = {"GET": "admin", "PATCH": "admin", "DELETE": "admin"}
    is_server_wide = True
    below = ("rotate", "search-token")

    @operation("get_key", "Read a key", schemas.Key)
    def get(self, request: Request, key_id: str) -> Response:
        return respond(_key_data(_found(services.find_key(key_id), key_id)))

    @operation("update_key", "Change a key", schemas.Key, KeyUpdate)
    def patch(self, request: Request, key_id: str) -> Response:
        update = parse(request, KeyUpdate)
        return respond(_key_data(_found(services.update_key(key_id=key_id, changes=update.columns()), key_id)))

    @operation("revoke_key", "Revoke a key, at once and for good", None)
    def delete(self, request: Request, key_id: str) -> Response:
        if not _revoke(key_id=key_id):
            raise _absent(key_id)
        return Response(status=204)


class KeyRotation(ApiView):
    """Gives a key another secret; POST how long the present one stays good."""

    example_bodies = {"POST": examples.KEY_ROTATION}
    scopes = {"POST": "admin"}
    is_server_wide = True
    name = "Rotate"

    @operation("rotate_key", "Give a key another secret", schemas.KeyCreated, KeyRotate, has_secret=True)
    def post(self, request: Request, key_id: str) -> Response:
        rotate = parse(request, KeyRotate, empty=b"{}")
        return respond(
            _new_key_data(_found(services.rotate_key(key_id=key_id, overlap_seconds=rotate.overlap_seconds), key_id))
        )


class SearchToken(ApiView):
    """Makes a search token of a key, for a browser or another program that may query and count, and nothing else. The
    key itself may make it, and whoever may manage keys."""

    example_bodies = {"POST": examples.SEARCH_TOKEN}
    scopes = {"POST": "read"}

    @operation("create_search_token", "Make a search token", schemas.SearchToken, SearchTokenCreate)
    def post(self, request: Request, key_id: str) -> Response:
        if self.principal.key_id != key_id:
            authorize(self.principal, "admin", everywhere=True)
        create = parse(request, SearchTokenCreate)
        row = _found(services.find_key(key_id), key_id)
        _check_end(create.expires_at)
        assert create.expires_at is not None
        own = row.libraries.split()
        outside = [i for i, pattern in enumerate(create.libraries) if own and not common([pattern], own)]
        if outside:
            raise Invalid.at(f"/libraries/{outside[0]}", "names no library of the key")
        token = services.make_search_token(
            row,
            libraries=create.libraries,
            filter=create.filter,
            include=create.include if create.is_set("include") else None,
            expires_at=create.expires_at,
        )
        if token is None:
            raise Invalid(
                f"A token that allows this would be too long for a header: it has room for {MAX_CLAIMS_BYTES} bytes of "
                "JSON with libraries, filter and include."
            )
        return respond({"token": token, "expires_at": timestamp(create.expires_at)})


# On a full disk too.
_revoke = frees_room(services.revoke_key)


def _check_end(moment: datetime | None) -> None:
    now = timezone.now()
    if moment is None or not now < moment <= now + timedelta(seconds=MAX_SECONDS):
        raise Invalid.at("/expires_at", "must be within the next 24 hours")


def _found(found: Any, key_id: str) -> Any:
    if found is None:
        raise _absent(key_id)
    return found


def _absent(key_id: str) -> NotFound:
    return NotFound(f"There is no key {key_id!r}. POST /api/v1/keys makes one.")


def _key_data(row: KeyRow) -> dict[str, Any]:
    """A key as the API shows it."""
    return {
        "id": row.public_id,
        "name": row.name,
        "scopes": row.scopes.split(),
        "libraries": row.libraries.split() or None,
        "expires_at": _optional(row.expires_at),
        "limits": {"reads_per_minute": row.reads_per_minute, "writes_per_minute": row.writes_per_minute},
        "last_used_at": _optional(row.last_used_at),
        "previous_until": _optional(row.previous_until),
        "created_at": timestamp(row.created_at),
        "updated_at": timestamp(row.updated_at),
    }


def _new_key_data(made: services.NewKey) -> dict[str, Any]:
    return _key_data(made.row) | {"key": made.key}


def _optional(moment: datetime | None) -> str | None:
    return None if moment is None else timestamp(moment)
