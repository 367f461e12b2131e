"""Writes of libraries."""

from django.db import IntegrityError, transaction

from apps.engine.errors import InvalidParameter
from apps.engine.indexes.registry import check_params
from apps.libraries import selectors
from apps.libraries.errors import Conflict, Fault, Invalid, pointer
from apps.libraries.inputs import LibraryCreate, LibraryUpdate, Reindex, named_models
from apps.libraries.models import KnownModel, Library
from apps.libraries.services import sql


def create_library(*, create: LibraryCreate) -> Library:
    """Make an empty library. Raises Conflict where its id is taken, Invalid for an index parameter."""
    _check_index(create.index_type, create.index_params)
    library = Library(
        public_id=create.id,
        name=create.name,
        description=create.description,
        dimension=create.dimension,
        metric=create.metric,
        index_type=create.index_type,
        index_params=create.index_params,
        embedding_provider="" if create.embedding is None else create.embedding.provider,
        embedding_model="" if create.embedding is None else create.embedding.model,
        metadata=create.metadata,
    )
    try:
        with transaction.atomic():
            library.save(force_insert=True)
    except IntegrityError:
        if Library.objects.filter(public_id=create.id).exists():
            detail = f"There already is a library {create.id!r}."
            raise Conflict(detail, [Fault("/id", "is in use")]) from None
        raise
    return library


@transaction.atomic
def update_library(
    *, library_id: str, update: LibraryUpdate, if_match: str | None = None, model: KnownModel | None = None
) -> Library:
    """Change the named fields of a library; `model` is the one that `update` names. Raises NotFound,
    PreconditionFailed, ModelMismatch, Invalid."""
    library = sql.lock_library(library_id)
    selectors.check_match(if_match, lambda: selectors.etag(selectors.library_data(library)))
    if update.is_set("index_type") and update.index_type != library.index_type and not update.is_set("index_params"):
        # Parameters belong to a type.
        library.index_params = {}
    sql.bind_model(library, model, named_models(update))
    for field in update.model_fields_set - {"embedding"}:
        setattr(library, field, getattr(update, field))
    _check_index(library.index_type, library.index_params)
    library.save()
    return library


@transaction.atomic
def reindex_library(*, library_id: str, reindex: Reindex) -> Library:
    """Ask for the index to be built anew, by the type and parameters named or by those it has.

    Maintenance does it; queries go on meanwhile. Raises NotFound, Invalid.
    """
    library = sql.lock_library(library_id)
    if reindex.is_set("index_type") and not reindex.is_set("index_params"):
        # Parameters belong to a type.
        library.index_params = {}
    for name in reindex.model_fields_set:
        setattr(library, name, getattr(reindex, name))
    _check_index(library.index_type, library.index_params)
    library.rebuild += 1
    library.save()
    return library


@transaction.atomic
def delete_library(*, library_id: str, if_match: str | None = None) -> None:
    """Delete a library with all that is in it. Raises NotFound, PreconditionFailed."""
    library = sql.lock_library(library_id)
    selectors.check_match(if_match, lambda: selectors.etag(selectors.library_data(library)))
    library.delete()


def _check_index(kind: str, params: dict[str, object]) -> None:
    try:
        check_params(kind, params)
    except InvalidParameter as error:
        raise Invalid.at(pointer(["index_params", error.name]), error.reason) from None
