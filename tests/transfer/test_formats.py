"""Files of every format: what comes back of them, and what is said of those that are none."""

import io

import pytest

from apps.transfer.exporting import export_library
from apps.transfer.formats import EXPORT_FORMATS, format_of
from apps.transfer.importing import Report, import_source, open_library
from tests.transfer.libraries import content, make_library

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


def export(format: str) -> bytes:
    return b"".join(export_library(library_id="a", format=format_of(format)))


def load(format: str, data: bytes, into: str = "b") -> Report:
    source = format_of(format).read(io.BytesIO(data))
    open_library(into, source.library, create=True)
    *_, (report, _) = import_source(library_id=into, source=source)
    return report


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_what_comes_back_is_what_was_there(format: str) -> None:
    make_library()
    data = export(format)
    report = load(format, data)
    assert (report.created, report.documents, report.refused) == (10, 2, 0)
    assert content("b") == content("a")
    # Again into what is there: nothing comes twice.
    assert load(format, data).updated == 10
    assert content("b") == content("a")
