"""Preferences as training batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.axes.alignment import Alignment
from harness.axes.corpus import Split
from harness.axes.instruction import Conversation, Turn, as_turns
from harness.data.template import IGNORED, Template
from harness.errors import DataError
from harness.rng import Purpose
from harness.stages._leaks import without_test_items
from harness.training.contract import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.axes.reward import Preference
    from harness.stage import Work

Row = tuple[np.ndarray, np.ndarray]
"""Inputs and shifted labels of one sequence (T each)."""


ALONE, FULL, CUT_ALIKE = (
    "an answer is missing",
    "the prompt fills the window",
    "the window cuts the answers to the same",
)
WAYS_OUT = {
    ALONE: "single answers with labels are for alignment=kto",
    FULL: "raise the stage's sequence_length",
    CUT_ALIKE: "raise the stage's sequence_length",
}
"""Why a preference is left out -> what would keep it."""


@dataclass(kw_only=True)
class Encoded:
    """A sequence within the window, and whether some of its answer was cut away."""

    row: Row
    cut: bool


def encode_turns(
    template: Template, turns: tuple[Turn, ...], *, learn_from: int, length: int, whole: bool = False
) -> Encoded:
    """Inputs and shifted labels of a conversation, at most `length` positions.

    Answers from the turn `learn_from` on are labelled. `whole` keeps the last token as an input, for heads
    that read it; nothing is predicted there.
    """
    conversation = Conversation(id="", turns=turns, source="")
    ids_T, labels_T = template.encode(conversation, learn_from=learn_from)
    if whole:
        shifted_T = np.append(labels_T[1:], IGNORED)
        return Encoded(row=(ids_T[:length], shifted_T[:length]), cut=len(ids_T) > length)
    return Encoded(row=(ids_T[:-1][:length], labels_T[1:][:length]), cut=len(ids_T) - 1 > length)


def pad_rows(rows: Sequence[Row], *, pad_id: int, prefix: str = "", width: int = 0) -> Batch:
    """Encoded answers as `input_ids`, `attention_mask` and `labels_BT`, padded right to `width` at least."""
    width = max([width, *(len(ids) for ids, _ in rows)])
    ids_BT = np.full((len(rows), width), pad_id, dtype=np.int64)
    labels_BT = np.full((len(rows), width), IGNORED, dtype=np.int64)
    mask_BT = np.zeros((len(rows), width), dtype=np.int64)
    for row, (ids_T, labels_T) in enumerate(rows):
        ids_BT[row, : len(ids_T)], labels_BT[row, : len(ids_T)] = ids_T, labels_T
        mask_BT[row, : len(ids_T)] = 1
    arrays = {"input_ids": ids_BT, "attention_mask": mask_BT, "labels_BT": labels_BT}
    return {prefix + name: torch.from_numpy(value) for name, value in arrays.items()}


class PreferenceSource:
    """Epochs of preference pairs in random order.

    Shapes: `<part>_input_ids`, `<part>_attention_mask`, `<part>_labels_BT` for each of the method's parts;
    mismatched is the prompt with the answer of the pair before in the epoch's order. An answer that is
    missing has no label
    State: epoch and position
    """

    def __init__(
        self,
        preferences: Sequence[Preference],
        method: Alignment,
        template: Template,
        *,
        seed: int,
        length: int,
        pad_id: int,
        whole: bool = False,
    ) -> None:
        self.method, self.template = method, template
        self.seed, self.length, self.pad_id, self.whole = seed, length, pad_id, whole
        self.pairs: list[tuple[Preference, dict[str, Row]]] = []
        self.left_out: Counter[str] = Counter()
        self.cleared: dict[str, Any] = {}
        """What was dropped as it shares text with test items."""
        self.cut = num_bytes = num_tokens = 0
        for preference in preferences:
            found = self._encoded(preference)
            if found is None:
                continue
            rows, turns = found
            self.pairs.append((preference, rows))
            num_bytes += sum(len(turn.text.encode()) for part in turns.values() for turn in part)
            num_tokens += sum(len(ids) for ids, _ in rows.values())
        if not self.pairs:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.left_out.items())
            most = max(self.left_out, key=self.left_out.__getitem__, default="")
            raise DataError(
                f"no preference of {len(preferences)} is left to learn from ({reasons}) within {length} "
                f"tokens; {WAYS_OUT.get(most, 'choose another feedback')}"
            )
        if "mismatched" in method.parts and len({answer_of(p) for p, _ in self.pairs}) < 2:
            raise DataError(
                f"alignment={method.name} compares a prompt with another's answer, and all {len(self.pairs)} "
                "preferences have the same answer"
            )
        self.num_samples = len(self.pairs)
        self.bytes_per_token = num_bytes / num_tokens
        self.epoch = self.position = 0
        self._order = self._permutation()

    def facts(self) -> dict[str, Any]:
        """What was read, left out by reason, and cut at the window."""
        return {
            "preferences": len(self.pairs),
            "preferences_dropped": sum(self.left_out.values()),
            "preferences_dropped_by_reason": dict(self.left_out),
            "preferences_cut": self.cut,
            **self.cleared,
        }

    def next(self, size: int) -> Batch:
        """The next `size` pairs."""
        return self.next_rows(size, slice(0, size))

    def next_rows(self, size: int, rows: slice) -> Batch:
        """The next `size` pairs, of which these rows are built, each part as wide as its widest of all."""
        drawn: list[dict[str, Row]] = []
        for _ in range(size):
            if self.position == len(self.pairs):
                self.epoch, self.position = self.epoch + 1, 0
                self._order = self._permutation()
            preference, found = self.pairs[self._order[self.position]]
            if "mismatched" in self.method.parts:
                found = found | {"mismatched": self._mismatched(preference)}
            drawn.append(found)
            self.position += 1
        tokens = [sum(len(found[part][0]) for part in self.method.parts) for found in drawn]
        batch: Batch = {"num_tokens": torch.tensor(tokens)}
        for part in self.method.parts:
            width = max(len(found[part][0]) for found in drawn)
            own = [found[part] for found in drawn[rows]]
            batch |= pad_rows(own, pad_id=self.pad_id, prefix=f"{part}_", width=width)
        return batch

    def _encoded(self, preference: Preference) -> tuple[dict[str, Row], dict[str, tuple[Turn, ...]]] | None:
        """Rows and turns of a pair, by part; None where it is left out, which is counted."""
        if not preference.paired and not self.method.takes_single_answers:
            self.left_out[ALONE] += 1
            return None
        if preference.chosen.strip() == preference.rejected.strip():
            self.left_out["the answers are equal"] += 1
            return None
        turns = self.method.turns(preference)
        first = len(as_turns(preference.prompt))
        rows: dict[str, Row] = {}
        cut = False
        for part, spoken in turns.items():
            if not spoken[-1].text.strip():
                rows[part] = np.array([self.pad_id]), np.array([IGNORED])
                continue
            try:
                found = encode_turns(
                    self.template, spoken, learn_from=first, length=self.length, whole=self.whole
                )
            except DataError:
                self.left_out["the chat template refuses it"] += 1
                return None
            if (found.row[1] == IGNORED).all():
                self.left_out[FULL] += 1
                return None
            rows[part], cut = found.row, cut or found.cut
        if cut and _equal(rows.get("chosen"), rows.get("rejected")):
            self.left_out[CUT_ALIKE] += 1
            return None
        self.cut += cut
        return rows, turns

    def _mismatched(self, preference: Preference) -> Row:
        """The prompt with the answer of the pair before that has another one."""
        own, place = answer_of(preference), self.position
        while True:
            place -= 1  # index -1 is the last: the order is a circle
            other = answer_of(self.pairs[self._order[place]][0])
            if other != own:
                break
        swapped = replace(preference, chosen=other)
        turns = self.method.turns(swapped)["chosen"]
        first = len(as_turns(preference.prompt))
        return encode_turns(self.template, turns, learn_from=first, length=self.length).row

    def state_dict(self) -> dict[str, Any]:
        """Epoch and position."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the same pairs."""
        self.epoch, self.position = state["epoch"], state["position"]
        self._order = self._permutation()

    def _permutation(self) -> np.ndarray:
        return np.random.default_rng([self.seed, self.epoch]).permutation(len(self.pairs))


def _equal(first: Row | None, second: Row | None) -> bool:
    """Whether two sequences are there and the same."""
    return first is not None and second is not None and np.array_equal(first, second)


def answer_of(preference: Preference) -> str:
    """The better answer, or the only one."""
    return preference.chosen if preference.chosen.strip() else preference.rejected


def preference_source(
    work: Work, tokenizer: PreTrainedTokenizerBase, method: Alignment, *, whole: bool = False
) -> PreferenceSource:
    """Batches of training preferences from the chosen feedback.

    Raises: DataError where it gives none
    """
    found, unread = preferences(work, Split.train)
    if not found:
        name = work.one("feedback").method.name
        raise DataError(f"feedback={name} gave no training preference from what it read")
    found, cleared = without_test_items(work, found)
    source = PreferenceSource(
        found,
        method,
        Template(tokenizer),  # type: ignore[arg-type]
        seed=work.stream(Purpose.data_order),
        length=work.config.sequence_length,
        pad_id=tokenizer.pad_token_id or 0,
        whole=whole,
    )
    source.left_out.update(unread)
    source.cleared = cleared
    return source


def preferences(work: Work, split: Split) -> tuple[list[Preference], dict[str, int]]:
    """Preferences of one split from the chosen feedback, and how many entries gave none, by reason."""
    from harness.stages._conversations import read_conversations

    feedback = work.one("feedback").build()
    if feedback.reads_conversations:
        found, _ = read_conversations(work)
        given = [conversation for conversation in found if conversation.split is split]
        return list(feedback.preferences(given, work.stream(Purpose.sampling))), dict(feedback.left_out)
    brought = list(feedback.preferences((), work.stream(Purpose.sampling)))
    return [preference for preference in brought if preference.split is split], dict(feedback.left_out)
