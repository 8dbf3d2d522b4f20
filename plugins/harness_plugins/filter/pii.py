"""Privacy filter: finds personal data by rule and masks it."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from pathlib import Path

from harness import ConfigError, Document, Filter, Method, Split, hookimpl

FILE_ENDINGS = frozenset(
    ["png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "bmp", "css", "js", "json", "html", "py"]
)
"""Endings that no address has as its last part."""


DENSITY = re.compile(r"\d+(?:\.\d+)?x\.")
"""How the name of a file goes on after the sign in `icon@2x.avif`."""
ASSIGNED = ipaddress.ip_network("2000::/3")
"""Of IPv6, what is assigned to hosts; `a::b` in source code is an address, too, but nobody's."""


class Action(Enum):
    """What happens to a document with personal data."""

    mask = "mask"
    """Each find is replaced by `<KIND>`."""
    drop = "drop"
    """The document goes."""


class Pii(Filter):
    """E-mail addresses, telephone numbers, public IP addresses, payment cards, IBANs, US social security
    numbers; cards and IBANs count only with a right checksum, telephone numbers only as their plan has them.

    Paper: survey section 4.1.2 (rule-based privacy redaction); Laurencon et al. 2023, arXiv:2303.03915
    """

    name = "pii"

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        kinds: list[str] = field(default_factory=lambda: list(RULES))
        """Which of email, iban, card, ssn, ip, phone to look for, in this order."""
        action: Action = Action.mask
        """What happens to a find."""

        def __post_init__(self) -> None:
            unknown = sorted(set(self.kinds) - set(RULES))
            if unknown or not self.kinds:
                raise ConfigError(f"filter.pii.kinds={list(self.kinds)} must name some of {list(RULES)}")

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> tuple[Config, Document, Document]:
        clean = (
            "Version 3.11.7 of 2023-12-04 binds 127.0.0.1:8080; see PEP 3333, @decorator and 1234567890123.\n"
        )
        dirty = "Write to jane.doe@example.com or call +1 (415) 555-2671.\n"
        return (
            cls.Config(),
            Document(id="clean", text=clean, domain="docs", split=Split.train),
            Document(id="dirty", text=dirty, domain="docs", split=Split.train),
        )

    def judge(self, document: Document) -> Document | str:
        text = document.text
        for kind in self.config.kinds:
            pattern, holds = RULES[kind]
            text = pattern.sub(partial(_masked, kind=kind, holds=holds), text)
        if text == document.text:
            return document
        return replace(document, text=text) if self.config.action is Action.mask else "personal data"


def _masked(found: re.Match[str], *, kind: str, holds: Callable[[str], bool]) -> str:
    return f"<{kind.upper()}>" if holds(found[0]) else found[0]


def _public(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_global and (address.version == 4 or address in ASSIGNED)


def _luhn(text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()][::-1]
    total = sum(d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits))
    return len(digits) >= 13 and total % 10 == 0 and len(set(digits)) > 1


def _iban(text: str) -> bool:
    code = text.replace(" ", "")
    return int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1


def _address(text: str) -> bool:
    """Not `icon@2x.png`, a file for screens of twice the density, nor `git@host:path` of a program."""
    user, _, host = text.rpartition("@")
    if user == "git" or DENSITY.match(host):
        return False
    return text.rpartition(".")[2].lower() not in FILE_ENDINGS


def _telephone(text: str) -> bool:
    """A number that its country's plan has; without a country, one of the United States, in groups.

    Ten digits in a row are more often a number of something else.
    """
    import phonenumbers

    try:
        number = phonenumbers.parse(text, None if text.startswith("+") else "US")
    except phonenumbers.NumberParseException:
        return False
    return bool(phonenumbers.is_valid_number(number))


def _always(text: str) -> bool:
    return True


PARTS = ("section", "version", "chapter")
NUMBERED = "".join(
    f"(?<![{word[0].upper()}{word[0]}]{word[1:]} )" for word in ("section", "version", "chapter")
)
"""Not behind a word that numbers parts with dots."""
RULES: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (
        re.compile(r"\b[A-Za-z0-9][\w.'%+-]*@(?:[\w-]+\.)+[^\W\d_]{2,}\b"),
        _address,
    ),
    "iban": (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), _iban),
    "card": (
        re.compile(r"(?<![\d.-])(?:\d{4}(?:[ -]?\d{4}){2}[ -]?\d{1,7}|\d{4}[ -]\d{6}[ -]\d{4,5})(?![\d-])"),
        _luhn,
    ),
    "ssn": (re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])"), _always),
    "ip": (
        re.compile(
            rf"(?<![\w.:]){NUMBERED}(?:\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?!\.?\w|:\D|:\d+:)"
            r"|(?:[0-9A-Fa-f]{0,4}:){2,7}(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4})(?![\w:]))"
        ),
        _public,
    ),
    "phone": (
        re.compile(
            r"(?<![\w.+-])(?:\+\d[\d ().-]{6,22}\d"
            r"|(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4})(?![\w-])"
        ),
        _telephone,
    ),
}
"""Kind -> what it looks like, and what must hold besides. Versions and dates must not match."""


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Pii]
