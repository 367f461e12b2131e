"""The number of tokens of a text for a model whose tokenizer is not here: an estimate that needs no download.

A token is a run of up to 6 letters or digits of the Latin alphabet, of up to 3 of another, one character of the scripts
of China, Japan and Korea, or one mark. That is some 4 characters of English, as of common tokenizers; a model's own
number may be a third less or more, and is further off for text that is no prose.
"""

import re

_TOKEN = re.compile(
    r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
    r"|[0-9A-Za-z\u00c0-\u024f]{1,6}"
    r"|[^\W_]{1,3}"
    r"|[^\w\s]|_"
)


def estimate_tokens(text: str) -> int:
    """Estimate the number of tokens; 0 for white space alone."""
    return len(_TOKEN.findall(text))
