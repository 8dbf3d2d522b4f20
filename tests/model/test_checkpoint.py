"""Checkpoints of Hugging Face families: logits, cache, generation, export, and what a broken one says."""

import json
import re

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from harness.errors import ConfigError, DataError, IncompatibleError

FAMILIES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "phi3",
    "mixtral",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "opt",
    "bloom",
    "t5",
)
LIKE_LLAMA = {
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "phi3": "Phi3",
    "mixtral": "Mixtral",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3Text",
}
SCALED = (
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 2.5},
    {"rope_type": "dynamic", "factor": 2.0},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "mscale": 1.0,
        "mscale_all_dim": 0.5,
        "truncate": False,
        "beta_fast": 16.0,
    },
)
"""Every kind of rotary scaling that is imported."""


def _hf_config(name, draw):
    import transformers

    layers, heads = draw(st.integers(1, 2)), draw(st.sampled_from((2, 4, 6)))
    width, vocab, tied = draw(st.sampled_from((4, 8))), draw(st.integers(20, 60)), draw(st.booleans())
    dim = heads * width
    if name in LIKE_LLAMA:
        base = draw(st.sampled_from((100.0, 10000.0)))
        options = {
            "vocab_size": vocab,
            "hidden_size": dim,
            "num_hidden_layers": layers + 1,
            "num_attention_heads": heads,
            "num_key_value_heads": draw(st.sampled_from([k for k in (1, 2, heads) if heads % k == 0])),
            "head_dim": draw(st.sampled_from((width, 2 * width))),
            "intermediate_size": draw(st.integers(3, 30)),
            "max_position_embeddings": 64,
            "rope_parameters": {
                **draw(st.sampled_from(SCALED[:1] if name == "phi3" else SCALED)),
                "rope_theta": base,
            },
            "tie_word_embeddings": tied,
            "rms_norm_eps": 1e-6,
            "pad_token_id": 0,
            "eos_token_id": None,
            "bos_token_id": None,
        }
        if name == "llama":
            options |= {"attention_bias": draw(st.booleans()), "mlp_bias": draw(st.booleans())}
        if name in ("mistral", "phi3", "mixtral"):
            options["sliding_window"] = draw(st.sampled_from((None, 3, 100)))
        if name == "phi3":
            options["head_dim"] = width
            if width == 8:
                options["rope_parameters"]["partial_rotary_factor"] = draw(st.sampled_from((0.5, 1.0)))
        if name == "mixtral":
            options |= {"num_local_experts": draw(st.integers(2, 4)), "num_experts_per_tok": 2}
        if name in ("qwen2", "qwen3"):
            options |= draw(
                st.sampled_from(
                    (
                        {},
                        {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
                        {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0},
                    )
                )
            )
        if name.startswith("gemma"):
            options |= {"sliding_window": 3, "query_pre_attn_scalar": draw(st.sampled_from((7, 16)))}
            options["layer_types"] = draw(
                st.sampled_from(
                    (
                        ["sliding_attention", "full_attention", "sliding_attention"][: layers + 1],
                        ["sliding_attention"] * (layers + 1),
                        ["full_attention"] * (layers + 1),
                    )
                )
            )
        if name == "gemma3_text":
            near = {"rope_type": "default", "rope_theta": 50.0}
            scaled = options["rope_parameters"]
            options["rope_parameters"] = {"full_attention": scaled, "sliding_attention": near}
        return getattr(transformers, LIKE_LLAMA[name] + "Config")(**options)
    if name == "gpt2":
        return transformers.GPT2Config(
            vocab_size=vocab, n_embd=dim, n_layer=layers, n_head=heads, n_positions=64
        )
    if name == "gpt_neox":
        return transformers.GPTNeoXConfig(
            vocab_size=vocab,
            hidden_size=heads * 8,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=draw(st.integers(3, 30)),
            max_position_embeddings=64,
            use_parallel_residual=draw(st.booleans()),
            rotary_pct=draw(st.sampled_from((0.25, 0.5, 1.0))),
            tie_word_embeddings=tied,
        )
    if name == "opt":
        return transformers.OPTConfig(
            vocab_size=vocab,
            hidden_size=dim,
            word_embed_proj_dim=draw(st.sampled_from((dim, dim // 2))),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            ffn_dim=draw(st.integers(3, 30)),
            max_position_embeddings=64,
            do_layer_norm_before=draw(st.booleans()),
            dropout=0.0,
        )
    if name == "bloom":
        return transformers.BloomConfig(vocab_size=vocab, hidden_size=dim, n_layer=layers, n_head=heads)
    return transformers.T5Config(
        vocab_size=vocab,
        d_model=dim,
        d_kv=draw(st.sampled_from((4, 8))),
        d_ff=draw(st.integers(3, 30)),
        num_layers=layers,
        num_decoder_layers=draw(st.integers(1, 2)),
        num_heads=heads,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
        feed_forward_proj=draw(st.sampled_from(("relu", "gated-gelu"))),
        tie_word_embeddings=tied,
        dropout_rate=0.0,
    )


def _auto(name):
    import transformers

    return transformers.AutoModelForSeq2SeqLM if name == "t5" else transformers.AutoModelForCausalLM


def _experts(name):
    """Grouped products of experts want sizes that are multiples of 16 bytes."""
    return {"experts_implementation": "eager"} if name == "mixtral" else {}


def _checkpoint(name, draw, directory, **saving):
    """A random model with weights large enough that every one of them matters, saved."""
    config = _hf_config(name, draw)
    torch.manual_seed(0)
    model = _auto(name).from_config(config, attn_implementation="eager", **_experts(name)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    model.config._attn_implementation = "eager"
    model.save_pretrained(directory, **saving)
    return model


def _inputs(model, length=9):
    ids = torch.randint(1, model.config.vocab_size, (2, length), generator=torch.Generator().manual_seed(1))
    return ids


def _logits(model, ids, source):
    if model.config.model_type == "t5":
        return model(input_ids=source, decoder_input_ids=ids).logits
    if getattr(model.config, "methods", {}).get("architecture", {}).get("method") == "encoder_decoder":
        return model(ids, encoder_input_ids=source).logits
    return model(ids).logits


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_config_leaves_out_is_what_transformers_takes_for_it(name):
    """With sizes alone, beside a kind of rotary scaling, and with windows where a family has them."""
    from transformers import AutoConfig

    from harness.model.families import family

    sizes = {"vocab_size": 40, "hidden_size": 256, "num_attention_heads": 64, "num_hidden_layers": 30}
    sizes |= {"opt": {"ffn_dim": 24}, "bloom": {}}.get(name, {"intermediate_size": 24})
    if name == "gpt2":
        sizes = {"vocab_size": 40, "n_embd": 32, "n_layer": 2, "n_head": 4}
    if name == "t5":
        sizes = {"vocab_size": 40, "d_model": 32, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 4}
    llama3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    cases = [{}, {"use_sliding_window": True}]
    cases += (
        [{"rope_parameters": llama3}] if name in LIKE_LLAMA and name not in ("phi3", "gemma3_text") else []
    )
    for case in cases:
        left_out = {**sizes, **case}
        whole = AutoConfig.for_model(name, **left_out).to_dict()
        assert family(name).read_config(left_out) == family(name).read_config(whole), case


@pytest.mark.parametrize("name", FAMILIES)
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
@torch.no_grad()
def test_import_and_export_keep_the_logits(name, data, tmp_path_factory):
    from harness.model.checkpoint import export_checkpoint, import_checkpoint

    directory = tmp_path_factory.mktemp(name)
    shards = data.draw(st.sampled_from(("2KB", "5GB")))
    theirs = _checkpoint(name, data.draw, directory, max_shard_size=shards)
    ours = import_checkpoint(directory)
    ids, source = _inputs(theirs), _inputs(theirs, 7)
    wanted = _logits(theirs, ids, source)
    torch.testing.assert_close(_logits(ours, ids, source), wanted, rtol=1e-4, atol=1e-4)
    if name != "t5":
        mask = torch.ones_like(ids)
        mask[0, :3] = 0
        # Without position_ids, GPT-2 counts padding as positions.
        at = {"position_ids": (mask.cumsum(1) - 1).clamp_min(0)} if name == "gpt2" else {}
        padded = theirs(ids, attention_mask=mask, **at).logits
        torch.testing.assert_close(
            ours(ids, attention_mask=mask).logits[:, 3:], padded[:, 3:], rtol=1e-4, atol=1e-4
        )
        options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        options |= {"attention_mask": torch.ones_like(ids)}
        assert torch.equal(ours.generate(ids, **options), theirs.generate(ids, **options))
    else:
        mask = torch.ones_like(source)
        mask[0, 4:] = 0
        torch.testing.assert_close(
            ours(ids, encoder_input_ids=source, encoder_attention_mask=mask).logits,
            theirs(input_ids=source, attention_mask=mask, decoder_input_ids=ids).logits,
            rtol=1e-4,
            atol=1e-4,
        )
        options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        their_tokens = theirs.generate(source, decoder_start_token_id=0, **options)
        assert torch.equal(
            ours.generate(source, decoder_start_token_id=0, **options)[:, 7:], their_tokens[:, 1:]
        )
    out = tmp_path_factory.mktemp(name + "_export")
    assert export_checkpoint(ours, out) == name
    again = _auto(name).from_pretrained(out, attn_implementation="eager", **_experts(name)).eval()
    assert type(again) is type(theirs)
    torch.testing.assert_close(_logits(again, ids, source), wanted, rtol=1e-5, atol=1e-5)


class _First:
    """Draws the first of everything."""

    def __call__(self, strategy):
        from hypothesis import find

        return find(strategy, lambda _: True)


@pytest.fixture
def llama(tmp_path):
    _checkpoint("llama", _First(), tmp_path)
    return tmp_path


def test_a_sharded_checkpoint_is_read(tmp_path):
    from harness.model.checkpoint import import_checkpoint

    theirs = _checkpoint("llama", _First(), tmp_path, max_shard_size="2KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    ids = _inputs(theirs)
    torch.testing.assert_close(
        import_checkpoint(tmp_path)(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-4
    )
    shard = max(tmp_path.glob("model-*.safetensors"))
    shard.unlink()
    with pytest.raises(DataError, match=f"{shard.name} cannot be read as safetensors"):
        import_checkpoint(tmp_path)


def test_missing_unknown_and_misshapen_tensors_are_named_at_once(llama):
    from safetensors.torch import load_file, save_file

    from harness.model.checkpoint import import_checkpoint

    tensors = load_file(llama / "model.safetensors")
    tensors.pop("model.norm.weight")
    tensors["model.extra.weight"] = torch.zeros(2)
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(2, 2)
    save_file(tensors, llama / "model.safetensors")
    with pytest.raises(DataError) as error:
        import_checkpoint(llama)
    for part in (
        "missing: model.norm.weight",
        "unknown: model.extra.weight",
        "wrong shape: model.layers.0.mlp.up_proj.weight is (2, 2)",
        "Nothing was loaded",
    ):
        assert part in str(error.value)


def test_an_unknown_family_is_refused_with_the_known_ones(llama):
    from harness.model.checkpoint import describe

    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps({**config, "model_type": "mamba"}))
    with pytest.raises(ConfigError, match=r"No checkpoint family to import is called .mamba.\..*llama"):
        describe(llama)


def test_a_truncated_file_and_an_empty_directory_are_named(llama, tmp_path_factory):
    from harness.model.checkpoint import describe, import_checkpoint

    file = llama / "model.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match=r"model\.safetensors cannot be read"):
        import_checkpoint(llama)
    with pytest.raises(DataError, match=r"no config\.json"):
        describe(tmp_path_factory.mktemp("empty"))


_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 100.0,
    "short_factor": [1.0, 1.1, 1.2, 1.5],
    "long_factor": [1.0, 2.0, 3.0, 5.0],
}
FOLLOWING = {
    "dynamic": ("Llama", {"max_position_embeddings": 6}, {"rope_type": "dynamic", "factor": 4.0}),
    "longrope": (
        "Llama",
        {"max_position_embeddings": 24},
        {**_LONGROPE, "factor": 4.0, "original_max_position_embeddings": 6},
    ),
    "longrope beside": (
        "Phi3",
        {"max_position_embeddings": 24, "original_max_position_embeddings": 6},
        _LONGROPE,
    ),
    "longrope, own temperature": (
        "Phi3",
        {"max_position_embeddings": 24, "original_max_position_embeddings": 6},
        {**_LONGROPE, "attention_factor": 1.3},
    ),
}
"""Scaling that depends on whether a sequence is longer than 6 tokens."""


@pytest.mark.parametrize("name", FOLLOWING)
@torch.no_grad()
def test_scaling_that_follows_the_length_is_transformers(name, tmp_path):
    import transformers

    from harness.model.checkpoint import export_checkpoint, import_checkpoint
    from harness.ops.extension import follows_length

    family, lengths, scaling = FOLLOWING[name]
    shape = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    options = {"intermediate_size": 24, "pad_token_id": 0, "eos_token_id": None, "bos_token_id": None}
    config = getattr(transformers, f"{family}Config")(
        **shape, **options, **lengths, rope_parameters=dict(scaling), initializer_range=0.3
    )
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = import_checkpoint(tmp_path)
    assert follows_length(ours)
    assert follows_length(theirs)
    assert export_checkpoint(ours, tmp_path / "again") == family.lower()
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again").eval()
    ids = _inputs(theirs, 12)
    alone = {}
    for length in (5, 6, 7, 12, 4):
        alone[length] = theirs(ids[:, :length]).logits
        torch.testing.assert_close(ours(ids[:, :length]).logits, alone[length], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(again(ids[:, :length]).logits, alone[length], rtol=1e-5, atol=1e-5)
    mask = torch.ones_like(ids)
    mask[0, :8] = 0  # a row of 4 tokens beside one of 12
    short = torch.cat((torch.zeros(1, 8, dtype=torch.long), ids[:1, :4]), dim=1)
    both = ours(torch.cat((short, ids[1:])), attention_mask=mask).logits
    torch.testing.assert_close(both[0, 8:], alone[4][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both[1], alone[12][1], rtol=1e-4, atol=1e-4)


def test_an_unknown_scaling_of_rotary_positions_is_refused(llama):
    from harness.model.checkpoint import describe

    config = json.loads((llama / "config.json").read_text())
    for kind, why in (
        ("proportional", r"rope_type=proportional \(known: linear, dynamic, llama3, yarn, longrope\)"),
        ("longrope", "rope_type=longrope without long_factor and short_factor"),
    ):
        config["rope_parameters"] = {"rope_type": kind, "factor": 2.0, "rope_theta": 10000.0}
        (llama / "config.json").write_text(json.dumps(config))
        with pytest.raises(IncompatibleError, match=why):
            describe(llama)


@torch.no_grad()
def test_a_model_of_ours_is_written_as_the_family_that_can_express_it(tmp_path):
    from composed import tiny
    from transformers import AutoModelForCausalLM

    from harness.model.checkpoint import export_checkpoint

    model, ids = tiny(), torch.arange(12)[None]
    assert export_checkpoint(model, tmp_path) == "llama"
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(theirs(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(IncompatibleError, match=r"attention=retention \(it takes"):
        export_checkpoint(tiny(attention="retention"), tmp_path / "none")


@torch.no_grad()
def test_another_attention_reads_the_same_weights(llama):
    from composed import choose

    from harness.model.checkpoint import converted, import_checkpoint

    ids = torch.arange(16)[None]
    window = choose("attention", "sliding_window", window=3, num_kv_heads=1)
    plain, local = import_checkpoint(llama), import_checkpoint(llama, replace={"attention": window})
    assert not torch.allclose(plain(ids).logits, local(ids).logits, atol=1e-3)
    torch.testing.assert_close(plain(ids[:, :3]).logits, local(ids[:, :3]).logits)
    with pytest.raises(DataError) as error:
        import_checkpoint(llama, replace={"attention": choose("attention", "retention")})
    for part in (
        "does not fit attention=retention: no weights for: model.layers.*.self_attn.g_proj.weight",
        "(in 2 layers)",
        "or leave out attention=retention.",
    ):
        assert part in str(error.value)
    (llama / "tokenizer.json").write_text("{}")
    root = llama.parent
    made = converted(llama, replace={"attention": window}, root=root)
    assert converted(llama, replace={"attention": window}, root=root) == made
    assert (made / "tokenizer.json").is_file()
    from transformers import AutoModelForCausalLM

    again = AutoModelForCausalLM.from_pretrained(made).eval()
    assert torch.equal(again(ids).logits, local(ids).logits)


@torch.no_grad()
def test_a_stored_head_is_read_though_the_config_ties_it(llama):
    """As transformers does, which leaves both where they differ."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    from harness.model.checkpoint import export_checkpoint, import_checkpoint

    config = json.loads((llama / "config.json").read_text())
    tensors = load_file(llama / "model.safetensors")
    for head in (torch.randn(tensors["model.embed_tokens.weight"].shape), None):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone() if head is None else head
        save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
        (llama / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
        ids = torch.arange(10)[None]
        wanted = AutoModelForCausalLM.from_pretrained(llama)(ids).logits
        ours = import_checkpoint(llama)
        torch.testing.assert_close(ours(ids).logits, wanted, rtol=1e-4, atol=1e-4)
        assert ours.config.tie_word_embeddings == (head is None)
    export_checkpoint(ours, llama.parent / "again")
    again = AutoModelForCausalLM.from_pretrained(llama.parent / "again")
    torch.testing.assert_close(again(ids).logits, wanted, rtol=1e-4, atol=1e-4)


def test_two_embeddings_are_refused_where_we_have_one(tmp_path):
    from safetensors.torch import load_file, save_file

    from harness.model.checkpoint import import_checkpoint

    _checkpoint("t5", _First(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    import_checkpoint(tmp_path)
    tensors["encoder.embed_tokens.weight"] += 1
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"encoder\.embed_tokens\.weight differs from shared\.weight"):
        import_checkpoint(tmp_path)


def test_pickled_weights_are_refused_with_the_way_to_convert_them(llama):
    from harness.model.checkpoint import import_checkpoint

    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"pytorch_model\.bin, which is pickled.*save_pretrained\(NEW_DIR\)"):
        import_checkpoint(llama)


@torch.no_grad()
def test_low_precision_keeps_the_digits_of_positions(llama):
    """bf16 weights, single-precision frequencies: as close to float32 as transformers is."""
    from transformers import AutoModelForCausalLM

    from harness.model.checkpoint import import_checkpoint

    ours = import_checkpoint(llama, dtype=torch.bfloat16)
    theirs = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16)
    assert torch.equal(ours.model.position.inv_freq, theirs.model.rotary_emb.inv_freq)
    for cast in (ours.to(torch.float16), ours.half(), ours.to(torch.bfloat16)):
        assert cast.model.position.inv_freq.dtype == torch.float32
    assert ours.double().model.position.inv_freq.dtype == torch.float64


def test_gemma_3_bounds_no_scores_whatever_its_config_says(tmp_path):
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    from harness.model.checkpoint import import_checkpoint

    torch.manual_seed(0)
    shape = {
        "vocab_size": 60,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "head_dim": 8,
    }
    config = Gemma3TextConfig(
        **shape, num_attention_heads=4, attn_logit_softcapping=3.0, initializer_range=0.5
    )
    theirs = Gemma3ForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    ids = torch.arange(12)[None]
    torch.testing.assert_close(
        import_checkpoint(tmp_path)(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-4
    )


def _rewrite(folder, change, name="model.safetensors"):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / name, metadata={"format": "pt"})


def test_the_widest_number_format_of_a_checkpoint_is_kept(llama):
    """Norms in float32 beside bf16 weights, whichever tensor is read first."""
    from harness.model.checkpoint import import_checkpoint

    def narrow(tensors):
        return {name: t if "norm" in name else t.bfloat16() for name, t in tensors.items()}

    _rewrite(llama, narrow)
    ours = import_checkpoint(llama)
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    _rewrite(llama, lambda tensors: {name: t.bfloat16() for name, t in tensors.items()})
    assert import_checkpoint(llama).dtype == torch.bfloat16


def test_codes_of_packed_weights_are_no_weights(llama):
    from harness.model.checkpoint import import_checkpoint

    packed = "model.layers.0.mlp.up_proj.weight"
    _rewrite(llama, lambda tensors: {**tensors, packed: tensors[packed].to(torch.int8)})
    with pytest.raises(DataError, match=rf"packed: {re.escape(packed)} is I8"):
        import_checkpoint(llama)


@torch.no_grad()
def test_of_two_sets_of_files_the_one_is_read_that_transformers_reads(tmp_path):
    """A directory that was saved whole over its shards; and a tensor that stands in two shards."""
    from transformers import AutoModelForCausalLM

    from harness.model.checkpoint import import_checkpoint

    theirs = _checkpoint("llama", _First(), tmp_path, max_shard_size="2KB")
    first, second = sorted(tmp_path.glob("model-*.safetensors"))[:2]
    second.write_bytes(first.read_bytes())
    with pytest.raises(DataError, match=f"stands in {second.name} and in another of its files"):
        import_checkpoint(tmp_path)
    from safetensors.torch import save_file

    tensors = {name: t * 1.5 for name, t in theirs.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ids = _inputs(theirs)
    wanted = AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits
    torch.testing.assert_close(import_checkpoint(tmp_path)(ids).logits, wanted, rtol=1e-4, atol=1e-4)
