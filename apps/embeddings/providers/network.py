"""What providers on the network share: the failures of HTTP, in words for people and without secrets."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from apps.embeddings.errors import EmbeddingError, ProviderFailed, TextRefused, UnknownModel

_MAX_CHARACTERS = 300


@dataclass(frozen=True)
class Service:
    """One model of a service, as its errors speak of it, with the names of the settings that a person may change."""

    provider: str
    model: str
    base_url: str
    url_setting: str
    key_setting: str
    key: str = field(repr=False)

    def status_error(self, status: int, body: object, headers: Mapping[str, str]) -> EmbeddingError:
        """The error for an answer of HTTP status `status` >= 400 with `body`, decoded if it was JSON."""
        message = self._message(body)
        explained = f": {message}" if message else ""
        if status == 401:
            # What a service says of a wrong key may repeat a part of it.
            problem = "does not accept the API key" if self.key else "wants an API key"
            return self._failure(f"{self._host} {problem} (HTTP 401); set {self.key_setting}")
        if status == 403:
            problem = f"does not allow {self.model!r} to this API key (HTTP 403; {self.key_setting})"
            return self._failure(f"{self._host} {problem}{explained}")
        if status == 404 and self.model in message:
            return UnknownModel(self.provider, self.model, f"{self._host} says: {message}")
        if status == 404:
            return self._failure(f"there is no such service at {self._host} (HTTP 404); check {self.url_setting}")
        if status in (400, 413, 422):
            return TextRefused(self.provider, f"{self._host} says (HTTP {status}): {message or 'nothing more'}")
        transient = status in (408, 409, 425, 429) or status >= 500
        if status == 429 and "insufficient_quota" in str(body):
            transient = False
        reason = f"{self._host} answered HTTP {status}{explained}"
        return self._failure(reason, transient=transient, retry_after=retry_after(headers) if transient else None)

    def timeout_error(self) -> ProviderFailed:
        """The error for an answer that did not come in time."""
        return self._failure(f"{self._host} did not answer in time", transient=True)

    def connection_error(self) -> ProviderFailed:
        """The error for a connection that could not be made, or broke."""
        reason = f"{self._host} cannot be reached; check {self.url_setting} and that the service runs"
        return self._failure(reason, transient=True)

    def format_error(self) -> ProviderFailed:
        """The error for an answer that is not in the service's own form."""
        return self._failure(f"what {self._host} answered is not a list of embeddings; check {self.url_setting}")

    def _failure(self, reason: str, *, transient: bool = False, retry_after: float | None = None) -> ProviderFailed:
        return ProviderFailed(self.provider, reason, transient=transient, retry_after=retry_after)

    @property
    def _host(self) -> str:
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc}"

    def _message(self, body: object) -> str:
        """The sentence in an error's body; empty if there is none."""
        text = " ".join(_find_message(body).split()).rstrip(".")
        if text.startswith("<"):
            return ""
        if self.key:
            text = text.replace(self.key, "(hidden)")
        # Also keys that the service cut short, or masked.
        text = re.sub(r"\bsk-[\w*.-]+|\bBearer \S+", "(hidden)", text)
        return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + "..."


def _find_message(body: object) -> str:
    if isinstance(body, str):
        return body
    if isinstance(body, Mapping):
        return next((_find_message(body[name]) for name in ("message", "error", "detail") if body.get(name)), "")
    return ""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds of the header Retry-After, a number or a date; None if it is missing or makes no sense."""
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if seconds < float("inf") else None
