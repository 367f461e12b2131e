"""Root paths."""

from collections.abc import Callable
from functools import cache
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.utils.module_loading import import_string
from django.views.generic import RedirectView

from apps.api.mcp.agents import Mcp
from apps.operations import metrics
from apps.operations import views as operations

_READ = ["get", "head"]
_TO_API = RedirectView.as_view(url=f"{settings.BASE_PATH}/api/v1/", http_method_names=_READ)

_LOGIN: Any = {
    "template_name": "admin/login.html",
    "next_page": "root",
    "extra_context": {"title": "Log in", "site_title": "vectordb", "site_header": "vectordb"},
}


def _of_spectacular(name: str, **options: Any) -> Callable[..., HttpResponse]:
    """A view of drf-spectacular, which is imported when somebody first asks: it takes a tenth of a start."""
    view = cache(lambda: import_string(f"drf_spectacular.views.{name}").as_view(**options))

    def respond(request: HttpRequest, **kwargs: Any) -> HttpResponse:
        response: HttpResponse = view()(request, **kwargs)
        return response

    return respond


_DOCS = {"url_name": "schema", "http_method_names": _READ}

urlpatterns = [
    path("api/v1/", include("apps.api.v1.urls")),
    path("mcp", Mcp.as_view()),
    path("api/v1", _TO_API),
    path("", _TO_API),
    path("health", operations.health),
    path("ready", operations.ready),
    path("metrics", metrics.show),
    path("api/schema", _of_spectacular("SpectacularJSONAPIView"), name="schema"),
    path("api/docs", _of_spectacular("SpectacularSwaggerSplitView", **_DOCS), name="docs"),
    path("api/login", LoginView.as_view(**_LOGIN), name="login"),
    path("api/logout", LogoutView.as_view(next_page="root"), name="logout"),
    path("admin/", admin.site.urls),
    path("admin", RedirectView.as_view(url=f"{settings.BASE_PATH}/admin/", http_method_names=_READ)),
]

handler400 = "apps.api.middleware.bad_request"
handler403 = "apps.api.middleware.forbidden"
handler404 = "apps.api.middleware.not_found"
handler500 = "apps.api.middleware.server_error"
