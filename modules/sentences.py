"""Where sentences end, in running text of any length.

    >>> split_sentences('Dr. Ames came at 9 a.m. on foot. "Is it far?" she asked.')
    ['Dr. Ames came at 9 a.m. on foot.', '"Is it far?" she asked.']

One regular expression finds the marks that may end a sentence; the words on both sides of each decide whether it does.
Nothing looks further than a fixed number of characters, so that the time is linear in the text whatever is in it. The
lists of words are English, with a few abbreviations of its neighbours; other languages lose little, as a mark followed
by a lower-case word ends nothing in any of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

# Names of the further marks that texts can be split on → the expression for each.
FURTHER_MARKS = {
    "commas": r"[,،，、][\"'”’]*(?=\s)|[，、]",   # Not the comma in 10,000.
    "semicolons": r"[;؛；][\"'”’]*(?=\s)|；",
    "dashes": r"—+|(?<=\s)(?:–|--?)(?=\s)",       # Neither north-west nor 1914–18.
}

# The mark, what closes behind it and the space after it; or an empty line.
_END = r"(?P<mark>[.!?…؟।。！？]+)(?P<close>[\"'”’»)\]}」』]*)(?P<space>\s*)|\n[^\S\n]*\n\s*"
_FULL_WIDTH = "。！？"   # End a sentence without a space.
_NEXT = re.compile(r"[\"'“‘«(\[{¿¡「『]*(?P<word>\w{0,20})(?P<dot>\.?)")
_LOOK_BACK = 24    # Characters in which the word before a mark must begin.
_BRACKET = 200     # Characters that a bracket inside a sentence may hold on either side of a mark.

_BEFORE_WORD = re.compile(r"[\"“‘«(\[{/—–]")
_DOTTED = re.compile(r"(?:[^\W\d_]{1,3}\.-?)+[^\W\d_]{1,3}")   # U.S, a.m, Ph.D, J.-P
_LABEL = re.compile(r"\W*(?:\d{1,3}|[^\W\d_]|x{0,3}(?:ix|iv|v?i{0,3}))", re.IGNORECASE)   # 1, (b, iv: begin a list
_SAID = re.compile(r"(?:said|says?|ask(?:s|ed)?|cr(?:y|ies|ied)|repl(?:y|ies|ied)|answer(?:s|ed)|shout(?:s|ed)|"
                   r"whisper(?:s|ed)|add(?:s|ed)|wrote|thought|call(?:s|ed)|exclaim(?:s|ed)|want(?:s|ed) to know)\b")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Something belongs to these always, and it follows.
_NEVER_LAST = _words("""mr mrs ms mx dr prof messrs mme mlle e.g i.e eg ie cf viz vs v ca approx esp incl resp bzw ibid
    op sra srta dra exmo exma""")
# A number belongs to these where one follows; otherwise they are words, or end what they end.
_BEFORE_NUMBER = _words("""no nos nr art sec ch chap vol vols fig figs eq p pp pt est b d l ll n c jan feb mar apr jun
    jul aug sep sept oct nov dec lit act""")
# Names go on behind these. They end a sentence where a word follows that begins one.
_IN_NAMES = _words("""st sr jr gen col capt cpt lt sgt maj cdr adm rev hon sen rep gov pres supt inc ltd co corp bros
    plc gmbh al esq ave blvd rd mt ft dept univ ed eds trans fr hr""")
_TIMES = _words("a.m p.m b.c a.d b.c.e c.e")
_CALENDAR = _words("""monday tuesday wednesday thursday friday saturday sunday january february march april may june
    july august september october november december gmt utc est edt pst pdt cet bst""")
_BEGINS = _words("""the a an this that these those he she it we they you i his her its their our my your there here in
    on at by for from with to of as if when while where why what who which how but and or so yet then now not no nor
    after before since although though because however once some many most all every each both even only such perhaps
    maybe thus still soon yes is was are were do did does had has have will would can could is isn let one two nobody
    everyone something nothing during under over until""")


def split_sentences(text: str, split_on: Iterable[str] = ()) -> list[str]:
    """The sentences of a text, in order, without the white space around them.

    A sentence ends with `.`, `!`, `?` or `…` and what closes behind it, or at an empty line; a single line end is a
    space. Not with an abbreviation, an initial, the number of a list's item, inside a bracket, or before a lower-case
    word, unless the text has no capitals at all.

        "Mr. J. S. Bell paid 3.50 for it. Why? (See p. 4.)" → "Mr. J. S. Bell paid 3.50 for it."  "Why?"  "(See p. 4.)"

    Args:
        text: any text.
        split_on: further marks to split on, of `FURTHER_MARKS`.

    Returns:
        Parts of the text; all of its characters but white space between parts are in one of them. None is empty.

    Raises:
        KeyError: no such mark.
    """
    return list(_sentences(text, _expression(tuple(split_on))))


def _expression(split_on: tuple[str, ...]) -> re.Pattern:
    return re.compile("|".join([_END, *(FURTHER_MARKS[name] for name in split_on)]))   # `re` remembers it


def _sentences(text: str, expression: re.Pattern) -> Iterator[str]:
    has_case = not text.islower()
    start = 0
    for found in expression.finditer(text):
        if _is_end(text, start, found, has_case):
            sentence = text[start:found.end()].strip()
            if sentence:
                yield sentence
            start = found.end()
    sentence = text[start:].strip()
    if sentence:
        yield sentence


def _is_end(text: str, start: int, found: re.Match, has_case: bool) -> bool:
    """Whether the sentence that begins at `start` ends with the mark that was found."""
    mark, close, space = found.group("mark", "close", "space")
    if mark is None or found.end() == len(text) or space.count("\n") > 1:
        return True
    if not space:
        return mark[0] in _FULL_WIDTH
    following = _NEXT.match(text, found.end())
    assert following is not None
    word = following["word"]
    if not word:
        at = following.start("dot")
        if text[at:at + 1] in ".!?…":   # . . . or a quote that closes at the end, behind a space
            return False
    elif has_case and word[0].islower():
        return False
    if _in_brackets(text, start, found):
        return False
    if mark == ".":
        return _ends_with_full_stop(text, start, found.start(), word, bool(following["dot"]), has_case)
    return not (close and close[-1] in "\"'”’»" and _names_the_speaker(text, following))


def _ends_with_full_stop(text: str, start: int, at: int, word: str, dotted: bool, has_case: bool) -> bool:
    """Whether a full stop ends a sentence, by the word before it and the one behind it.

    Args:
        text: the text.
        start: where the sentence begins.
        at: where the full stop is.
        word: the next word, which may be empty.
        dotted: whether a full stop stands right behind that.
        has_case: whether the text has capitals.
    """
    before = _word_before(text, start, at)
    if not before:   # A mark that stands alone, in text that is cut into tokens.
        return True
    if at - start <= 8 and _LABEL.fullmatch(text, start, at):
        return False
    key = before.lower()
    if key in _NEVER_LAST:
        return False
    is_acronym = "." in before and _DOTTED.fullmatch(before) is not None
    is_initial = len(before) == 1 and before.isalpha()
    if word[:1].isdigit():
        return not (is_acronym or is_initial or key in _BEFORE_NUMBER or key in _IN_NAMES)
    begins = word.lower() in _BEGINS and not (dotted and len(word) == 1)
    if key in _TIMES:
        return word.lower() not in _CALENDAR
    if is_acronym or key in _IN_NAMES:
        return begins or not word
    if is_initial and (before.isupper() or not has_case):
        return begins or not word
    return True


def _word_before(text: str, start: int, at: int) -> str:
    """The word that ends at a full stop, with the full stops inside it, without quotes and brackets before it."""
    tail = text[max(start, at - _LOOK_BACK):at]
    if not tail or tail[-1].isspace():
        return ""
    word = tail.rsplit(None, 1)[-1]
    return word if word.isalnum() else _BEFORE_WORD.split(word)[-1]


def _in_brackets(text: str, start: int, found: re.Match) -> bool:
    """Whether a mark stands inside round brackets that are opened and closed inside the sentence."""
    opened = text.rfind("(", max(start, found.start() - _BRACKET), found.start())
    if opened < 0 or not text[start:opened].strip() or ")" in text[opened:found.end()]:
        return False
    return ")" in text[found.end():found.end() + _BRACKET]


def _names_the_speaker(text: str, following: re.Match) -> bool:
    """Whether "Ruth asked" or "I said" follows a quotation, so that the sentence goes on."""
    word = following["word"]
    if not word or (word != "I" and word.lower() in _BEGINS):
        return False
    behind = text[following.end("word"):following.end("word") + 24]
    return behind.startswith((" ", "'d ", "’d ")) and _SAID.match(behind.split(" ", 1)[1]) is not None
