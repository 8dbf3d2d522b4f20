"""Filter: keeps, drops or rewrites documents; filters run in the order given."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, final

from harness.axes.corpus import Document, Split
from harness.method import Method

if TYPE_CHECKING:
    import numpy as np


@dataclass
class FilterReport:
    """What a filter did; stands in the corpus artifact's facts."""

    seen: int = 0
    dropped: int = 0
    rewritten: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


class Filter(Method):
    """A pass over documents. A filter of single documents implements `judge`; one whose verdicts rest on the
    documents before says so by `remembers`; one that needs the whole stream first implements `learn`. What
    either knows it hands on by `state`.

    State: one instance per corpus stage; `report` accumulates; `tell` is called with every document that is
        dropped or rewritten, which of both, and why; `models` holds (model, tokenizer) of what
        its ModelRef options name, by option
    """

    axis = "filter"
    many = True
    default = ()
    moves_facts = frozenset({"counts", "sha256"})
    remembers: ClassVar[bool] = False
    """Whether a verdict rests on the documents before it."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        domains: list[str] = field(default_factory=list)
        """Domains it looks at, the others pass untouched; empty for all."""
        splits: list[Split] = field(default_factory=list)
        """Splits it looks at; empty for all. With [train] all filters are measured on the same documents."""

    config: Config
    models: Mapping[str, tuple[Any, Any]] = MappingProxyType({})

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "apply" in vars(cls):
            raise TypeError(
                f"filter {cls.__qualname__} overrides `apply`, which no stage calls; implement `judge`, and "
                "`learn` where it needs the whole stream first"
            )

    def __init__(self, config: Method.Config | None = None) -> None:
        super().__init__(config)
        self.report = FilterReport()
        self.tell: Callable[[Document, str, str], None] = lambda document, did, why: None

    @classmethod
    def trial(cls, directory: Path) -> tuple[Config, Document, Document]:
        """Options, a document that stays untouched, and one that is dropped or rewritten under them;
        writes the small input it needs into `directory`.

        A filter of whole streams finds the second dropped because it repeats the first.
        """
        raise NotImplementedError

    def judges_alone(self) -> bool:
        """Whether a verdict rests on the document alone and on what was learned before the first, so that
        processes may share the documents.
        """
        return not self.remembers and not self.models

    def learns(self) -> bool:
        """Whether it needs the whole stream before the first verdict."""
        return type(self).learn is not Filter.learn

    def prepare(self) -> None:
        """Make what verdicts rest on, before the first of them."""

    def learn(self, documents: Iterator[Document]) -> None:
        """Read the stream that is judged next, after `prepare`; none of it need be kept."""

    def state(self) -> dict[str, "np.ndarray"]:
        """What it has learned, and remembers of the documents so far, as arrays; nothing for one that does
        neither.
        """
        return {}

    def restore(self, state: Mapping[str, "np.ndarray"]) -> None:
        """Know what `state` gave, after `prepare`, in place of `learn` and of the documents before."""

    def judge(self, document: Document) -> Document | str:
        """The document (rewritten or not), or the reason for dropping it."""
        raise NotImplementedError

    @final
    def apply(self, documents: Iterator[Document]) -> Iterator[Document]:
        """The documents that stay, in their order; all are held where it learns from them first."""
        self.prepare()
        if self.learns():
            documents = iter(found := list(documents))
            self.learn(iter(found))
        yield from self.pass_on(documents)

    def pass_on(self, documents: Iterator[Document]) -> Iterator[Document]:
        """The next documents that stay, once it is prepared."""
        for document in documents:
            kept = self.settle(document, self.judge(document)) if self.sees(document) else document
            if kept is not None:
                yield kept

    def sees(self, document: Document) -> bool:
        """Whether the filter looks at a document; the others pass."""
        limits = (self.config.domains, document.domain), (self.config.splits, document.split)
        return all(not chosen or own in chosen for chosen, own in limits)

    def settle(self, document: Document, verdict: Document | str) -> Document | None:
        """Count and tell a verdict; the document that stays."""
        self.report.seen += 1
        if isinstance(verdict, str):
            self.report.dropped += 1
            self.report.reasons[verdict] = self.report.reasons.get(verdict, 0) + 1
            self.tell(document, "dropped", verdict)
            return None
        if verdict.text != document.text:
            self.report.rewritten += 1
            self.tell(document, "rewritten", "")
        return verdict
