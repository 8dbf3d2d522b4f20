"""How alike two texts are."""

from __future__ import annotations

from collections.abc import Sequence


def rouge_l(first: Sequence[str], second: Sequence[str]) -> float:
    """ROUGE-L F-measure of two word sequences: twice the longest common subsequence over the total length.

    Paper: Lin 2004, ROUGE
    Units: 0 to 1
    """
    if not first or not second:
        return 0.0
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for index, other in enumerate(second, start=1):
            above = row[index]
            row[index] = diagonal + 1 if word == other else max(above, row[index - 1])
            diagonal = above
    return 2 * row[-1] / (len(first) + len(second))


def mtld(words: Sequence[str], *, threshold: float = 0.72) -> float:
    """Measure of textual lexical diversity: mean length of stretches whose type-token ratio stays above the
    threshold, forwards and backwards.

    Paper: McCarthy and Jarvis 2010
    Units: words
    """
    if not words:
        return 0.0
    return (_factors(words, threshold) + _factors(list(reversed(words)), threshold)) / 2


def _factors(words: Sequence[str], threshold: float) -> float:
    count, types, tokens = 0.0, set[str](), 0
    for word in words:
        types.add(word)
        tokens += 1
        if len(types) / tokens <= threshold:
            count, types, tokens = count + 1, set(), 0
    if tokens:
        count += (1 - len(types) / tokens) / (1 - threshold)
    return len(words) / count if count else float(len(words))
