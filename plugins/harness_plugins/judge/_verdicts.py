"""Reading which answer a judge prefers from what it wrote."""

import re
import unicodedata

SIGNS = str.maketrans(
    {
        **dict.fromkeys("\u227b\u226b\u00bb", ">"),
        **dict.fromkeys("\u227a\u226a\u00ab", "<"),
        **dict.fromkeys("\u2248\u2243", "="),
    }
)
WINS = {"a": 1.0, "b": 0.0}
NOUN = r"(?:answer|output|response|assistant|option)"
GOOD = r"(?:better|preferred|preferable|superior|best|stronger)"
BAD = r"(?:worse|inferior|worst|weaker)"
IS = r"\b([AB])(?:'s\s+\w+)?\b\W+(?:wins\b|{}\b|(?:is|was)\s+(?:(?![AB]\b)\w+,?\s+){{0,3}}{}\b)"

MARKED = re.compile(r"(?:\[\[|\\boxed\{(?:\\text\{)?)\s*(A|B|C|tie)\s*(?:\]\]|\})", re.IGNORECASE)
STATED = re.compile(
    r"(?:answer|verdict|winner|choice|decision|preference|preferred|judge?ment|result|better)[^\w\n]*?"
    r"(?:[:=]|\bis\b)\W*(A|B|tie|draw)(?=[\"']|\W*$)",
    re.IGNORECASE | re.MULTILINE,
)
"""A line that ends in the answer it announces: `Verdict: b`, `"winner": "A"`."""
SMALL = re.compile(
    rf"\b({NOUN}[\s(*\"']+)([ab])(?=[)*\"']*(?:\s*$|[.,:;!)\n]|'s|\s+(?:is|was|wins)\b))",
    re.IGNORECASE | re.MULTILINE,
)
"""A small letter behind a word that it names."""
TIE = re.compile(r"\b(tie[ds]?|draw|equal(ly)?|neither|A and B are the same)\b", re.IGNORECASE)
CHOICES = re.compile(
    r"\bA\b\W+(?:(?:or|and)\W+)?\bB\b\W+(?:(?:or|and)\W+)?(?:a\W+)?\b(?:tie|draw)\b", re.IGNORECASE
)
"""The answers that are asked for, said back: "A, B, or tie"."""
NO_TIE = re.compile(r"\b(not|no|isn't)\b[^.]*\b(tie|draw|equal)", re.IGNORECASE)
COMPARED = re.compile(r"\b([AB])\s*(>+|<+|=+)\s*([AB])\b")
BETTER = re.compile(IS.format("beats|outperforms|surpasses", GOOD))
WORSE = re.compile(IS.replace("wins", "loses").format("loses", BAD))
PREFERRED = re.compile(rf"(?i:\bprefer\w*\W+(?:{NOUN}\W+)?)([AB])\W+(?:over|to)\b|\b([AB])\s+over\s+[AB]\b")
DENIED = re.compile(
    rf"(?:\b(?:not|no|hardly|neither|cannot)|n't)\s+(?:\w+,?\s+){{0,3}}(?:{GOOD}|{BAD})\b", re.IGNORECASE
)
LEADING = re.compile(r"[\W_]*([AB])[*_)\]]*(?:[.,;]|\s+(?:-|because|since))(?!\s*(?:[AB]\b|and\b|or\b))")
NAMED = re.compile(
    rf"\b(?:{NOUN}|verdict|winner|choice|prefer|choose|pick)\b\W*(?:is\W+)?([AB])\b"
    r"|(?<![\w'])([AB])(?=\s*(?:$|[.,:;!)\]*\n-]|because|since))",
    re.IGNORECASE,
)
MENTIONED = re.compile(r"(?<![\w'])(B|A(?!\s+(?!and\b|or\b|is\b|was\b|has\b)[a-z]))(?!\w)")
"""A letter that stands for an answer; the article of "A hard choice" does not."""
SET_ASIDE = re.compile(rf"\b(?i:not|instead of|rather than)\s+(?i:{NOUN}\s+)?[AB]\b")
OTHER = re.compile(rf"\bthan\s+(?i:{NOUN}\s+)?[AB]\b")
LESS = re.compile(rf"\b(?:less|fewer|poorer|{BAD})\b", re.IGNORECASE)


def read_verdict(text: str) -> float | None:
    """1.0 where a judge prefers A, 0.0 for B, 0.5 for a tie; None where it does not say, or says both.

    A letter counts where it is named as an answer or stands alone as a capital; the article of "A tie." or
    "A hard choice" is none. `A > B` is a comparison (Arena-Hard's form), and a first line of one letter the
    answer, whatever follows as its reason, as is a last one that announces it ("verdict: b"). "A is not
    better" says neither, nor does thinking that was cut off before its end.
    """
    said_back = CHOICES.sub(" ", unicodedata.normalize("NFKC", text).translate(SIGNS))
    thought, end, rest = said_back.partition("</think>")
    text = (rest if end else thought).strip()
    if text.startswith("<think>"):
        return None
    said = MARKED.findall(text) or STATED.findall(text)
    if said:
        return WINS.get(said[-1].lower(), 0.5)
    bare = re.sub(r"[\W_]+", "", text).lower()
    if bare in ("a", "b", "tie") and not COMPARED.search(text):
        return WINS.get(bare, 0.5)
    compared = {_side(*found) for found in COMPARED.findall(text)}
    if compared:
        return compared.pop() if len(compared) == 1 else None
    first = re.sub(r"[\W_]+", "", text.partition("\n")[0])
    if first in ("A", "B"):
        return WINS[first.lower()]
    return _named(SMALL.sub(lambda found: found[1] + found[2].upper(), text))


def _named(text: str) -> float | None:
    """The verdict of a sentence."""
    preferred = {letter for pair in PREFERRED.findall(text) for letter in pair if letter}
    better = {*BETTER.findall(text), *preferred, *("BA"[letter == "B"] for letter in WORSE.findall(text))}
    leading = LEADING.match(text)
    if leading and better <= {leading[1]}:
        return WINS[leading[1].lower()]
    if TIE.search(text) and not NO_TIE.search(text):
        return 0.5
    if DENIED.search(text):
        return None
    if not better:
        text = SET_ASIDE.sub("", text)
        text = text if LESS.search(text) else OTHER.sub("", text)
        better = {letter for pair in NAMED.findall(text) for letter in pair if letter in ("A", "B")}
        if better:
            better |= set(MENTIONED.findall(text))
    return WINS[better.pop().lower()] if len(better) == 1 else None


def _side(left: str, sign: str, right: str) -> float:
    """The verdict that a comparison like `A >> B` states."""
    if "=" in sign or left == right:
        return 0.5
    return float((left == "A") == (">" in sign))
