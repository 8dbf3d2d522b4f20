"""Stage decontaminate: what it drops, what it leaves, what enters its key, and what is said of it."""

import bz2
import gzip
import json
import lzma
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from harness.axes.corpus import Document, Split
from harness.axes.evaluator import Evaluator
from harness.axes.instruction import Conversation, Role, Turn
from harness.axes.reward import Preference
from harness.data import documents, lineage
from harness.errors import DataError
from harness.method import Choice
from harness.plan.make import make_plan
from harness.plan.plan import Plan
from harness.registry.known import registry
from harness.report.contamination import contamination_notes
from harness.report.record import Record
from harness.stage import Work
from harness.stages._leaks import with_item_texts, without_test_items
from harness.stages._training import TuningConfig
from harness.stages.decontaminate import Decontaminate
from harness.store import Store
from harness.training.settings import Budget, Unit

ITEM = "If Caf\u00e9 \u201cRoyal\u201d sells 48 cups in April and half as many in May, how many cups is that?"


def evaluator(name: str, **options: Any) -> Choice:
    method = registry().get("evaluator", name)
    return Choice(axis="evaluator", method=method, config=method.Config(**options))


def page(number: int, text: str = "", split: Split = Split.train) -> Document:
    own = " ".join(f"p{number}w{n}" for n in range(20))
    return Document(id=f"page/{number}", text=f"{own} {text} {own}", domain="web", split=split)


def run(root: Path, found: list[Document], *evaluators: Choice, **options: Any) -> dict[str, Any]:
    for name in ("in", "out"):
        (root / name).mkdir()
    facts = documents.write(root / "in", found)
    work = Work(
        stage="decontaminate",
        maker=Decontaminate,
        part="",
        config=Decontaminate.Config(**options),
        choices=Decontaminate.narrow("", {"evaluator": evaluators}),
        inputs={"documents": SimpleNamespace(path=root / "in", facts=facts)},  # type: ignore[dict-item]
        seed=0,
        device="cpu",
        out=root / "out",
        checkpoints=root,
        load=lambda key: pytest.fail("nothing to load"),
    )
    return Decontaminate().run(work)


def benchmark(root: Path) -> Choice:
    """A task on a file that JSON escapes: as bytes it shares nothing with a page."""
    file = root / "items.jsonl"
    file.write_text(json.dumps({"question": ITEM, "answer": "72"}) + "\n")
    assert "\\u00e9" in file.read_text()
    (root / "escaped.yaml").write_text(
        "task: escaped\ndataset_path: json\n"
        f"dataset_kwargs:\n  data_files:\n    test: {file}\n"
        "test_split: test\noutput_type: generate_until\n"
        "generation_kwargs:\n  max_gen_toks: 8\n"
        'doc_to_text: "{{question}}"\ndoc_to_target: "{{answer}}"\n'
        "metric_list:\n  - metric: exact_match\n"
    )
    return evaluator("lm_eval", tasks=["escaped"], include_path=str(root))


def test_items_of_a_task_are_dropped_as_parsed_text_however_often_they_stand(tmp_path: Path) -> None:
    leaks = [page(n, f"A puzzle: {ITEM.upper()}") for n in range(12)]
    clean = [page(n) for n in range(12, 30)]
    held_out = page(30, ITEM, Split.test)
    facts = run(tmp_path, [*leaks, *clean, held_out], benchmark(tmp_path))
    assert documents.read(tmp_path / "out") == [*clean, held_out]
    assert facts["decontaminated"] == {
        "seen": 30,
        "dropped": 12,
        "short_alike": 0,
        "ngram": 13,
        "by_source": {"task_items": 12},
        "item_ngrams": {"task_items": 7},  # of 19 words
    }
    assert facts["num_documents"] == {"train": {"web": 18}, "test": {"web": 1}}
    said = list(lineage.rows(tmp_path / "out"))
    assert [row["id"] for row in said] == [document.id for document in leaks]


def written(file: Path) -> str:
    """The item as a file of its container, escaped where that escapes."""
    rows = [{"prompt": ITEM, "answer": "72"}]
    if file.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), file)
        return str(file)
    text = json.dumps(rows) if ".json." in file.name else json.dumps(rows[0]) + "\n"
    packs: dict[str, Any] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    packs[".zst"] = lambda data: pa.compress(data, codec="zstd", asbytes=True)
    file.write_bytes(packs[file.suffix](text.encode()))
    return str(file)


@pytest.mark.parametrize("ending", ["jsonl.zst", "ndjson.gz", "json.bz2", "jsonl.xz", "parquet"])
@pytest.mark.parametrize(
    ("name", "option"),
    [("win_rate", "prompts"), ("win_rate", "answers"), ("generation", "prompts"), ("answers", "prompts")],
)
def test_items_of_every_evaluator_are_found_in_every_container(
    ending: str, name: str, option: str, tmp_path: Path
) -> None:
    chosen = evaluator(name, **{option: written(tmp_path / f"items.{ending}")})
    facts = run(tmp_path, [page(0, f"Seen: {ITEM.upper()}"), page(1)], chosen)
    assert facts["decontaminated"]["by_source"] == {"item_files": 1}


def test_phrases_that_many_documents_share_are_no_leak_of_held_out_text(tmp_path: Path) -> None:
    licence = " ".join(f"licence{n}" for n in range(20))
    secret = " ".join(f"secret{n}" for n in range(20))
    found = [page(n, licence) for n in range(11)] + [page(20, secret), page(21)]
    held_out = [page(30, f"{licence} {secret}", Split.test)]
    facts = run(tmp_path, found + held_out, evaluator("perplexity"))
    assert facts["decontaminated"]["dropped"] == 1
    assert [d.id for d in documents.read(tmp_path / "out", "train")] == [
        d.id for d in found if d.id != "page/20"
    ]


def test_where_nothing_is_dropped_the_documents_are_those_of_the_input(tmp_path: Path) -> None:
    facts = run(tmp_path, [page(0), page(1, split=Split.test)], evaluator("perplexity"))
    assert (tmp_path / "out" / documents.FILE).samefile(tmp_path / "in" / documents.FILE)
    assert facts["sha256"]
    assert facts["decontaminated"]["dropped"] == 0


def test_short_texts_that_stand_on_both_sides_are_counted_and_stay(tmp_path: Path) -> None:
    said = "Thank you very much!", "thank you, very much", "Thank you", "THANK you very much."
    found = [replace(page(number), text=text) for number, text in enumerate(said)]
    facts = run(tmp_path, [*found[:3], replace(found[3], split=Split.test)], evaluator("perplexity"))
    assert (facts["decontaminated"]["dropped"], facts["decontaminated"]["short_alike"]) == (0, 2)
    (note,) = contamination_notes([record(facts={"decontaminate": facts})])
    assert note.endswith("were dropped; 2 more are a test item of fewer than 8 words, and stay.")


def test_nothing_left_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"drops all 1 training documents.*decontaminate\.enabled=false"):
        run(tmp_path, [page(0, ITEM)], benchmark(tmp_path))


CHAIN = "stages=[corpus,decontaminate,tokenizer,tokens,pretrain,evaluate]"


def planned(root: Path, *overrides: str, chain: str = CHAIN) -> dict[str, str]:
    """Key by stage of the one cell."""
    plan: Plan = make_plan([chain, "scale=smoke", *overrides], store=Store(root / "store"))
    (cell,) = plan.cells
    assert not cell.refused, cell.refused
    return {plan.graph.nodes[key].stage: key for key in cell.keys}


def test_how_items_are_measured_trains_no_other_model_and_what_they_are_does(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    benchmark(folder)

    def asked(*more: str, evaluators: str = "perplexity,lm_eval", tasks: str = "escaped") -> dict[str, str]:
        options = [f"evaluator=[{evaluators}]", f"evaluator.lm_eval.include_path={folder}"]
        return planned(tmp_path, *options, f"evaluator.lm_eval.tasks=[{tasks}]", *more)

    first = asked()
    for same in (
        asked("evaluator.lm_eval.limit=3", "evaluator.lm_eval.num_fewshot=0"),
        asked("evaluator.perplexity.split=validation", "evaluator.perplexity.max_documents=3"),
        asked(evaluators="lm_eval,long_context"),
        asked(tasks="mqar,escaped"),
    ):
        assert same["pretrain"] == first["pretrain"]
    (folder / "items.jsonl").write_text(json.dumps({"question": "another one", "answer": "1"}) + "\n")
    changed = asked()
    assert changed["corpus"] == first["corpus"]
    assert changed["pretrain"] != first["pretrain"]


@pytest.mark.parametrize(
    "evaluators",
    [
        ["evaluator=[lm_eval]", "evaluator.lm_eval.tasks=[mqar,recall,copy,passkey,instruction_following]"],
        ["evaluator=[generation,efficiency]"],
        ["evaluator=[perplexity]", "decontaminate.enabled=false"],
    ],
)
def test_cells_without_text_to_look_for_have_no_such_stage(evaluators: list[str], tmp_path: Path) -> None:
    assert "decontaminate" not in planned(tmp_path, *evaluators)


def test_evaluators_that_read_test_documents_say_so() -> None:
    for name in ("perplexity", "divergence", "long_context", "ruler"):
        method = registry().get("evaluator", name)
        assert issubclass(method, Evaluator)
        (source,) = method.item_texts(method.Config())
        assert source.method.name == "held_out_documents", name


def record(**data: Any) -> Record:
    config = {"stages": ["corpus", "decontaminate"], "decontaminate": {"enabled": True}}
    return SimpleNamespace(data={"config": config, **data})  # type: ignore[return-value]


def test_a_report_says_how_many_were_dropped_or_that_nobody_looked() -> None:
    counts = {
        "seen": 3400,
        "dropped": 12,
        "ngram": 13,
        "by_source": {"held_out_documents": 2, "task_items": 11},
    }
    found = record(facts={"decontaminate": {"decontaminated": counts}})
    off = record(config={"stages": ["corpus", "decontaminate"], "decontaminate": {"enabled": False}})
    absent = record(config={"stages": ["corpus"], "decontaminate": {"enabled": True}})
    assert contamination_notes([found, found]) == [
        "Decontaminated: 12 of 3,400 training documents shared 13-grams with test items and were dropped "
        "(held out documents: 2, task items: 11)."
    ]
    assert contamination_notes([off]) == [
        "Training text was not compared with test items: decontaminate.enabled=false."
    ]
    assert contamination_notes([absent]) == [
        "Training text was not compared with test items: `stages` leaves out decontaminate."
    ]
    assert contamination_notes([record(config={"stages": ["corpus"]})]) == []  # from before there was one


def test_a_third_partys_stage_says_what_it_compares(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its contract, under its own name and that of its option."""
    from harness.registry import index as registry_index

    index = registry_index.read()
    own = {"needs": ["documents"], "produces": "documents", "decontaminates": "search", "moves_facts": []}
    learns = {**own, "produces": "model"}
    stages = index["stages"] | {"scrub": {**own, "key": "scrub"}, "filter": {**learns, "key": "filter_stage"}}
    monkeypatch.setattr(registry_index, "read", lambda: {**index, "stages": stages})
    not_compared = "was not compared with test items"
    options = {"decontaminate": {"enabled": True}, "scrub": {"search": True}}
    for listed, changed, said in (
        (["corpus", "scrub"], {}, []),
        (
            ["corpus", "scrub"],
            {"scrub": {"search": False}},
            [f"Training text {not_compared}: scrub.search=false."],
        ),
        (["corpus"], {}, [f"Training text {not_compared}: `stages` leaves out decontaminate and scrub."]),
        (
            ["filter"],
            {"filter": {}, "filter_stage": {"search": False}},
            [f"What filter learns {not_compared}: filter_stage.search=false."],
        ),
        (
            ["reward@second"],
            {"reward": None, "reward_stage_second": {"decontaminate": False}},
            [f"What reward@second learns {not_compared}: reward_stage_second.decontaminate=false."],
        ),
    ):
        assert contamination_notes([record(config={**options, **changed, "stages": listed})]) == said


def tuning(root: Path, *evaluators: Choice, corpus: Path | None = None, **options: Any) -> Work:
    """What a stage that learns from conversations is handed."""
    (root / "tuned").mkdir()
    return Work(
        stage="instruct",
        maker=registry().stage("instruct"),
        part="",
        config=TuningConfig(learning_rate=1e-3, budget=Budget(unit=Unit.steps, amount=1), **options),
        choices=with_item_texts({"evaluator": evaluators}),
        inputs={} if corpus is None else {"documents": SimpleNamespace(path=corpus)},  # type: ignore[dict-item]
        seed=0,
        device="cpu",
        out=root / "tuned",
        checkpoints=root,
        load=lambda key: pytest.fail("nothing to load"),
    )


def asked(name: str, question: str, answer: str, split: Split = Split.train) -> Conversation:
    turns = Turn(role=Role.user, text=question), Turn(role=Role.assistant, text=answer)
    return Conversation(id=name, turns=turns, source="web", split=split)


def test_conversations_that_hold_test_items_are_not_learned(tmp_path: Path) -> None:
    first, second = ITEM[: len(ITEM) // 2], ITEM[len(ITEM) // 2 :]
    found = [
        asked("question", f"Please solve this. {ITEM}", "72"),
        asked("answer", "Repeat the riddle.", ITEM.lower()),
        asked("halves", first, second),  # what no turn holds alone
        asked("clean", "How many cups are there?", "Nobody knows."),
        asked("held out", ITEM, "72", Split.validation),
    ]
    work = tuning(tmp_path, benchmark(tmp_path), evaluator("perplexity"))
    kept, facts = without_test_items(work, found)
    assert [conversation.id for conversation in kept] == ["clean", "held out"]
    assert facts["decontaminated"]["seen"] == 4
    assert facts["decontaminated"]["dropped"] == 3
    assert [row["id"] for row in lineage.rows(work.out)] == ["question", "answer", "halves"]
    note = contamination_notes([record(facts={"instruct": facts})])
    assert note[0].startswith("Decontaminated: 3 of 4 training entries of instruct shared 13-grams")


def test_preferences_are_compared_with_both_answers(tmp_path: Path) -> None:
    found = [
        Preference(id="prompt", prompt=ITEM, chosen="72", rejected="71"),
        Preference(id="rejected", prompt="Say it.", chosen="No.", rejected=ITEM),
        Preference(id="clean", prompt="Say it.", chosen="No.", rejected="Yes."),
    ]
    kept, facts = without_test_items(tuning(tmp_path, benchmark(tmp_path)), found)
    assert [preference.id for preference in kept] == ["clean"]
    assert facts["decontaminated"]["by_source"] == {"task_items": 2}


def test_conversations_are_compared_with_held_out_documents_where_there_is_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    documents.write(tmp_path / "in", [page(1, split=Split.test)])
    leak = asked("leak", "What does the page say?", " ".join(f"p1w{n}" for n in range(20)))
    clean = asked("clean", "What?", "Nothing.")
    work = tuning(tmp_path, evaluator("perplexity"), corpus=tmp_path / "in")
    assert without_test_items(work, [leak, clean])[0] == [clean]
    (tmp_path / "without").mkdir()
    assert without_test_items(tuning(tmp_path / "without", evaluator("perplexity")), [leak]) == ([leak], {})


def test_conversations_are_left_alone_where_that_is_asked_for(tmp_path: Path) -> None:
    leak = asked("leak", ITEM, "72")
    work = tuning(tmp_path, benchmark(tmp_path), decontaminate=False)
    assert without_test_items(work, [leak]) == ([leak], {})
    config = {"stages": ["instruct"], "instruct": {"decontaminate": False}}
    assert contamination_notes([record(config=config)]) == [
        "What instruct learns was not compared with test items: instruct.decontaminate=false."
    ]


def test_nothing_left_to_tune_on_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"all 1 training entries of instruct.*instruct\.decontaminate=false"):
        without_test_items(tuning(tmp_path, benchmark(tmp_path)), [asked("leak", ITEM, "72")])


def test_items_enter_the_key_of_tuning_and_how_they_are_measured_does_not(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    benchmark(folder)
    chain = "stages=[corpus,tokenizer,tokens,pretrain,instruct,align,evaluate]"
    place = f"evaluator.lm_eval.include_path={folder}"
    task = [place, "evaluator=[lm_eval]", "evaluator.lm_eval.tasks=[escaped]"]
    first = planned(tmp_path, "alignment=dpo", *task, chain=chain)
    same = planned(tmp_path, "alignment=dpo", *task, "evaluator.lm_eval.limit=3", chain=chain)
    other = planned(tmp_path, "alignment=dpo", "evaluator=[perplexity]", chain=chain)
    for stage in ("instruct", "align"):
        assert first[stage] == same[stage]
        assert first[stage] != other[stage]
    assert first["pretrain"] == other["pretrain"]
