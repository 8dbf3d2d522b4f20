"""Writes tokens_4_49.json. Run in an environment of its own: pip install transformers==4.49.0 torch."""

import json
import sys
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))
from decoding_models import NEW_TOKENS, PROMPTS, tiny_llama

SETTINGS = {
    "greedy": {"do_sample": False},
    "beam": {"do_sample": False, "num_beams": 4, "length_penalty": 1.0},
    "beam_long": {"do_sample": False, "num_beams": 3, "length_penalty": 2.0, "early_stopping": True},
    "beam_short": {"do_sample": False, "num_beams": 5, "length_penalty": -1.0},
    "contrastive_search": {"penalty_alpha": 0.6, "top_k": 4},
    "contrastive_search_weak": {"penalty_alpha": 0.2, "top_k": 6},
    "diverse_beam": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "diverse_beam_short": {
        "num_beams": 6,
        "num_beam_groups": 3,
        "diversity_penalty": 1.0,
        "length_penalty": 0.0,
    },
    "diverse_beam_long": {
        "num_beams": 6,
        "num_beam_groups": 2,
        "diversity_penalty": 0.3,
        "length_penalty": 2.0,
        "early_stopping": True,
    },
    "diverse_beam_alone": {
        "num_beams": 3,
        "num_beam_groups": 3,
        "diversity_penalty": 2.0,
        "length_penalty": -1.0,
    },
    "dola_high": {"dola_layers": "high", "repetition_penalty": 1.2},
    "dola_low": {"dola_layers": "low", "repetition_penalty": 1.2},
}


@torch.no_grad()
def main() -> None:
    assert transformers.__version__ == "4.49.0", transformers.__version__
    found = {}
    for tie in (False, True):
        for seed in (0, 1):
            model = tiny_llama(layers=6, seed=seed, tie=tie)
            for name, options in SETTINGS.items():
                for index, prompt in enumerate(PROMPTS):
                    ids = torch.tensor([prompt])
                    mask = torch.ones_like(ids)
                    out = model.generate(ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, **options)
                    found[f"{name}/tie={tie}/seed={seed}/prompt={index}"] = out[0, len(prompt) :].tolist()
    Path(__file__).with_name("tokens_4_49.json").write_text(json.dumps(found, indent=0) + "\n")


if __name__ == "__main__":
    main()
