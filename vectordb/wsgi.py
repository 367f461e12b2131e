"""The WSGI entry point: `gunicorn vectordb.wsgi` serves without maintenance; `manage.py serve` is the usual way."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application

# Before numpy is loaded; apps/engine/indexes/parallel_products.py says why.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vectordb.settings")
try:
    _django = get_wsgi_application()
except ImproperlyConfigured as error:
    sys.exit(str(error))

from apps.api.shortcut import QueryShortcut
from apps.engine import kernels

application = QueryShortcut(_django)
kernels.load_in_background()
