"""Synthetic tasks on contexts of any length: what is asked, what is right, and what fills the rest."""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One question about a context: what must stand in it, and where what fills it comes from."""

    planted: Sequence[str]
    """Pieces in order; they are spread over the context, a single one at the wanted depth."""
    question: str
    """What follows the context, up to where the answer begins."""
    answers: Sequence[str]
    """All must be found in what the model says."""
    filler: Callable[[int], str]
    """The i-th piece of what fills the context."""
    opening: str = ""


def noise(index: int) -> str:
    """Sentences that say nothing, in turn."""
    return FILLER[index % len(FILLER)]


def _number(rng: random.Random) -> str:
    return str(rng.randrange(10000, 100000))


def single_needle(rng: random.Random, texts: Sequence[str]) -> Exercise:
    """One number to remember, in noise."""
    word, number = rng.choice(WORDS), _number(rng)
    return Exercise(
        planted=[f"The special number of {word} is {number}."],
        question=f"What is the special number of {word}? The special number of {word} is",
        answers=[number],
        filler=noise,
    )


def several_keys(rng: random.Random, texts: Sequence[str]) -> Exercise:
    """Four numbers by name, in real text; one is asked for."""
    words = rng.sample(WORDS, 4)
    numbers = [_number(rng) for _ in words]
    planted = [f"The special number of {w} is {n}." for w, n in zip(words, numbers, strict=True)]
    asked = rng.randrange(4)
    return Exercise(
        planted=planted,
        question=f"What is the special number of {words[asked]}? The special number of {words[asked]} is",
        answers=[numbers[asked]],
        filler=_sentences(rng, texts),
    )


def several_values(rng: random.Random, texts: Sequence[str]) -> Exercise:
    """One name with three numbers, in real text; all are asked for."""
    word, numbers = rng.choice(WORDS), [_number(rng) for _ in range(3)]
    return Exercise(
        planted=[f"One of the special numbers of {word} is {number}." for number in numbers],
        question=f"What are all the special numbers of {word}? The special numbers of {word} are",
        answers=numbers,
        filler=_sentences(rng, texts),
    )


def variable_tracking(rng: random.Random, texts: Sequence[str]) -> Exercise:
    """A value handed on through a chain of variables, in noise; all of its names are asked for."""
    names = ["".join(rng.choices("ABCDEFGHKLMNPRSTUVWXYZ", k=4)) for _ in range(4)]
    number = _number(rng)
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

    def item(index: int) -> str:
        turn = random.Random(f"{words[0]}/{index}")
        return turn.choice(often) if turn.random() < 30 / (30 + len(rare)) else turn.choice(rare)

    return Exercise(
        planted=[],
        opening="A list of words:",
        question="Which three words stand most often in the list? The three most frequent words are",
        answers=often,
        filler=item,
    )


def question_answering(rng: random.Random, texts: Sequence[str]) -> Exercise:
    """A passage of real text among others of its kind; what it says after some words is asked for."""
    passages = [words for text in texts if len(words := text.split()) >= 24]
    words = rng.choice(passages)
    start = rng.randrange(0, len(words) - 20)
    passage = words[start : start + 20]
    asked = rng.randrange(8, 18)
    said = " ".join(passage[asked - 5 : asked])
    return Exercise(
        planted=[" ".join(passage)],
        question=f'Which word follows "{said}" in the text? After "{said}" the text says',
        answers=[passage[asked].strip(".,;:()\"'") or passage[asked]],
        filler=_sentences(rng, texts),
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


TASKS: dict[str, Callable[[random.Random, Sequence[str]], Exercise]] = {
    "single_needle": single_needle,
    "several_keys": several_keys,
    "several_values": several_values,
    "variable_tracking": variable_tracking,
    "common_words": common_words,
    "question_answering": question_answering,
}
