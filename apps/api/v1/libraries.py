"""Libraries."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api.bodies import parse
from apps.api.parameters import PageParameters, page_data
from apps.api.v1 import examples, schemas
from apps.api.v1.base import ApiView, path_to, respond, with_etag
from apps.indexing.stats import library_stats
from apps.libraries import selectors
from apps.libraries.inputs import LibraryCreate, LibraryUpdate
from apps.libraries.inputs import Reembed as ReembedInput
from apps.libraries.inputs import Reindex as ReindexInput
from apps.libraries.services import libraries as services
from apps.libraries.services.reembedding import cancel_reembedding, request_reembedding


class Root(ApiView):
    """Version 1 of the API. Everything begins with a library."""

    below = ("libraries",)

    @extend_schema(operation_id="root", summary="Where to begin", responses=schemas.Root, tags=["server"])
    def get(self, request: Request) -> Response:
        return respond({"libraries": path_to("libraries"), "schema": "/api/schema", "docs": "/api/docs"})


class Libraries(ApiView):
    """A library is a named set of chunks whose embeddings have one dimension and are compared by one metric."""

    example_bodies = {"POST": examples.LIBRARY}
    parameters = PageParameters
    query: PageParameters

    @extend_schema(operation_id="list_libraries", summary="List libraries", responses=schemas.LibraryPage)
    def get(self, request: Request) -> Response:
        return respond(page_data(selectors.libraries(limit=self.query.limit, after=self.query.cursor)))

    @extend_schema(
        operation_id="create_library",
        summary="Create a library",
        request=LibraryCreate,
        responses={201: schemas.Library},
    )
    def post(self, request: Request) -> Response:
        library = services.create_library(create=parse(request, LibraryCreate))
        return with_etag(selectors.library_data(library), 201, path_to("libraries", library.public_id))


class Library(ApiView):
    """One library: its settings, and the way to what is in it."""

    example_bodies = {"PATCH": examples.LIBRARY_UPDATE}
    has_etag = True
    below = ("documents", "chunks", "query", "query/batch", "stats", "reindex", "reembed")

    @extend_schema(operation_id="get_library", summary="Read a library", responses=schemas.Library)
    def get(self, request: Request, library_id: str) -> Response:
        return with_etag(selectors.library_data(selectors.library_row(library_id)))

    @extend_schema(
        operation_id="update_library", summary="Change a library", request=LibraryUpdate, responses=schemas.Library
    )
    def patch(self, request: Request, library_id: str) -> Response:
        update = parse(request, LibraryUpdate)
        library = services.update_library(library_id=library_id, update=update, if_match=self.if_match)
        return with_etag(selectors.library_data(library))

    @extend_schema(operation_id="delete_library", summary="Delete a library with all that is in it")
    def delete(self, request: Request, library_id: str) -> Response:
        services.delete_library(library_id=library_id, if_match=self.if_match)
        return Response(status=204)


class Stats(ApiView):
    """Counts, the revision, and the state of the index."""

    @extend_schema(operation_id="library_stats", summary="Count and inspect", responses=schemas.Stats)
    def get(self, request: Request, library_id: str) -> Response:
        return respond(library_stats(library_id=library_id))


class Reindex(ApiView):
    """Rebuilds the index; POST what to change about it, or an empty object. Queries go on meanwhile."""

    example_bodies = {"POST": examples.REINDEX}

    @extend_schema(
        operation_id="reindex", summary="Rebuild the index", request=ReindexInput, responses={202: schemas.Index}
    )
    def post(self, request: Request, library_id: str) -> Response:
        services.reindex_library(library_id=library_id, reindex=parse(request, ReindexInput, empty=b"{}"))
        return respond(library_stats(library_id=library_id)["index"], status=202)


class Reembed(ApiView):
    """Moves the library to another embedding model; POST which. The new vectors are made beside the present ones, and
    queries use these until all are there. DELETE cancels it."""

    example_bodies = {"POST": examples.REEMBED}

    @extend_schema(
        operation_id="get_reembedding",
        summary="How far the move to another embedding model is",
        description="404 when there is none under way.",
        responses=schemas.Reembedding,
    )
    def get(self, request: Request, library_id: str) -> Response:
        return respond(selectors.reembedding_data(selectors.reembedding_row(library_id)))

    @extend_schema(
        operation_id="reembed",
        summary="Move the library to another embedding model",
        description="The same model again goes on with what failed or waits; another one is refused meanwhile.",
        request=ReembedInput,
        responses={202: schemas.Reembedding},
    )
    def post(self, request: Request, library_id: str) -> Response:
        asked = request_reembedding(library_id=library_id, reembed=parse(request, ReembedInput))
        return respond(selectors.reembedding_data(asked), status=202)

    @extend_schema(operation_id="cancel_reembedding", summary="Cancel the move to another embedding model")
    def delete(self, request: Request, library_id: str) -> Response:
        cancel_reembedding(library_id=library_id)
        return Response(status=204)
