"""The ASGI entry point: the HTTP edge around the WSGI application, as `manage.py serve` runs it."""

from django.conf import settings

from apps.api.errors import refuse
from apps.api.v1.query import route
from apps.operations.edge.application import Edge
from vectordb.application import application as wsgi

application = Edge(wsgi, route, refuse, threads=settings.THREADS, timeout=settings.REQUEST_TIMEOUT)
