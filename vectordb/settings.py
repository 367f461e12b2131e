"""Django settings, made from the environment (`vectordb/environment.py`)."""

import os
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import environ
from django.utils.functional import SimpleLazyObject
from django.utils.log import CallbackFilter

from apps.control_groups import memory_limits
from apps.embeddings.config import Config
from vectordb import __version__, environment

VERSION = __version__

_values = environment.read()
LIMITS = environment.limits(_values)
SETTING_NAMES = list(_values)

DATA_DIR: Path = _values["VECTORDB_DATA_DIR"]
BIND: str = _values["VECTORDB_BIND"]
WORKERS: int = _values["VECTORDB_WORKERS"]
THREADS: int = _values["VECTORDB_THREADS"]
REQUEST_TIMEOUT: int = _values["VECTORDB_REQUEST_TIMEOUT"]
BUSY_TIMEOUT: int = _values["VECTORDB_BUSY_TIMEOUT"]
INDEX_DIR: Path = DATA_DIR / "index"
_memory = min((os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *(limit for _, limit in memory_limits())))
MEMORY_BUDGET: int = _values["VECTORDB_MEMORY_MB"] << 20 or _memory // 2
EMBEDDINGS = Config(
    provider=_values["VECTORDB_EMBEDDING_PROVIDER"],
    model=_values["VECTORDB_EMBEDDING_MODEL"],
    timeout=_values["VECTORDB_EMBEDDING_TIMEOUT"],
    retries=_values["VECTORDB_EMBEDDING_RETRIES"],
    query_cache_size=_values["VECTORDB_EMBEDDING_QUERY_CACHE"],
    openai_base_url=_values["VECTORDB_OPENAI_BASE_URL"],
    openai_api_key=_values["OPENAI_API_KEY"],
    openai_dimensions=_values["VECTORDB_OPENAI_DIMENSIONS"],
    openai_max_batch=_values["VECTORDB_OPENAI_MAX_BATCH"],
    cohere_base_url=_values["VECTORDB_COHERE_BASE_URL"],
    cohere_api_key=_values["CO_API_KEY"],
    sentence_transformers_device=_values["VECTORDB_SENTENCE_TRANSFORMERS_DEVICE"],
    sentence_transformers_threads=_values["VECTORDB_SENTENCE_TRANSFORMERS_THREADS"],
)
BASE_PATH: str = _values["VECTORDB_BASE_PATH"]
TRUSTED_PROXIES = _values["VECTORDB_TRUSTED_PROXIES"]
TLS: bool = _values["VECTORDB_TLS"]
KEY_READS_PER_MINUTE: int = _values["VECTORDB_KEY_READS_PER_MINUTE"]
KEY_WRITES_PER_MINUTE: int = _values["VECTORDB_KEY_WRITES_PER_MINUTE"]
KEY_CONCURRENT_REQUESTS: int = _values["VECTORDB_KEY_CONCURRENT_REQUESTS"]
ADDRESS_READS_PER_MINUTE: int = _values["VECTORDB_ADDRESS_READS_PER_MINUTE"]
ADDRESS_WRITES_PER_MINUTE: int = _values["VECTORDB_ADDRESS_WRITES_PER_MINUTE"]
FAILED_LOGINS_PER_MINUTE: int = _values["VECTORDB_FAILED_LOGINS_PER_MINUTE"]
MAX_DISK_PERCENT: int = _values["VECTORDB_MAX_DISK_PERCENT"]
MAX_MEMORY_PERCENT: int = _values["VECTORDB_MAX_MEMORY_PERCENT"]
REDIS_URL: str = _values["REDIS_URL"]
AUTH: bool = _values["VECTORDB_AUTH"] == "on"
LOAD_SAMPLE: bool = _values["VECTORDB_SAMPLE"]
MCP_WRITE: bool = _values["VECTORDB_MCP_WRITE"]
AUDIT_DAYS: int = _values["VECTORDB_AUDIT_DAYS"]
BACKUP_URL: str = _values["VECTORDB_BACKUP_URL"]
BACKUP_INTERVAL_HOURS: int = _values["VECTORDB_BACKUP_INTERVAL_HOURS"]
BACKUP_KEEP: int = _values["VECTORDB_BACKUP_KEEP"]
BACKUP_TEST_RESTORE: bool = _values["VECTORDB_BACKUP_TEST_RESTORE"]
BACKUP_BEFORE_MIGRATE: str = _values["VECTORDB_BACKUP_BEFORE_MIGRATE"]
JOB_DAYS: int = _values["VECTORDB_JOB_DAYS"]
IDEMPOTENCY_HOURS: int = _values["VECTORDB_IDEMPOTENCY_HOURS"]
LOG_LEVEL: str = _values["VECTORDB_LOG_LEVEL"]
LOG_FORMAT: str = _values["VECTORDB_LOG_FORMAT"]
LOG_REQUESTS: bool = _values["VECTORDB_LOG_REQUESTS"]
SLOW_QUERY_MS: int = _values["VECTORDB_SLOW_QUERY_MS"]
METRICS: str = _values["VECTORDB_METRICS"]
METRICS_LIBRARIES: int = _values["VECTORDB_METRICS_LIBRARIES"]
RECALL_WATCH: float = _values["VECTORDB_RECALL_WATCH"]

# Made when it is first asked for: only some of the commands sign anything, or have a data folder.
SECRET_KEY: Any = _values["SECRET_KEY"] or SimpleLazyObject(partial(environment.secret_key, DATA_DIR))
DEBUG: bool = _values["VECTORDB_DEBUG"]
ALLOWED_HOSTS: list[str] = _values["VECTORDB_ALLOWED_HOSTS"]

INSTALLED_APPS = [
    "apps.api",
    "apps.operations",
    "apps.transfer",
    "apps.indexing",
    "apps.search",
    "apps.libraries",
    "apps.access",
    "corsheaders",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
]

SILENCED_SYSTEM_CHECKS = [
    # Sessions, CSRF, messages, logins and headers for people run for them only, by one middleware, where checks do not
    # find them.
    *("admin.E408", "admin.E409", "admin.E410", "axes.W002", "security.W001", "security.W002", "security.W003"),
    # Other names of the domain, and lists of browsers, are not this server's to decide about.
    *("security.W005", "security.W021"),
]
MIDDLEWARE = [
    "apps.api.middleware.RequestMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "apps.operations.middleware.PeopleMiddleware",
]

ROOT_URLCONF = "vectordb.urls"
WSGI_APPLICATION = "vectordb.wsgi.application"
FORCE_SCRIPT_NAME = BASE_PATH or None
APPEND_SLASH = False
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "admin:index"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def _databases(url: str) -> dict[str, dict[str, Any]]:
    """`default` writes; `snapshot` is the read-only connection on which a query holds one state of the database."""
    if not url or url.startswith("sqlite:"):
        file = environment.sqlite_file(url) if url else DATA_DIR / "vectordb.sqlite3"
        options = {"timeout": BUSY_TIMEOUT, "transaction_mode": "IMMEDIATE"}
        writer = {"ENGINE": "apps.libraries.dialects.sqlite_backend", "NAME": file, "CONN_MAX_AGE": None}
        writer |= {"OPTIONS": options, "TEST": {"NAME": str(DATA_DIR / "test.sqlite3")}}
        reader = dict(writer) | {"OPTIONS": options | {"transaction_mode": "DEFERRED"}}
    else:
        writer = environ.Env.db_url_config(url) | {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}
        reader = dict(writer)
        options = writer.get("OPTIONS", {})
        writer["OPTIONS"] = options | {"options": f"-c lock_timeout={BUSY_TIMEOUT}s"}
        reader["OPTIONS"] = options | {"options": "-c default_transaction_read_only=on"}
    reader["TEST"] = {"MIRROR": "default"}
    return {"default": writer, "snapshot": reader}


DATABASES = _databases(_values["DATABASE_URL"])
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTHENTICATION_BACKENDS = [
    "apps.access.logins.LoginLimit",
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
# Against guessing passwords: how many failures of a name from an address lock it there, and for how long.
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_CALLABLE = "apps.api.middleware.locked_out"
AXES_RESET_ON_SUCCESS = True
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False
# Of a failed login the log has the name and the address. A password is masked whatever this says.
AXES_SENSITIVE_PARAMETERS: list[str] = []

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

LANGUAGE_CODE = "en"
USE_I18N = False
TIME_ZONE = "UTC"

STATIC_URL = f"{BASE_PATH}/static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
WHITENOISE_ALLOW_ALL_ORIGINS = False

DATA_UPLOAD_MAX_MEMORY_SIZE = LIMITS.body_bytes
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Strict"
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = f"{BASE_PATH}/"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = TLS
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if TLS else 0
CSRF_FAILURE_VIEW = "apps.api.middleware.forbidden"

# What pages of other origins may ask, by django-cors-headers: the API with a key, never anything by a session's cookie.
CORS_ALLOWED_ORIGINS: list[str] = _values["VECTORDB_CORS_ORIGINS"]
CORS_URLS_REGEX = r"^/(api/|mcp$|health$|ready$)"
CORS_ALLOW_HEADERS = [
    *("accept", "authorization", "content-type", "idempotency-key", "if-match", "if-none-match", "traceparent"),
    *("x-api-key", "x-request-id", "mcp-protocol-version", "mcp-method", "mcp-name"),
]
CORS_EXPOSE_HEADERS = [
    *("ETag", "Idempotent-Replayed", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID"),
]

REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": ["apps.api.renderers.JSONRenderer", "apps.api.renderers.BrowsableAPIRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "apps.api.renderers.ContentNegotiation",
    "DEFAULT_AUTHENTICATION_CLASSES": ["apps.api.sessions.UserOfSession"],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_SCHEMA_CLASS": "apps.api.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "apps.api.errors.exception_handler",
    "UNAUTHENTICATED_USER": None,
}

SPECTACULAR_SETTINGS = {
    "SERVERS": [{"url": BASE_PATH}] if BASE_PATH else [],
    "TITLE": "vectordb",
    "DESCRIPTION": "A vector database server: libraries of documents of chunks, searched by vector, text and words.",
    "VERSION": VERSION,
    "APPEND_COMPONENTS": {
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a search token."},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same."},
        }
    },
    "SECURITY": [{"bearer": []}, {"header": []}],
    "OAS_VERSION": "3.1.1",
    "COMPONENT_SPLIT_PATCH": False,
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "POSTPROCESSING_HOOKS": ["apps.api.openapi.complete"],
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"lines": {"()": "apps.telemetry.logs.formatter", "form": LOG_FORMAT}},
    "filters": {
        "request_id": {"()": "apps.access.requests.RequestIdFilter"},
        "bugs": {"()": CallbackFilter, "callback": lambda record: getattr(record, "status_code", 500) != 503},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines", "filters": ["request_id"]}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL.upper()},
    "loggers": {
        "django": {"level": "WARNING", "propagate": True, "handlers": []},
        # A refused request is the client's affair, and its answer says why. What is unavailable has a line of its own.
        "django.request": {"level": "ERROR", "filters": ["bugs"]},
        # A line or more for each login.
        "axes": {"level": "WARNING"},
        # It tells which of its builds it tries.
        "faiss": {"level": "WARNING"},
        # A line for each request to an embedding provider.
        "httpx": {"level": "WARNING"},
        "httpx2": {"level": "WARNING"},
        # It does not name the file; one that it cannot read is refused with the reason.
        "pypdf": {"level": "CRITICAL"},
    },
}
