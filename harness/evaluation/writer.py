"""A model that writes: any causal model at hand, or one behind a chat endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from harness.axes.instruction import Prompt, as_text
from harness.data.template import Template
from harness.evaluation.endpoint import Endpoint
from harness.evaluation.generation import StopAt, StopStrings, in_batches, until_eos
from harness.evaluation.sampling import end_ids, plain_sampling

BATCH = 16


class Writer:
    """Answers requests with a local model, sampled, or with an endpoint's.

    State: `requests` and `tokens` count what was written
    """

    def __init__(
        self,
        model: Any = None,
        tokenizer: Any = None,
        *,
        endpoint: Endpoint | None = None,
        parallel: int = 8,
        temperature: float = 0.7,
        max_new_tokens: int = 256,
    ) -> None:
        self.model, self.tokenizer, self.endpoint = model, tokenizer, endpoint
        self.parallel, self.temperature, self.max_new_tokens = parallel, temperature, max_new_tokens
        self.requests = self.tokens = 0

    def write(self, prompts: Sequence[Prompt], *, seed: int) -> list[str]:
        """One text for each prompt, without outer white space."""
        self.requests += len(prompts)
        if self.endpoint is not None:
            with ThreadPoolExecutor(self.parallel) as pool:
                texts = list(pool.map(self.endpoint.ask, [as_text(prompt) for prompt in prompts]))
            self.tokens = self.endpoint.usage["completion_tokens"]
            return [text.strip() for text in texts]
        template = Template(self.tokenizer)
        return self._sampled([template.prompt_ids(prompt) for prompt in prompts], seed=seed)

    def next_lines(self, texts: Sequence[str], *, seed: int) -> list[str]:
        """What ends the last line of each text, which a local model continues as it stands, in no chat.

        A model that is asked to write one more entry of a list explains or repeats it; one that continues the
        list writes an entry.
        """
        if self.endpoint is not None:
            found = self.write(texts, seed=seed)
        else:
            self.requests += len(texts)
            found = self._sampled([self.tokenizer(text)["input_ids"] for text in texts], seed=seed, stop="\n")
        return [text.partition("\n")[0].strip() for text in found]

    def facts(self) -> dict[str, Any]:
        """What was asked and written."""
        return {"requests": self.requests, "tokens": self.tokens}

    def _sampled(self, prompts: Sequence[list[int]], *, seed: int, stop: str = "") -> list[str]:
        ends = end_ids(self.model, Template(self.tokenizer))
        stops = StopStrings([stop], self.tokenizer)
        pad = self.tokenizer.pad_token_id or 0
        device = next(self.model.parameters()).device

        @torch.inference_mode()
        def draw(ids_BT: torch.Tensor, mask_BT: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
            with plain_sampling(self.model, temperature=self.temperature, end_ids=ends, pad_id=pad):
                out = self.model.generate(
                    input_ids=ids_BT,
                    attention_mask=mask_BT,
                    max_new_tokens=self.max_new_tokens,
                    stopping_criteria=[StopAt(stops)] if stop else None,
                )
            return out[:, ids_BT.shape[1] :]  # type: ignore[no-any-return]

        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed % 2**63)
            new = in_batches(
                prompts,
                draw,
                pad_id=pad,
                device=device,
                batch_size=BATCH,
                new_tokens=self.max_new_tokens,
            )
        answers = [until_eos(row, ends) for row in new]
        self.tokens += sum(map(len, answers))
        texts: list[str] = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [text.strip() for text in texts]
