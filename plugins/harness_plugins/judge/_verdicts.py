"""Reading which answer a judge prefers from what it wrote."""

import re

MARKED = re.compile(r"\[\[\s*(A|B|C|tie)\s*\]\]", re.IGNORECASE)
TIE = re.compile(r"\b(tie[ds]?|draw|equal(ly)?|neither)\b", re.IGNORECASE)
NO_TIE = re.compile(r"\b(not|no|isn't)\b[^.]*\b(tie|draw|equal)", re.IGNORECASE)
COMPARED = re.compile(r"\b([AB])\s*(>+|<+|=+)\s*([AB])\b")
BETTER = re.compile(r"\b([AB])\b\W+(?:wins\b|(?:is|was)\s+(?:\w+\s+)?(?:better|preferred|superior|best)\b)")
WORSE = re.compile(r"\b([AB])\b\W+(?:loses\b|(?:is|was)\s+(?:\w+\s+)?(?:worse|inferior|worst)\b)")
DENIED = re.compile(
    r"(?:\b(?:not|no|hardly|neither|cannot)|n't)\s+(?:\w+\s+)?(?:better|preferred|superior|best|worse|inferior)\b",
    re.IGNORECASE,
)
LEADING = re.compile(r"[\W_]*([AB])[*_)\]]*(?:[.,;]|\s+(?:-|because|since))\s*(?![AB]\b|and\b|or\b)")
NAMED = re.compile(
    r"\b(?:answer|output|response|assistant|option|verdict|winner|choice|prefer|choose|pick)\b\W*"
    r"(?:is\W+)?([AB])\b|(?<![\w'])([AB])(?=\s*(?:$|[.,:;!)\]*\n-]|because|since))",
    re.IGNORECASE,
)


def read_verdict(text: str) -> float | None:
    """1.0 where a judge prefers A, 0.0 for B, 0.5 for a tie; None where it does not say, or says both.

    A letter counts where it is named as an answer or stands alone as a capital; the article of "A tie." or
    "A hard choice" is none. `A > B` is a comparison (Arena-Hard's form), and a first line of one letter the
    answer, whatever follows as its reason. "A is not better" says neither.
    """
    text = text.strip()
    marked = MARKED.findall(text)
    if marked:
        return {"a": 1.0, "b": 0.0}.get(marked[-1].lower(), 0.5)
    bare = re.sub(r"[\W_]+", "", text).lower()
    if bare in ("a", "b", "tie"):
        return {"a": 1.0, "b": 0.0, "tie": 0.5}[bare]
    compared = {_side(*found) for found in COMPARED.findall(text)}
    if compared:
        return compared.pop() if len(compared) == 1 else None
    first = re.sub(r"[\W_]+", "", text.partition("\n")[0])
    if first in ("A", "B"):
        return 1.0 if first == "A" else 0.0
    named = set(BETTER.findall(text)) | {"A" if letter == "B" else "B" for letter in WORSE.findall(text)}
    leading = LEADING.match(text)
    if leading and named <= {leading[1]}:
        return 1.0 if leading[1] == "A" else 0.0
    if TIE.search(text) and not NO_TIE.search(text):
        return 0.5
    if DENIED.search(text):
        return None
    named = named or {letter for pair in NAMED.findall(text) for letter in pair if letter in ("A", "B")}
    if len(named) != 1:
        return None
    return 1.0 if named == {"A"} else 0.0


def _side(left: str, sign: str, right: str) -> float:
    """The verdict that a comparison like `A >> B` states."""
    if "=" in sign or left == right:
        return 0.5
    return float((left == "A") == (">" in sign))
