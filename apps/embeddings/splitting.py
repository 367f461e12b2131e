"""Splits a text into chunks at the highest boundary that fits, by the library semantic-text-splitter.

What always holds: a chunk is a part of the text as it stands, without white space at its ends; all but white space is
in some chunk; equal texts are split alike. docs/api.md says how long chunks and overlaps are.

The library measures the rest of a text again for each chunk, so that one endless word takes quadratic time. It
therefore gets windows of a few chunks: the last chunk of one, which the window's end has cut, is where the next begins,
so the chunks are those of the whole text. A MiB takes 0.5 s of prose, 10 s of the worst text; the interpreter's lock is
held.
"""

import re
from collections.abc import Callable, Iterator

# A run of up to 6 letters or digits of the Latin alphabet, of up to 3 of another, one character of the scripts of
# China, Japan and Korea, or one mark.
_TOKEN = re.compile(
    r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
    r"|[0-9A-Za-z\u00c0-\u024f]{1,6}"
    r"|[^\W_]{1,3}"
    r"|[^\w\s]|_"
)
_CHARACTERS_PER_TOKEN = 16
# A window has room for this many of the longest chunks.
_CHUNKS_PER_WINDOW = 4


class TooManyChunks(Exception):
    """The text has more chunks than allowed: `about` this number."""

    def __init__(self, about: int) -> None:
        super().__init__(f"The text has about {about:,} chunks.")
        self.about = about


def estimate_tokens(text: str) -> int:
    """Estimate the number of tokens of a text for a model whose tokenizer is not here; 0 for white space alone.

    That is one token for some 4 characters of English, as of common tokenizers; a model's own number may be a third
    less or more, and is further off for text that is no prose.
    """
    return len(_TOKEN.findall(text))


def split_text(
    text: str,
    *,
    count_tokens: Callable[[str], int],
    max_tokens: int,
    overlap: int,
    max_chunks: int,
    max_characters: int,
) -> list[str]:
    """The chunks of `text`; none of a blank text. `overlap` < `max_tokens`.

    Raises TooManyChunks, as soon as that is certain, and whatever `count_tokens` raises.
    """
    chunks: list[str] = []
    for start, chunk in _locate_chunks(text, count_tokens, max_tokens, overlap, max_characters):
        # Python has four characters of white space that Unicode has not.
        if not chunk.strip():
            continue
        if len(chunks) == max_chunks:
            raise TooManyChunks(max(max_chunks + 1, round(max_chunks * len(text) / start)))
        chunks.append(chunk)
    return chunks


def _locate_chunks(
    text: str, count_tokens: Callable[[str], int], max_tokens: int, overlap: int, max_characters: int
) -> Iterator[tuple[int, str]]:
    """The chunks with the places where they begin."""
    from semantic_text_splitter import TextSplitter

    # The library assumes that a token has a byte at least.
    max_tokens = min(max_tokens, max_characters)
    overlap = min(overlap, max_tokens - 1)
    max_characters = min(max_characters, max_tokens * _CHARACTERS_PER_TOKEN)

    def size(part: str) -> int:
        return max(count_tokens(part), -(-len(part) * max_tokens // max_characters))

    splitter = TextSplitter.from_callback(size, max_tokens, overlap=overlap)
    window = max_characters * _CHUNKS_PER_WINDOW
    start = 0
    while start + window < len(text):
        found = splitter.chunk_indices(text[start : start + window])
        # All that follows a chunk which stands alone at the window's beginning is white space, too much for one chunk.
        whole = found if not found or found[-1][0] == 0 else found[:-1]
        yield from ((start + place, chunk) for place, chunk in whole)
        start += window if len(whole) == len(found) else found[-1][0]
    yield from ((start + place, chunk) for place, chunk in splitter.chunk_indices(text[start:]))
