"""What can go wrong when text is embedded. Messages are whole sentences for people, and hold no API key.

EmbeddingError
├── UnknownProvider   no provider has this name                                    the request's fault
├── UnknownModel      the provider has no model of this name                       the request's fault
├── TextRefused       the provider takes no such text, for example one too long    the request's fault
├── NotInstalled      the provider needs a package; `.command` installs it         the installation's fault
└── ProviderFailed    no answer, a refusal, or an answer that cannot be used       the provider's fault
"""

from collections.abc import Iterable


class EmbeddingError(Exception):
    """Base of all errors of this app."""


class UnknownProvider(EmbeddingError):
    """There is no provider `name`; the message lists the `known` ones."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"{name!r} is not an embedding provider; there are: {', '.join(known)}.")


class UnknownModel(EmbeddingError):
    """The provider has no model `model`; `remedy` is a sentence that says which there are, or what to do."""

    def __init__(self, provider: str, model: str, remedy: str) -> None:
        super().__init__(f"{model!r} is not a model of the embedding provider {provider}. {remedy}")


class TextRefused(EmbeddingError):
    """The provider works, but does not take the texts that it was given, for the `reason`."""

    def __init__(self, provider: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"The embedding provider {provider} does not take this text: {reason}.")


class NotInstalled(EmbeddingError):
    """The provider needs the Python package `package`, which `command` installs."""

    def __init__(self, provider: str, package: str, command: str) -> None:
        super().__init__(
            f"The embedding provider {provider} needs the Python package {package}, which is not installed. Install it "
            f"into the server's environment and start the server again: {command}"
        )
        self.package = package
        self.command = command


class ProviderFailed(EmbeddingError):
    """The provider gave no vectors that can be used.

    If it is `transient`, the same request may succeed later: after `retry_after` seconds, where the provider said so.
    """

    def __init__(
        self, provider: str, reason: str, *, transient: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(f"The embedding provider {provider} failed: {reason}.")
        self.transient = transient
        self.retry_after = retry_after
