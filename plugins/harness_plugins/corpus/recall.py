"""Synthetic recall: copying, associative recall and passkeys as text."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from harness import Corpus, Document, Method, Split, check_counts, hookimpl, skill_items


class Recall(Corpus):
    """Exercises with their answers, one domain a skill; the tests of a skill never occur in training.

    Paper: Arora et al. 2023, arXiv:2312.04927 (multi-query associative recall)
    Differs: the split comes from the skill, not from `validation_share` and `test_share` unless they are 0
    """

    name = "recall"

    @dataclass(frozen=True, kw_only=True)
    class Config(Corpus.Config):
        skills: list[str] = field(default_factory=lambda: ["copy", "associative_recall", "passkey"])
        """Skills to write out, in equal numbers."""
        num_documents: int = 3_000
        """Training documents in all; a tenth as many for validation and for test."""
        items_per_document: int = 8
        """Exercises in one document."""
        seed: int = 0
        """Seed of the exercises; the run's seed does not move them."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_counts(self, "corpus", "num_documents", "items_per_document")

    config: Config

    def documents(self) -> Iterator[Document]:
        held_out = {Split.validation: self.config.validation_share, Split.test: self.config.test_share}
        for split in Split:
            if held_out.get(split, 1.0) == 0:
                continue
            divisor = 1 if split is Split.train else 10
            number = max(1, self.config.num_documents // len(self.config.skills) // divisor)
            for skill in self.config.skills:
                yield from self._written(skill, split, number)

    def _written(self, skill: str, split: Split, number: int) -> Iterator[Document]:
        size = self.config.items_per_document
        lines: list[str] = []
        for item in skill_items(skill, split, self.config.seed, number * size):
            lines.append(f"{item.prompt} -> {item.answer}\n")
            if len(lines) == size:
                yield Document(id=item.id, text="".join(lines), domain=skill, split=split)
                lines = []
        if lines:
            yield Document(id=f"{item.id}/rest", text="".join(lines), domain=skill, split=split)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Recall]
