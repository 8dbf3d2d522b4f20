"""A bad config gets one message that says where, what is wrong, and what would work."""

from pathlib import Path

import pytest

from harness.compose import compose
from harness.compose import hydra as composition
from harness.errors import ConfigError

CASES = {
    "attention=groupd_query": "No attention method is called 'groupd_query'. Did you mean 'grouped_query'?",
    "evaluator=[perplexty]": "Did you mean 'perplexity'? Known: ",
    "atention=full": "No config key is called 'atention'. Did you mean 'attention'?",
    "corpus.max_byte=3": "No option of corpus=stdlib is called 'max_byte'. Did you mean 'max_bytes'? Known: ",
    "corpus.max_bytes=abc": "corpus.max_bytes=abc: Value 'abc' of type 'str' could not be converted",
    "seed=1.5": "seed=1.5: Value '1.5' of type 'float' could not be converted to Integer",
    "device=gpu": "device=gpu: Invalid value 'gpu', expected one of [auto, cpu, cuda]",
    "attention.window=3": "No option of attention=full is called 'window'",
    "attention.kernel=fast": "attention.kernel=fast: Invalid value 'fast', expected one of [auto, math",
    "attention.method=flash": "would keep the options of another method; choose it with attention=flash",
    "alignment=null": "alignment=null leaves alignment undefined; use alignment=none",
    "pretrain=x": "pretrain=x: pretrain holds options; set one of them, e.g. pretrain.",
    "corpus_stage=null": "corpus_stage holds options; set one of them",
    "pretrain.learning_rate=${oc.env:NONE_SUCH}": "pretrain.learning_rate: KeyError raised while resolving "
    "interpolation: \"Environment variable 'NONE_SUCH' not found\"",
    "scale=null": "scale=null: scale is one of full, mini, real, smoke; leave it out for its default",
    "report=null": "report=null: report is one of ability, alignment,",
    "~report": "~report: report is one of ability, alignment,",
    "~tune": "~tune leaves tune undefined; use tune=null",
    "~claims": "~claims leaves claims undefined; use claims=[]",
    "~seed": "~seed leaves seed undefined; use seed=0",
    "~stages": "~stages leaves stages undefined; use stages=[corpus,",
    "evaluator=null": "use evaluator=[perplexity]",
    "filter=null": "use filter=[]",
    "tokenizer.vocab_size=0": "tokenizer.vocab_size=0 must be at least 1",
    "extend.sequence_length=0": "extend.sequence_length=0 must be positive",
    "evaluate.max_length=0": "evaluate.max_length=0 must be at least 1, or null for what the model states",
    "optimizer.eps=-1": "optimizer.eps=-1.0 must not be negative",
    "optimizer.eps=nan": "optimizer.eps=nan must be a finite number",
    "pretrain.budget.amount=0": "pretrain.budget.amount=0.0 must be positive and finite",
    "~pretrain.learning_rate": "would leave pretrain.learning_rate without a value; set it",
    "--info": "--info is no flag of this command (--help lists them); Hydra's own, as -m",
    "~optimizer": "~optimizer leaves optimizer undefined",
    "attention=full,flash": "has several values; one run takes one, `harness sweep` takes all",
    "attention=[full,flash]": "attention takes one method",
    "evaluator=[perplexity,perplexity]": "names perplexity twice",
    "stages=[corpus,toknizer]": "No stage is called 'toknizer'. Did you mean 'tokenizer'?",
    "stages=[instruct,instruct]": "name the second use, e.g. 'instruct@chat'",
    "experiment=nope": "No experiment is called 'nope'",
    "model=mimi": "No model is called 'mimi'. Did you mean 'mini'?",
    "model.dimm=4": "No option of model is called 'dimm'. Did you mean 'dim'?",
    "model.qk_norm=true": "No option of model is called 'qk_norm'",
    "scale=smol": "No scale is called 'smol'. Did you mean 'smoke'?",
    "optimizer@corpus_stage.optimizer=adamw": "no stage takes optimizer there; known: optimizer@pretrain",
    "attention@pretrain.attention=full": "no stage takes attention there; known: none, as all stages take",
    "overlay=x": "overlay=x: an overlay is what one scale changes in one experiment",
    "+scale=smoke": "+scale=smoke: scale is there already; choose without +, scale=smoke",
    "++attention=linear": "attention is there already; choose without +, attention=linear",
    "+pretrain.batch_size=4": "is there already; choose without +, pretrain.batch_size=4",
    "++nonsense=1": "No config key is called 'nonsense'",
    "attention": "'attention' is no override",
    "pretrain.budget.unit=parsecs": "pretrain.budget.unit=parsecs: Invalid value 'parsecs', expected one of",
    "seed.x=3": "seed.x=3: seed is 0, which has no parts; state it as a whole, seed=...",
    "stages.x=3": "stages.x=3: stages is ['corpus', ",
    "stages=[[a]]": "stages.0 is a list, not text; write e.g. 'stages=[corpus,tokenizer]'",
    "stages={a: b}": "stages is a mapping, not a list; write e.g. stages=[A,B]",
    "where_chosen=3": "where_chosen is an integer (3), not a mapping; write e.g. where_chosen={KEY: VALUE}",
    "at_most.pretrain.batch_size=3": "write 'at_most={pretrain.batch_size: VALUE}', as its keys have dots",
    "at_most={pretrain.batch_size: [1]}": "at_most.pretrain.batch_size is a list, not a number",
    "at_most={pretrain.batch_size: -1}": "at_most.pretrain.batch_size=-1.0 bounds nothing",
    "where_chosen={corpus.stdlib.max_bytes: [1]}": "where_chosen.corpus.stdlib.max_bytes: Value '[1]'",
    "pretrain.stabilizers=clip_norm": "pretrain.stabilizers takes a list, e.g. pretrain.stabilizers=[A,B]",
    "pretrain.stabilizers={a: 3}": "pretrain.stabilizers takes a list",
    "align.optimizer=lion": "align.optimizer=lion chooses no optimizer; write optimizer@align.optimizer=lion",
    "+align.optimizer.eps=1": "chooses no optimizer; write optimizer@align.optimizer=NAME",
    "align.optimizer.eps=1": "align has no optimizer of its own, and takes the root's; set optimizer.eps, or",
    "model.path=x": "model.path=x stands beside a model that is built here; write model=pretrained",
    "model.path=[x]": "model.path=[x]: Cannot convert 'list' to string",
    "model.import=true": "model.import=true changes nothing: it imports the model at model.path, and none",
    "model.fetch=x": "only a preset says where its model comes from, e.g. model=smollm2_135m",
    "=3": "'=3' names no key; write key=value",
    "~": "'~' names no key",
    "demo": "'demo' is no override; write key=value; an experiment is chosen by experiment=demo",
    "./my.yaml": "write key=value; an experiment is chosen by experiment=./my.yaml",
    "report=ability": "`harness report SWEEP --table ability`, or in an experiment's file, `report: ability`",
    "seeds=3": "seeds is an integer (3), not a list; write e.g. seeds=[0,1]",
    "seed=[0,1]": "`harness sweep` compares several, seed=a,b",
    "pretrain.budget=3": "write e.g. pretrain.budget.unit=... pretrain.budget.amount=...",
    "learning_rate=3": "No config key is called 'learning_rate'; options of that name: pretrain.l",
    "max_documents=3": "evaluator.perplexity.max_documents",
    "seed=-1": "seed=-1 must lie between 0 and 4294967295",
    "base_seed=4294967296": "base_seed=4294967296 must lie between 0 and 4294967295",
    "threads=100000": "threads=100000 must lie between 1 and 1024",
    "pretrain.threads=0": "pretrain.threads=0 must lie between 1 and 1024",
    "+attention=full": "+attention=full: attention is there already; choose without +, attention=full",
    "optimizer@align.optimizer=null": "leave it out, and the root's optimizer is taken",
    "seeds=null": "seeds=null: seeds is never null; state a value, or leave it out for its default",
    "evaluator.lm_eval.tasks=x": "lm_eval is not chosen; add it, e.g. evaluator=[lm_eval]",
}


@pytest.mark.parametrize(("override", "message"), CASES.items(), ids=CASES)
def test_it_says_where_what_and_what_would_work(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_option_that_other_methods_have_names_them() -> None:
    with pytest.raises(ConfigError, match=r"Methods that have it: .*sliding_window"):
        compose(["attention.window=3"])


@pytest.mark.parametrize("option", ["attention.window=3", "+attention.window=3", "position.base=5"])
def test_an_option_of_what_a_pretrained_model_brings_itself_is_refused(option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["model=pretrained", "model.path=DIR", option])
    axis = option.lstrip("+").partition(".")[0]
    added = "cannot change the pretrained model DIR; drop it, or set model.import=true"
    plain = f"changes nothing: a pretrained model brings its own {axis}; drop it, or set model.import=true"
    said = f"attention.window {added}" if option.startswith("+") else f"{option} {plain}"
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("defaults:\n  - override /attention: gqq\n", "No attention method is called 'gqq'"),
        ("corpus:\n  max_byte: 3\n", "No option of corpus=stdlib is called 'max_byte'"),
        ("seedz: 4\n", "No config key is called 'seedz'. Did you mean 'seed'?"),
        ("filter:\n  pii: {kinds: [email]}\n", "filter.pii has options but no method"),
    ],
)
def test_a_bad_experiment_file_is_explained(
    content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    shutil.copytree(composition.config_dir(), tmp_path / "conf")
    (tmp_path / "conf/experiment").mkdir(exist_ok=True)
    (tmp_path / "conf/experiment/bad.yaml").write_text("# @package _global_\n" + content)
    monkeypatch.setattr(composition, "config_dir", lambda: tmp_path / "conf")
    with pytest.raises(ConfigError) as caught:
        compose(["experiment=bad"])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# @package _global_\nbaseline: [a]\n", "FILE: baseline is a list, not a mapping"),
        (
            b"# @package _global_\npretrain: {budget: 3}\n",
            "FILE: pretrain.budget is an integer (3), not a mapping; write e.g. pretrain.budget: {unit: ",
        ),
        (b"# @package _global_\nanchor: 3\n", "experiment=bad: No config key is called 'anchor'"),
        (b"seeds: [0]\n", "experiment=bad: the first line of its file must be `# @package _global_`"),
        (b"\xef\xbb\xbf# @package _global_\nseeds: [0]\n", "no byte-order mark either"),
        (b"# @package _global_\ndefaults: [bad]\n", "FILE: its `defaults` lead back to itself"),
        (b"# @package _global_\n- a\n", "FILE: it is a list, not a mapping; write e.g. `seeds: [0, 1]`"),
        (b"# @package _global_\nseeds: [0]\nseeds: [1]\n", "FILE is no YAML in UTF-8: "),
        (b"\xff\xfe\x00", "FILE is no YAML in UTF-8: 'utf-8' codec can't decode"),
    ],
)
def test_a_bad_file_of_the_users_is_called_by_its_path(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "experiment" / "bad.yaml"
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        compose([f"hydra.searchpath=[{tmp_path}]", "experiment=bad"])
    assert message.replace("FILE", str(file)) in str(caught.value)
