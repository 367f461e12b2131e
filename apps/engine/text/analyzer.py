"""What a word is, and which words and phrases a query asks for; docs/text.md has the rules.

The words of a text are in order, so that those of a phrase are neighbours. Behind them come the parts of compound
words, an empty word before the parts of each, so that no phrase reaches from one into another.

Costs some 2 microseconds for 15 words of ASCII, 10 to 30 for other text, and 1 for each compound word.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

# Longer words are cut.
MAX_LENGTH = 64
# Distinct words of a query that are looked up, those of phrases first.
MAX_WORDS = 1024
# Words in all phrases of a query; the others count as single words.
MAX_PHRASE_WORDS = 256

# Raised whenever a text becomes other words than before: index files with words of another version are not used.
VERSION = 2

_ZERO_WIDTH_SPACE = "\u200b"
# Where the marks are that people leave out: of Latin, Greek and Cyrillic, Hebrew, Arabic, Syriac, the Veda, Ethiopic;
# and variation selectors.
_ACCENTS = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0711\u0730-\u074a\u0898-\u089f"
    "\u08ca-\u08ff\u0951-\u0954\u135d-\u135f\u1ab0-\u1aff\u1cd0-\u1cf9\u1dc0-\u1dff\u20d0-\u20ff\ufb1e\ufe00-\ufe0f"
    "\ufe20-\ufe2f\U000e0100-\U000e01ef]"
)
# The canonical combining class of the dot that Indian scripts put below a letter for a foreign sound.
_NUKTA = 7
# What the Latin letters are that have no decomposition, by their names: "l with stroke" is l, "ae" is ae.
_LATIN = re.compile(
    r"LATIN (?:SMALL |CAPITAL )?(?:LETTER|LIGATURE)(?: SMALL CAPITAL)?"
    r"(?: (?:BARRED|DOTLESS|INSULAR|LONG|OPEN|REVERSED|SCRIPT|TURNED))* ([A-Z]{1,2})(?: (?:BAR|DIGRAPH|WITH)\b.*)?"
)
# Letters that their names do not tell; and the apostrophe as a letter, which separates words as the other one does.
_LETTERS = {"ð": "d", "þ": "th", "ŋ": "n", "ĸ": "q", "ə": "e", "\u02bc": " "}
# Letters of Arabic that are written for alef, yeh, kaf and heh.
_LETTERS |= dict.fromkeys("\u0671", "\u0627") | dict.fromkeys("\u0649\u06cc\u06d2", "\u064a")
_LETTERS |= dict.fromkeys("\u06a9", "\u0643") | dict.fromkeys("\u0629\u06c1\u06c3\u06d5", "\u0647")
# Letters that modify the one before, as the okina of Hawaii; and the stroke that makes Arabic words longer.
_LEFT_OUT = re.compile("[\u02b9-\u02bb\u02bd-\u02c1\u02c6-\u02d1\u02ec\u02ee\u0640]")
# Normal forms sort the marks that follow a letter, in time quadratic in their number; no real text has this many.
_MANY_MARKS = re.compile(r"([^\w\x00-\x7f]{32})[^\w\x00-\x7f]+")
# Hangul, Thai and Lao, Myanmar, Khmer, the marks of Han that repeat or stand for a numeral, kana, Han.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u11ff\u1780-\u17ff\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f"
    "\uac00-\ud7ff\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_PIECES = re.compile(f"([{_UNSPACED}]+)|[^{_UNSPACED}]+")

# A hyphen at the end of a line, within a word; a soft one, too.
_LINE_END = re.compile(r"[-\u2010\u00ad](?<=[^\W\d_].)\r?\n[ \t]*(?=[^\W\d_])")
_HYPHENATED = re.compile(rf"(?<![^\W_])[^\W_]+(?:{_LINE_END.pattern}[^\W_]+)+")
# The capitals at which a part of a word begins: getUser, HTTPServer, utf8Decode; but not URLs, 3D, B2B.
_UPPER = "".join(filter(str.isupper, map(chr, range(0x590))))
_LOWER = "".join(filter(str.islower, map(chr, range(0x590))))
_HUMP = re.compile(rf"[{_UPPER}](?:(?<=[{_LOWER}].)|(?<=[{_UPPER}\d].)(?=[{_LOWER}]{{2}}))")
_HUMPED = re.compile(rf"(?<![^\W_])[^\W_]+?{_HUMP.pattern}[^\W_]*")

_ASCII_CHARACTERS = [chr(code) for code in range(128)]
_ASCII = "".join(c.lower() if c.isalnum() else " " for c in _ASCII_CHARACTERS).encode() + bytes(128)
# The shape of a text: its capitals, and its other letters and digits.
_SHAPE = "".join("A" if c.isupper() else "a" if c.isalnum() else " " for c in _ASCII_CHARACTERS).encode() + bytes(128)


class _Characters(dict[int, str]):
    """What each character becomes: itself, nothing, or a space; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        becomes = _plain(chr(code))
        # The other planes are rare in text, and a million entries would be too many.
        if code < 0x10000:
            self[code] = becomes
        return becomes


def _plain(character: str) -> str:
    """What a character of a decomposed text in lower case becomes."""
    category = unicodedata.category(character)
    is_accent = category[0] == "M" and (_ACCENTS.match(character) or unicodedata.combining(character) == _NUKTA)
    is_invisible = category == "Cf" and character != _ZERO_WIDTH_SPACE
    if is_accent or is_invisible or _LEFT_OUT.match(character):
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category[0] == "L":
        latin = _LATIN.fullmatch(unicodedata.name(character, ""))
        return latin[1].lower() if latin else _LETTERS.get(character, character)
    return character if category[0] in "MN" else " "


_CHARACTERS = _Characters()


@dataclass(frozen=True)
class TextQuery:
    """Distinct `words`, in order of their characters, of which a row has at least one; and `phrases`, sequences of
    words that a row must have side by side, whose words are among `words`."""

    words: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...] = ()


def tokenize(text: str) -> list[str]:
    """Return the words of `text`, in order, with repetitions, and the parts of compound ones. Any string is valid."""
    if text.isascii() and not ("\n" in text and "-" in text):
        # Most texts have no compound words. A search for bytes costs far less than a pattern, above all from the right,
        # since capitals are rare.
        if text.islower():
            return _words(text)
        shape = text.encode().translate(_SHAPE)
        if shape.rfind(b"aA") < 0 and shape.rfind(b"AAaa") < 0:
            return _words(text)
    text = _normalize(text)
    joined = _LINE_END.sub("", text)
    compounds = [] if joined is text else _HYPHENATED.findall(text)
    if _HUMP.search(joined):
        compounds += _HUMPED.findall(joined)
    found = _words(joined)
    for compound in compounds:
        if len(compound) <= MAX_LENGTH:
            found += _parts(compound)
    return found


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
        phrase = tuple(_words(_LINE_END.sub("", _normalize(piece)))[:room])
        if phrase and phrase not in phrases:
            phrases[phrase] = None
            room -= len(phrase)
    distinct = {word: None for phrase in phrases for word in phrase}
    distinct.update(dict.fromkeys(word for piece in pieces for word in _words(_LINE_END.sub("", _normalize(piece)))))
    return TextQuery(tuple(sorted(list(distinct)[:MAX_WORDS])), tuple(phrases))


def _normalize(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKC", _MANY_MARKS.sub(r"\1", text))


def _words(text: str) -> list[str]:
    """The words of a normal text, without parts."""
    found = text.encode().translate(_ASCII).decode().split() if text.isascii() else _unicode_words(text)
    if (len(text) > MAX_LENGTH or not text.isascii()) and found and max(map(len, found)) > MAX_LENGTH:
        return [word[:MAX_LENGTH] for word in found]
    return found


@lru_cache(4096)
def _parts(compound: str) -> tuple[str, ...]:
    """The words that a compound one is made of, behind an empty one."""
    return ("", *_words(_HUMP.sub(r" \g<0>", _LINE_END.sub(" ", compound))))


def _unicode_words(text: str) -> list[str]:
    found: list[str] = []
    # Decomposed, so that accents are characters of their own; composed again, for Hangul and the voiced kana.
    folded = unicodedata.normalize("NFKD", text.casefold()).translate(_CHARACTERS)
    for run in unicodedata.normalize("NFC", folded).split():
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
