"""Several processes that train one model, started by torchrun or `accelerate launch`: who takes what, who says what.

A single process is the case of one: nothing is sent then.
"""

import atexit
import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from ..machine import best_device
from ..model.layers import Block, ClassLayer
from .optimizer import make_optimizer
from .recipe import Recipe, RecipeError

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class LostProcess(Exception):
    """Another process of the run is gone."""


def _leave() -> None:
    gc.collect()  # a model copied to each process (DDP) holds the connection, and is part of a cycle
    if dist.is_initialized():
        dist.destroy_process_group()


class OneProcess:
    """A process that trains alone: nothing is sent, and everything is its own."""

    rank, count, is_main = 0, 1, True

    def total(self, *values: float) -> list[float]:
        """Returns the sums over all processes."""
        return list(values)

    @contextlib.contextmanager
    def gradients(self, model: nn.Module, last: bool) -> Iterator[None]:
        """Stands around forward and backward of a part of a step: only the last part sends gradients."""
        yield

    def backward(self, loss: torch.Tensor) -> None:
        """Computes gradients."""
        loss.backward()

    def clip(self, model: nn.Module, norm: float) -> float:
        """Scales the gradients down to a norm, if theirs is larger, and returns theirs."""
        return float(nn.utils.clip_grad_norm_(model.parameters(), norm))


class Processes(OneProcess):
    """The processes of a run, seen from one of them.

    Args:
        recipe: Decides device, and whether the model is sharded.
    """

    def __init__(self, recipe: Recipe) -> None:
        AcceleratorState._reset_state(reset_partial_state=True)  # another run in this process may have set it
        device = best_device(recipe.device)
        if device.type == "cuda" and recipe.device:
            torch.cuda.set_device(device)  # accelerate knows of the present one only
        self.accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")  # autocast is the loop's
        self.rank, self.count = self.accelerator.process_index, self.accelerator.num_processes
        self.is_main = self.rank == 0
        self.device = device if self.count == 1 else self.accelerator.device
        self.shard = recipe.shard
        if self.shard and self.count == 1:
            raise RecipeError("shard: there is one process only; start several with torchrun --nproc-per-node N")
        if self.shard and recipe.ema is not None:
            raise RecipeError("shard: does not go with ema; leave one of them out")

    def share(self, size: int) -> slice:
        """Returns what this process takes of `size` things in a row.

        Raises:
            RecipeError: They cannot be divided equally.
        """
        if size % self.count:
            raise RecipeError(f"batch_size={size}: must be a multiple of the {self.count} processes")
        each = size // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def total(self, *values: float) -> list[float]:
        """The sums over all processes."""
        if self.count == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return sums.tolist()

    def from_main(self, make: Callable[[], Any]) -> Any:
        """What the main process makes, known to all."""
        things = [make() if self.is_main else None]
        return things[0] if self.count == 1 else broadcast_object_list(things)[0]

    def gather(self, thing: Any) -> list[Any]:
        """One thing of each process, known to all."""
        return [thing] if self.count == 1 else gather_object([thing])

    def spread(self, model: nn.Module, recipe: Recipe) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The model as it is to be called in training, its gradients the mean over the processes; and its optimiser.

        Copied to each process (DDP), or each weight in parts (FSDP2, by torch itself: accelerate has none on a CPU).
        """
        if not self.shard:
            return self.accelerator.prepare(model, make_optimizer(model, recipe, self.device))
        model.to(memory_format=torch.contiguous_format)  # what FSDP2 takes
        mesh = init_device_mesh(self.device.type, (self.count,))
        for part in [m for m in model.modules() if isinstance(m, (Block, ClassLayer))]:
            fully_shard(part, mesh=mesh)
        fully_shard(model, mesh=mesh)  # in fp32, as with DDP: autocast decides what is computed in less
        return model, make_optimizer(model, recipe, self.device)

    @contextlib.contextmanager
    def gradients(self, model: nn.Module, last: bool) -> Iterator[None]:
        """Around forward and backward of a part of a step: only the last sends gradients."""
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(last)
            yield
        else:
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                yield

    def backward(self, loss: torch.Tensor) -> None:
        """Computes gradients, which become the mean over the processes."""
        self.accelerator.backward(loss)

    def clip(self, model: nn.Module, norm: float) -> float:
        """Scales the gradients down to a norm, if theirs is larger, and returns theirs."""
        found: Any = self.accelerator.clip_grad_norm_(model.parameters(), norm)
        return float(found.full_tensor() if isinstance(found, DTensor) else found)

    def share_buffers(self, model: nn.Module) -> None:
        """Copies the main process's buffers to the others."""
        if self.count > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def states(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Whole states of both, on the main process; every process has to ask."""
        if self.shard:
            return {
                "model": get_model_state_dict(model, options=WHOLE),
                "optimizer": get_optimizer_state_dict(model, optimizer, options=WHOLE),
            }
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    def load_optimizer(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Takes back what `states` gave; the model's weights are loaded before it is spread."""
        if self.shard:
            set_optimizer_state_dict(model, optimizer, state, options=WHOLE)
        else:
            optimizer.load_state_dict(state)

    def leave_at_exit(self) -> None:
        """Ends the connection in good order before Python ends; its threads may abort a process that just stops."""
        if self.count > 1:
            atexit.register(_leave)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Turns the many errors of a connection that is gone into one.

        Raises:
            LostProcess: Another process has ended.
        """
        try:
            yield
        except RuntimeError as error:
            if self.count > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise LostProcess("another process of this run is gone") from error
            raise
