"""Privacy filter: finds personal data by rule and masks it."""

import contextlib
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from pathlib import Path

from harness import UNSPACED, ConfigError, Document, Filter, Method, Split, hookimpl

FILE_ENDINGS = frozenset(
    ["png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "bmp", "css", "js", "json", "html", "py"]
)
"""Endings that no address has as its last part."""


NO_HOST = re.compile(r"\d+(?:\.\d+)?x\.|\d+\.\d+\.\d")
"""How the name of a file goes on after the sign in `icon@2x.avif`, and a version in `name@1.0.0-beta.rc`."""
ABROAD = re.compile(r"^(?:\+|\uff0b|00)")
ASSIGNED = ipaddress.ip_network("2000::/3")
"""Of IPv6, what is assigned to hosts; `a::b` in source code is an address, too, but nobody's."""
TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv4 as hosts that know IPv6 alone see it (RFC 6052)."""
ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11,16}|35\d{14,17}|6\d{15,18}|50(?:18|20|38)\d{9,15}"
)
"""Numbers of Visa, Mastercard, American Express, Diners, JCB, Discover, UnionPay and Maestro."""
IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL", 19: "MK SI", 20: "AT BA EE KZ LT LU XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU", 31: "MT SC", 32: "LC",
    }.items()
    for country in countries.split()
}  # fmt: skip
"""Letters and digits of each country's numbers (SWIFT's registry)."""


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
            pattern, counts = RULES[kind]
            text = pattern.sub(partial(_masked, kind=kind, counts=counts), text)
        if text == document.text:
            return document
        return replace(document, text=text) if self.config.action is Action.mask else "personal data"


def _masked(found: re.Match[str], *, kind: str, counts: Callable[[str, str], int]) -> str:
    length = counts(found[0], found.string[max(0, found.start() - NEAR) : found.start()])
    return f"<{kind.upper()}>{found[0][length:]}" if length else found[0]


def _public(text: str, before: str) -> int:
    length = len(text) - (text.endswith(":") and not text.endswith("::"))  # "2001:4860::8888: refused"
    try:
        address = ipaddress.ip_address(text[:length])
    except ValueError:
        return 0
    if address in TRANSLATED:
        address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    address = getattr(address, "ipv4_mapped", None) or address
    return length if address.is_global and (address.version == 4 or address in ASSIGNED) else 0


def _card(text: str, before: str) -> int:
    """A number of an issuer with a right check digit (Luhn); times in milliseconds are of none."""
    number = "".join(c for c in text if c.isdigit())
    total = sum(int(d) if i % 2 == 0 else sum(divmod(2 * int(d), 10)) for i, d in enumerate(number[::-1]))
    return len(text) if ISSUED.fullmatch(number) and total % 10 == 0 and len(set(number)) > 1 else 0


def _whole(text: str, before: str) -> int:
    return len(text)


def _iban(text: str, before: str) -> int:
    """As many letters and digits as the country's have, up to the end of a group, with a right checksum."""
    places = [place for place, c in enumerate(text) if c.isalnum()]
    size = IBAN_LENGTHS.get(text[:2].upper(), 0)
    if not 0 < size <= len(places):
        return 0
    end = places[size - 1] + 1
    code = "".join(text[place] for place in places[:size])
    right = int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1
    return end if right and not text[end : end + 1].isalnum() else 0


def _address(text: str, before: str) -> int:
    """Not `icon@2x.png`, a file for screens of twice the density, `git@host:path` of a program, nor the
    version of a package, `name@1.0.0-beta.rc`.
    """
    user, _, host = text.rpartition("@")
    if user == "git" or NO_HOST.match(host) or text.rpartition(".")[2].lower() in FILE_ENDINGS:
        return 0
    return len(text)


def _telephone(text: str, before: str) -> int:
    """A number that its country's plan has; without a country, one of the United States, in groups.

    Ten digits in a row are more often a number of something else, and count where words say what they are.
    """
    import phonenumbers

    if text.isdigit() and len(text) == 10 and not CALLED.search(before):
        return 0
    abroad = text.startswith(("+", "\uff0b", "00"))
    for said in (text, text.rpartition("/")[0]):  # "+33 1 42 68 53 00/01"
        with contextlib.suppress(phonenumbers.NumberParseException):
            number = phonenumbers.parse(
                ABROAD.sub("+", said.replace("\u202f", " ")), None if abroad else "US"
            )
            if phonenumbers.is_valid_number(number):
                return len(said)
    return 0


NUMBERED = "".join(
    f"(?<![{word[0].upper()}{word[0]}]{word[1:]} )" for word in ("section", "version", "chapter")
)
"""Not behind a word that numbers parts with dots."""
SPELLED = rf"[^\W{UNSPACED}]"
"""What names of addresses are made of; Chinese may stand before one without a space."""
QUAD = r"\d{1,3}(?:\.\d{1,3}){3}"
GAP = " ().\u00a0\u202f\u2011\u2013/-"
"""What stands between groups of a telephone number."""
NEAR = 40
"""Characters before a find that may say what it is."""
CALLED = re.compile(
    r"\b(?:(?:tele|cell)?phone|tel|cell|mobile|fax|call(?:ed)?|dial|ring|text|whatsapp|office)\b"
    r"(?:\W{1,3}(?:me|us|him|her|them|at|on|is|to|under|via|numbers?|no|nr)\b){0,4}\W{1,4}\Z",
    re.IGNORECASE,
)
"""Words of telephones before a number, which presidio's recognizer wants near one that is not sure."""
RULES: dict[str, tuple[re.Pattern[str], Callable[[str, str], int]]] = {
    "email": (
        re.compile(
            rf"(?<![.'%+-])(?<!{SPELLED}){SPELLED}(?:{SPELLED}|[.'%+-])*"
            r"@(?:[\w-]+\.)+(?:xn--[A-Za-z0-9-]*[A-Za-z0-9]|[^\W\d_]{2,})\b"
        ),
        _address,
    ),
    "iban": (
        re.compile(r"\b[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]{4}){2,7}(?:[ -]?[A-Za-z0-9]{1,3})?\b"),
        _iban,
    ),
    "card": (
        re.compile(r"(?<![\d.-])(?:\d{4}(?:[ -]?\d{4}){2}[ -]?\d{1,7}|\d{4}[ -]\d{6}[ -]\d{4,5})(?![\d-])"),
        _card,
    ),
    "ssn": (re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])"), _whole),
    "ip": (
        re.compile(
            rf"(?<![\w.:]){NUMBERED}(?:{QUAD}(?!\.?\w|:\D|:\d+:)|(?=[\d.]*\d{{3}}){QUAD}(?!\.?\w|:\d+:)"
            rf"|(?:[0-9A-Fa-f]{{0,4}}:){{2,7}}(?:{QUAD}|[0-9A-Fa-f]{{0,4}})(?![\w:]))"
        ),
        _public,
    ),
    "phone": (
        re.compile(
            rf"(?<![\w.+-])(?:(?:[+\uff0b]|00(?=\d+[ -]))\d[\d{GAP}]{{6,22}}\d"
            r"|(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4}|[2-9]\d{2}[2-9]\d{6})"
            r"(?: ?(?:x|ext\.?) ?\d{1,6})?(?![\w-])"
        ),
        _telephone,
    ),
}
"""Kind -> what it looks like, and how much of it, from its start, is one."""


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Pii]
