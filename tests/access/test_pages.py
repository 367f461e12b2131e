"""Every page for people: no script or style stands in it, and what clients wrote is shown as text."""

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings

from apps.access.keys import create_key
from tests.factories import ChunkFactory, DocumentFactory, LibraryFactory

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

# What would run, or change the page, anywhere in HTML: in text, in an attribute, in a script.
HOSTILE = "</script><script>evil()</script>\"'><img src=x onerror=evil()>{{7*7}}"
STARTS = ("/admin/", "/api/v1/", "/api/docs", "/api/login", "/nowhere", f"/api/v1/libraries/{HOSTILE}", "/api/v1/chunk")
# One page of each kind is enough, but lists of everything lead to each.
MOST = 120


class Policed(HTMLParser):
    """Collects a page's links and whatever the Content-Security-Policy would forbid."""

    def __init__(self, url: str, html: str) -> None:
        super().__init__()
        self.url = url
        self.links: set[str] = set()
        self.forbidden: list[str] = []
        self.hostile: list[str] = []
        self._is_inline_script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        is_script = tag == "script" and found.get("type") != "application/json"
        self._is_inline_script = is_script and "src" not in found
        if tag == "style" or "style" in found or self._is_inline_script or any(name[:2] == "on" for name in found):
            self.forbidden.append(f"{self.get_starttag_text()}")
        for name in ("src", "href", "action", "formaction"):
            target = found.get(name) or ""
            if target.startswith(("javascript:", "data:")) and target != "data:,":
                self.forbidden.append(f"{self.get_starttag_text()}")
            if tag in ("script", "link", "img", "iframe") and urlsplit(target).netloc:
                self.forbidden.append(f"{self.get_starttag_text()}")
        if found.get("src") == "x" or "evil()" in (found.get("onerror") or ""):
            self.hostile.append(f"{self.get_starttag_text()}")
        if tag == "a" and found.get("href"):
            self.links.add(urljoin(self.url, found["href"]))


@pytest.fixture
def browser() -> Iterator[Client]:
    """A superuser's, on a server whose data is hostile wherever clients may write text."""
    library = LibraryFactory(
        public_id="zoo", name=HOSTILE, description=HOSTILE, metadata={HOSTILE: HOSTILE}, dimension=None
    )
    document = DocumentFactory(
        library=library,
        public_id=f"doc {HOSTILE}",
        title=HOSTILE,
        source=f"javascript:{HOSTILE}",
        metadata={"a": HOSTILE},
    )
    ChunkFactory(library=library, document=document, public_id=HOSTILE, text=HOSTILE, metadata={HOSTILE: [HOSTILE]})
    create_key(name=HOSTILE, scopes=["read"], libraries=["zoo"])
    user = User.objects.create(username="root", first_name=HOSTILE, last_name=HOSTILE, is_staff=True, is_superuser=True)
    client = Client(headers={"Accept": "text/html", "User-Agent": HOSTILE, "X-Request-ID": HOSTILE})
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    with override_settings(AUTH=False):
        yield client


def test_no_page_has_inline_scripts_or_styles_or_what_clients_wrote_as_html(browser: Client) -> None:
    waiting: list[str] = list(STARTS)
    seen: set[str] = set()
    while waiting and len(seen) < MOST:
        url = waiting.pop(0)
        path = urlsplit(url).path
        if path in seen or urlsplit(url).netloc or path.startswith(("/static/", "/admin/logout", "/admin/jsi18n")):
            continue
        seen.add(path)
        answer: Any = browser.get(url, follow=True)
        assert answer.status_code < 500, url
        assert "script-src 'self'; style-src 'self'" in answer["Content-Security-Policy"]
        if not answer["Content-Type"].startswith("text/html"):
            assert answer["Content-Type"].startswith(("application/", "text/javascript")), url
            continue
        html = answer.content.decode()
        page = Policed(url, html)
        assert not page.forbidden, f"{url}: {page.forbidden}"
        assert not page.hostile, f"{url}: {page.hostile}"
        waiting += sorted(page.links)
    reached = " ".join(sorted(seen))
    for place in ("/admin/access/key/", "/admin/libraries/chunk/", "/admin/auth/group/add/", "/stats", "/chunks/"):
        assert place in reached, f"{place} is not among {reached}"


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:evil()"])
@pytest.mark.parametrize("login", ["/admin/login/", "/api/login"])
@override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"])
def test_a_login_leads_to_no_other_server(login: str, target: str) -> None:
    User.objects.create_user("root", password="a password", is_staff=True, is_superuser=True)
    client = Client()
    typed = {"username": "root", "password": "a password", "next": target}
    answer = client.post(f"{login}?next={target}", typed)
    assert answer.status_code == 302
    assert answer["Location"].startswith("/")
    assert "evil" not in answer["Location"]


@pytest.mark.parametrize(
    "path", ["//evil.example/%2e%2e", "/admin//evil.example", "/%5Cevil.example", "/admin/..//evil"]
)
def test_no_path_leads_to_another_server(settings: Any, path: str) -> None:
    settings.AUTH = False
    answer = Client().get(path)
    assert answer.status_code in (301, 302, 404)
    location = answer.headers.get("Location", "/")
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))
