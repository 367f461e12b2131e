"""What providers on the network share: what the failures of HTTP mean, in words for people and without secrets."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from apps.embeddings.errors import EmbeddingError, ProviderFailed, TextRefused, UnknownModel

_MOST_CHARACTERS = 300


@dataclass(frozen=True)
class Service:
    """One model of a service, as its errors speak of it. The settings named are those that a person may change."""

    provider: str
    model: str
    base_url: str
    url_setting: str
    key_setting: str
    key: str = field(repr=False)

    def refused(self, status: int, body: object, headers: Mapping[str, str]) -> EmbeddingError:
        """The error for an answer of HTTP status `status` >= 400 with `body`, decoded if it was JSON."""
        said = self._said(body)
        if status == 401:
            # What a service says of a wrong key may repeat a part of it.
            problem = "does not accept the API key" if self.key else "wants an API key"
            return self._failed(f"{self._place} {problem} (HTTP 401); set {self.key_setting}")
        if status == 403:
            reason = f"{self._place} does not allow {self.model!r} to this API key (HTTP 403; {self.key_setting})"
            return self._failed(reason + (f": {said}" if said else ""))
        if status == 404 and self.model in said:
            return UnknownModel(self.provider, self.model, f"{self._place} says: {said}")
        if status == 404:
            return self._failed(f"there is no such service at {self._place} (HTTP 404); check {self.url_setting}")
        if status in (400, 413, 422):
            return TextRefused(self.provider, f"{self._place} says (HTTP {status}): {said or 'nothing more'}")
        reason = f"{self._place} answered HTTP {status}" + (f": {said}" if said else "")
        if status == 429 and "insufficient_quota" in str(body):
            return self._failed(reason)
        transient = status in (408, 409, 425, 429) or status >= 500
        return self._failed(reason, transient=transient, retry_after=retry_after(headers))

    def timed_out(self) -> ProviderFailed:
        """The error for an answer that did not come in time."""
        return self._failed(f"{self._place} did not answer in time", transient=True)

    def unreachable(self) -> ProviderFailed:
        """The error for a connection that could not be made, or broke."""
        reason = f"{self._place} cannot be reached; check {self.url_setting} and that the service runs"
        return self._failed(reason, transient=True)

    def garbled(self) -> ProviderFailed:
        """The error for an answer that is not in the service's own form."""
        reason = f"what {self._place} answered is not a list of embeddings; check {self.url_setting}"
        return self._failed(reason)

    def _failed(self, reason: str, *, transient: bool = False, retry_after: float | None = None) -> ProviderFailed:
        return ProviderFailed(self.provider, reason, transient=transient, retry_after=retry_after)

    @property
    def _place(self) -> str:
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc}"

    def _said(self, body: object) -> str:
        """The sentence in an error's body; empty where there is none."""
        text = " ".join(_sentence(body).split()).rstrip(".")
        if text.startswith("<"):
            return ""
        if self.key:
            text = text.replace(self.key, "(hidden)")
        # Also keys that the service cut short, or masked.
        text = re.sub(r"\bsk-[\w*.-]+|\bBearer \S+", "(hidden)", text)
        return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "..."


def _sentence(body: object) -> str:
    if isinstance(body, str):
        return body
    if isinstance(body, Mapping):
        return next((_sentence(body[name]) for name in ("message", "error", "detail") if body.get(name)), "")
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
