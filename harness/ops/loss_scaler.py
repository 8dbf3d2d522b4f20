"""A loss scaler for half precision whose processes take or skip a step together."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from harness.ops.gradients import local


class LossScaler(torch.amp.GradScaler):
    """torch's, for weights that may be whole, split over processes in several ways, or on other processes.

    An overflow that one process sees is one for all. Where a pipeline ends on another process, nothing here
    is scaled, and still the scale is known.

    State: the scale, and how many steps overflowed
    """

    def __init__(self, device_type: str, *, init_scale: float, growth_interval: int) -> None:
        super().__init__(device_type, init_scale=init_scale, growth_interval=growth_interval)
        self._lazy_init_scale_growth_tracker(torch.device(device_type))  # type: ignore[attr-defined]
        self._overflows = torch.zeros((), device=device_type)

    @property
    def skipped_steps(self) -> int:
        """Steps that overflowed, and changed no weight."""
        return int(self._overflows)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"skipped_steps": self.skipped_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._overflows.fill_(state_dict["skipped_steps"])

    def _unscale_grads_(
        self,
        optimizer: torch.optim.Optimizer,
        inv_scale: torch.Tensor,
        found_inf: torch.Tensor,
        allow_fp16: bool,
    ) -> dict[torch.device, torch.Tensor]:
        gradients: dict[torch.dtype, list[torch.Tensor]] = {}
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            if p.grad is not None:
                gradients.setdefault(p.grad.dtype, []).append(local(p.grad))
        for alike in gradients.values():
            torch._amp_foreach_non_finite_check_and_unscale_(alike, found_inf, inv_scale)
        if dist.is_initialized():
            dist.all_reduce(found_inf, op=dist.ReduceOp.MAX)
        self._overflows += found_inf.squeeze().clamp(max=1)
        return {found_inf.device: found_inf}
