"""Skills a tiny model can be taught: instructions that code can check, and recall. Training data and
evaluation tasks draw from the same families, never the same items.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from harness.axes.corpus import Split
from harness.errors import UnknownNameError

WORDS = (
    *("name", "value", "file", "list", "string", "class", "error", "message"),
    *("object", "path", "result", "time", "type", "code", "line", "number"),
)
"""Sixteen words that are frequent in the embedded corpus, so that most are one token. Few, because a model
of 1 M parameters learns to copy 16 words in 60,000 tokens, and 46 words in more than 130,000."""

VERBS = ("Say", "Write", "Print")
NUMBERS = {2: "two", 3: "three", 4: "four"}
HELD_OUT_SHARE = 0.15
"""Share of a family's possible prompts in each of validation and test."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One exercise: a prompt, a right answer, and how to tell another right answer from a wrong one."""

    id: str
    skill: str
    prompt: str
    answer: str
    checks: dict[str, Any]
    choices: tuple[str, ...] = field(default=())
    """Four answers, one of them right, in random order."""

    @property
    def label(self) -> int:
        """Index of the right choice."""
        return self.choices.index(self.answer)


Draft = tuple[str, str, dict[str, Any], list[str]]
"""Prompt, answer, checks, three wrong answers."""


def _say(rng: random.Random) -> Draft:
    words = rng.sample(WORDS, 4)
    return f"{rng.choice(VERBS)} only: {words[0]}", words[0], {"exact": words[0], "num_words": 1}, words[1:]


def _repeat(rng: random.Random) -> Draft:
    first, second = rng.sample(WORDS, 2)
    number = rng.choice(list(NUMBERS))
    answer = " ".join([first] * number)
    wrong = [" ".join([first] * n) for n in NUMBERS if n != number] + [" ".join([second] * number)]
    prompt = f"{rng.choice(VERBS)} {NUMBERS[number]} times: {first}"
    return prompt, answer, {"exact": answer, "num_words": number}, wrong


def _first(rng: random.Random) -> Draft:
    words = rng.sample(WORDS, 4)
    prompt = f"{rng.choice(VERBS)} the first: {' '.join(words)}"
    return prompt, words[0], {"exact": words[0], "num_words": 1}, words[1:]


def _last(rng: random.Random) -> Draft:
    words = rng.sample(WORDS, 4)
    prompt = f"{rng.choice(VERBS)} the last: {' '.join(words)}"
    return prompt, words[-1], {"exact": words[-1], "num_words": 1}, words[:-1]


def _brackets(rng: random.Random) -> Draft:
    words = rng.sample(WORDS, 3)
    answer, *wrong = (f"[ {word} ]" for word in words)
    checks = {"starts_with": "[", "ends_with": "]", "exact": answer}
    return f"{rng.choice(VERBS)} in brackets: {words[0]}", answer, checks, [*wrong, words[0]]


def _list(rng: random.Random) -> Draft:
    topic = rng.sample(WORDS, 2)
    number = rng.choice(list(NUMBERS))
    answer = " ".join(rng.sample(topic, 2) + rng.sample([w for w in WORDS if w not in topic], number))
    answer = " ".join(answer.split()[:number])
    others = rng.sample(WORDS, 6)
    wrong = [" ".join(others[:n]) for n in (1, 5, 6)]
    checks = {"num_words": number, "distinct_words": True}
    return f"List {NUMBERS[number]} words, {topic[0]} {topic[1]}", answer, checks, wrong


def _copy(rng: random.Random) -> Draft:
    words = rng.sample(WORDS, 3)
    wrong = [" ".join(words[i] for i in order) for order in ((1, 2, 0), (2, 0, 1), (0, 2, 1))]
    answer = " ".join(words)
    return f"Copy: {answer}", answer, {"exact": answer}, wrong


def _associative_recall(rng: random.Random) -> Draft:
    """Multi-query associative recall: each key again, in an order that is asked for, followed by its value.

    Paper: Arora et al. 2023, arXiv:2312.04927, section 3; two pairs, which 0.2 M parameters learn in 6,000
    examples, where they learn four in none of 10,000
    """
    keys = rng.sample(WORDS, 2)
    values = rng.sample([word for word in WORDS if word not in keys], 2)
    pairs = " , ".join(f"{key} {value}" for key, value in zip(keys, values, strict=True))
    first, second = rng.sample(range(2), 2)

    def told(one: int, two: int) -> str:
        return f"{keys[first]} {values[one]} , {keys[second]} {values[two]}"

    answer = told(first, second)
    wrong = [told(second, first), told(first, first), told(second, second)]
    return f"Recall: {pairs} . {keys[first]} {keys[second]}", answer, {"exact": answer}, wrong


def _passkey(rng: random.Random) -> Draft:
    secret, *filler = rng.sample(WORDS, 6)
    place = rng.randrange(len(filler) + 1)
    text = " ".join([*filler[:place], f"( {secret} )", *filler[place:]])
    return f"Find: {text}", secret, {"exact": secret, "num_words": 1}, filler[:3]


FAMILIES: dict[str, Callable[[random.Random], Draft]] = {
    "say": _say,
    "repeat": _repeat,
    "first": _first,
    "last": _last,
    "brackets": _brackets,
    "list": _list,
    "copy": _copy,
    "associative_recall": _associative_recall,
    "passkey": _passkey,
}

GROUPS: dict[str, tuple[str, ...]] = {
    "instructions": ("say", "repeat", "first", "brackets"),
    "recall": ("copy", "passkey"),
}
"""Names for several families met in turn."""


def skill_families(name: str) -> tuple[str, ...]:
    """The families of a group, or the one family of that name.

    Raises: UnknownNameError on a family or group that does not exist
    """
    if name not in FAMILIES and name not in GROUPS:
        raise UnknownNameError(what="skill", name=name, known=[*FAMILIES, *GROUPS])
    return GROUPS.get(name, (name,))


def skill_items(name: str, split: Split | str, seed: int, n: int) -> Iterator[Item]:
    """`n` distinct items of a family, or of a group's families in turn; fewer where there are no more.

    The split of an item is decided by a hash of its prompt, so no seed moves an item across splits.
    Raises: UnknownNameError on a family or group that does not exist
    """
    streams = [_items(family, Split(split), seed) for family in skill_families(name)]
    left = n
    while streams and left:
        for stream in list(streams)[:left]:
            item = next(stream, None)
            if item is None:
                streams.remove(stream)
                continue
            yield item
            left -= 1


def _items(family: str, split: Split, seed: int) -> Iterator[Item]:
    """Distinct items of one family, until a thousand draws in a row bring nothing new."""
    rng = random.Random(f"{family}/{split.value}/{seed}")
    seen: set[str] = set()
    for index in count():
        for _ in range(1000):
            prompt, answer, checks, wrong = FAMILIES[family](rng)
            if prompt not in seen and split_of(prompt) is split:
                break
        else:
            return
        seen.add(prompt)
        choices = [answer, *wrong]
        rng.shuffle(choices)
        yield Item(
            id=f"{family}/{split.value}/{seed}/{index}",
            skill=family,
            prompt=prompt,
            answer=answer,
            checks=checks,
            choices=tuple(choices),
        )


def split_of(prompt: str) -> Split:
    """The only split in which a prompt may occur."""
    position = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") / 2**64
    if position < HELD_OUT_SHARE:
        return Split.test
    return Split.validation if position < 2 * HELD_OUT_SHARE else Split.train
