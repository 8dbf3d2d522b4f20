"""A grid of processes: data x pipeline x tensor, from torch's DTensor, FSDP2 and pipelining."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from harness import IncompatibleError, Optimizer, Parallelism, Problem, Spread

from ._sharded import gather_to_generate
from ._split import split_layers, unsplittable
from ._stages import unpiped, unsplit


class Order(Enum):
    """In which order a pipeline runs its micro-batches."""

    gpipe = "gpipe"
    one_f_one_b = "1f1b"


class Grid(Parallelism):
    """Every process has a place (data, pipeline, tensor); along each direction one thing is split."""

    provides = frozenset({"many_processes", "sharded_weights"})
    writes_shards = True

    def sizes(self) -> tuple[int, int, int]:
        """Processes along (data, pipeline, tensor)."""
        raise NotImplementedError

    def order(self) -> tuple[Order, int]:
        """The pipeline's order and number of micro-batches."""
        return Order.gpipe, 1

    def spread(self) -> Spread:
        data, pipeline, tensor = self.sizes()
        return Spread(
            data=data,
            pipeline=pipeline,
            tensor=tensor,
            splits=frozenset({"weights", "gradients", "states"}),
            micro_batches=self.order()[1] if pipeline > 1 else 1,
            alternates=self.order()[0] is Order.one_f_one_b,
        )

    @classmethod
    def problems(
        cls, cell: Any, meta_model: nn.Module | None, *, pipeline: int, tensor: int
    ) -> Iterable[Problem]:
        """What a model must be like to be split so."""
        for message in unsplittable(meta_model, pipeline=pipeline, tensor=tensor):
            yield Problem(where="parallelism", message=message)
        if pipeline > 1:
            yield from unpiped(cls, cell)
        if tensor > 1:
            yield from unsplit(cls, cell)
        spec = cell.spec()
        if spec is None:
            return
        if spec.ffn_dim % tensor:
            yield Problem(
                where="parallelism",
                message=f"model.ffn_dim={spec.ffn_dim} must be a multiple of the {tensor} processes "
                "that split it",
            )
        if pipeline > 1 and spec.tie_embeddings:
            yield Problem(
                where="model.tie_embeddings",
                message="a pipeline keeps embedding and head on different processes; set it to false",
            )
        if pipeline > spec.num_layers:
            yield Problem(
                where="parallelism",
                message=f"{pipeline} processes need as many layers; model.num_layers={spec.num_layers}",
            )

    def wrap(self, model: nn.Module) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        kind = next(model.parameters()).device.type
        self.mesh = init_device_mesh(kind, self.sizes(), mesh_dim_names=("data", "pipeline", "tensor"))
        data, pipeline, tensor = self.sizes()
        if tensor > 1:
            split_layers(model, self.mesh["tensor"], tensor)
        if pipeline > 1:
            model = Part(model, self.mesh["pipeline"].get_local_rank(), pipeline)
            model.split_over = self.mesh["pipeline"].get_group()  # type: ignore[assignment]
            self.schedules: dict[Any, Any] = {}
        if data > 1:
            fully_shard(model, mesh=self.mesh["data"])
            gather_to_generate(model)
        return model

    def optimizer(self, method: Optimizer, model: nn.Module, learning_rate: float) -> TorchOptimizer:
        built = method.build(model, learning_rate)
        # Kernels over many tensors take split or whole ones, not both at once.
        for group in list(built.param_groups):
            alike: dict[Any, list[nn.Parameter]] = {}
            for p in group["params"]:
                alike.setdefault(getattr(p, "device_mesh", None), []).append(p)
            group["params"], *others = alike.values()
            for params in others:
                built.add_param_group({**group, "params": params})
        return built

    def data_rank(self) -> tuple[int, int]:
        if not dist.is_initialized():
            return 0, 1
        # Before `wrap` the place follows from the order of the mesh's dimensions.
        data, pipeline, tensor = self.sizes()
        return dist.get_rank() // (pipeline * tensor), data

    def splits_batches(self) -> bool:
        return self.sizes()[1] > 1

    def data_group(self) -> Any:
        return self.mesh["data"].get_group()

    def accumulate(
        self, model: nn.Module, parts: list[dict[str, Tensor]], compute: Callable[..., Any]
    ) -> list[dict[str, Tensor]]:
        if self.sizes()[1] == 1:
            if hasattr(model, "set_requires_gradient_sync"):
                return self._synced(model, parts, compute)
            return super().accumulate(model, parts, compute)
        assert isinstance(model, Part)
        found = [self._pipelined(model, part, compute) for part in parts]
        shared: list[Any] = [found]
        last = dist.get_global_rank(model.split_over, self.sizes()[1] - 1)  # type: ignore[arg-type]
        dist.broadcast_object_list(shared, src=last, group=model.split_over)  # type: ignore[arg-type]
        return [sums for each in shared[0] for sums in each]

    def _synced(
        self, model: Any, parts: list[dict[str, Tensor]], compute: Callable[..., Any]
    ) -> list[dict[str, Tensor]]:
        found = []
        for index, part in enumerate(parts):
            model.set_requires_gradient_sync(index == len(parts) - 1)
            loss, sums = compute(model, part)
            loss.backward()
            found.append(sums)
        return found

    def _pipelined(
        self, model: Part, part: dict[str, Tensor], compute: Callable[..., Any]
    ) -> list[dict[str, Tensor]]:
        from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

        order, count = self.order()
        if "input_ids" not in part:
            raise IncompatibleError(f"a pipeline passes `input_ids` along, and this batch has {sorted(part)}")
        rows = len(part["input_ids"])
        count = max(n for n in range(1, min(count, rows) + 1) if rows % n == 0)
        found: list[dict[str, Tensor]] = []
        now: dict[str, Any] = {}

        def loss_of(logits_BTV: Tensor, rows_B: Tensor) -> Tensor:
            loss, sums = now["compute"](Answer(logits_BTV), {k: v[rows_B] for k, v in now["part"].items()})
            now["found"].append(sums)
            return loss  # type: ignore[no-any-return]

        key = (tuple(part["input_ids"].shape), tuple(sorted(part)))
        if key not in self.schedules:
            device = part["input_ids"].device
            stage = PipelineStage(model, model.index, model.count, device, group=model.split_over)  # type: ignore[arg-type]
            kind = ScheduleGPipe if order is Order.gpipe else Schedule1F1B
            self.schedules[key] = (kind(stage, count, loss_fn=loss_of, scale_grads=False), now)
        schedule, now = self.schedules[key]
        now |= {"compute": compute, "part": part, "found": found}
        named = {k: v for k, v in part.items() if k not in ("input_ids", "labels_BT")}
        rows_B = torch.arange(rows, device=part["input_ids"].device)
        first = (part["input_ids"],) if model.index == 0 else ()
        target = {"target": rows_B} if model.index == model.count - 1 else {}
        schedule.step(*first, **target, **named)
        # To learn shapes, the first step calls the loss once more, before all others.
        return found[-count:]

    def named(self, model: nn.Module) -> nn.Module:
        return model.model_of_part if isinstance(model, Part) else model

    def full_state(self, model: nn.Module) -> dict[str, Any]:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        own = get_model_state_dict(self.named(model), options=StateDictOptions(full_state_dict=True))
        return {name: value for part in self._gathered(own) for name, value in part.items()}

    def _gathered(self, value: Any) -> list[Any]:
        """A value of every place along the pipeline."""
        if self.sizes()[1] == 1:
            return [value]
        values: list[Any] = [None] * self.sizes()[1]
        dist.all_gather_object(values, value, group=self.mesh["pipeline"].get_group())
        return values


class Skip(nn.Module):
    """Stands where another process has a layer."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return x


class Part(nn.Module):
    """The layers of one place along a pipeline, under the names they have in the whole model.

    Shapes: the first reads ids BT, the last gives logits BTV, others pass BTD on
    """

    split_over: Any

    def __init__(self, model: Any, index: int, count: int) -> None:
        super().__init__()
        self.index, self.count = index, count
        # Adapters stand in the layers; the wrapper around them is kept for the names of its parameters.
        plain = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.plain, backbone = [plain], plain.model
        if not isinstance(getattr(backbone, "layers", None), nn.ModuleList):
            raise IncompatibleError(f"{type(model).__name__} has no list of layers (model.layers) to spread")
        for message in unsplittable(plain, pipeline=count, tensor=1):
            raise IncompatibleError(message)
        head = model.get_output_embeddings()
        if head.weight is model.get_input_embeddings().weight:
            raise IncompatibleError(
                "a pipeline keeps embedding and head on different processes; set model.tie_embeddings=false"
            )
        num_layers = len(backbone.layers)
        own = range(index * num_layers // count, (index + 1) * num_layers // count)
        for number in range(num_layers):
            if number not in own:
                backbone.layers[number] = Skip()
        if index > 0:
            backbone.embed_tokens = Skip()
            for name in ("dropout", "embed_norm"):
                if hasattr(backbone, name):
                    setattr(backbone, name, Skip())
        if index < count - 1:
            backbone.norm, plain.lm_head = Skip(), Skip()
        self.model_of_part = model

    def forward(self, x: Tensor | None = None, **inputs: Any) -> Tensor:
        read = {"input_ids": x} if self.index == 0 else {"inputs_embeds": x}
        if self.index == self.count - 1:
            return self.plain[0](**read, **inputs, use_cache=False).logits  # type: ignore[no-any-return]
        return self.plain[0].model(**read, **inputs).last_hidden_state  # type: ignore[no-any-return]


class Answer(nn.Module):
    """Stands for the model in a loss, once the logits are there."""

    def __init__(self, logits_BTV: Tensor) -> None:
        super().__init__()
        self.output = Output(logits=logits_BTV)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.output


class Output(dict[str, Any]):
    """Logits, read by key or by attribute."""

    def __getattr__(self, name: str) -> Any:
        return self[name]
