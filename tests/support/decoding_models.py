"""A tiny Llama with the same weights under every version of transformers."""

import torch

PROMPTS = ([5, 9, 2, 17, 30], [7, 7, 3, 21, 40, 11, 8], [50, 2, 33])
NEW_TOKENS = 24
END, PAD = 1, 0


def tiny_llama(*, layers: int = 4, seed: int = 0, tie: bool = False) -> torch.nn.Module:
    """Random weights drawn parameter by parameter, so that no initialiser has a say.

    Sharp enough that likelihoods differ, and the end token is likely enough to occur.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tie,
        eos_token_id=END,
        pad_token_id=PAD,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "norm" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.25)
    model.generation_config.eos_token_id = END
    model.generation_config.pad_token_id = PAD
    return model
