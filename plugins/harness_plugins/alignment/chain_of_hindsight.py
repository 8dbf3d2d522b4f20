"""Chain of hindsight: learning from both answers, told which is which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from harness import Alignment, ConfigError, LogProbs, Method, Preference, Role, Turn, as_turns, hookimpl


class ChainOfHindsight(Alignment):
    """Tuning on conversations that hold a bad and a good answer, each asked for by name.

    Paper: Liu et al. 2023, arXiv:2302.02676, section 3
    Differs: the hints stand in the user's turns, so that the chat template applies; no random masking
    """

    name = "chain_of_hindsight"
    needs_reference = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Alignment.Config):
        good_hint: str = "A good answer:"
        """Asks for the better answer; also closes every prompt at inference."""
        bad_hint: str = "A bad answer:"
        """Asks for the worse answer."""

        def __post_init__(self) -> None:
            if self.good_hint == self.bad_hint:
                raise ConfigError("alignment.good_hint and alignment.bad_hint must differ")

    config: Config

    def turns(self, preference: Preference) -> dict[str, tuple[Turn, ...]]:
        *before, asked = as_turns(preference.prompt)
        good = self.config.good_hint, preference.chosen
        bad = self.config.bad_hint, preference.rejected

        def story(first: tuple[str, str], second: tuple[str, str]) -> tuple[Turn, ...]:
            return (
                *before,
                Turn(role=Role.user, text=f"{asked.text}\n{first[0]}"),
                Turn(role=Role.assistant, text=first[1]),
                Turn(role=Role.user, text=second[0]),
                Turn(role=Role.assistant, text=second[1]),
            )

        return {"chosen": story(bad, good), "rejected": story(good, bad)}

    def prompt(self, text: str) -> str:
        return f"{text}\n{self.config.good_hint}"

    def loss(
        self, policy: Mapping[str, LogProbs], reference: Mapping[str, LogProbs]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return -(policy["chosen"].mean() + policy["rejected"].mean()) / 2, {}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ChainOfHindsight]
