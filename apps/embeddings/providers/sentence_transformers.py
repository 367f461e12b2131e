"""Models of the library sentence-transformers on this machine: one of a package, one that was downloaded, or a folder.

A request may name any model, so nothing is downloaded, no code that comes with a model runs, and weights are read from
safetensors files only. A model is loaded when it first embeds, so never before the server forks; each worker has a
copy. One batch is embedded at a time: threads cannot share a tokenizer.
"""

import importlib.util
import logging
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import sentence_transformers
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from apps.embeddings.config import DEFAULT_MODELS, PACKAGED_MODEL, Config
from apps.embeddings.errors import ProviderFailed, UnknownModel
from apps.embeddings.provider import Kind, Provider
from apps.engine.vectors import Float32, to_float32
from apps.installation import install_command

logger = logging.getLogger(__name__)
_progress: Any = transformers_logging
_progress.disable_progress_bar()

PACKAGED = DEFAULT_MODELS["sentence_transformers"]
_BATCH_SIZE = 32
# The names that `encode_document` looks for, in its order.
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


class SentenceTransformers(Provider):
    """Any model of sentence-transformers that is on this machine."""

    name = "sentence_transformers"
    # The time-out is checked between batches.
    max_batch = 128

    def __init__(self, model: str, config: Config) -> None:
        super().__init__(model, config)
        self._path = _path_of(model)
        if self._path is None:
            remedy = (
                f"It is not on this machine. There are the folders of models, by their path, and {PACKAGED} after "
                f"`{install_command('model')}`; docs/embeddings.md says how others come here."
            )
            raise UnknownModel(self.name, model, remedy)
        self._device = config.sentence_transformers_device
        self._threads = config.sentence_transformers_threads
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str], kind: Kind, timeout: float | None = None) -> Float32:
        """Vectors [n, dimension]; the first call loads the model, however long that takes."""
        with self._lock:
            encode = self._model.encode_query if kind == "query" else self._model.encode_document
            try:
                return to_float32(encode(list(texts), batch_size=_BATCH_SIZE, show_progress_bar=False))
            except Exception as error:
                raise self._failure("run", error) from None

    def count_tokens(self, text: str) -> int:
        """Count with the model's own tokenizer; estimate for the few models that have one of another kind."""
        with self._lock:
            return self._count(text)

    def max_tokens(self) -> int | None:
        """The tokens that the model reads, less those it puts before and after a text."""
        with self._lock:
            tokenizer, longest = self._tokenizer, self._model.max_seq_length
            if tokenizer is None or longest is None:
                return None
            prompts = self._model.prompts
            prompt = next((prompts[name] for name in _DOCUMENT_PROMPTS if name in prompts), None)
            added: int = tokenizer.num_special_tokens_to_add()
            return max(1, int(longest) - added - self._count(prompt or ""))

    def _count(self, text: str) -> int:
        tokenizer = self._tokenizer
        if tokenizer is None:
            return super().count_tokens(text)
        # Not verbose: a text longer than the model reads is not worth a warning here.
        return len(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    @cached_property
    def _tokenizer(self) -> Any:
        found = getattr(self._model[0], "tokenizer", None)
        return found if isinstance(found, PreTrainedTokenizerBase) else None

    @cached_property
    def _model(self) -> sentence_transformers.SentenceTransformer:
        """The model, loaded at first use."""
        torch.set_num_threads(self._threads)
        try:
            return sentence_transformers.SentenceTransformer(
                self._path,
                device=self._device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError) as error:
            logger.error("sentence_transformers, model %r", self.model, exc_info=error)
            remedy = "Its files are incomplete, or are no model's. Put them there again."
            raise UnknownModel(self.name, self.model, remedy) from None
        except Exception as error:
            raise self._failure("loaded", error) from None

    def _failure(self, action: str, error: Exception) -> ProviderFailed:
        """The error for any that PyTorch or a model's own parts raise, whose traceback is logged."""
        logger.error("sentence_transformers, model %r", self.model, exc_info=error)
        reason = f"the model {self.model!r} could not be {action} on {self._device}: {_first_line(error)}"
        return ProviderFailed(self.name, reason)


def _path_of(model: str) -> str | None:
    """Where the files of a model are: its folder, or the name under which the library finds them; None if nowhere."""
    if model == PACKAGED and (package := importlib.util.find_spec(PACKAGED_MODEL)) and package.origin:
        return str(Path(package.origin).with_name("model"))
    if os.path.isdir(model):
        return model
    names = [model] if "/" in model else [f"sentence-transformers/{model}", model]
    with suppress(HFValidationError):
        return next((name for name in names if isinstance(try_to_load_from_cache(name, "config.json"), str)), None)
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
