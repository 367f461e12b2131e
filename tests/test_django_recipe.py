"""The module for Django projects in docs/integrations.md, as it stands there, in a project of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import ROOT, Server

pytestmark = pytest.mark.any_database

SETTINGS = """
import os
SECRET_KEY = "for tests"
INSTALLED_APPS = ["articles"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
PROGRAM = """
import django
django.setup()
from django.core.management import call_command
from django.db import IntegrityError, transaction
from articles.models import Article
from articles.search import F, client, synchronize

call_command("migrate", run_syncdb=True, verbosity=0)
titles = ["The early bird", "An apple a day", "Apple pie"]
bodies = ["catches the worm at sunrise", "keeps the doctor away", "is a sweet dessert"]
years = [1900, 1950, 2000]
bird, apple, pie = [Article.objects.create(title=t, body=b, year=y) for t, b, y in zip(titles, bodies, years)]
library = Article.library()

def titles_of(rows):
    return [row.title for row in rows]

article = apple
exec(EXAMPLES)
found = Article.objects.similar_to("getting up in the morning", k=1)
assert titles_of(found) == ["The early bird"] and found[0].score > 0, found
assert titles_of(Article.objects.similar_to("apple", k=9, filter=F("year") > 1950)) == ["Apple pie"]
days = Article.objects.filter(title__endswith="day")
assert titles_of(days.similar_to("early bird", mode="hybrid")) == ["An apple a day"]
others = Article.objects.exclude(pk=pie.pk)
assert titles_of(others.similar_to("dessert", filter=F("year") > 1900)) == ["An apple a day"]
assert titles_of(Article.objects.similar_to(apple, k=1)) == ["Apple pie"]
assert Article.objects.none().similar_to("apple") == []

try:
    with transaction.atomic():
        Article.objects.create(title="Apple", body="rolled back", year=1)
        apple.title = "Rolled back"
        apple.save()
        raise IntegrityError
except IntegrityError:
    pass
assert library.count() == 3 and library.get_chunk(str(apple.pk)).text.startswith("An apple")
bird.title = "The late owl"
bird.save()
assert library.get_chunk(str(bird.pk)).text.startswith("The late owl")
Article.objects.filter(pk=pie.pk).delete()
assert library.count() == 2

Article.objects.bulk_create(Article(title="Bulk", body="bulk", year=n) for n in range(3))
Article.objects.filter(pk=bird.pk)._raw_delete("default")
Article.objects.reindex()
assert library.count() == Article.objects.count() == 4
synchronize(Article, bird.pk)

client.libraries.delete(library.id)
apple.title = "Saved, though the server refuses"
apple.save()
assert Article.objects.get(pk=apple.pk).title == apple.title
client.close()
"""


def test_the_recipe_for_django_projects(server: Server, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "integrations.md").read_text().partition("## Django")[2]
    settings, search, models, examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "settings.py").write_text(SETTINGS + settings.replace("http://127.0.0.1:8000", server.url))
    app = tmp_path / "articles"
    app.mkdir()
    (app / "__init__.py").touch()
    (app / "search.py").write_text(search)
    (app / "models.py").write_text(f"from django.db import models\nfrom articles.search import Searchable\n\n{models}")
    environ = os.environ | {
        "DJANGO_SETTINGS_MODULE": "settings",
        "PYTHONPATH": f"{ROOT / 'sdk' / 'src'}:{tmp_path}",
        "VECTORDB_API_KEY": server.authorization["Authorization"].removeprefix("Bearer "),
    }
    program = [sys.executable, "-W", "error", "-c", f"EXAMPLES = {examples!r}\n{PROGRAM}"]
    run = subprocess.run(program, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
