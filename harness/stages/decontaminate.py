"""Stage decontaminate: training documents without the test items that the cell is measured on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.axes.corpus import Split
from harness.data import documents
from harness.data.lineage import Lineage
from harness.errors import DataError
from harness.hookspecs import hookimpl
from harness.method import check_counts
from harness.registry.known import registry
from harness.stage import Choices, Stage, Work
from harness.stages._leaks import (
    MOST,
    NGRAM,
    counts,
    item_texts,
    shared,
    sources_of,
    tell,
    with_item_texts,
)

if TYPE_CHECKING:
    from harness.compose import Cell


class Decontaminate(Stage):
    """Drops training documents that share word n-grams with test items of the cell's evaluators.

    Texts of fewer than 8 words are in both by chance and stay; those that are alike are counted.

    A cell whose evaluators measure no text, or generate it, has no such stage. The key holds what the items
    are, not how they are measured: a limit or a batch size trains no other model.

    Paper: Brown et al. 2020, arXiv:2005.14165, appendix C
    Differs: the whole document goes, as in GPT-3's first attempt, not 200 characters on each side; what more
        than `max_documents` documents share is a common phrase in held-out documents alone, as benchmarks
        have none
    Raises: DataError if nothing is left to train on
    """

    name = "decontaminate"
    after = ("corpus",)
    before = ("tokenizer",)
    axes = ("evaluator",)
    needs = ("documents",)
    produces = "documents"
    seeded = False
    decontaminates = "enabled"
    moves_facts = (
        ("enabled", "counts"),
        ("enabled", "sha256"),
        ("ngram", "counts"),
        ("ngram", "sha256"),
        ("max_documents", "counts"),
        ("max_documents", "sha256"),
    )

    @dataclass(frozen=True, kw_only=True)
    class Config(Stage.Config):
        enabled: bool = True
        """Whether to do it; where not, the report says so."""
        ngram: int = NGRAM
        """Words of an n-gram; items of 8 words or more that are shorter are looked for as a whole."""
        max_documents: int = MOST
        """Training documents that may share an n-gram with held-out documents of the corpus before it counts
        as a common phrase, which is no leak."""

        def __post_init__(self) -> None:
            check_counts(self, "decontaminate", "ngram", "max_documents")

    @classmethod
    def active(cls, cell: Cell) -> bool:
        measures = any(registry().stage(stage).produces == "evaluation" for stage in cell.stages)
        return (
            measures and cell.stage_config(cls.name).enabled and bool(item_texts(cell.choices("evaluator")))
        )

    @classmethod
    def narrow(cls, part: str, choices: Choices) -> Choices:
        return with_item_texts(choices)

    def run(self, work: Work) -> dict[str, Any]:
        directory = work.inputs["documents"].path
        ngram = work.config.ngram
        sources = sources_of(work.several("item_texts"), directory, ngram=ngram)

        def texts() -> Iterator[tuple[str, str]]:
            return ((found.id, found.text) for found in documents.iterate(directory, Split.train))

        found = shared(texts, sources, most=work.config.max_documents)
        leaks = found.leaks
        with Lineage(work.out) as lineage:
            tell(lineage, leaks, by=self.name)
        facts = self.kept(work, set(leaks))
        if not facts["num_documents"].get(Split.train.value):
            raise DataError(
                f"decontaminate drops all {found.seen} training documents, as they share text with test "
                "items; train on other text, or set decontaminate.enabled=false"
            )
        facts["decontaminated"] = counts(found, sources, ngram=ngram)
        facts["effects"] = {"decontaminate": {"seen": found.seen, "dropped": len(leaks)}}
        return facts

    def kept(self, work: Work, dropped: set[str]) -> dict[str, Any]:
        """Write the documents that stay; where all do, they are those of the input and not written again."""
        source = work.inputs["documents"]
        if dropped:
            stay = (document for document in documents.iterate(source.path) if document.id not in dropped)
            return documents.write(work.out, stay)
        _link(source.path / documents.FILE, work.out / documents.FILE)
        return {key: source.facts[key] for key in ("num_documents", "num_bytes", "sha256")}


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [Decontaminate]
