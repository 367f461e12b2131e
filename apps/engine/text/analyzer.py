"""What a word is, and which words and phrases a query asks for.

A word is a run of letters, digits and marks, compared without regard to case, accents and variants of form: the text
goes through NFKC and case folding, and combining diacritical marks (U+0300 to U+036F) are left out, so that "Café",
"CAFE" and "ｃａｆé" are one word. Invisible characters (soft hyphen, joiners, variation selectors) are left out too.

Scripts that are written without spaces between words have no runs that are words. There every character is a word, and
so is every pair of neighbours, in turn: 東京都 is 東, 東京, 京, 京都, 都. So a single character is found, pairs tell
texts apart, and a phrase is a substring: the words of a part of a run are neighbours among those of the run.

Costs some 2 to 5 microseconds for 15 words of ASCII, and 10 to 30 for other text.
"""

import re
import unicodedata
from dataclasses import dataclass
from itertools import pairwise

# Longer words are cut.
MAX_LENGTH = 64
# Distinct words of a query that are looked up, those of phrases first.
MAX_WORDS = 1024
# Words in all phrases of a query; the others count as single words.
MAX_PHRASE_WORDS = 256

_ASCII = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
_ZERO_WIDTH_SPACE = 0x200B
# Combining diacritical marks, and variation selectors.
_IGNORED = range(0x0300, 0x0370), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0)
# Normal forms sort the marks that follow a letter, in time quadratic in their number; no real text has this many.
_MANY_MARKS = re.compile(r"([^\w\x00-\x7f]{32})[^\w\x00-\x7f]+")
# Thai and Lao, Myanmar, Khmer, the marks of Han that repeat or stand for a numeral, kana, Han.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_PIECES = re.compile(f"([{_UNSPACED}]+)|[^{_UNSPACED}]+")


class _Characters(dict[int, str]):
    """What each character becomes: itself, nothing, or a space; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code))
        is_ignored = any(code in characters for characters in _IGNORED)
        if is_ignored or (category == "Cf" and code != _ZERO_WIDTH_SPACE):
            becomes = ""
        else:
            becomes = chr(code) if category[0] in "LMN" else " "
        # The other planes are rare in text, and a million entries would be too many.
        if code < 0x10000:
            self[code] = becomes
        return becomes


_CHARACTERS = _Characters()


@dataclass(frozen=True)
class TextQuery:
    """Distinct `words`, in order of their characters, of which a row has at least one; and `phrases`, sequences of
    words that a row must have side by side, whose words are among `words`."""

    words: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...] = ()


def tokenize(text: str) -> list[str]:
    """Return the words of `text`, in order, with repetitions. Any string is valid."""
    found = text.translate(_ASCII).split() if text.isascii() else _tokenize_unicode(text)
    return [word if len(word) <= MAX_LENGTH else word[:MAX_LENGTH] for word in found]


def parse_query(text: str) -> TextQuery:
    """Return what to search for: the words of `text`, and as phrases those between two double quotes.

    Any string is valid. A quote without a second one is ignored. A text without words finds nothing.
    """
    pieces = text.split('"')
    if len(pieces) % 2 == 0:
        pieces[-2:] = [f"{pieces[-2]} {pieces[-1]}"]
    phrases: dict[tuple[str, ...], None] = {}
    room = MAX_PHRASE_WORDS
    for piece in pieces[1::2]:
        phrase = tuple(tokenize(piece)[:room])
        if phrase and phrase not in phrases:
            phrases[phrase] = None
            room -= len(phrase)
    distinct = {word: None for phrase in phrases for word in phrase}
    distinct.update(dict.fromkeys(word for piece in pieces for word in tokenize(piece)))
    return TextQuery(tuple(sorted(list(distinct)[:MAX_WORDS])), tuple(phrases))


def _tokenize_unicode(text: str) -> list[str]:
    found: list[str] = []
    for run in _fold(text).split():
        if run.isascii():
            found.append(run)
            continue
        for piece in _PIECES.finditer(run):
            unspaced = piece[1]
            if unspaced is None:
                found.append(piece[0])
                continue
            found.append(unspaced[0])
            for first, second in pairwise(unspaced):
                found += (first + second, second)
    return found


def _fold(text: str) -> str:
    """Return `text` in lower case, without accents, in normal form C; what belongs to no word becomes spaces."""
    text = unicodedata.normalize("NFKC", _MANY_MARKS.sub(r"\1", text)).casefold()
    # Decomposed, so that accents are characters of their own; composed again, for Hangul and the voiced kana.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", text).translate(_CHARACTERS))
