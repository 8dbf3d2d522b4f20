"""Files that options name: their content is in the key, and the plan says what is not there."""

import dataclasses
import gzip
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness import Filter, Method, files_at, path_ref
from harness.axes.tokenizer import Tokenizer
from harness.errors import ChangedError, ConfigError, DataError
from harness.method import Choice
from harness.paths import MARK, PathRef, named
from harness.plan.files import Files, check_unchanged
from harness.plan.make import make_plan
from harness.registry.known import registry
from harness.run.outcome import from_exception, is_final
from harness.store import Store
from harness.store.contents import Contents

DECLARED = [
    (method, f.name)
    for method in registry().all()
    for f in dataclasses.fields(method.Config)
    if MARK in f.metadata
]


class Sheet(Filter):
    """A third party's method: a mapping, a list, and files inside a Config of its own."""

    name = "sheet"

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        @dataclasses.dataclass(frozen=True, kw_only=True)
        class Part:
            table: str = path_ref()

        tables: dict[str, Any] = path_ref(dict)
        parts: list[Part] = dataclasses.field(default_factory=list)
        label: str = "x"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def content(tmp_path: Path, method: type[Method], **options: Any) -> dict[str, str]:
    """What enters the key, as a plan of its own sees it."""
    choice = Choice(axis=method.axis, method=method, config=method.Config(**options))
    return Files(tmp_path / "cache.json").of("corpus", registry().stage("corpus").Config(), {"x": choice})


def folder_for(ref: PathRef, parent: Path) -> Path:
    """A folder with one file that the option reads."""
    folder = parent / "data"
    folder.mkdir(parents=True)
    (folder / f"page{(ref.suffixes or ('.txt',))[0]}").write_text("one")
    return folder


@pytest.mark.parametrize(("method", "option"), DECLARED, ids=lambda x: getattr(x, "__qualname__", x))
def test_content_of_every_option_that_names_files_enters_the_key(
    method: type[Method], option: str, tmp_path: Path
) -> None:
    ref = next(f.metadata[MARK] for f in dataclasses.fields(method.Config) if f.name == option)
    default = getattr(method.Config(), option)
    folder = folder_for(ref, tmp_path / "here")
    (file,) = folder.iterdir()

    beside = {"vocab_size": 300} if "vocab_size" in option_names(method) and default == "" else {}

    def seen(path: Path) -> dict[str, str]:
        if method.axis == "quantizer":
            return content(tmp_path, _plain(method), **{option: str(path)})
        value = [str(path)] if isinstance(default, list) else {"a": str(path)} if default == {} else str(path)
        return content(tmp_path, method, **{option: value}, **beside)

    path = file if ref.or_name and ref.suffixes else folder
    first = seen(path)
    assert first != content(tmp_path, method if method.axis != "quantizer" else _plain(method))
    file.write_text("two")  # as long as before, and as old
    os.utime(file, ns=(1, 1))
    second = seen(path)
    assert second != first
    os.utime(file, ns=(2, 2))
    assert seen(path) == second, "an older file of the same content"
    if path == folder:
        shutil.copy(file, folder / f"zwei{file.name}")
        assert seen(path) != second
        (folder / f"zwei{file.name}").unlink()
    shutil.move(folder, tmp_path / "data")
    assert seen(tmp_path / path.relative_to(tmp_path / "here")) == second, "the same files elsewhere"


def option_names(method: type[Method]) -> set[str]:
    return {field.name for field in dataclasses.fields(method.Config)}


def _plain(method: type[Method]) -> type[Method]:
    """The method without what it reads of the interpreter's own packages: the test's file is none."""
    return type(method.__name__, (method,), {"name": method.name, "reads": Method.reads})


def test_mappings_lists_and_inner_configs_of_a_third_party_are_found(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "c.csv"):
        (tmp_path / name).write_text(name)
    paths = {name: str(tmp_path / f"{name}.csv") for name in "abc"}
    options = {
        "tables": {"one": {"train": paths["a"], "test": [paths["b"]]}, "none": ""},
        "parts": [Sheet.Config.Part(table=paths["c"])],
    }
    found = content(tmp_path, Sheet, **options)
    where = "filter.sheet"
    assert {option: text.split()[0] for option, text in found.items()} == {
        f"{where}.tables.one.train": "a.csv",
        f"{where}.tables.one.test.0": "b.csv",
        f"{where}.parts.0.table": "c.csv",
    }
    assert content(tmp_path, Sheet, **options, label="y") == found, "other options are in the key anyway"
    with pytest.raises(ValueError, match=r"tables\.one=3 must be a path"):
        list(named(Sheet.Config(tables={"one": 3})))


def test_a_folder_s_links_are_followed_and_lead_nowhere_twice(tmp_path: Path) -> None:
    data, far = tmp_path / "data", tmp_path / "far"
    for folder in (data, far):
        folder.mkdir()
    (far / "page.txt").write_text("one")
    (data / "linked").symlink_to(far)
    (data / "up").symlink_to(data)
    (data / "broken.txt").symlink_to(tmp_path / "gone")
    assert [file.relative_to(data).as_posix() for file in files_at(str(data), option="x")] == [
        "linked/page.txt"
    ]
    first = content(tmp_path, Sheet, tables={"a": str(data)})
    (far / "page.txt").write_text("two")
    assert content(tmp_path, Sheet, tables={"a": str(data)}) != first


def test_a_name_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    win_rate = registry().get("evaluator", "win_rate")
    assert content(tmp_path, win_rate)["evaluator.win_rate.prompts"] == "instructions"
    hub = registry().get("corpus", "huggingface")
    assert content(tmp_path, hub, path="allenai/c4")["corpus.path"] == "allenai/c4"
    (tmp_path / "allenai" / "c4").mkdir(parents=True)
    (tmp_path / "allenai" / "c4" / "a.json").write_text("{}")
    assert content(tmp_path, hub, path="allenai/c4")["corpus.path"].startswith("c4/a.json ")
    assert content(tmp_path, hub, path="./nowhere")["corpus.path"] == "missing"


def test_a_pattern_names_the_files_that_match(tmp_path: Path) -> None:
    for name in ("2024/a.jsonl", "2024/b.jsonl", "2025/c.jsonl", "2025/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    found = files_at(f"{tmp_path}/*/*.jsonl", option="corpus.path")
    assert [file.name for file in found] == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert [f.name for f in files_at(f"{tmp_path}/**/[cd].*", option="x")] == ["c.jsonl", "d.txt"]
    with pytest.raises(DataError, match=r"x: no file in '.*nothing\*'"):
        files_at(f"{tmp_path}/nothing*", option="x")
    with pytest.raises(DataError, match=r"no file or folder '.*/a\.json' \(there is '.*/2024/a\.jsonl'\)"):
        files_at(f"{tmp_path}/2024/a.json", option="x")


def test_what_the_standard_library_holds_enters_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdlib = registry().get("corpus", "stdlib")
    first = content(tmp_path, stdlib)["corpus"]
    other = tmp_path / "b.py"
    other.write_text("x = 1\n")
    files = stdlib.reads(stdlib.Config())
    monkeypatch.setattr(stdlib, "reads", classmethod(lambda cls, config: {**files, "json/decoder.py": other}))
    assert content(tmp_path, stdlib)["corpus"] != first


def test_files_are_hashed_once_until_they_may_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one")
    hashed: list[Path] = []
    real = Contents.__module__
    import harness.store.contents as module

    monkeypatch.setattr(module, "_SETTLED", -1.0)
    whole = module.sha256_file
    monkeypatch.setattr(f"{real}.sha256_file", lambda path: hashed.append(path) or whole(path))
    contents = Contents(tmp_path / "cache.json")
    first = contents.sha256(file)
    contents.save()
    assert Contents(tmp_path / "cache.json").sha256(file) == first
    assert len(hashed) == 1
    stat = file.stat()
    file.write_text("two")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert Contents(tmp_path / "cache.json").sha256(file) != first, "as large and as old as before"


def test_a_file_that_has_just_changed_is_not_trusted_to_stay(tmp_path: Path) -> None:
    file, contents = tmp_path / "a.txt", Contents(tmp_path / "cache.json")
    file.write_text("one")
    contents.sha256(file)
    contents.save()
    assert not (tmp_path / "cache.json").exists()


def test_a_cut_file_asks_for_other_artifacts_and_a_restored_one_for_the_first(
    store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "f.jsonl"
    rows = [json.dumps({"text": f"row {n} of the file"}) + "\n" for n in range(300)]
    command = ["scale=smoke", "corpus=jsonl", f"corpus.path={file}", "stages=[corpus,tokenizer,tokens]"]

    def keys() -> tuple[str, ...]:
        return make_plan(command, store=store).cells[0].keys

    file.write_text("".join(rows))
    whole = keys()
    file.write_text("".join(rows[:100]))
    assert not set(keys()) & set(whole)
    file.write_text("".join(rows))
    assert keys() == whole


MISSING = [
    ("corpus=text", "corpus.path is empty; give"),
    ("corpus=jsonl corpus.path=nowhere.jsonl", "corpus.path: no file or folder 'nowhere.jsonl'"),
    ("corpus=huggingface corpus.path=./nowhere", "corpus.path: no file or folder './nowhere'"),
    (
        "tokenizer=pretrained tokenizer.path=nowhere tokenizer.vocab_size=300",
        "tokenizer.path: 'nowhere' is not a folder",
    ),
    ("filter=[classifier] filter.classifier.positive=good.txt", "filter.classifier.positive: no file or"),
    ("filter=[perplexity] filter.perplexity.reference=good.txt", "filter.perplexity.reference: no file or"),
    ("filter=[dedup_set] filter.dedup_set.files=[a.txt]", r"filter.dedup_set.files.0: no file or folder"),
    ("instruction=alpaca", "instruction.path is empty"),
    ("instruction=chat instruction.path=nowhere", "instruction.path: no file or folder 'nowhere'"),
    (
        "evaluator=[lm_eval] evaluator.lm_eval.include_path=nowhere",
        "evaluator.lm_eval.include_path: 'nowhere' is not a folder",
    ),
    (
        "evaluator=[lm_eval] +evaluator.lm_eval.data_files.recall.test=x.jsonl",
        "evaluator.lm_eval.data_files.recall.test: no file",
    ),
    ("evaluator=[win_rate] evaluator.win_rate.prompts=x.jsonl", "evaluator.win_rate.prompts: no file or"),
    (
        "generate.prompts=x.jsonl stages=[corpus,tokenizer,tokens,pretrain,generate]",
        "generate.prompts: no fi",
    ),
]


@pytest.mark.parametrize(("command", "said"), MISSING, ids=[command for command, _ in MISSING])
def test_files_that_are_not_there_are_refused_by_the_plan(command: str, said: str, store: Store) -> None:
    (cell,) = make_plan(["scale=smoke", *command.split()], store=store).cells
    assert said in cell.refused.replace("corpus.path: is empty", "corpus.path is empty").replace(
        "instruction.path: is empty", "instruction.path is empty"
    )


def test_a_folder_without_a_tokenizer_is_refused_by_the_plan(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    command = ["scale=smoke", "tokenizer=pretrained", f"tokenizer.path={folder}", "tokenizer.vocab_size=300"]
    (cell,) = make_plan(command, store=store).cells
    assert "holds no tokenizer_config.json" in cell.refused
    assert issubclass(registry().get("tokenizer", "pretrained"), Tokenizer)


def test_a_tokenizer_s_entries_are_asked_for_with_their_number(store: Store, tmp_path: Path) -> None:
    content = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 4}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    command = ["scale=smoke", "tokenizer=pretrained", f"tokenizer.path={tmp_path}"]
    with pytest.raises(ConfigError, match=r"tokenizer.vocab_size=0: state how many .*, at least 5, those of"):
        make_plan(command, store=store)
    with pytest.raises(ConfigError, match=r"needs tokenizer\.path=DIR and tokenizer\.vocab_size"):
        make_plan(command[:2], store=store)
    with pytest.raises(ConfigError, match=r"tokenizer\.path=nowhere holds no tokenizer\.json"):
        make_plan([*command[:2], "tokenizer.path=nowhere"], store=store)


def test_data_that_a_task_s_yaml_names_enter_its_key(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    rows, base = tmp_path / "rows.jsonl", tmp_path / "base.yaml"
    rows.write_text('{"q": 1}\n')
    base.write_text(f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {rows}}}}}\n")
    (tmp_path / "tasks" / "quiz.yaml").write_text(
        "task: quiz\ninclude: ../base.yaml\nprocess_results: !function utils.score\n"
    )
    (tmp_path / "tasks" / "all.yaml").write_text("group: all\ntask: [quiz]\n")
    lm_eval = registry().get("evaluator", "lm_eval")

    def seen() -> str:
        options = {"tasks": ["all"], "include_path": str(tmp_path / "tasks")}
        return content(tmp_path, lm_eval, **options)["evaluator.lm_eval"]

    first = seen()
    rows.write_text('{"q": 2}\n')
    second = seen()
    base.write_text(base.read_text() + "num_fewshot: 2\n")
    assert len({first, second, seen()}) == 3


def test_files_that_change_under_a_running_stage_fail_it_without_a_last_word() -> None:
    with pytest.raises(ChangedError, match=r"corpus\.path: .*run the same command again") as caught:
        check_unchanged({"corpus.path": "a.txt 1"}, {"corpus.path": "a.txt 2"})
    outcome = from_exception(caught.value, stage="corpus")
    assert outcome.status == "failed"
    assert not is_final(outcome, memory=1, limit=None, retry=frozenset())


def readers() -> list[Any]:
    """Methods that look into the files their options name, but those that only ask others to."""
    checked = [m for m in registry().all() if m.check_files.__func__ is not Method.check_files.__func__]  # type: ignore[attr-defined]
    return [method for method in checked if method.name != "mixture"]


@pytest.mark.parametrize("method", readers(), ids=lambda m: f"{m.axis}-{m.name}")
def test_a_reader_refuses_what_has_another_format_and_what_holds_nothing(method: Any, tmp_path: Path) -> None:
    options = {"answer": "reply"} if method.name == "question_answer" else {}
    file = tmp_path / ("a.txt" if method.name == "text" else "a.jsonl")
    # GSM8K's rows are questions with answers; no reader but that of questions reads them, and not as `reply`.
    file.write_bytes(b"\xff\xfe" if method.name == "text" else b'{"question": "2 + 2?", "answer": "4"}\n')
    with pytest.raises(DataError, match=str(file)):
        method.check_files(method.Config(path=str(file), **options))
    file.write_text("")
    with pytest.raises(DataError):
        method.check_files(method.Config(path=str(file), **options))


def test_the_plan_reads_the_first_entries_by_the_chosen_reader_and_remembers_them_by_content(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, alpaca = tmp_path / "f.jsonl", registry().get("instruction", "alpaca")
    command = ["scale=smoke", "instruction=alpaca", f"instruction.path={file}"]
    command += ["stages=[corpus,tokenizer,tokens,pretrain,instruct]", "seed=0,1"]
    read: list[Any] = []
    whole = alpaca.check_files

    def watched(cls: Any, config: Any) -> None:
        read.append(config)
        whole(config)

    monkeypatch.setattr(alpaca, "check_files", classmethod(watched))

    def said() -> list[str]:
        return [str(problem) for cell in make_plan(command, store=store).cells for problem in cell.problems]

    file.write_text('{"question": "2 + 2?", "answer": "4"}\n')
    assert (
        said()
        == [
            f"instruction: {file}, entry 0: no text under 'instruction', only ['answer', 'question']; "
            "try the reader of another format"
        ]
        * 2
    )
    file.write_text('{"instruction": "2 + 2?", "output": "4"}\n' * 9)
    read.clear()
    assert said() == said() == []
    assert len(read) == 1, "once for both cells, and not again by the next plan"
    file.write_text('{"question": "2 + 2?", "answer": "4"}\n' * 9)
    assert len(said()) == 2, "other content"


def test_the_plan_reads_the_files_of_a_mixture(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "f.jsonl"
    file.write_text('{"question": "2 + 2?", "answer": "4"}\n')
    command = ["scale=smoke", "instruction=[task,alpaca]", f"instruction.options={{alpaca:{{path:{file}}}}}"]
    (cell,) = make_plan([*command, "stages=[corpus,tokenizer,tokens,pretrain,instruct]"], store=store).cells
    assert [problem.where for problem in cell.problems] == ["instruction"]


BROKEN = {
    ".txt": (b"caf\xe9", "is not UTF-8: byte 0xe9 at offset 3"),
    ".jsonl": (b'{"text": "a"}\n{"text": \n', ":2: not JSON"),
    ".json": (b'[{"text": "a"}, ', "not JSON"),
    ".jsonl.gz": (gzip.compress(b'{"text": "a"}\n' * 99)[:-30], "is not a whole gzip file"),
    ".parquet": (b"PAR1" + b"\x00" * 64, "is not a whole Parquet file"),
}
"""By the ending of its name, a file that breaks off or is another's, and what is said of it."""
TEXTS = {"huggingface": (".jsonl",), "lm_eval": (".jsonl", ".gz")}
"""Endings of what a method reads whose option takes any file, where they are not those of texts."""
BESIDE: dict[str, Any] = {"fertility": {"languages": ["en"]}, "lm_eval": {"tasks": ["recall"]}}
READ = [
    (method, option, ending)
    for method, option in DECLARED
    if (option in ("path", "prompts") or not hasattr(method.Config, "path")) and method.axis != "quantizer"
    for ref in [next(f.metadata[MARK] for f in dataclasses.fields(method.Config) if f.name == option)]
    for ending in BROKEN
    if ending == ".txt" or not ref.suffixes or ending in ref.suffixes
    if any(ending.endswith(suffix) for suffix in ref.suffixes or TEXTS.get(method.name, (".txt",)))
]


def refusal(method: type[Method], config: Any) -> str:
    """What the plan says of a choice, by what reads its files."""
    try:
        method.check_files(config)
        return "; ".join(str(problem) for problem in method.check(config, cast(Any, NO_JUDGE), None))
    except (DataError, ConfigError) as error:
        return str(error)


NO_JUDGE = SimpleNamespace(choice=lambda axis: None, offline=True)


@pytest.mark.parametrize(("method", "option", "ending"), READ, ids=lambda x: getattr(x, "__qualname__", x))
def test_a_broken_file_is_found_by_the_plan(
    method: type[Method], option: str, ending: str, tmp_path: Path
) -> None:
    content, said = BROKEN[ending]
    file = tmp_path / f"en{ending}"
    file.write_bytes(content)
    folder = next(f.metadata[MARK].folder for f in dataclasses.fields(method.Config) if f.name == option)
    default = getattr(method.Config(), option)
    path = str(tmp_path if folder else file)
    value = [path] if isinstance(default, list) else {"recall": {"test": path}} if default == {} else path
    assert said in refusal(method, method.Config(**{option: value}, **BESIDE.get(method.name, {})))
