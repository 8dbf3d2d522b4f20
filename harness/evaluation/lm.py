"""lm-eval's `LM` over any causal model: shared contexts, batched generation, cuts counted as facts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from harness.axes.evaluator import Subject
from harness.data.tokenization import prefix_token
from harness.errors import TaskError
from harness.evaluation.answers import prepare
from harness.evaluation.generation import StopAt, in_batches
from harness.evaluation.scoring import LikelihoodScorer, ScoreRequest, rolling


class SubjectLM(TemplateLM):  # type: ignore[misc]
    """A Subject as lm-eval sees it; answers equal those of lm-eval's own `hf` model.

    State: `facts` accumulates the scorer's counts and those of cut prompts
    Differs: contexts shared by several choices are run once; batches are bounded in tokens
    """

    def __init__(self, subject: Subject, *, batch_tokens: int = 2048, batch_size: int = 128) -> None:
        super().__init__()
        self.subject = subject
        self.model: Any = prepare(subject)
        self.tokenizer = subject.tokenizer
        self.max_length, self.batch_size = subject.max_length, batch_size
        self._device = torch.device(subject.device)
        pad = self.tokenizer.pad_token_id
        self.pad_id = self.eot_token_id if pad is None else pad
        self.scorer = LikelihoodScorer(
            model=self.model, max_length=self.max_length, batch_tokens=batch_tokens, pad_id=self.pad_id
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Counts that comparability rests on."""
        return self.scorer.facts

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        return prefix_token(self.tokenizer)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        bos = self.tokenizer.bos_token
        if add_special_tokens is None and bos and string.startswith(bos):
            options["add_special_tokens"] = False
        return self.tokenizer.encode(string, **options)  # type: ignore[no-any-return]

    def tok_decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)  # type: ignore[no-any-return]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        history = [dict(turn) for turn in chat_history]
        if history and history[-1]["role"] == "user":
            for method in self.subject.prompts:
                history[-1]["content"] = method.prompt(history[-1]["content"])
        return self.tokenizer.apply_chat_template(  # type: ignore[no-any-return]
            history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens of prompt and answer; after a chat template's opening, apart, as training encodes them."""
        opening, lead = self._turn
        if not opening or not context.endswith(opening):
            return super()._encode_pair(context, continuation)  # type: ignore[no-any-return]
        answer = lead + continuation.lstrip(" ")
        return self.tok_encode(context), self.tok_encode(answer, add_special_tokens=False)

    @cached_property
    def _turn(self) -> tuple[str, str]:
        """What the template writes to open an answer, and between that and the answer itself."""
        if self.subject.template is None:
            return "", ""
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "ANSWER"}]
        render = partial(self.tokenizer.apply_chat_template, tokenize=False)
        asked, opened = render(turns[:1]), render(turns[:1], add_generation_prompt=True)
        closed = render(turns)
        if not opened.startswith(asked) or not closed.startswith(opened):
            return "", ""
        return opened[len(asked) :], closed[len(opened) :].partition("ANSWER")[0]

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        scores = self.scorer.score([ScoreRequest(context, choice) for _, context, choice in requests])
        return [(score.total, score.greedy) for score in scores]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return super().loglikelihood(requests, disable_tqdm=True)  # type: ignore[no-any-return]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        windows: list[ScoreRequest] = []
        owners: list[int] = []
        for index, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            for window in rolling(tokens, prefix=self.prefix_token_id, max_length=self.max_length):
                windows.append(window)
                owners.append(index)
        totals = [0.0] * len(requests)
        for index, score in zip(owners, self.scorer.score(windows), strict=True):
            totals[index] += score.total
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        by_options: dict[str, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            by_options[json.dumps(request.args[1], sort_keys=True, default=str)].append(index)
        answers = [""] * len(requests)
        for indices in by_options.values():
            prompts = [requests[index].args[0] for index in indices]
            texts = self._generate(prompts, dict(requests[indices[0]].args[1]))
            for index, text in zip(indices, texts, strict=True):
                answers[index] = text
        return answers

    def _generate(self, prompts: Sequence[str], options: dict[str, Any]) -> list[str]:
        """Answers to prompts that share their generation options."""
        options = normalize_gen_kwargs(options, 256)
        eos = self.tokenizer.decode(self.eot_token_id, skip_special_tokens=False)
        until = handle_stop_sequences(options.pop("until", None), eos=eos)
        new_tokens = int(options.pop("max_gen_toks"))
        options.pop("max_length", None)
        if not options["do_sample"]:
            options = {"do_sample": False}
        room = self.max_length - new_tokens
        if room < 1:
            raise TaskError(
                f"generating {new_tokens} tokens leaves no room for a prompt in a window of "
                f"{self.max_length}; lower evaluator.lm_eval.max_new_tokens"
            )
        ids = [self.tok_encode(prompt) for prompt in prompts]
        cut = [len(tokens) - room for tokens in ids if len(tokens) > room]
        self.facts["requests"] += len(ids)
        self.facts["truncated_contexts"] += len(cut)
        self.facts["truncated_tokens"] += sum(cut)

        @torch.inference_mode()
        def draw(ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
            out = self.model.generate(
                input_ids=ids_BT,
                attention_mask=mask_BT,
                max_new_tokens=new_tokens,
                stopping_criteria=[StopAt(until, self.tokenizer, ids_BT.shape[1])],
                pad_token_id=self.pad_id,
                eos_token_id=self.eot_token_id,
                **options,
            )
            return out[:, ids_BT.shape[1] :]  # type: ignore[no-any-return]

        new = in_batches(
            [tokens[-room:] for tokens in ids],
            draw,
            pad_id=self.pad_id,
            device=self._device,
            batch_size=self.batch_size,
            new_tokens=new_tokens,
        )
        return [
            postprocess_generated_text(generation=self.tok_decode(tokens), stop=until, think_end_token=None)
            for tokens in new
        ]
