"""Questions and answers: one of each an entry, as GSM8K has them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness import Method, hookimpl
from harness_plugins.instruction._reader import Parsed, Reader, pair, text_of


class QuestionAnswer(Reader):
    """JSON Lines, JSON or Parquet of {question, answer}, under these names or others.

    Paper: Cobbe et al. 2021, arXiv:2110.14168 (GSM8K)
    """

    name = "question_answer"
    sample_name = "sample.jsonl"
    sample = (
        '{"question": "Ann has 2 apples and buys 3. How many?", "answer": "2 + 3 = <<2+3=5>>5.\\n#### 5"}\n'
        '{"question": "Half of 8?", "answer": "8 / 2 = <<8/2=4>>4.\\n#### 4"}\n'
    )

    @dataclass(frozen=True, kw_only=True)
    class Config(Reader.Config):
        question: str = "question"
        """Name of what is asked."""
        answer: str = "answer"
        """Name of what is learned."""
        source: str = ""
        """Name of the source; empty takes the file's."""

    config: Config

    def parse(self, rows: Iterator[dict[str, Any]]) -> Iterator[Parsed | None]:
        for row in rows:
            source = self.config.source or row["#"].rpartition("/")[2].partition(".")[0]
            yield source, pair(text_of(row, self.config.question), text_of(row, self.config.answer))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [QuestionAnswer]
