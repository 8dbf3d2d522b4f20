"""Options of generation of lm-eval's tasks, as plans read them: imports neither lm-eval nor transformers."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

DEFAULT_ANSWER = 256
"""Tokens that lm-eval lets a model write where nothing is stated."""
ANSWER = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What lm-eval reads as the length of an answer, the first that is there."""
_OPTION = re.compile(r"self\.(\w+) = kwargs\.pop\(")


def answer_tokens(stated: Mapping[str, Any], options: Mapping[str, Any]) -> int | None:
    """Tokens of the longest answer that a task lets a model write, by its YAML and by options that win over
    its own; None where it lets it write none.
    """
    if stated.get("output_type") != "generate_until":
        return None
    asked = {**(stated.get("generation_kwargs") or {}), **one_length(options)}
    return next((int(asked[key]) for key in ANSWER if asked.get(key) is not None), DEFAULT_ANSWER)


def one_length(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of generation with the length of answers under the name that wins over all others."""
    stated = [options[name] for name in ANSWER if options.get(name) is not None]
    others = {name: value for name, value in options.items() if name not in ANSWER}
    return {**others, **({ANSWER[0]: stated[0]} if stated else {})}


def refused_options(options: Mapping[str, Any]) -> str:
    """What speaks against options of generation, e.g. of a task; empty where nothing does."""
    if "max_length" in options:
        return "max_length counts the prompt, which differs from item to item; give max_gen_toks"
    for name in ANSWER:
        if options.get(name) is not None and int(options[name]) < 1:
            return f"{name}={options[name]} must be at least 1"
    known = [*generation_options(), "until", *ANSWER]
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else "; see its GenerationConfig"
            return f"{name} is no option of transformers' generate{hint}"
    return ""


@lru_cache(maxsize=1)
def generation_options() -> tuple[str, ...]:
    """Options of transformers' generate, by the source of its GenerationConfig."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None and spec.origin is not None  # noqa: PT018 - one condition: it is installed
    source = Path(spec.origin).parent / "generation" / "configuration_utils.py"
    return tuple(dict.fromkeys(_OPTION.findall(source.read_text(encoding="utf-8"))))
