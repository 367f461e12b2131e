"""The reference of a request: an empty Django view without middleware, under the server's own edge and gunicorn,
beside its maintenance process.

Run as `python -m benchmarks.empty_view` with the server's settings in the environment.
"""

import os
import sys

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path


def empty(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


urlpatterns = [path("", empty)]


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vectordb.settings")
    settings.ROOT_URLCONF = "benchmarks.empty_view"
    settings.MIDDLEWARE = []
    django.setup()

    from django.core.management import call_command
    from django.db import connections

    from apps.operations.server import Server

    # As `manage.py serve` does, for the maintenance process.
    call_command("migrate", verbosity=0)
    connections.close_all()
    # gunicorn reads the command line too.
    sys.argv = sys.argv[:1]
    Server().run()


if __name__ == "__main__":
    main()
