"""Synthetic tasks on contexts of any length: what is asked, what is right, and what fills the rest."""

import bisect
import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from harness import IncompatibleError

FILLER = (
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
)
WORDS = (
    *("apple", "river", "stone", "window", "garden", "paper", "market", "bridge", "winter", "candle"),
    *("forest", "silver", "button", "corner", "pocket", "island", "ladder", "mirror", "needle", "orange"),
    *("pencil", "rabbit", "saddle", "ticket", "valley", "wallet", "yellow", "anchor", "basket", "copper"),
)
TRIES = 200
"""Draws of a question before texts are said to hold none."""


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One question about a context: what must stand in it, and where what fills it comes from."""

    planted: Sequence[str]
    """Pieces in order, spread evenly over the context, but for the one at `deep`."""
    question: str
    """What follows the context, up to where the answer begins."""
    answers: Sequence[str]
    """All must be found in what the model says."""
    filler: Callable[[int], str]
    """The i-th piece of what fills the context."""
    opening: str = ""
    deep: int | None = None
    """Which piece stands at the wanted depth; None where what is asked for stands in several places."""
    fewest: int = 0
    """Pieces of filler below which no answer is right."""

    def context(self, pieces: int, *, words: int = 0, depth: float) -> str:
        """So many pieces of filler and words of the next one, with what is planted among them."""
        filled = [self.filler(index) for index in range(pieces)]
        if words:
            filled.append(" ".join(self.filler(pieces).split()[:words]))
        spread = [piece for index, piece in enumerate(self.planted) if index != self.deep]
        placed = [((place + 1) / (len(spread) + 1), piece) for place, piece in enumerate(spread)]
        if self.deep is not None:
            placed.append((depth, self.planted[self.deep]))
        ends = list(itertools.accumulate((len(piece) + 1 for piece in filled), initial=0))
        for place, (share, piece) in enumerate(sorted(placed)):
            filled.insert(_nearest(ends, share * ends[-1]) + place, piece)
        return " ".join([*([self.opening] if self.opening else []), *filled])

    def score(self, said: str) -> float:
        """The share of the answers that a text holds, each as a word of its own."""
        held = [re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", said) for answer in self.answers]
        return sum(found is not None for found in held) / len(held)


def _nearest(ends: Sequence[int], wanted: float) -> int:
    """The place in ascending numbers of the one nearest to the wanted one."""
    after = min(bisect.bisect_left(ends, wanted), len(ends) - 1)
    return after - 1 if after and wanted - ends[after - 1] < ends[after] - wanted else after


def noise(index: int) -> str:
    """Sentences that say nothing, in turn."""
    return FILLER[index % len(FILLER)]


def _numbers(rng: random.Random, count: int, texts: Sequence[str] = ()) -> list[str]:
    """Different numbers of five digits, none of which stands in a text."""
    drawn = (str(rng.randrange(10000, 100000)) for _ in itertools.count())
    return _distinct((number for number in drawn if not any(number in text for text in texts)), count)


def _distinct(drawn: Iterator[str], count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[next(drawn)] = None
    return list(found)


def single_needle(rng: random.Random, texts: Sequence[str]) -> Exercise:
    """One number to remember, in noise."""
    word, (number,) = rng.choice(WORDS), _numbers(rng, 1)
    return Exercise(
        planted=[f"The special number of {word} is {number}."],
        question=f"What is the special number of {word}? The special number of {word} is",
        answers=[number],
        filler=noise,
        deep=0,
    )


def several_keys(rng: random.Random, texts: Sequence[str]) -> Exercise:
    """Four numbers by name, in real text; one is asked for."""
    words, numbers = rng.sample(WORDS, 4), _numbers(rng, 4, texts)
    planted = [f"The special number of {w} is {n}." for w, n in zip(words, numbers, strict=True)]
    asked = rng.randrange(4)
    return Exercise(
        planted=planted,
        question=f"What is the special number of {words[asked]}? The special number of {words[asked]} is",
        answers=[numbers[asked]],
        filler=_sentences(rng, texts),
        deep=asked,
    )


def several_values(rng: random.Random, texts: Sequence[str]) -> Exercise:
    """One name with three numbers, in real text; all are asked for."""
    word, numbers = rng.choice(WORDS), _numbers(rng, 3, texts)
    return Exercise(
        planted=[f"One of the special numbers of {word} is {number}." for number in numbers],
        question=f"What are all the special numbers of {word}? The special numbers of {word} are",
        answers=numbers,
        filler=_sentences(rng, texts),
    )


def variable_tracking(rng: random.Random, texts: Sequence[str]) -> Exercise:
    """A value handed on through a chain of variables, in noise; all of its names are asked for."""
    names = _distinct(("".join(rng.choices("ABCDEFGHKLMNPRSTUVWXYZ", k=4)) for _ in itertools.count()), 4)
    (number,) = _numbers(rng, 1)
    steps = [f"VAR {names[0]} = {number}."]
    steps += [f"VAR {later} = VAR {earlier}." for earlier, later in itertools.pairwise(names)]
    return Exercise(
        planted=steps,
        question=f"Which variables have the value {number}? The variables with the value {number} are",
        answers=names,
        filler=noise,
    )


def common_words(rng: random.Random, texts: Sequence[str]) -> Exercise:
    """A list in which three words stand ten times as often as the others; these are asked for."""
    words = rng.sample(WORDS, len(WORDS))
    often, rare = words[:3], words[3:]

    cycle_seed = rng.randrange(1 << 32)

    @cache
    def cycle(number: int) -> list[str]:
        """Ten rounds: each frequent word stands once in every round, each rare one once in all of them."""
        order = random.Random(f"{cycle_seed}/{number}")
        rounds = [[*often, *rare[start::10]] for start in range(10)]
        for words in rounds:
            order.shuffle(words)
        return list(itertools.chain.from_iterable(rounds))

    def item(index: int) -> str:
        number, place = divmod(index, 10 * len(often) + len(rare))
        return cycle(number)[place]

    return Exercise(
        planted=[],
        opening="A list of words:",
        question="Which three words stand most often in the list? The three most frequent words are",
        answers=often,
        filler=item,
        fewest=12,
    )


def question_answering(rng: random.Random, texts: Sequence[str]) -> Exercise:
    """A passage of real text among others of its kind; what it says after some words is asked for.

    These words stand nowhere else in the texts, so that one answer is right, at one place.
    Raises: IncompatibleError where the texts hold no such words
    """
    known = [" ".join(text.split()) for text in texts]
    places = [place for place, text in enumerate(known) if text.count(" ") >= 23]
    for _ in range(TRIES):
        place = rng.choice(places)
        words = known[place].split()
        start = rng.randrange(0, len(words) - 20)
        passage, asked = words[start : start + 20], rng.randrange(8, 18)
        said, answer = " ".join(passage[asked - 5 : asked]), passage[asked].strip(".,;:()[]\"'`*")
        plain = re.fullmatch(r"[^\W\d_]{5,}", answer) and answer not in said and '"' not in said
        if plain and sum(text.count(said) for text in known) == 1:
            break
    else:
        raise IncompatibleError(
            "evaluator.ruler.tasks: question_answering finds no words in the test documents that stand in "
            "one place only; leave it out, or take a corpus that repeats itself less"
        )
    rest = " ".join([*words[:start], *words[start + 20 :]])
    return Exercise(
        planted=[" ".join(passage)],
        question=f'Which word follows "{said}" in the text? After "{said}" the text says',
        answers=[answer],
        filler=_sentences(rng, [text for at, text in enumerate(known) if at != place] or [rest]),
        deep=0,
    )


def _sentences(rng: random.Random, texts: Sequence[str]) -> Callable[[int], str]:
    """Real text, twelve words at a time, from a place of its own."""
    words = " ".join(
        texts[(rng.randrange(len(texts)) + i) % len(texts)] for i in range(min(8, len(texts)))
    ).split()
    begin = rng.randrange(len(words))

    def piece(index: int) -> str:
        at = begin + 12 * index
        return " ".join(words[(at + i) % len(words)] for i in range(12))

    return piece


def largest(fits: Callable[[int], bool], *, at_least: int = 0) -> int:
    """The largest number that fits, where all below it do and `at_least` does."""
    low, step = at_least, 1
    while fits(low + step):
        low, step = low + step, 2 * step
    while step > 1:
        step //= 2
        if fits(low + step):
            low += step
    return low


TASKS: dict[str, Callable[[random.Random, Sequence[str]], Exercise]] = {
    "single_needle": single_needle,
    "several_keys": several_keys,
    "several_values": several_values,
    "variable_tracking": variable_tracking,
    "common_words": common_words,
    "question_answering": question_answering,
}
