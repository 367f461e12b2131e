"""Writes of libraries."""

from django.db import IntegrityError

from apps.access.audit import record_change
from apps.engine.errors import InvalidParameter
from apps.engine.indexes.registry import check_params
from apps.libraries import selectors
from apps.libraries.dialects import frees_room
from apps.libraries.errors import Conflict, Fault, Invalid, pointer
from apps.libraries.inputs import LibraryCreate, LibraryUpdate, Reindex, named_models
from apps.libraries.models import Library
from apps.libraries.services import sql
from apps.libraries.services.embedding import bind_model, known_model


def create_library(*, create: LibraryCreate) -> Library:
    """Create an empty library. Raises Conflict where its id is taken, Invalid for an index parameter or a model that
    cannot be used."""
    _check_index(create.index_type, create.index_params)
    library = Library(public_id=create.id, **create.model_dump(exclude={"id", "embedding"}))
    if create.embedding is not None:
        (library.embedding_provider, library.embedding_model), dimension = known_model(
            create.embedding.key, "/embedding"
        )
        if dimension is not None and create.dimension not in (None, dimension):
            raise Invalid.at("/dimension", f"must be {dimension}, that of the embedding model, or be left out")
        if dimension is not None:
            # Else vectors of another length could come first, and no text would fit any more.
            library.dimension = dimension
    try:
        with sql.write_transaction():
            library.save(force_insert=True)
            record_change("create_library", library=library.public_id)
    except IntegrityError:
        if Library.objects.filter(public_id=create.id).exists():
            detail = f"There already is a library {create.id!r}."
            raise Conflict(detail, [Fault("/id", "is in use")]) from None
        raise
    return library


def update_library(*, library_id: str, update: LibraryUpdate, if_match: str | None = None) -> Library:
    """Change the named fields of a library. Raises NotFound, PreconditionFailed, ModelMismatch, Invalid."""
    named, model = named_models(update), None
    if update.embedding is not None and selectors.library_row(library_id).takes_model:
        model = known_model(update.embedding.key, "/embedding")

    with sql.write_transaction():
        library = sql.lock_library(library_id)
        selectors.check_match(if_match, lambda: selectors.etag(selectors.library_data(library)))
        bind_model(library, model, named)
        if update.is_set("index_type") and update.index_type != library.index_type:
            # Parameters belong to a type.
            library.index_params = {}
        for field in update.model_fields_set - {"embedding"}:
            setattr(library, field, getattr(update, field))
        _check_index(library.index_type, library.index_params)
        library.save()
        record_change("update_library", library=library_id)
    return library


@sql.write_transaction()
def reindex_library(*, library_id: str, reindex: Reindex) -> Library:
    """Request a rebuild of the index, with the type and parameters named or with those it has.

    Maintenance does it; queries go on meanwhile. Raises NotFound, Invalid.
    """
    library = sql.lock_library(library_id)
    if reindex.is_set("index_type"):
        # Parameters belong to a type.
        library.index_params = {}
    for field in reindex.model_fields_set:
        setattr(library, field, getattr(reindex, field))
    _check_index(library.index_type, library.index_params)
    library.rebuild += 1
    library.save()
    record_change("reindex_library", library=library_id)
    return library


@frees_room
@sql.write_transaction()
def delete_library(*, library_id: str, if_match: str | None = None) -> None:
    """Delete a library with all that is in it. Raises NotFound, PreconditionFailed."""
    library = sql.lock_library(library_id)
    selectors.check_match(if_match, lambda: selectors.etag(selectors.library_data(library)))
    delete_locked_library(library)


def delete_locked_library(library: Library) -> None:
    """Delete a library that `lock_library` has locked."""
    library.delete()
    record_change("delete_library", library=library.public_id)


def _check_index(kind: str, params: dict[str, object]) -> None:
    try:
        check_params(kind, params)
    except InvalidParameter as error:
        raise Invalid.at(pointer(["index_params", error.name]), error.reason) from None
