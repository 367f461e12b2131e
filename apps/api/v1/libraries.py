"""Libraries."""

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.authorization import authorize_new_library
from apps.api.bodies import parse
from apps.api.parameters import PageParameters, page_data
from apps.api.v1 import examples, schemas
from apps.api.v1.base import ApiView, path_to, respond, with_etag
from apps.api.v1.operation import operation
from apps.indexing.stats import library_stats
from apps.libraries import selectors
from apps.libraries.inputs import LibraryCreate, LibraryUpdate
from apps.libraries.inputs import Reembed as ReembedInput
from apps.libraries.inputs import Reindex as ReindexInput
from apps.libraries.services import libraries as services
from apps.libraries.services.reembedding import cancel_reembedding, request_reembedding

_BASE = settings.BASE_PATH


class Root(ApiView):
    """Version 1 of the API. Everything begins with a library; the reference has every path, field and answer."""

    name = "API"

    @operation("root", "Where to begin", schemas.Root)
    def get(self, request: Request) -> Response:
        paths = {"schema": f"{_BASE}/api/schema", "docs": f"{_BASE}/api/docs"}
        return respond({"libraries": path_to("libraries")} | paths)

    def links(self) -> dict[str, str]:
        links = {name: path_to(name) for name in ("libraries", "jobs", "backups", "keys", "audit")}
        links |= {"reference": f"{_BASE}/api/docs", "schema": f"{_BASE}/api/schema"}
        return links | {"health": f"{_BASE}/health", "ready": f"{_BASE}/ready", "admin": f"{_BASE}/admin/"}


class Libraries(ApiView):
    """A library is a named set of chunks whose embeddings have one dimension and are compared by one metric."""

    example_bodies = {"POST": examples.LIBRARY}
    parameters = PageParameters
    query: PageParameters
    scopes = {"POST": "admin"}

    @operation("list_libraries", "List libraries", schemas.LibraryPage)
    def get(self, request: Request) -> Response:
        return respond(page_data(selectors.libraries(limit=self.query.limit, after=self.query.cursor)))

    @operation("create_library", "Create a library", schemas.Library, LibraryCreate, statuses=(201,))
    def post(self, request: Request) -> Response:
        create = parse(request, LibraryCreate)
        authorize_new_library(self.principal, create.id if create.is_set("id") else None)
        library = services.create_library(create=create)
        return with_etag(selectors.library_data(library), 201, path_to("libraries", library.public_id))


class Library(ApiView):
    """One library: its settings, and the way to what is in it."""

    example_bodies = {"PATCH": examples.LIBRARY_UPDATE}
    has_etag = True
    scopes = {"DELETE": "admin"}
    below = ("documents", "chunks", "query", "query/batch", "stats", "reindex", "reembed", "export", "import")

    @operation("get_library", "Read a library", schemas.Library)
    def get(self, request: Request, library_id: str) -> Response:
        return with_etag(selectors.library_data(selectors.library_row(library_id)))

    @operation("update_library", "Change a library", schemas.Library, LibraryUpdate)
    def patch(self, request: Request, library_id: str) -> Response:
        update = parse(request, LibraryUpdate)
        library = services.update_library(library_id=library_id, update=update, if_match=self.if_match)
        return with_etag(selectors.library_data(library))

    @operation("delete_library", "Delete a library with all that is in it", None)
    def delete(self, request: Request, library_id: str) -> Response:
        services.delete_library(library_id=library_id, if_match=self.if_match)
        return Response(status=204)


class Stats(ApiView):
    """Counts, the revision, and the state of the index."""

    @operation("library_stats", "Count and inspect", schemas.Stats)
    def get(self, request: Request, library_id: str) -> Response:
        return respond(library_stats(library_id=library_id))


class Reindex(ApiView):
    """Rebuilds the index; POST what to change about it, or an empty object. Queries go on meanwhile."""

    example_bodies = {"POST": examples.REINDEX}

    @operation("reindex", "Rebuild the index", schemas.Index, ReindexInput, statuses=(202,))
    def post(self, request: Request, library_id: str) -> Response:
        services.reindex_library(library_id=library_id, reindex=parse(request, ReindexInput, empty=b"{}"))
        return respond(library_stats(library_id=library_id)["index"], status=202)


class Reembed(ApiView):
    """Moves the library to another embedding model; POST which. The new vectors are made beside the present ones, and
    queries use these until all are there. DELETE cancels it."""

    example_bodies = {"POST": examples.REEMBED}

    @operation(
        "get_reembedding",
        "How far the move to another embedding model is",
        schemas.Reembedding,
        description="404 when there is none under way.",
    )
    def get(self, request: Request, library_id: str) -> Response:
        return respond(selectors.reembedding_data(selectors.reembedding_row(library_id)))

    @operation(
        "reembed",
        "Move the library to another embedding model",
        schemas.Reembedding,
        ReembedInput,
        statuses=(202,),
        description="The same model again goes on with what failed or waits; another one is refused meanwhile.",
    )
    def post(self, request: Request, library_id: str) -> Response:
        asked = request_reembedding(library_id=library_id, reembed=parse(request, ReembedInput))
        return respond(selectors.reembedding_data(asked), status=202)

    @operation("cancel_reembedding", "Cancel the move to another embedding model", None)
    def delete(self, request: Request, library_id: str) -> Response:
        cancel_reembedding(library_id=library_id)
        return Response(status=204)
