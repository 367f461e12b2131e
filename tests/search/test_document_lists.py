"""A page of documents by a filter that few match looks at so many and no more, and says that others follow."""

import pytest
from django.utils import timezone

from apps.engine.metadata.filters import parse_filter
from apps.libraries.models import Document, Library
from apps.libraries.selectors import PageKey
from apps.search.documents import list_documents

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


def test_a_page_looks_at_so_many_and_no_more() -> None:
    library = Library.objects.create(public_id="a", name="A")
    now = timezone.now()
    Document.objects.bulk_create(
        Document(library=library, public_id=f"d{n}", metadata={"n": n}, created_at=now) for n in range(1000)
    )
    after: PageKey = ()
    pages = []
    while True:
        page = list_documents(
            library_id="a", filter=parse_filter({"n": {"$in": [5, 6, 7, 950]}}), limit=2, after=after, most=400
        )
        pages.append([item["id"] for item in page.items])
        if page.next_key is None:
            break
        after = page.next_key
    # The second page begins behind what the first shows, at 7: 400 more end at 407, the next 400 at 807.
    assert pages == [["d5", "d6"], ["d7"], [], ["d950"]]
