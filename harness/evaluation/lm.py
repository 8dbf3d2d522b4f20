"""lm-eval's `LM` over any causal model: shared contexts, batched generation, cuts counted as facts."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from harness.axes.evaluator import Subject
from harness.data.tokenization import prefix_token
from harness.errors import TaskError
from harness.evaluation.answers import prepare
from harness.evaluation.generation import StopAt, StopStrings, in_batches
from harness.evaluation.lm_options import DEFAULT_ANSWER, refused_options
from harness.evaluation.requests import ScoreRequest, rolling
from harness.evaluation.scoring import LikelihoodScorer
from harness.ops.decode import Job, decode
from harness.ops.drawing import SAMPLING, rule_of, special_ids
from harness.ops.searching import generate, reads_tokens_alone
from harness.rng import draw_seed


class Asked(NamedTuple):
    """What a generation request asks for."""

    options: dict[str, Any]
    """Of transformers' generate."""
    stops: StopStrings
    new_tokens: int
    """At most."""


class SubjectLM(TemplateLM):  # type: ignore[misc]
    """A Subject as lm-eval sees it; answers equal those of lm-eval's own `hf` model.

    State: `facts` accumulates the scorer's counts, those of cut prompts, and of spanning continuations
    Differs: an empty stop string stops nothing; contexts shared by several choices are run once; batches are
        bounded in tokens; a continuation whose first characters share a token with the context is scored
        alone, where `hf` fails; of a checkpoint's generation config only the special tokens count
    """

    def __init__(
        self, subject: Subject, *, batch_tokens: int = 1024, batch_size: int = 64, as_trained: bool = False
    ) -> None:
        super().__init__()
        self.subject, self.as_trained = subject, as_trained
        self.model: Any = prepare(subject)
        self.tokenizer = subject.tokenizer
        self.max_length, self.batch_size = subject.max_length, batch_size
        self._device = torch.device(subject.device)
        pad = self.tokenizer.pad_token_id
        self.pad_id = self.eot_token_id if pad is None else pad
        self.scorer = LikelihoodScorer(
            model=self.model,
            max_length=self.max_length,
            batch_tokens=batch_tokens,
            pad_id=self.pad_id,
            on_progress=subject.on_progress,
        )
        self.facts["spanning_continuations"] = 0

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

    @cached_property
    def _prefix(self) -> str:
        return str(self.tokenizer.decode(self.prefix_token_id))

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self._encode([string], add_special_tokens)[string]

    def _encode(self, strings: Iterable[str], add_special_tokens: bool | None = None) -> dict[str, list[int]]:
        """Token ids of distinct strings; one that starts with the prefix token's text gets no second one."""
        found: dict[str, list[int]] = {}
        distinct = list(dict.fromkeys(strings))
        prefixed = [add_special_tokens is None and text.startswith(self._prefix) for text in distinct]
        for without in (False, True):
            texts = [text for text, starts in zip(distinct, prefixed, strict=True) if starts is without]
            options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
            if without:
                options = {"add_special_tokens": False}
            if texts:
                ids = self.tokenizer(texts, return_attention_mask=False, **options)["input_ids"]
                found.update(zip(texts, ids, strict=True))
        return found

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
        return self._encode_pairs([(context, continuation)])[0]

    def _encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Tokens of contexts and continuations, every distinct text encoded once.

        Raises: TaskError for an empty continuation
        """
        moved = [_spaces_moved(context, continuation) for context, continuation in pairs]
        given = [bool(context) for context, _ in pairs]
        texts = [
            text
            for (context, rest), any_given in zip(moved, given, strict=True)
            for text in (context, context + rest)
            if any_given
        ]
        ids = self._encode(texts)
        empty: dict[str, list[int]] = {"": []}
        return [
            self._split(*pair, ids if any_given else empty)
            for pair, any_given in zip(moved, given, strict=True)
        ]

    def _split(
        self, context: str, continuation: str, ids: Mapping[str, list[int]]
    ) -> tuple[list[int], list[int]]:
        """What is given and what is scored, as lm-eval's TemplateLM splits them.

        After nothing, or spaces alone, the prefix token is given, where the tokenizer puts none there.
        """
        opening, lead = self._turn
        if not ids[context]:
            tokens = self.tok_encode(continuation, add_special_tokens=False)
            first = [self.prefix_token_id] if tokens[:1] != [self.prefix_token_id] else tokens[:1]
            given, scored = first, tokens[1:] if tokens[:1] == first else tokens
        elif opening and context.endswith(opening):
            answer = lead + continuation.lstrip(" ")
            given, scored = ids[context], self.tok_encode(answer, add_special_tokens=False)
        else:
            given = ids[context]
            scored = ids[context + continuation][len(given) :]
            if not scored and continuation:  # a token spans both, e.g. "hello wor" + "ld"
                scored = self.tok_encode(continuation, add_special_tokens=False)
                self.facts["spanning_continuations"] += 1
        if not scored:
            raise TaskError(
                f"the choice {continuation!r} after the context '...{context[-40:]}' is empty, or of what "
                "the tokenizer leaves out: nothing to score"
            )
        return given, scored

    @cached_property
    def _turn(self) -> tuple[str, str]:
        """What the template writes to open an answer, and between that and the answer itself.

        Empty unless choices are to be encoded as training encodes answers.
        """
        if self.subject.template is None or not self.as_trained:
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
        pairs = [request.args for request in requests]
        encoded = self._encode_pairs(pairs)
        return self._loglikelihood_tokens([(pair, *ids) for pair, ids in zip(pairs, encoded, strict=True)])

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        windows: list[ScoreRequest] = []
        owners: list[int] = []
        ids = self._encode(request.args[0] for request in requests)
        for index, request in enumerate(requests):
            tokens = ids[request.args[0]]
            for window in rolling(tokens, prefix=self.prefix_token_id, max_length=self.max_length):
                windows.append(window)
                owners.append(index)
        totals = [0.0] * len(requests)
        for index, score in zip(owners, self.scorer.score(windows), strict=True):
            totals[index] += score.total
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        asked: dict[str, list[tuple[int, Asked]]] = defaultdict(list)
        for index, request in enumerate(requests):
            item = self._asked(request)
            asked[json.dumps(item.options, sort_keys=True, default=str)].append((index, item))
        ids = self._encode(request.args[0] for request in requests)
        seeds = self._seeds(requests)
        answers = [""] * len(requests)
        for items in asked.values():
            prompts = [self._fit(ids[requests[index].args[0]], item) for index, item in items]
            own = [seeds[index] for index, _ in items]
            new = self._generate(prompts, [item for _, item in items], own)
            for (index, item), tokens in zip(items, new, strict=True):
                answers[index] = postprocess_generated_text(
                    generation=self.tok_decode(tokens), stop=item.stops.stops, think_end_token=None
                )
        return answers

    def _seeds(self, requests: Sequence[Instance]) -> list[int]:
        """A stream for every answer: by task, document and request, and which repeat of it this is."""
        asked: Counter[str] = Counter()
        seeds = []
        for index, request in enumerate(requests):
            known = request.doc_id is not None
            name = f"{request.task_name}/{request.doc_id}/{request.idx}" if known else str(index)
            seeds.append(draw_seed(seed=self.subject.seed, prompt=name, sample=asked[name]))
            asked[name] += 1
        return seeds

    def _asked(self, request: Instance) -> Asked:
        """A request's options, as lm-eval's `hf` model reads them.

        Raises: TaskError where the answer leaves no room for a prompt
        """
        options = dict(normalize_gen_kwargs(dict(request.args[1]), DEFAULT_ANSWER))
        if refused := refused_options(request.args[1]):
            raise TaskError(f"task {request.task_name}: generation_kwargs.{refused}")
        eos = self.tokenizer.decode(self.eot_token_id, skip_special_tokens=False)
        until = handle_stop_sequences(options.pop("until", None), eos=eos)
        new_tokens = int(options.pop("max_gen_toks"))
        if not options["do_sample"]:
            options = {name: value for name, value in options.items() if name not in SAMPLING}
        if new_tokens >= self.max_length:
            raise TaskError(
                f"generating {new_tokens} tokens leaves no room for a prompt in a window of "
                f"{self.max_length}; lower evaluator.lm_eval.gen_kwargs.max_gen_toks"
            )
        return Asked(options, self._stops(tuple(until)), new_tokens)

    def _stops(self, until: tuple[str, ...]) -> StopStrings:
        known: dict[tuple[str, ...], StopStrings] = self.__dict__.setdefault("_known_stops", {})
        return known.setdefault(until, StopStrings(until, self.tokenizer))

    def _fit(self, tokens: list[int], asked: Asked) -> list[int]:
        """A prompt cut on the left to what its answer leaves of the window."""
        cut = max(0, len(tokens) + asked.new_tokens - self.max_length)
        self.facts["requests"] += 1
        self.facts["truncated_contexts"] += cut > 0
        self.facts["truncated_tokens"] += cut
        return tokens[cut:]

    def _generate(
        self, prompts: Sequence[list[int]], asked: Sequence[Asked], seeds: Sequence[int]
    ) -> list[list[int]]:
        """New tokens for prompts that share their generation options, but for stops and lengths."""
        options, (ends, _) = asked[0].options, special_ids(self.model)
        rule = rule_of(options)
        if rule is not None and reads_tokens_alone(self.model):
            jobs = [
                Job(ids=ids, max_new_tokens=item.new_tokens, seed=seed, ended=item.stops.ended())
                for ids, item, seed in zip(prompts, asked, seeds, strict=True)
            ]
            return decode(
                self.model,
                jobs,
                rule,
                ends=ends,
                pad=self.pad_id,
                batch_size=self.batch_size,
                on_progress=self.subject.on_progress,
            )
        return self._search(prompts, asked, seeds)

    def _search(
        self, prompts: Sequence[list[int]], asked: Sequence[Asked], seeds: Sequence[int]
    ) -> list[list[int]]:
        """The same through transformers' generate, for searches and models that read a prompt as a source."""
        answers: list[list[int]] = [[] for _ in prompts]
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, item in enumerate(asked):
            alike[item.new_tokens, id(item.stops)].append(index)
        for indices in alike.values():
            item = asked[indices[0]]

            @torch.inference_mode()
            def draw(
                ids_BT: torch.Tensor,
                mask_BT: torch.Tensor,
                which: Sequence[int],
                item: Asked = item,
                own: Sequence[int] = indices,
            ) -> torch.Tensor:
                return generate(
                    self.model,
                    ids_BT,
                    mask_BT,
                    options=item.options,
                    max_new_tokens=item.new_tokens,
                    seeds=[seeds[own[place]] for place in which],
                    stopping=partial(StopAt, item.stops),
                )

            new = in_batches(
                [prompts[index] for index in indices],
                draw,
                pad_id=self.pad_id,
                device=self._device,
                batch_size=self.batch_size,
                new_tokens=item.new_tokens,
                on_progress=self.subject.on_progress,
            )
            for index, tokens in zip(indices, new, strict=True):
                answers[index] = tokens
        return answers


def _spaces_moved(context: str, continuation: str) -> tuple[str, str]:
    """Spaces at the context's end, which may be all of it, belong to what follows, as tokenizers have it."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation
