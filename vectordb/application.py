"""The plain Django application, which `vectordb.wsgi`, `vectordb.asgi` and the client's `Client.local` run."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application

# Before numpy is loaded: threads of BLAS spin between calls, which takes the cores from the other processes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vectordb.settings")
try:
    application = get_wsgi_application()
except ImproperlyConfigured as error:
    sys.exit(str(error))

from apps.engine import kernels

kernels.load_in_background()
