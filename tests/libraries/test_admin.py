"""The admin, as a person meets it: what the pages show, what they take and refuse, and what they cost."""

import json
import re
from datetime import UTC, datetime
from html import unescape
from typing import Any

import numpy as np
import pytest
from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext, override_settings

from apps.embeddings.config import Config
from apps.embeddings.services import embed
from apps.indexing import stats
from apps.libraries.errors import NotFound
from apps.libraries.models import Chunk, Document, Embedding, Library, Reembedding
from apps.search.query import service as services
from apps.search.query.spec import QuerySpec
from tests.factories import ChunkFactory, DocumentFactory, LibraryFactory

pytestmark = pytest.mark.django_db
# For tests that ask a query, or look at a library's page: the snapshot is a transaction of its own, which sees only
# what is committed.
asks_snapshots = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

LIBRARIES, DOCUMENTS, CHUNKS = (f"/admin/libraries/{model}/" for model in ("library", "document", "chunk"))


@pytest.fixture
def admin_client(db: None) -> Client:
    """A browser in which an administrator is logged in."""
    client = Client()
    client.force_login(User.objects.create(username="admin", is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def library() -> Library:
    """An empty library of dimension 3."""
    return LibraryFactory(public_id="zoo", name="Zoo")


@pytest.fixture
def chunk(library: Library) -> Chunk:
    """The chunk `cat` of that library."""
    return ChunkFactory(library=library, public_id="cat", text="A cat", metadata={"legs": 4})


def change(row: Library | Document | Chunk) -> str:
    """The path of a row's page."""
    return f"/admin/libraries/{row._meta.model_name}/{row.pk}/change/"


def fields(page: HttpResponse) -> dict[str, Any]:
    """What the page's form would send if nobody touched it; browsers send line ends as CR LF."""
    form = page.context["adminform"].form
    values = {field.html_name: field.value() for field in form if field.value() is not None}
    return {name: re.sub(r"\r\n|\r|\n", "\r\n", str(value)) for name, value in values.items()}


def save(client: Client, row: Library | Document | Chunk, **typed: Any) -> HttpResponse:
    """Open a row's page, type into its fields, press Save."""
    return client.post(change(row), fields(client.get(change(row))) | typed)


def saved(response: HttpResponse) -> bool:
    """Whether a form was accepted."""
    assert response.status_code in (200, 302)
    return response.status_code == 302


def complaints(response: HttpResponse, field: str | None) -> str:
    """What a refused form says about a field, or about itself as a whole."""
    assert response.status_code == 200
    return " ".join(response.context["adminform"].form.errors.get(field or "__all__", ["(nothing)"]))


def listed(response: HttpResponse) -> list[str]:
    """The ids in a list."""
    assert response.status_code == 200
    return [row.public_id for row in response.context["cl"].result_list]


def text_of(response: HttpResponse) -> str:
    """A page without its tags."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", response.content.decode())))


def revision(library: Library) -> int:
    """The revision that the API shows."""
    return stats.library_stats(library_id=library.public_id)["revision"]


def found(library: Library) -> dict[str, str]:
    """The texts that a query finds, by id."""
    answer = services.query(library_id=library.public_id, spec=QuerySpec(vector=[1.0, 0.0, 0.0], k=1000))
    return {result["id"]: result["text"] for result in answer["results"]}


@pytest.mark.any_database
def test_the_login_page_says_how_to_get_an_account() -> None:
    page = Client().get("/admin/login/")
    assert "vectordb" in text_of(page)
    assert ".venv/bin/python manage.py createsuperuser" in text_of(page)


@pytest.mark.any_database
@override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"])
def test_a_login_without_a_next_page_leads_to_the_first_page() -> None:
    User.objects.create_superuser("somebody", password="a password")
    typed = {"username": "somebody", "password": "a password"}
    for url in ("/admin/login/", "/admin/login/?next="):
        assert Client().post(url, typed, follow=True).redirect_chain == [("/admin/", 302)]


@pytest.mark.any_database
@override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"], ALLOWED_HOSTS=["example.com"])
@pytest.mark.parametrize(("origin", "status"), [("https://example.com", 302), ("https://example.org", 403)])
def test_a_login_over_tls(origin: str, status: int) -> None:
    User.objects.create_superuser("somebody", password="a password")
    client = Client(enforce_csrf_checks=True, headers={"Host": "example.com"})
    page = client.get("/admin/login/", secure=True)
    typed = {"username": "somebody", "password": "a password", "csrfmiddlewaretoken": page.context["csrf_token"]}
    headers = {"Origin": origin, "Referer": f"{origin}/admin/login/"}
    assert client.post("/admin/login/", typed, headers=headers, secure=True).status_code == status


@pytest.mark.any_database
def test_the_first_page_leads_to_everything(admin_client: Client) -> None:
    page = admin_client.get("/admin/")
    for path in (LIBRARIES, DOCUMENTS, CHUNKS):
        assert f'href="{path}"' in page.content.decode()


def test_libraries_are_listed_with_their_counts(admin_client: Client, library: Library) -> None:
    document = DocumentFactory(library=library)
    ChunkFactory.create_batch(3, library=library, document=document)
    LibraryFactory(public_id="empty", index_type="brute_force", dimension=None)
    rows = re.findall(r"<tr>(.*?)</tr>", admin_client.get(LIBRARIES).content.decode(), re.DOTALL)
    cells = [re.findall(r"[^|\s]+", re.sub(r"<[^>]*>", "|", row)) for row in rows]
    assert next(row for row in cells if "zoo" in row)[-5:] == ["3", "cosine", "auto", "1", "3"]
    assert next(row for row in cells if "empty" in row)[-5:] == ["-", "cosine", "brute_force", "0", "0"]
    assert f'href="{CHUNKS}?library={library.pk}"' in "".join(rows)


@asks_snapshots
def test_the_page_of_a_library_shows_what_the_api_says_of_its_index(admin_client: Client, library: Library) -> None:
    Library.objects.update(index_type="hnsw", embedding_provider="hashing", embedding_model="hashing-64")
    Reembedding.objects.create(library=library, generation=2, provider="hashing", model="hashing-128")
    ChunkFactory.create_batch(3, library=library)
    page = text_of(admin_client.get(change(library)))
    shown = json.loads(re.search(r"Stats: ({.*})", page)[1])
    assert shown == stats.library_stats(library_id="zoo")
    assert (shown["index"]["rows_pending"], shown["reembedding"]["model"]) == (3, "hashing-128")
    assert "Embedding: hashing hashing-64" in page


@pytest.mark.parametrize("path", [LIBRARIES, DOCUMENTS, CHUNKS])
def test_a_list_costs_as_many_queries_for_many_rows_as_for_few(
    admin_client: Client, path: str, django_assert_max_num_queries: Any
) -> None:
    for _ in range(30):
        library = LibraryFactory()
        ChunkFactory(library=library, document=DocumentFactory(library=library))
    with django_assert_max_num_queries(6):
        assert len(listed(admin_client.get(path))) == 30


def test_libraries_can_be_sorted_by_their_number_of_chunks(admin_client: Client) -> None:
    small, large = LibraryFactory(), LibraryFactory()
    ChunkFactory(library=small)
    ChunkFactory.create_batch(2, library=large)
    column = admin_client.get(LIBRARIES).context["cl"].list_display.index("chunk_count")
    assert listed(admin_client.get(LIBRARIES, {"o": f"-{column}"})) == [large.public_id, small.public_id]


def test_lists_can_be_limited_to_a_library(admin_client: Client, chunk: Chunk) -> None:
    ChunkFactory(library__public_id="farm", public_id="cow")
    assert listed(admin_client.get(CHUNKS, {"library": chunk.library.pk})) == ["cat"]
    assert listed(admin_client.get(CHUNKS, {"library": 0})) == []


def test_chunks_of_a_document_are_listed_in_their_order(admin_client: Client, library: Library) -> None:
    document = DocumentFactory(library=library)
    for position, public_id in ((2, "last"), (0, "first"), (1, "second")):
        ChunkFactory(library=library, document=document, public_id=public_id, position=position)
    ChunkFactory(library=library, public_id="alone")
    assert listed(admin_client.get(CHUNKS, {"document": document.pk})) == ["first", "second", "last"]
    assert listed(admin_client.get(CHUNKS, {"document": "0"})) == []
    assert admin_client.get(CHUNKS, {"document": "x"})["Location"] == f"{CHUNKS}?e=1"


@pytest.mark.parametrize(
    ("term", "ids"),
    [
        ("cat", ["cat", "cat-2", "dog"]),
        ("cat-", ["cat-2"]),
        ("chases A", ["dog"]),
        ("100%", ["cow"]),
        ("c_t", []),
        ("nothing like it", []),
    ],
)
def test_chunks_are_searched_by_the_beginning_of_their_id_and_by_their_text(
    admin_client: Client, library: Library, term: str, ids: list[str]
) -> None:
    texts = {"cat": "purrs", "cat-2": "purrs too", "dog": "A dog chases a cat", "cow": "100% milk", "scat": "singing"}
    for public_id, text in texts.items():
        ChunkFactory(library=library, public_id=public_id, text=text)
    assert listed(admin_client.get(CHUNKS, {"q": term})) == ids


def test_a_list_shows_the_beginning_of_a_text_only(admin_client: Client, library: Library) -> None:
    ChunkFactory(library=library, text="begin " + "x" * 10_000 + " end")
    DocumentFactory(library=library, title="Title " + "y" * 10_000 + " end")
    for path, word in ((CHUNKS, "begin"), (DOCUMENTS, "Title")):
        page = text_of(admin_client.get(path))
        assert word in page
        assert "end" not in re.findall(r"[a-z]+", page)


@asks_snapshots
def test_the_page_of_a_library_leads_to_what_is_in_it(admin_client: Client, chunk: Chunk) -> None:
    page = admin_client.get(change(chunk.library)).content.decode()
    assert f'href="{CHUNKS}?library={chunk.library.pk}"' in page
    assert f'href="{DOCUMENTS}?library={chunk.library.pk}"' in page


def test_the_page_of_a_document_leads_to_its_chunks(admin_client: Client, library: Library) -> None:
    document = DocumentFactory(library=library)
    ChunkFactory.create_batch(15, library=library, document=document)
    page = admin_client.get(change(document)).content.decode()
    assert f'<a href="{CHUNKS}?document={document.pk}">15</a>' in page


def test_the_page_of_a_chunk_shows_its_metadata_indented(admin_client: Client, library: Library) -> None:
    chunk = ChunkFactory(library=library, metadata={"who": "Zoë", "tags": ["a"]})
    assert '{\n  "who": "Zoë",\n  "tags": [\n    "a"\n  ]\n}' in unescape(
        admin_client.get(change(chunk)).content.decode()
    )


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("dimension", "shown"),
    [(3, "3 components: 1, -0.5, 0.25 "), (8192, "8192 components: 1, -0.5, 0.25, 0, 0, 0, 0, 0, ...")],
)
def test_the_page_of_a_chunk_shows_the_beginning_of_its_vector(
    admin_client: Client, dimension: int, shown: str
) -> None:
    vector = np.zeros(dimension)
    vector[:3] = [1, -0.5, 0.25]
    page = admin_client.get(change(ChunkFactory(library=LibraryFactory(dimension=dimension), vector=vector)))
    assert shown in text_of(page)


def test_the_page_of_a_chunk_without_an_embedding_says_so(admin_client: Client, chunk: Chunk) -> None:
    Embedding.objects.all().delete()
    assert "words and filters find this chunk" in text_of(admin_client.get(change(chunk)))


@asks_snapshots
def test_an_edited_text_gets_a_vector_of_the_library_s_model(admin_client: Client) -> None:
    library = LibraryFactory(dimension=64, embedding_provider="hashing", embedding_model="hashing-64")
    old, new = embed("hashing", "hashing-64", ["A cat", "A lion"], "document")
    chunk = ChunkFactory(library=library, public_id="cat", text="A cat", vector=old)
    before = revision(library)
    response = save(admin_client, chunk, text="A lion")
    assert saved(response)
    assert bytes(Embedding.objects.get().vector) == new.tobytes()
    assert revision(library) > before
    assert "keeps the vector" not in text_of(admin_client.get(response["Location"]))


@asks_snapshots
def test_without_a_model_an_edited_text_keeps_its_vector_and_the_remedy_that_is_named_works(
    admin_client: Client, chunk: Chunk
) -> None:
    assert found(chunk.library) == {"cat": "A cat"}
    response = save(admin_client, chunk, text="A lion")
    assert saved(response)
    assert found(chunk.library) == {"cat": "A lion"}
    assert Embedding.objects.get().vector == np.float32([1, 0, 0]).tobytes()
    warning = text_of(admin_client.get(response["Location"]))
    assert "zoo has no embedding model, so cat keeps the vector of its old text" in warning
    remedy = re.search(r"`(\w+)` by PATCH (\S+)", warning)
    assert remedy is not None
    body = json.dumps({"text": "A lion", remedy[1]: [0, 1, 0]})
    assert admin_client.patch(remedy[2], body, content_type="application/json").status_code == 200
    assert Embedding.objects.get().vector == np.float32([0, 1, 0]).tobytes()


@pytest.mark.any_database
@asks_snapshots
def test_a_text_that_cannot_be_embedded_is_not_saved(admin_client: Client) -> None:
    library = LibraryFactory(dimension=64, embedding_provider="openai", embedding_model="m")
    chunk = ChunkFactory(library=library, text="A cat", vector=[1.0] * 64)
    with override_settings(EMBEDDINGS=Config(retries=0, openai_base_url="http://127.0.0.1:1/v1")):
        response = save(admin_client, chunk, text="A lion")
    assert "http://127.0.0.1:1 cannot be reached" in complaints(response, None)
    assert "A lion" in response.content.decode()
    assert "there is nothing to embed" in complaints(save(admin_client, chunk, text=" "), "text")
    assert Chunk.objects.get().text == "A cat"


@asks_snapshots
def test_edited_metadata_moves_the_revision(admin_client: Client, chunk: Chunk) -> None:
    before = revision(chunk.library)
    assert saved(save(admin_client, chunk, metadata='{"legs": 3, "big": 18446744073709551615}'))
    chunk.refresh_from_db()
    assert chunk.metadata == {"legs": 3, "big": 2**64 - 1}
    assert revision(chunk.library) > before


@asks_snapshots
def test_saving_without_a_change_keeps_the_revision(admin_client: Client, chunk: Chunk) -> None:
    before = revision(chunk.library), Chunk.objects.get().updated_at
    assert saved(save(admin_client, chunk))
    assert (revision(chunk.library), Chunk.objects.get().updated_at) == before


@pytest.mark.parametrize(
    "text", ["two\r\nlines", "old\rMac", "two\nlines", "  blanks around\n\n", "\nfirst line empty"]
)
def test_a_text_that_is_not_edited_stays_as_it_is(admin_client: Client, library: Library, text: str) -> None:
    chunk = ChunkFactory(library=library, text=text)
    assert saved(save(admin_client, chunk, metadata='{"edited": true}'))
    chunk.refresh_from_db()
    assert (chunk.text, chunk.metadata) == (text, {"edited": True})


def test_new_lines_are_kept_as_line_feeds(admin_client: Client, chunk: Chunk) -> None:
    assert saved(save(admin_client, chunk, text="  one\r\ntwo \r\n"))
    chunk.refresh_from_db()
    assert chunk.text == "  one\ntwo \n"


def test_where_a_chunk_belongs_cannot_be_changed(admin_client: Client, chunk: Chunk) -> None:
    other = DocumentFactory(library__public_id="farm")
    typed = {"public_id": "dog", "library": other.library.pk, "document": other.pk, "position": 7, "text": "new"}
    assert saved(save(admin_client, chunk, **typed))
    stored = Chunk.objects.select_related("library").get()
    assert (stored.public_id, stored.library.public_id, stored.document, stored.position) == ("cat", "zoo", None, None)
    assert stored.text == "new"


DEEP = "[" * 16 + "]" * 16
REFUSED_METADATA = [
    ("{", "not valid JSON"),
    ("[1]", "must be a JSON object"),
    ('"text"', "must be a JSON object"),
    ('{"a": NaN}', "not valid JSON"),
    ('{"a": 1e999}', "/a must be a finite number"),
    ('{"a": 18446744073709551616}', "/a must be an integer of 64 bits"),
    ('{"a": "\\u0000"}', "/a must not contain the character NUL"),
    ('{"a": "\\ud800"}', "not valid JSON"),
    (f'{{"a": {DEEP}}}', "must not nest deeper than 16 (limit VECTORDB_MAX_METADATA_DEPTH)"),
    ("[" * 100_000, "not valid JSON"),
    (json.dumps({"a": "x" * 70_000}), "65536 bytes of JSON, not 70008 (limit VECTORDB_MAX_METADATA_BYTES)"),
]


@pytest.mark.any_database
@pytest.mark.parametrize(("typed", "complaint"), REFUSED_METADATA, ids=[typed[:20] for typed, _ in REFUSED_METADATA])
def test_metadata_obeys_the_rules_of_the_api(admin_client: Client, chunk: Chunk, typed: str, complaint: str) -> None:
    for row in (chunk, DocumentFactory(library=chunk.library, metadata={"legs": 4})):
        before = type(row).objects.get().metadata
        response = save(admin_client, row, metadata=typed)
        assert complaint in complaints(response, "metadata")
        assert typed[:50] in unescape(response.content.decode())
        assert type(row).objects.get().metadata == before
    response = admin_client.post(f"{LIBRARIES}add/", NEW_LIBRARY | {"metadata": typed})
    assert complaint in complaints(response, "metadata")
    assert Library.objects.count() == 1


@pytest.mark.any_database
@asks_snapshots
@pytest.mark.parametrize(
    ("typed", "complaint"), [("x" * 262_145, "(limit VECTORDB_MAX_TEXT_BYTES)"), ("a\0b", "Null characters")]
)
def test_texts_obey_the_rules_of_the_api(admin_client: Client, chunk: Chunk, typed: str, complaint: str) -> None:
    document = DocumentFactory(library=chunk.library)
    for row, field in ((chunk, "text"), (document, "title"), (document, "source"), (chunk.library, "description")):
        assert complaint in complaints(save(admin_client, row, **{field: typed}), field)
    assert Chunk.objects.get().text == "A cat"


@asks_snapshots
@pytest.mark.parametrize("model", ["chunk", "document", "library"])
def test_what_a_program_has_written_meanwhile_is_not_overwritten(
    admin_client: Client, chunk: Chunk, model: str
) -> None:
    row = {"chunk": chunk, "document": DocumentFactory(library=chunk.library), "library": chunk.library}[model]
    opened = fields(admin_client.get(change(row)))
    row.metadata = {"by": "program"}
    row.save()
    response = admin_client.post(change(row), opened | {"metadata": '{"by": "person"}'})
    assert "has changed since you opened the page" in complaints(response, None)
    assert type(row).objects.get().metadata == {"by": "program"}
    assert saved(save(admin_client, row, metadata='{"by": "person"}'))


def typed_time(moment: datetime) -> dict[str, str]:
    """What the two fields of a time have in them."""
    return {"expires_at_0": f"{moment:%Y-%m-%d}", "expires_at_1": f"{moment:%H:%M:%S}"}


@pytest.mark.parametrize("model", [Chunk, Document])
def test_when_something_expires_is_shown_and_set(
    admin_client: Client, library: Library, model: type[Chunk] | type[Document]
) -> None:
    before, after = datetime(2101, 1, 1, 0, 0, 0, 250_000, UTC), datetime(2100, 1, 1, tzinfo=UTC)
    row = model.objects.create(library=library, public_id="expiring", expires_at=before)
    assert 'value="2101-01-01"' in admin_client.get(change(row)).content.decode()
    # What was not touched keeps its microseconds.
    for typed, stored in ((before, before), (after, after)):
        assert saved(save(admin_client, row, **typed_time(typed)))
        row.refresh_from_db()
        assert row.expires_at == stored
    listing = f"/admin/libraries/{model._meta.model_name}/"
    assert listed(admin_client.get(listing)) == ["expiring"]
    assert saved(save(admin_client, row, **typed_time(datetime(2001, 1, 1, tzinfo=UTC))))
    assert listed(admin_client.get(listing)) == []
    assert admin_client.get(change(row), follow=True).redirect_chain


def test_a_form_may_be_sent_without_having_been_opened(admin_client: Client, chunk: Chunk) -> None:
    assert saved(admin_client.post(change(chunk), {"text": "blind", "metadata": "{}"}))
    chunk.refresh_from_db()
    assert (chunk.text, chunk.metadata) == ("blind", {})


NEW_LIBRARY = {"public_id": "new", "name": "New", "metric": "cosine", "index_type": "auto", "metadata": "{}"}


def test_a_library_is_added(admin_client: Client) -> None:
    typed = NEW_LIBRARY | {"description": "two\r\nlines", "dimension": "8192", "metric": "dot", "metadata": '{"a": 1}'}
    assert saved(admin_client.post(f"{LIBRARIES}add/", typed))
    library = Library.objects.get(public_id="new")
    assert (library.description, library.dimension, library.metric) == ("two\nlines", 8192, "dot")
    assert (library.index_type, library.metadata) == ("auto", {"a": 1})


def test_an_untouched_form_needs_a_name_only(admin_client: Client) -> None:
    typed = fields(admin_client.get(f"{LIBRARIES}add/"))
    assert complaints(admin_client.post(f"{LIBRARIES}add/", typed), "name") == "This field is required."
    assert saved(admin_client.post(f"{LIBRARIES}add/", typed | {"name": "N"}))
    library = Library.objects.get()
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]+", library.public_id)
    assert (library.dimension, library.metric, library.index_type, library.metadata) == (None, "cosine", "auto", {})


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("field", "typed", "complaint"),
    [
        ("public_id", "a/b", "without '/'"),
        ("public_id", "two words", "without '/'"),
        ("public_id", "..", "neither '.' nor '..'"),
        ("public_id", "x" * 129, "128 characters"),
        ("public_id", "zoo", "is in use"),
        ("name", "x" * 201, "at most 200 characters"),
        ("dimension", "0", "an integer from 1 to 8192"),
        ("dimension", "8193", "(limit VECTORDB_MAX_DIMENSION)"),
        ("dimension", "many", "whole number"),
        ("metric", "manhattan", "Select a valid choice"),
        ("index_type", "annoy", "Select a valid choice"),
    ],
)
def test_a_new_library_obeys_the_rules_of_the_api(
    admin_client: Client, library: Library, field: str, typed: str, complaint: str
) -> None:
    response = admin_client.post(f"{LIBRARIES}add/", NEW_LIBRARY | {field: typed})
    assert complaint in complaints(response, field)
    assert Library.objects.count() == 1


@asks_snapshots
def test_what_makes_a_library_cannot_be_changed_later(admin_client: Client, library: Library) -> None:
    typed = {"public_id": "other", "dimension": "5", "metric": "dot", "name": "Renamed", "index_type": "brute_force"}
    assert saved(save(admin_client, library, **typed))
    library.refresh_from_db()
    assert (library.public_id, library.dimension, library.metric) == ("zoo", 3, "cosine")
    assert (library.name, library.index_type) == ("Renamed", "brute_force")


def test_documents_and_chunks_are_not_added_by_hand(admin_client: Client) -> None:
    for path in (DOCUMENTS, CHUNKS):
        assert admin_client.get(f"{path}add/").status_code == 403
        assert f"{path}add/" not in admin_client.get("/admin/").content.decode()


@pytest.fixture
def full(library: Library) -> Library:
    """The library with two documents of three chunks each and one chunk alone."""
    for name in ("one", "two"):
        document = DocumentFactory(library=library, public_id=name)
        ChunkFactory.create_batch(3, library=library, document=document)
    ChunkFactory(library=library, public_id="alone")
    ChunkFactory(library__public_id="farm", public_id="cow")
    return library


def left() -> tuple[int, int, int, int]:
    """How many libraries, documents, chunks and embeddings there are."""
    kinds = (Library, Document, Chunk, Embedding)
    libraries, documents, chunks, embeddings = (kind.objects.count() for kind in kinds)
    return libraries, documents, chunks, embeddings


def select(client: Client, path: str, *rows: Any, **more: Any) -> HttpResponse:
    """Tick rows of a list, choose "Delete selected", press Go."""
    return client.post(path, {"action": "delete_selected", "_selected_action": [row.pk for row in rows], **more})


def confirm(client: Client, path: str, asked: HttpResponse) -> HttpResponse:
    """Press "Yes, delete" on the page that asks."""
    assert b"Are you sure" in asked.content
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', asked.content.decode())
    typed: dict[str, list[str]] = {}
    for name, value in hidden:
        typed.setdefault(name, []).append(value)
    del typed["csrfmiddlewaretoken"]
    return client.post(path, typed)


@asks_snapshots
def test_deleting_a_library_says_what_goes_with_it_and_loads_none_of_it(admin_client: Client, full: Library) -> None:
    assert set(found(full)) > {"alone"}
    path = change(full).replace("change", "delete")
    assert (
        "Libraries: 1 Documents: 2 Chunks: 7"
        in text_of(admin_client.get(path)).replace("Chunks: 7 ", "Chunks: 7")[:99999]
    )
    with CaptureQueriesContext(connection) as queries:
        assert admin_client.post(path, {"post": "yes"}).status_code == 302
    read = ('"vectordb_chunk"."text"', '"vectordb_embedding"."vector"')
    assert not [query["sql"] for query in queries if any(column in query["sql"] for column in read)]
    assert left() == (1, 0, 1, 1)
    with pytest.raises(NotFound):
        found(full)


@asks_snapshots
def test_deleting_a_document_takes_its_chunks(admin_client: Client, full: Library) -> None:
    before = revision(full)
    path = change(Document.objects.get(public_id="one")).replace("change", "delete")
    assert "Documents: 1 Chunks: 3" in text_of(admin_client.get(path))
    admin_client.post(path, {"post": "yes"})
    assert left() == (2, 1, 5, 5)
    assert len(found(full)) == 4
    assert revision(full) > before


@asks_snapshots
def test_deleting_a_chunk_moves_the_revision(admin_client: Client, full: Library) -> None:
    before = revision(full)
    admin_client.post(change(Chunk.objects.get(public_id="alone")).replace("change", "delete"), {"post": "yes"})
    assert left() == (2, 2, 7, 7)
    assert "alone" not in found(full)
    assert revision(full) > before


@pytest.mark.parametrize(
    ("path", "model", "summary", "remaining"),
    [
        (LIBRARIES, Library, "Libraries: 1 Documents: 2 Chunks: 7", (1, 0, 1, 1)),
        (DOCUMENTS, Document, "Documents: 2 Chunks: 6", (2, 0, 2, 2)),
        (CHUNKS, Chunk, "Chunks: 7", (2, 2, 1, 1)),
    ],
)
def test_deleting_selected_rows_asks_first(
    admin_client: Client, full: Library, path: str, model: Any, summary: str, remaining: tuple[int, ...]
) -> None:
    before = left()
    rows = [full] if model is Library else model.objects.filter(library=full)
    asked = select(admin_client, path, *rows)
    assert summary in text_of(asked)
    assert left() == before
    confirm(admin_client, path, asked)
    assert left() == remaining


def test_rows_of_other_pages_are_not_offered_to_be_deleted(admin_client: Client, library: Library) -> None:
    ChunkFactory.create_batch(60, library=library)
    page = admin_client.get(CHUNKS)
    assert len(listed(page)) == 50
    assert "Select all" not in text_of(page)
    asked = select(admin_client, CHUNKS, Chunk.objects.earliest("pk"), select_across="1")
    assert "Chunks: 1 " in text_of(asked)


@asks_snapshots
def test_an_odd_id_is_shown_as_text(admin_client: Client) -> None:
    odd = "<b>&amp;\"'<script>"
    library = LibraryFactory(public_id=odd, name=odd)
    chunk = ChunkFactory(
        library=library, document=DocumentFactory(library=library, public_id=odd), public_id=odd, text=odd
    )
    paths = [CHUNKS, DOCUMENTS, LIBRARIES, change(chunk), change(library), change(chunk.document)]
    for path in paths:
        page = admin_client.get(path).content.decode()
        assert "<script>" not in page.replace("<script>\n", "")
        assert odd in unescape(page)
    assert listed(admin_client.get(CHUNKS, {"q": odd})) == [odd]


def member(*permissions: str) -> Client:
    """A browser in which somebody is logged in who may do only this."""
    # The test before may have emptied the database.
    create_permissions(apps.get_app_config("libraries"), verbosity=0)
    user = User.objects.create(username="member", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@asks_snapshots
def test_who_may_only_look_gets_no_form(chunk: Chunk) -> None:
    client = member("view_library", "view_document", "view_chunk")
    document = DocumentFactory(library=chunk.library)
    for row in (chunk, document, chunk.library):
        page = client.get(change(row))
        assert "<textarea" not in page.content.decode()
        assert "Seen" not in text_of(page)
        assert client.post(change(row), {"text": "x", "name": "x", "metadata": "{}"}).status_code == 403
    assert "A cat" in text_of(client.get(change(chunk)))
    assert "3 components" in text_of(client.get(change(chunk)))


def test_who_may_not_delete_chunks_cannot_delete_what_holds_some(full: Library) -> None:
    client = member("view_library", "delete_library", "delete_document")
    path = change(full).replace("change", "delete")
    assert "doesn't have permission" in text_of(client.get(path))
    assert client.post(path, {"post": "yes"}).status_code == 403
    assert "chunks" in text_of(select(client, LIBRARIES, full))
    assert select(client, LIBRARIES, full, post="yes").status_code == 403
    assert left()[0] == 2
