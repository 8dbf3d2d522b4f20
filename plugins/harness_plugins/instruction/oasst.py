"""OpenAssistant's format: trees of messages."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness import DataError, Method, Role, Turn, hookimpl
from harness_plugins.instruction._reader import Parsed, Reader, text_of

ROLES = {"prompter": Role.user, "assistant": Role.assistant}


class Oasst(Reader):
    """JSON Lines of {message_id, parent_id, role, text, lang, rank}; each tree gives the conversation along
    its best-ranked replies.

    Paper: Koepf et al. 2023, arXiv:2304.07327
    """

    name = "oasst"
    sample_name = "sample.jsonl"
    sample = (
        '{"message_id": "1", "parent_id": null, "role": "prompter", "text": "A prime?", "lang": "en"}\n'
        '{"message_id": "2", "parent_id": "1", "role": "assistant", "text": "4", "lang": "en", "rank": 1}\n'
        '{"message_id": "3", "parent_id": "1", "role": "assistant", "text": "7", "lang": "en", "rank": 0}\n'
        '{"message_id": "4", "parent_id": "3", "role": "prompter", "text": "More?", "lang": "en"}\n'
        '{"message_id": "5", "parent_id": "4", "role": "assistant", "text": "11", "lang": "en", "rank": 0}\n'
    )

    @dataclass(frozen=True, kw_only=True)
    class Config(Reader.Config):
        language: str = ""
        """Language of the trees to keep, e.g. `en`; empty keeps all."""

    config: Config

    def parse(self, rows: Iterator[dict[str, Any]]) -> Iterator[Parsed | None]:
        replies: dict[str, list[dict[str, Any]]] = defaultdict(list)
        known: set[str] = set()
        for row in rows:
            parent = text_of(row, "parent_id", default="")
            replies[parent].append(row)
            known.add(text_of(row, "message_id"))
        for parent, orphans in replies.items():
            for _ in orphans if parent and parent not in known else ():
                self._count("whose parent is not in the file")
        for root in replies[""]:
            if self.config.language and root.get("lang") != self.config.language:
                yield None
                continue
            turns, node = [], root
            while True:
                role = ROLES.get(text_of(node, "role"))
                if role is None:
                    raise DataError(f"{node['#']}: role '{node['role']}' is none of {', '.join(ROLES)}")
                turns.append(Turn(role=role, text=text_of(node, "text").strip()))
                below = replies.pop(text_of(node, "message_id"), None)
                if not below:
                    break
                node = min(below, key=_rank)
            yield "oasst", turns


def _rank(row: dict[str, Any]) -> float:
    rank = row.get("rank")
    return float("inf") if rank is None else float(rank)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Oasst]
