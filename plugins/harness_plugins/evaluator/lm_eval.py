"""lm-eval: any task of the Language Model Evaluation Harness, and the offline ones shipped here."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from harness import (
    PROMPT_FILES,
    Choice,
    ConfigError,
    Controls,
    DataError,
    Evaluation,
    Evaluator,
    HarnessError,
    IncompatibleError,
    Method,
    Problem,
    Subject,
    TaskError,
    check_counts,
    check_distinct,
    check_limits,
    hookimpl,
    path_ref,
)


class LmEval(Evaluator):
    """Runs lm-eval's tasks on a scoring engine of our own that runs every shared context once.

    Error: closed-form standard errors for means over items, 200 bootstrap resamples for other aggregates
    Raises: TaskError where a task does not exist or its data cannot be had
    """

    name = "lm_eval"

    @dataclass(frozen=True, kw_only=True)
    class Config(Evaluator.Config):
        tasks: list[str] = field(default_factory=lambda: ["instruction_following", "recall"])
        """Tasks or groups by name; completion, last_word, instruction_following, recall, copy, mqar and
        passkey need no network."""
        limit: int | None = None
        """Items of each task, from its start; null = all, or 200 of a task whose items are generated."""
        num_fewshot: int | None = None
        """Examples in the prompt; null = what the task states."""
        chat_template: bool | None = None
        """Whether prompts go through the chat template; null = where the model was tuned on one."""
        system_instruction: str = ""
        """What a system turn says before every prompt."""
        fewshot_as_multiturn: bool = True
        """Whether examples are turns of a conversation, where there is a chat template, or one text."""
        gen_kwargs: dict[str, Any] = field(default_factory=dict)
        """Options of generation that win over a task's own: {max_gen_toks: 64, do_sample: true, ...}."""
        fewshot_seed: int = 1234
        """Seed of the examples that are drawn; 1234 is lm-eval's own."""
        answers: str = "lm_eval"
        """How choices after a template are encoded: `lm_eval`, or `as_trained`, apart from the prompt."""
        include_path: str = path_ref(folder=True)
        """Folder with task YAML of your own."""
        data_files: dict[str, Any] = path_ref(dict)
        """Task -> {split: local JSON or JSON lines file}, in place of the task's data set."""
        trust: bool = False
        """Whether YAML in include_path may run Python code of its own."""
        batch_tokens: int = 1024
        """Padded tokens of one forward pass."""

        def __post_init__(self) -> None:
            if not self.tasks:
                raise ConfigError("evaluator.lm_eval.tasks=[] names no task; e.g. [recall]")
            check_distinct(self, "evaluator.lm_eval", "tasks")
            check_limits(self, "evaluator.lm_eval", "limit")
            check_counts(self, "evaluator.lm_eval", "batch_tokens")
            for task, files in self.data_files.items():
                if not isinstance(files, Mapping):
                    raise ConfigError(
                        f"evaluator.lm_eval.data_files.{task}={files} must name the split: {{test: {files}}}"
                    )
            if self.answers not in ("lm_eval", "as_trained"):
                raise ConfigError(f"evaluator.lm_eval.answers={self.answers} must be lm_eval or as_trained")

    config: Config

    @classmethod
    def trial(cls) -> Any:
        return cls.Config(tasks=["recall"], limit=12)

    @classmethod
    def tasks(cls, config: Any) -> Sequence[str]:
        return tuple(config.tasks)

    @classmethod
    def known_tasks(cls) -> Sequence[str]:
        from harness import own_tasks

        return own_tasks()

    @classmethod
    def metrics(cls, config: Any, task: str) -> Sequence[str] | None:
        from harness import own_metrics

        return own_metrics(task) if task not in config.data_files else None

    @classmethod
    def only(cls, config: Any, task: str) -> Any:
        files = {name: value for name, value in config.data_files.items() if name == task}
        return replace(config, tasks=[task], data_files=files)

    @classmethod
    def reads(cls, config: Any) -> dict[str, Path]:
        from harness import task_files

        found: dict[str, Path] = {}
        for task in config.tasks:
            if task not in config.data_files:
                found |= task_files(task, include_path=config.include_path)
        return found

    @classmethod
    def check_files(cls, config: Any) -> None:
        from harness import item_rows

        for task in config.tasks:
            stated = config.data_files.get(task, {}).values()
            try:
                files = stated or cls.reads(replace(config, tasks=[task])).values()
            except TaskError:  # `check` says so
                continue
            for file in files:
                if str(file).lower().endswith(PROMPT_FILES) and not item_rows(Path(file)):
                    raise DataError(f"{file} has no items")

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        from harness import find_task, hub_data, is_cached, refused_options, without_data

        if config.include_path and not Path(config.include_path).expanduser().is_dir():
            return  # said of every option that names files
        stops = config.gen_kwargs.get("until", [])
        if "" in (stops if isinstance(stops, list) else [stops]):
            message = "an empty stop string would end every answer before it begins; leave it out"
            yield Problem(where="evaluator.lm_eval.gen_kwargs.until", message=message)
        if refused := refused_options(config.gen_kwargs):
            yield Problem(where="evaluator.lm_eval.gen_kwargs", message=refused)
        for task in sorted(set(config.data_files) - set(config.tasks)):
            message = (
                f"'{task}' is none of the tasks {list(config.tasks)}; name the one that reads these files"
            )
            yield Problem(where=f"evaluator.lm_eval.data_files.{task}", message=message)
        for task in config.tasks:
            try:
                path = find_task(task, include_path=config.include_path)
            except TaskError as error:
                yield Problem(where="evaluator.lm_eval.tasks", message=str(error))
                continue
            data = hub_data(path) if path is not None and task not in config.data_files else None
            if data is not None and cell.offline and not is_cached(data):
                message = without_data(task, f"{data} is not in the cache")
                yield Problem(where="evaluator.lm_eval.tasks", message=message)

    @classmethod
    def num_items(cls, config: Any, task: str) -> int | None:
        from harness import count_items

        try:
            known = [count_items(task, config.data_files.get(task)), config.limit]
        except DataError:  # `check` says so
            return None
        return min((count for count in known if count is not None), default=None)

    @classmethod
    def longest_answer(cls, config: Any) -> int | None:
        from harness import answer_tokens

        found = [answer_tokens(stated, config.gen_kwargs) for stated in cls.stated(config)]
        return max((tokens for tokens in found if tokens is not None), default=None)

    @classmethod
    def stated(cls, config: Any) -> list[dict[str, Any]]:
        """What the YAML of all tasks says, as far as it is there."""
        from harness import stated_tasks

        found: list[dict[str, Any]] = []
        for task in config.tasks:
            with suppress(HarnessError, OSError):  # `check` says so
                found += stated_tasks(task, include_path=config.include_path)
        return found

    @classmethod
    def idle(cls, config: Any) -> Mapping[str, str]:
        stated, found = cls.stated(config), {}
        if not stated:
            return {}
        if config.num_fewshot and all(task.get("num_fewshot") == 0 for task in stated):
            found["num_fewshot"] = "all of these tasks state num_fewshot: 0, which lm-eval keeps to"
        if config.gen_kwargs and not any(task.get("output_type") == "generate_until" for task in stated):
            found["gen_kwargs"] = "none of these tasks lets the model write; they compare likelihoods"
        return found

    @classmethod
    def item_texts(cls, config: Any) -> Sequence[Choice]:
        from harness import held_out_documents, own_origin, task_items

        origins = {task: own_origin(task) for task in config.tasks if task not in config.data_files}
        stored = sorted(task for task in set(config.tasks) if origins.get(task) is None)
        documents = (held_out_documents(),) if "documents" in origins.values() else ()
        if not stored:
            return documents
        return (
            *documents,
            task_items(
                tasks=stored,
                include_path=config.include_path,
                data_files={task: files for task, files in config.data_files.items() if task in stored},
                trust=config.trust,
            ),
        )

    def evaluate(self, task: str, subject: Subject) -> Evaluation:
        from harness import Source, drawing_from, load_task, quiet, run_tasks, seeded

        config = self.config
        documents = subject.documents("test") if subject.documents is not None else []
        with quiet(), seeded(), drawing_from(Source(documents=documents, limit=config.limit)):
            loaded = load_task(
                task,
                include_path=config.include_path,
                data_files=config.data_files.get(task),
                trust=config.trust,
            )
            return run_tasks(loaded, subject, self.controls(subject))

    def controls(self, subject: Subject) -> Controls:
        """lm-eval's controls as these options and the model's own template state them.

        Raises: IncompatibleError for a chat template that the tokenizer does not have
        """
        from harness import one_length

        config = self.config
        template = subject.template is not None if config.chat_template is None else config.chat_template
        if template and not subject.tokenizer.chat_template:
            raise IncompatibleError(
                "evaluator.lm_eval.chat_template=true, but the model's tokenizer has no chat template; leave "
                "it null or add the stage instruct"
            )
        return Controls(
            limit=config.limit,
            num_fewshot=config.num_fewshot,
            chat_template=template,
            system_instruction=config.system_instruction or None,
            fewshot_as_multiturn=config.fewshot_as_multiturn,
            gen_kwargs=one_length(config.gen_kwargs),
            fewshot_seed=config.fewshot_seed,
            batch_tokens=config.batch_tokens,
            as_trained=config.answers == "as_trained",
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [LmEval]
