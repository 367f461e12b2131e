"""Splits a text into pieces that a model reads whole, at the highest boundary that fits: between paragraphs, else
sentences, else words, else characters as people see them. The library semantic-text-splitter finds the boundaries.

What always holds: a piece is a part of the text as it stands, without white space at its ends. Pieces come in order,
the whole text but white space is in them, and equal texts are split alike. A piece has at most as many tokens as are
asked for, unless a single character has more; at most 16 characters a token, be they white space or one endless word;
and at most as many characters as a chunk may have. Each begins with at most `overlap` tokens of the one before: as many
whole sentences or words as fit.

Where text is put in or taken out, pieces change only until the boundaries meet again, a few pieces on.

The library measures what is left of a text again for each piece, so that the time for one endless word is quadratic. It
is therefore shown the text by windows of a few pieces: the last piece of one, which the window's end has cut, is where
the next begins, so the pieces are those of the whole text. With tokens that are estimated, a MiB takes 0.5 s of prose,
3 s of what is none, and some 10 s of the worst with half of each piece overlapping; the interpreter's lock is held
throughout.
"""

from collections.abc import Callable, Iterator

_CHARACTERS_PER_TOKEN = 16
# A window has room for so many of the longest pieces.
_PIECES_PER_WINDOW = 4


class TooManyPieces(Exception):
    """The text has more pieces than are wanted: `about` so many."""

    def __init__(self, about: int) -> None:
        super().__init__(f"The text has about {about:,} pieces.")
        self.about = about


def split(
    text: str, *, count: Callable[[str], int], max_tokens: int, overlap: int, most: int, longest: int
) -> list[str]:
    """The pieces of `text`, at most `most`, of at most `longest` characters; none of a blank text. `count` counts
    tokens; `overlap` < `max_tokens`.

    Raises TooManyPieces, as soon as that is certain, and whatever `count` raises.
    """
    pieces: list[str] = []
    for start, piece in _pieces(text, count, max_tokens, overlap, longest):
        # Python has four characters of white space that Unicode has not.
        if not piece.strip():
            continue
        if len(pieces) == most:
            raise TooManyPieces(max(most + 1, round(most * len(text) / start)))
        pieces.append(piece)
    return pieces


def _pieces(
    text: str, count: Callable[[str], int], max_tokens: int, overlap: int, longest: int
) -> Iterator[tuple[int, str]]:
    """The pieces with the places where they begin."""
    from semantic_text_splitter import TextSplitter

    # The library takes it that a token has a byte at least.
    max_tokens = min(max_tokens, longest)
    overlap = min(overlap, max_tokens - 1)
    longest = min(longest, max_tokens * _CHARACTERS_PER_TOKEN)

    def size(part: str) -> int:
        return max(count(part), -(-len(part) * max_tokens // longest))

    splitter = TextSplitter.from_callback(size, max_tokens, overlap=overlap)
    window = longest * _PIECES_PER_WINDOW
    start = 0
    while start + window < len(text):
        found = splitter.chunk_indices(text[start : start + window])
        # All that follows a piece which stands alone at the window's beginning is white space, too much for one piece.
        whole = found if not found or found[-1][0] == 0 else found[:-1]
        yield from ((start + place, piece) for place, piece in whole)
        start += window if len(whole) == len(found) else found[-1][0]
    yield from ((start + place, piece) for place, piece in splitter.chunk_indices(text[start:]))
