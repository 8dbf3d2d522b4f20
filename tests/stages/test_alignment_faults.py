"""What alignment, rewards and packing must not do: each by a case worked out by hand."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from harness.axes.alignment import LogProbs
from harness.axes.instruction import Conversation, Role, Turn
from harness.axes.reward import Preference
from harness.data.template import IGNORED, Template
from harness.data.tokenization import load_tokenizer
from harness.errors import DataError, IncompatibleError
from harness.evaluation.sampling import end_ids, plain_sampling
from harness.registry.known import registry
from harness.stages._adaptation import without_dropout
from harness.stages._conversations import ConversationSource, MixedSource, encode_all
from harness.stages._log_probs import per_token_log_probs
from harness.stages._packing import packing_leak, refuse_leaks
from harness.stages._preferences import PreferenceSource
from harness.stages._prompts import asked_of
from harness.stages.align import Align
from harness.stages.reward import PAIRS
from harness.stages.reward import Reward as RewardStage


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    directory = tmp_path_factory.mktemp("tokenizer")
    tiny.byte_tokenizer(directory)
    return Template(load_tokenizer(directory))


def method(name: str) -> Any:
    return registry().get("alignment", name)()


def pair(number: int, chosen: str = "", rejected: str = "no") -> Preference:
    return Preference(
        id=str(number), prompt=f"Q{number}", chosen=chosen or f"yes {number}", rejected=rejected
    )


def source(
    template: Template, pairs: list[Preference], name: str = "dpo", **options: Any
) -> PreferenceSource:
    options = {"seed": 0, "length": 64, "pad_id": 0, **options}
    chosen = PAIRS if name == "reward" else method(name)
    return PreferenceSource(pairs, chosen, template, **options)


def test_a_reward_is_trained_on_the_token_that_is_scored(template: Template) -> None:
    batch = source(template, [pair(1)], "reward", whole=True).next(1)
    last = int(batch["chosen_attention_mask"].sum()) - 1
    assert batch["chosen_input_ids"][0, last] == template.tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("given", "length", "said"),
    [
        (Preference(id="a", prompt="Q", chosen="yes", rejected=""), 64, "with labels are for alignment=kto"),
        (pair(1), 4, r"within 4 tokens; raise the stage's sequence_length"),
    ],
)
@pytest.mark.parametrize("name", ["dpo", "reward"])
def test_nothing_to_learn_from_is_an_error_that_says_what_would_help(
    template: Template, given: Preference, length: int, said: str, name: str
) -> None:
    with pytest.raises(DataError, match=said):
        source(template, [given], name, length=length)


def test_only_answers_after_the_prompt_are_labelled(template: Template) -> None:
    turns = (
        Turn(role=Role.user, text="Hi"),
        Turn(role=Role.assistant, text="Hello"),
        Turn(role=Role.user, text="Sky?"),
    )
    given = Preference(id="a", prompt=turns, chosen="Blue", rejected="Green")
    labels = source(template, [given]).next(1)["chosen_labels_BT"][0]
    assert template.tokenizer.decode(labels[labels != IGNORED]) == " Blue<|eos|>"


def test_kto_is_told_another_answer_at_batch_one(template: Template) -> None:
    found = source(template, [pair(i) for i in range(5)], "kto")
    for _ in range(10):
        batch = found.next(1)
        chosen, other = batch["chosen_labels_BT"], batch["mismatched_labels_BT"]
        assert chosen[chosen != IGNORED].tolist() != other[other != IGNORED].tolist()
        assert (other != IGNORED).any()
    with pytest.raises(DataError, match="all 3 preferences have the same answer"):
        source(template, [pair(i, chosen="same") for i in range(3)], "kto")


def test_kto_learns_from_single_answers_as_trl_weighs_them(template: Template) -> None:
    kto = method("kto")
    mask = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    logp = torch.tensor([[-1.0, -2.0], [0.0, 0.0]])
    policy = {
        "chosen": LogProbs(per_token_BT=logp, mask_BT=mask),
        "rejected": LogProbs(per_token_BT=logp.flip(0), mask_BT=mask.flip(0)),
        "mismatched": LogProbs(per_token_BT=torch.zeros(2, 2), mask_BT=torch.ones(2, 2)),
    }
    reference = {k: LogProbs(per_token_BT=v.per_token_BT * 1.5, mask_BT=v.mask_BT) for k, v in policy.items()}
    loss_B, _ = kto.loss(policy, reference)
    ratio = 1.5  # -3 against -4.5
    assert loss_B[0] == pytest.approx(1 - 1 / (1 + math.exp(-0.1 * ratio)))
    assert loss_B[1] == pytest.approx(1 - 1 / (1 + math.exp(0.1 * ratio)))


def test_other_methods_leave_single_and_equal_answers_out(template: Template) -> None:
    single = Preference(id="s", prompt="Q", chosen="only", rejected="")
    found = source(template, [pair(1), single, pair(2, chosen="no"), pair(3, chosen="x" * 90)])
    facts = found.facts()
    assert facts["preferences"] == 2
    assert facts["preferences_dropped_by_reason"] == {"an answer is missing": 1, "the answers are equal": 1}
    assert facts["preferences_cut"] == 1


def test_answers_that_differ_beyond_the_window_are_equal(template: Template) -> None:
    alike = Preference(id="a", prompt="Q", chosen="x" * 90 + "good", rejected="x" * 90 + "bad")
    facts = source(template, [pair(1), alike]).facts()
    assert facts["preferences"] == 1
    assert facts["preferences_dropped_by_reason"] == {"the window cuts the answers to the same": 1}


FIRST_LOSS = {"dpo": math.log(2), "ipo": (1 / (2 * 0.1)) ** 2, "kto": 0.5}
"""Where policy and reference agree: -log sigmoid(0); (0 - 1 / (2 beta))^2; 1 - sigmoid(0)."""


@pytest.mark.parametrize(
    ("kind", "peft", "method"),
    [
        *((kind, peft, "dpo") for kind in ("gpt2", "llama", "opt") for peft in ("full", "lora")),
        ("gpt2", "lora", "ipo"),
        ("opt", "full", "kto"),
    ],
)
def test_the_first_loss_is_that_of_a_policy_that_is_its_reference(
    kind: str, peft: str, method: str, tmp_path: Path
) -> None:
    """Dropout of either would be seen."""
    common = {"vocab_size": 263, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    models: dict[str, Any] = {
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128, **common)
        ),
        "llama": lambda: LlamaForCausalLM(
            LlamaConfig(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                attention_dropout=0.3,
                **common,
            )
        ),
        "opt": lambda: OPTForCausalLM(
            OPTConfig(
                hidden_size=32,
                ffn_dim=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                word_embed_proj_dim=32,
                max_position_embeddings=128,
                dropout=0.3,
                **common,
            )
        ),
    }
    tiny.byte_tokenizer(tmp_path / "hf")
    models[kind]().save_pretrained(tmp_path / "hf")
    options = [
        "model=pretrained",
        f"model.path={tmp_path / 'hf'}",
        "instruction.num_items=40",
        f"alignment={method}",
        f"peft={peft}",
        "align.batch_size=8",
        "align.budget={unit: steps, amount: 2}",
        "align.learning_rate=1e-6",
        *(["peft.dropout=0.5"] if peft == "lora" else []),
    ]
    shelf = tiny.Shelf(tmp_path / "shelf")
    facts = Align().run(tiny.work(shelf, "align", shelf.new("aligned"), options, {}))
    assert facts["first_loss"] == pytest.approx(FIRST_LOSS[method], rel=2e-4)


def test_dropout_comes_back_afterwards() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20)).train()
    ids = torch.arange(8)[None]
    with without_dropout(model), torch.no_grad():
        assert torch.equal(model(ids).logits, model(ids).logits)
    with torch.no_grad():
        assert not torch.equal(model(ids).logits, model(ids).logits)
    assert model.config.attn_pdrop == 0.1


def test_packing_is_refused_where_it_leaks() -> None:
    torch.manual_seed(0)
    llama = tiny.llama()
    assert packing_leak(llama) == 0.0
    refuse_leaks(llama)

    class Deaf(torch.nn.Module):
        """Ignores positions, as models without any do."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = llama

        def get_input_embeddings(self) -> Any:
            return self.inner.get_input_embeddings()

        def forward(self, input_ids: Any, position_ids: Any = None, use_cache: bool = False) -> Any:
            return self.inner(input_ids=input_ids, use_cache=use_cache)

    with pytest.raises(IncompatibleError, match=r"packing: Deaf does not keep packed conversations apart.*%"):
        refuse_leaks(Deaf())


LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}
FAMILIES: dict[str, tuple[bool, dict[str, Any]]] = {
    "gpt2": (True, {"n_embd": 32, "n_layer": 2, "n_head": 2}),
    "gemma": (True, {**LAYERS, "num_key_value_heads": 1, "head_dim": 16}),
    "gemma3_text": (True, {**LAYERS, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 8}),
    "opt": (False, {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64}),
    "bloom": (False, {"hidden_size": 32, "n_layer": 2, "n_head": 2}),
    "falcon": (False, {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "alibi": True}),
    "mamba": (False, {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    "bamba": (False, {**LAYERS, "num_key_value_heads": 2, "attn_layer_indices": [1], **MAMBA}),
    "xlnet": (False, {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64}),
}
"""Whether each keeps packed documents apart by their positions, and a small one."""


@pytest.mark.parametrize("kind", FAMILIES)
def test_families_that_read_across_packed_documents_are_found(kind: str) -> None:
    """The measurement says what the losses of packed conversations say."""
    apart, options = FAMILIES[kind]
    torch.manual_seed(0)
    ends = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, vocab_size=64, **options, **ends)
    ).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.2)
    ids = torch.randint(5, 64, (1, 20))
    positions = torch.cat([torch.arange(9), torch.arange(11)])[None]
    with torch.no_grad():
        packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
        alone = torch.cat([model(input_ids=p, use_cache=False).logits[0] for p in ids.split([9, 11], dim=1)])
    assert torch.allclose(packed, alone, atol=1e-3) is apart
    assert (packing_leak(model) == 0) is apart


@pytest.mark.parametrize("kind", ["mixtral", "phimoe"])
def test_routers_draw_no_noise_where_dropout_is_off(kind: str) -> None:
    options = {**LAYERS, "num_key_value_heads": 2, "num_local_experts": 2, "router_jitter_noise": 0.3}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=64, **options))
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.2)
    ids = torch.randint(5, 60, (2, 12))
    with torch.no_grad():
        expected = model.eval()(ids).logits
        with without_dropout(model):
            model.train()
            assert torch.equal(model(ids).logits, expected)
        assert not torch.equal(model.train()(ids).logits, model(ids).logits), "it comes back"


class Windows:
    """Pretraining windows of 60 learned tokens."""

    num_samples = None

    def next(self, size: int) -> dict[str, torch.Tensor]:
        return {name: torch.ones(size, 60, dtype=torch.long) for name in ("input_ids", "labels_BT")}


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_the_share_of_pretraining_data_is_of_learned_tokens(template: Template, share: float) -> None:
    given = [
        Conversation(
            id=str(i),
            turns=(Turn(role=Role.user, text=f"Q{i}"), Turn(role=Role.assistant, text="abcd")),
            source="s",
        )
        for i in range(50)
    ]
    encoded = encode_all(given, template, length=60)
    conversations = ConversationSource(
        encoded.by_id,
        lambda rng: given,
        seed=0,
        length=60,
        packs=False,
        pad_id=0,
        bytes_per_token=1.0,
        document_ids=False,
    )
    mixed = MixedSource(conversations, Windows(), share=share, pad_id=0)  # type: ignore[arg-type]
    windows = 0
    for _ in range(300):
        labels = mixed.next(8)["labels_BT"]
        windows += int((labels == 1).all(-1).sum())
    assert mixed.facts()["pretraining_token_share"] == pytest.approx(share, abs=0.01)


def test_what_the_window_cuts_is_counted(template: Template) -> None:
    turns = (Turn(role=Role.user, text="Q"), Turn(role=Role.assistant, text="x" * 30))
    long = Conversation(id="long", turns=turns, source="s")
    deaf = Conversation(id="deaf", turns=(Turn(role=Role.user, text="Q" * 50), turns[1]), source="s")
    found = encode_all([long, deaf], template, length=20)
    facts = found.facts()
    assert facts["conversations_cut"] == 1
    assert facts["answer_tokens_cut"] > 10
    assert facts["conversations_dropped_by_reason"] == {"no answer within the window": 1}


def test_prompts_of_several_turns_are_asked_whole(template: Template) -> None:
    turns = (
        Turn(role=Role.system, text="Be kind."),
        Turn(role=Role.user, text="First?"),
        Turn(role=Role.assistant, text="One."),
        Turn(role=Role.user, text="Second?"),
        Turn(role=Role.assistant, text="Two."),
    )
    given = Conversation(id="c", turns=turns, source="s", checks={"exact": "Two."})
    bare = Conversation(id="b", turns=turns[1:3], source="s")
    found, left_out = asked_of(
        [given, bare], lambda item: template.prompt_ids(item.turns), length=200, needs_checks=True
    )
    (item,) = found
    assert item.turns == turns[:4], "the checks are those of the second question"
    assert left_out == {"it has no checks, which the reward reads": 1}


def test_generation_ends_where_the_checkpoint_and_the_template_end(template: Template) -> None:
    model = tiny.llama()
    model.generation_config.eos_token_id = [5, 9]
    assert set(end_ids(model, template)) == {5, 9, template.tokenizer.eos_token_id}
    model.generation_config.repetition_penalty, model.generation_config.min_p = 1.7, 0.3
    ids = torch.arange(7, 17)[None]
    with plain_sampling(model, temperature=0.7, end_ids=[5], pad_id=0):
        config = model.generation_config
        assert config.repetition_penalty in (None, 1.0)
        assert config.min_p is None
        out = model.generate(
            ids.repeat(4000, 1), max_new_tokens=1, output_logits=True, return_dict_in_generate=True
        )
    assert model.generation_config.repetition_penalty == 1.7
    drawn = np.bincount(out.sequences[:, -1], minlength=263) / 4000
    expected = (out.logits[0][0].float() / 0.7).softmax(-1).numpy()
    assert np.abs(drawn - expected).sum() < 0.4, "samples follow the plain distribution at the temperature"
    labels = torch.tensor([[IGNORED, 3]])
    logits = torch.randn(1, 2, 20, generator=torch.Generator().manual_seed(0))
    found = per_token_log_probs(logits, labels, temperature=0.7)
    assert found.per_token_BT[0, 1] == pytest.approx(float((logits[0, 1] / 0.7).log_softmax(-1)[3]))


@pytest.mark.parametrize(
    "axis",
    [
        "reward=rules alignment=ppo",
        "feedback=rule alignment=dpo",
        "feedback=rule alignment=ppo reward=pairwise",
        "feedback=question alignment=grpo reward=ensemble",
    ],
)
def test_the_plan_refuses_what_sees_no_difference(axis: str, tmp_path: Path) -> None:
    from harness.compose import compose

    file = tmp_path / "alpaca.json"
    file.write_text('[{"instruction": "a", "input": "", "output": "b"}]')
    cell = compose(["instruction=alpaca", f"instruction.path={file}", *axis.split()])
    choice = cell.choice("alignment", stage="align")
    assert choice is not None
    problems = [*choice.method.check(choice.config, cell, None), *RewardStage.check(cell, "reward", None)]
    assert any("every answer would be as good as any other" in str(problem) for problem in problems)


def test_a_classifier_rewards_as_transformers_does(tmp_path: Path) -> None:
    from transformers import LlamaForSequenceClassification

    from harness.model.scorer import load_scorer

    tiny.byte_tokenizer(tmp_path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=263,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_labels=1,
        pad_token_id=0,
    )
    LlamaForSequenceClassification(config).eval().save_pretrained(tmp_path)
    scorer = load_scorer(SimpleNamespace(key="k", path=tmp_path), lambda key: None)  # type: ignore[arg-type, return-value]
    found = scorer.score(["Sky?", "Grass?"], ["Blue.", "Green, mostly."])
    model = LlamaForSequenceClassification.from_pretrained(tmp_path).eval()
    tokenizer = load_tokenizer(tmp_path)
    for place, (q, a) in enumerate([("Sky?", "Blue."), ("Grass?", "Green, mostly.")]):
        messages = [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            assert float(found[place]) == pytest.approx(float(model(**inputs).logits[0, 0]), abs=1e-5)
