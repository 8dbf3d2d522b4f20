"""Filters against planted cases (precision and recall are printed) and against datatrove and datasketch."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from harness_plugins.filter._ngram import ByteNgram
from harness_plugins.filter.classifier import Classifier
from harness_plugins.filter.dedup_document import DedupDocument
from harness_plugins.filter.dedup_sentence import DedupSentence
from harness_plugins.filter.dedup_set import DedupSet
from harness_plugins.filter.keyword import Action, Keyword
from harness_plugins.filter.language import Language
from harness_plugins.filter.perplexity import Perplexity
from harness_plugins.filter.pii import Pii
from harness_plugins.filter.statistics import Statistics

from harness import Document, Filter, Split, text_surprise
from harness.axes.tokenizer import SPECIAL_TOKENS
from harness.data.tokenization import load_tokenizer, save_tokenizer

WORDS = [
    f"{a}{b}" for a in ("ka", "lo", "mi", "ne", "ru", "sa", "ti", "vo") for b in ("ber", "dan", "fel", "gor")
]


def prose(rng: random.Random, words: int) -> str:
    """Sentences of made-up words."""
    return " ".join(rng.choice(WORDS) + ("." if rng.random() < 0.1 else "") for _ in range(words))


def make(name: str, text: str, split: Split = Split.train) -> Document:
    return Document(id=name, text=text, domain="docs", split=split)


def scored(
    flagged: set[str], planted: set[str], what: str, capsys: pytest.CaptureFixture[str]
) -> tuple[float, float]:
    """Precision and recall, printed."""
    precision = len(flagged & planted) / max(1, len(flagged))
    recall = len(flagged & planted) / len(planted)
    with capsys.disabled():
        print(f"\n{what}: precision {precision:.3f}, recall {recall:.3f} of {len(planted)} planted")
    return precision, recall


def dropped(method: Filter, documents: Sequence[Document]) -> set[str]:
    return {d.id for d in documents} - {d.id for d in method.apply(iter(documents))}


def test_planted_near_copies_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(0)
    documents = [make(f"page/{n}", prose(rng, 200)) for n in range(150)]
    planted = set()
    for number in range(0, 150, 3):
        words = documents[number].text.split(" ")
        for _ in range(2):  # two of 200 words changed: Jaccard of 5-grams about 0.9
            words[rng.randrange(len(words))] = "changed"
        documents.append(make(f"copy/{number}", " ".join(words)))
        planted.add(f"copy/{number}")
    flagged = dropped(DedupDocument(), documents)
    precision, recall = scored(flagged, planted, "dedup_document", capsys)
    assert precision >= 0.98
    assert recall >= 0.95


def test_minhash_estimates_the_jaccard_similarity() -> None:
    datasketch = pytest.importorskip("datasketch")
    rng = random.Random(1)
    method = DedupDocument(DedupDocument.Config(ngram=1, bands=32, rows=8))
    list(method.apply(iter(())))
    ours, theirs = [], []
    for overlap in (0.1, 0.3, 0.5, 0.7, 0.9):
        shared = [f"s{n}" for n in range(int(300 * overlap))]
        own = [[f"{side}{n}" for n in range(300 - len(shared))] for side in "ab"]
        texts = [" ".join(rng.sample(part + shared, 300)) for part in own]
        exact = len(shared) / (600 - len(shared))
        first, second = (method.signature(text) for text in texts)
        oracle = [datasketch.MinHash(num_perm=256, seed=1) for _ in texts]
        for sketch, text in zip(oracle, texts, strict=True):
            for word in text.split():
                sketch.update(word.encode())
        ours.append(abs((first == second).mean() - exact))
        theirs.append(abs(oracle[0].jaccard(oracle[1]) - exact))
    limit = 3 * np.sqrt(0.25 / 256)
    assert max(ours) < limit, f"errors {ours}; datasketch's {theirs}"
    assert max(theirs) < limit


def test_copies_by_their_exact_similarity(capsys: pytest.CaptureFixture[str]) -> None:
    """Of 100 pairs in each tenth of the Jaccard similarity of 5-grams, how many are called copies."""
    rng, rows = random.Random(7), []
    for tenth in range(3, 10):
        called, exact = [], []
        while len(called) < 100:
            first = [f"w{rng.randrange(10**6)}" for _ in range(200)]
            shared = round(200 * rng.uniform(0.4, 0.99))
            second = first[:shared] + [f"w{rng.randrange(10**6)}" for _ in range(200 - shared)]
            sets = [{" ".join(part[i : i + 5]) for i in range(196)} for part in (first, second)]
            similarity = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
            if int(similarity * 10) == tenth:
                pair = [make("a", " ".join(first)), make("b", " ".join(second))]
                called.append("b" in dropped(DedupDocument(), pair))
                exact.append(similarity)
        found = 1 - (1 - np.array(exact) ** 8) ** 16
        rows.append((tenth / 10, float(np.mean(called)), float(found.mean())))
    above = [share for low, share, _ in rows if low >= 0.7]
    below = [share for low, share, _ in rows if low < 0.7]
    with capsys.disabled():
        print("\nJaccard from  called a copy  shares a band, by the formula")
        print("\n".join(f"{low:>12.1f}{share:>15.2f}{found:>17.2f}" for low, share, found in rows))
        print(f"threshold 0.7: precision {sum(above) / sum(above + below):.3f}, recall {np.mean(above):.3f}")
    assert rows[-1][1] == 1.0
    assert all(share == 0.0 for low, share, _ in rows if low < 0.6)
    assert sum(above) / sum(above + below) > 0.95
    for low, share, found in rows:
        if low >= 0.8:  # far above the threshold, what the bands find is what is called a copy
            assert abs(share - found) < 3 * (0.25 / 100) ** 0.5


def test_pages_of_one_template_cost_no_more_the_more_there_are() -> None:
    rng = random.Random(3)
    frame = prose(rng, 120)
    pages = [make(f"page/{n}", f"{frame} {prose(rng, 60)}") for n in range(3000)]
    copies = [make(f"copy/{n}", pages[n].text + " Thanks.") for n in range(0, 3000, 100)]
    method, compared = DedupDocument(), []
    list(method.apply(iter(())))
    flagged = set()
    for document in (*pages, *copies):
        before = method.compared
        flagged |= {document.id} if isinstance(method.judge(document), str) else set()
        compared.append(method.compared - before)
    assert sum(compared[100:200]) > 100, "the template fills bands"
    assert sum(compared[2900:3000]) < 1.5 * sum(compared[1400:1500])
    assert flagged == {copy.id for copy in copies}, "every copy is found, wherever its original stood"


def test_planted_contamination_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(2)
    test = [make(f"test/{n}", prose(rng, 60), Split.test) for n in range(20)]
    train = [make(f"train/{n}", prose(rng, 200)) for n in range(100)]
    planted = set()
    for number in range(0, 100, 5):
        quote = " ".join(test[number // 5].text.split(" ")[10:40])
        train[number] = make(f"train/{number}", f"{train[number].text} {quote.upper()} {prose(rng, 20)}")
        planted.add(f"train/{number}")
    flagged = dropped(DedupSet(), [*train, *test])
    precision, recall = scored(flagged, planted, "dedup_set", capsys)
    assert (precision, recall) == (1.0, 1.0)


def test_planted_personal_data_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    personal = {
        "mail": "Write to john.smith+lists@mail.example.co.uk today.",
        "phone": "Call +49 30 901820 or later.",
        "phone/us": "Dial (212) 736-5000 now.",
        "phone/fr": "Appelez le +33 1 42 68 53 00 demain.",
        "ip": "The server 8.8.4.4 answered.",
        "ip/end": "It was sent by 93.184.216.34.",
        "ip6/short": "Ask 2001:4860:4860::8888 for names.",
        "ip6/mapped": "[2023-12-04] ::ffff:93.184.216.34 - GET /index",
        "ip6": "It is 2001:4860:4860:0000:0000:0000:0000:8888 here.",
        "card": "Paid with 4111 1111 1111 1111 yesterday.",
        "iban": "Send it to DE89 3704 0044 0532 0130 00 please.",
        "ssn": "His number is 536-22-1840, he said.",
    }
    harmless = {
        "version": "Python 3.11.7 came in 2023-12-04 with 1.2.3.4.5 changes.",
        "local": "Listen on 127.0.0.1 or 192.168.0.1, port 8080.",
        "decorator": "@property and user@host are no addresses.",
        "number": "The number 1234 5678 9012 3456 has a wrong checksum; 10 000 000 is round.",
        "hash": "sha256 9f86d081884c7d65 and 0x7fff5fbff8c0",
        "code": "x = a[1:2] - b[-1]; range(100, 200, 300)",
        "iban": "GB00 WEST 1234 5698 7654 32 has a wrong checksum.",
        "screen": "Use icon@2x.png beside icon.png",
        "screen/new": "Use img@2x.avif, logo@1.5x.heic and sprite@3x.jxl",
        "remote": "git clone git@github.com:python/cpython.git",
        "ip6/mapped": "::ffff:127.0.0.1 asked",
        "pages": "See pages 200-300 4000 and 12-15",
        "time": "at 12:30:45 and 1:2, a::b, std::vector and x[::2]",
        "isbn": "ISBN 978-3-16-148410-0 and RFC 2822",
    }
    documents = [make(f"dirty/{k}", v) for k, v in personal.items()]
    documents += [make(f"clean/{k}", v) for k, v in harmless.items()]
    found = {d.id: d for d in Pii().apply(iter(documents))}
    flagged = {d.id for d in documents if found[d.id].text != d.text}
    precision, recall = scored(flagged, {d.id for d in documents if d.id.startswith("dirty")}, "pii", capsys)
    assert (precision, recall) == (1.0, 1.0), sorted(flagged)
    assert found["dirty/mail"].text == "Write to <EMAIL> today."


def test_personal_data_in_200_labelled_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = (Path(__file__).parent / "pii_lines.txt").read_text(encoding="ascii").splitlines()
    assert len(lines) == 200
    right, wrong, missed = Counter[str](), Counter[str](), Counter[str]()
    for line in lines:
        label, _, escaped = line.partition("\t")
        text = escaped.encode().decode("unicode_escape")
        (found,) = Pii().apply(iter([make("a", text)]))
        given = Counter(kind.lower() for kind in re.findall(r"<([A-Z]+)>", found.text))
        wanted = Counter(label.split()) - Counter(["-"])
        right, wrong, missed = right + (given & wanted), wrong + (given - wanted), missed + (wanted - given)
    precision = right.total() / (right + wrong).total()
    recall = right.total() / (right + missed).total()
    with capsys.disabled():
        print(f"\npii: precision {precision:.3f}, recall {recall:.3f} of {(right + missed).total()}")
        print(f"missed: {dict(missed)}, wrong: {dict(wrong)}")
    assert precision >= 0.99
    assert recall >= 0.99


def test_only_the_kinds_asked_for_are_masked() -> None:
    text = "jane@example.com, 8.8.8.8"
    (found,) = Pii(Pii.Config(kinds=["ip"])).apply(iter([make("a", text)]))
    assert found.text == "jane@example.com, <IP>"


def test_repeated_sentences_are_cut_and_the_rest_stays() -> None:
    shared = "All rights to this text are kept. Do not copy it in any form. Ask the owner of it first. "
    documents = [
        make("a", f"First page about files. {shared}"),
        make("b", f"Second page, on paths. {shared}End."),
    ]
    method = DedupSentence()
    first, second = method.apply(iter(documents))
    assert first == documents[0]
    assert second.text == "Second page, on paths. End."
    assert method.report.rewritten == 1


def test_sentences_without_spaces_are_cut_too() -> None:
    poem = "\u7532\u4e59\u4e19\u4e01\u3002\u5929\u5730\u7384\u9ec4\uff01\u5bd2\u6765\u6691\u5f80\uff1f"
    new = "\u65b0\u53e5\u5b50\u3002"
    first, second = DedupSentence().apply(iter([make("a", poem), make("b", new + poem)]))
    assert (first.text, second.text) == (poem, new)


def test_copies_are_copies_however_their_accents_are_coded() -> None:
    texts = (
        "caf\u00e9 \ufb01n de l\u2019ann\u00e9e, \uff11\uff12 euros",
        "cafe\u0301 fin de l\u2019anne\u0301e, 12 euros",
    )
    assert len(list(DedupDocument().apply(iter(make(str(i), text) for i, text in enumerate(texts))))) == 1


def test_sentences_are_all_of_the_text() -> None:
    from harness_plugins.filter.dedup_sentence import SENTENCE

    text = "One. Two!  Three?\n\nFour... and 3.5\nfive"
    assert "".join(SENTENCE.findall(text)) == text


def test_keywords_can_take_lines_alone() -> None:
    config = Keyword.Config(action=Action.remove_lines, words=["casino"])
    (found,) = Keyword(config).apply(iter([make("a", "good line\nbest CASINO here\nlast line\n")]))
    assert found.text == "good line\nlast line\n"


def test_languages_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("py3langid")
    english = [
        "The file could not be opened because it does not exist.",
        "Each of the names is looked up first.",
    ]
    others = [
        "Das Programm konnte die Datei nicht finden, weil sie fehlt.",
        "Le fichier ne peut pas etre ouvert car il n'existe pas.",
        "El archivo no se puede abrir porque no existe en el disco.",
        "Il file non puo essere aperto perche non esiste nel disco.",
    ]
    documents = [make(f"en/{n}", t) for n, t in enumerate(english)]
    documents += [make(f"xx/{n}", t) for n, t in enumerate(others)]
    flagged = dropped(Language(), documents)
    assert scored(flagged, {d.id for d in documents if d.id[:2] == "xx"}, "language", capsys) == (1.0, 1.0)


def gopher() -> Callable[[str], bool]:
    """datatrove's Gopher filter: whether a text stays."""
    pytest.importorskip("spacy")
    quality = pytest.importorskip("datatrove.pipeline.filters.gopher_quality_filter")
    data = pytest.importorskip("datatrove.data")
    method = quality.GopherQualityFilter(min_stop_words=2)
    return lambda text: method.filter(data.Document(text=text, id="x")) is True


def test_statistics_agree_with_datatrove() -> None:
    stays = gopher()
    rng = random.Random(3)
    running = (
        "the value of a name is the object that it was bound to by an assignment and it may be read with care"
    )
    texts = [
        " ".join(rng.choices(running.split(), k=120)),
        " ".join(rng.choices(running.split(), k=30)),
        " ".join(["the of and", *["x y z"] * 60]),
        " ".join(["the of and to", *["incomprehensibilities"] * 60]),
        "# " * 60 + running * 3,
        "\n".join(f"- the item of number {n} and more words" for n in range(20)),
        "\n".join(f"it is the end of line {n} and so on..." for n in range(20)),
        " ".join(["the of and", *["12345 6789"] * 60]),
        " ".join(["word", "other", "names"] * 40),
        " ".join([*prose(rng, 100).split(), "the", "and"]),
    ]
    ours = [make("a", text) in list(Statistics().apply(iter([make("a", text)]))) for text in texts]
    assert ours == [stays(text) for text in texts]
    assert 0 < sum(ours) < len(ours)


def test_the_classifier_keeps_what_is_like_its_reference() -> None:
    from pydoc_data.topics import topics

    text = topics["assert"] + topics["while"]
    spam = "Win a free prize! Click now, best casino bonus, cheap pills, order today! " * 4
    documents = [make("doc", text), *(make(f"spam/{n}", spam + str(n)) for n in range(5))]
    assert dropped(Classifier(), documents) == {f"spam/{n}" for n in range(5)}


def test_byte_ngrams_give_a_probability() -> None:
    model = ByteNgram(["abcabcabd" * 50])
    shares = [
        2 ** -(4 * model.bits_per_byte("xab" + chr(c)) - 3 * model.bits_per_byte("xab"))
        for c in range(1, 128)
    ]
    assert sum(shares) == pytest.approx(1.0, abs=0.05)
    assert shares[ord("c") - 1] > 0.5


def test_surprising_text_is_dropped_and_english_kept() -> None:
    rng = random.Random(4)
    noise = "".join(chr(rng.randrange(33, 126)) for _ in range(500))
    english = "The interpreter evaluates the expression and binds the result to the name on the left. " * 3
    method = Perplexity()
    assert dropped(method, [make("noise", noise), make("english", english)]) == {"noise"}
    assert method.report.reasons == {"too surprising": 1}


def test_a_models_surprise_is_its_loss(tmp_path: Path) -> None:
    import torch
    from harness_plugins.tokenizer.byte import Byte

    class Uniform(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
            from types import SimpleNamespace

            logits = torch.zeros(*input_ids.shape, 263) + self.weight
            logits[..., : len(SPECIAL_TOKENS)] = -torch.inf
            return SimpleNamespace(logits=logits)

    save_tokenizer(Byte().train(iter(())), tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert text_surprise(Uniform(), tokenizer, "some <|eos|> text " * 60, window=64) == pytest.approx(8.0)


def test_filters_leave_other_domains_alone() -> None:
    method = Statistics(Statistics.Config(domains=["web"]))
    assert dropped(method, [make("a", "short")]) == set()
    assert method.report.seen == 0


def test_texts_without_words_are_no_copies_of_each_other() -> None:
    texts = ["!!! ???", "--- ...", "\u2500\u2500\u2500 \u2502", "+++"]
    assert not dropped(DedupDocument(), [make(str(n), text) for n, text in enumerate(texts)])


def test_unspaced_scripts_are_read_by_characters() -> None:
    start = "\u6211\u4eec\u5728\u5317\u4eac\u5b66\u4e60\u673a\u5668\u5b66\u4e60\u7684\u65b9\u6cd5"
    text = "".join(chr(0x4E00 + 37 * n % 900) for n in range(200))
    near, far = text[:190] + start[:10], "".join(chr(0x5000 + 53 * n % 900) for n in range(200))
    found = dropped(DedupDocument(), [make("a", text), make("near", near), make("far", far)])
    assert found == {"near"}


@pytest.mark.parametrize(
    ("first", "last"),
    [("\u0e01", "\u0e2e"), ("\u3041", "\u3093"), ("\u1780", "\u17a2"), ("\u4e00", "\u4fff")],
)
def test_copies_are_found_in_scripts_without_spaces(first: str, last: str) -> None:
    """Thai, Japanese, Khmer and Chinese: one changed character of 300 is a copy, other text is none."""
    rng, letters = random.Random(2), [chr(code) for code in range(ord(first), ord(last) + 1)]
    text, other = ("".join(rng.choices(letters, k=300)) for _ in range(2))
    found = dropped(DedupDocument(), [make("a", text), make("near", text[:299] + first), make("far", other)])
    assert found == {"near"}


def test_a_benchmark_in_json_lines_is_read_as_text_not_as_source(tmp_path: Path) -> None:
    words = " ".join(f"w{number}\u00e9" for number in range(20))
    (tmp_path / "bench.jsonl").write_text(json.dumps({"q": {"text": [words]}}) + "\n")
    method = DedupSet(DedupSet.Config(files=[str(tmp_path / "bench.jsonl")]))
    assert "\\u00e9" in (tmp_path / "bench.jsonl").read_text(), "escaped, as json.dumps has it"
    assert dropped(method, [make("leak", f"Seen: {words}"), make("clean", "nothing of it")]) == {"leak"}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("IBAN BE68 5390 0754 7034 BIC GKCCBEBB", "IBAN <IBAN> BIC GKCCBEBB"),
        ("ES91 2100 0418 4502 0005 1332 SWIFT CAIX", "<IBAN> SWIFT CAIX"),
        ("PL61 1090 1014 0000 0712 1981 2874 PKO", "<IBAN> PKO"),
        ("de89-3704-0044-0532-0130-00", "<IBAN>"),
        ("NO93 8601 1117 947.", "<IBAN>."),
        ("at 1609459200008 and 1609459200000123 us", None),
        ("Maestro 6759 6498 2643 8453", "Maestro <CARD>"),
        ("2001:4860:4860::8888: refused", "<IP>: refused"),
        ("[2606:4700:4700::1111]:443 or 64:ff9b::8.8.8.8", "[<IP>]:443 or <IP>"),
        ("93.184.216.34: timed out", "<IP>: timed out"),
        ("1.2.3.4: Overview, 12:30:45, 00:1A:2B:3C:4D:5E, fe80::1%eth0, 64:ff9b::10.0.0.1", None),
        ("+33\u00a01\u202f42\u202f68\u202f53\u202f00", "<PHONE>"),
        ("+33 1 42 68 53 00/01", "<PHONE>/01"),
        ("+49 30/901820", "<PHONE>"),
        ("0033 1 42 68 53 00", "<PHONE>"),
        ("\uff0b81 3\u20133224\u20135000", "<PHONE>"),
        ("+1 (415) 555-2671x123, 415-555-2671 ext. 12", "<PHONE>, <PHONE>"),
        ("00123456789 and 0044 of 5000 pages", None),
        ("Office: 6502530000", "Office: <PHONE>"),
        (
            "Call me at 4155550123, or my cell phone number is 6502530000.",
            "Call me at <PHONE>, or my cell phone number is <PHONE>.",
        ),
        ("order number 6502530000, id 4155550123 and call_id=6502530000", None),
        ("call f(x) with key 6502530000 of the phone table; 6502530000 rows", None),
        ("phone 1700000000 and 0123456789", None),
        ("\u00f1andu@example.com, _x@example.com", "<EMAIL>, <EMAIL>"),
        ("user@example.xn--p1ai.", "<EMAIL>."),
        ("\u90ae\u7bb1jane@example.com", "\u90ae\u7bb1<EMAIL>"),
        ("pkg@1.0.0-beta.rc and lodash@4.17.21", None),
    ],
)
def test_personal_data_in_more_spellings(text: str, masked: str | None) -> None:
    (found,) = Pii().apply(iter([make("a", text)]))
    assert found.text == (masked or text)
