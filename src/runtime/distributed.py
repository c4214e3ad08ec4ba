"""Several processes that train one model, as torchrun starts them; without torchrun, one process and no group.

Small messages (counts, flags) go between CPUs over gloo, so that none waits for a GPU; gradients go over NCCL on GPUs.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

Item = TypeVar("Item")


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", 0))


def is_main() -> bool:
    """Whether this process is the one that prints and writes."""
    return rank() == 0


def local_device(device: torch.device) -> torch.device:
    """The device of this process: with several on a node, each takes the GPU of its local rank.

    Raises ValueError where one GPU is named for all, or a node has fewer GPUs than processes.
    """
    if world_size() == 1 or device.type != "cuda":
        return device
    local, available = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if device.index is not None:
        raise ValueError(f"--device {device} is one GPU, but there are {world_size()} processes; pass --device cuda")
    if local >= available:
        raise ValueError(f"process {local} of this node has no GPU (it has {available}); lower --nproc_per_node")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes for the block; only the main one prints in it.

    They meet again within an hour, which leaves time for one that fills a cache.
    """
    if world_size() == 1:
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=1))
    with open(os.devnull, "w") as nowhere:
        quiet = contextlib.nullcontext() if is_main() else contextlib.redirect_stdout(nowhere)
        with quiet:
            yield
    dist.destroy_process_group()  # not after an error: the others may be waiting, and torchrun ends them


def wrap_ddp(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with its gradients averaged over the processes; the model itself where there is one."""
    if world_size() == 1:
        return model
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def share_buffers(model: nn.Module) -> None:
    """Give every process the main one's buffers, such as BatchNorm's statistics, which each gathers from its share."""
    if world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def launcher() -> str:
    """What a command line begins with that starts as many processes as there are."""
    if world_size() == 1:
        return "python"
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    nodes = f"--nnodes={world_size() // local} " if world_size() > local else ""
    return f"torchrun {nodes}--nproc_per_node={local} --"


def no_sync(net: nn.Module) -> contextlib.AbstractContextManager[None]:
    """A block whose gradients wait for the next step's to be exchanged."""
    return net.no_sync() if isinstance(net, DistributedDataParallel) else contextlib.nullcontext()


def all_reduce_sum(values: Sequence[float]) -> list[float]:
    """Each of the values summed over the processes."""
    if world_size() == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(sums)
    return sums.tolist()


def shard(count: int) -> list[int]:
    """The numbers below `count` that are this process's: all of them over the processes, none twice."""
    return torch.arange(count).tensor_split(world_size())[rank()].tolist()


def all_reduce_rows(values: torch.Tensor) -> torch.Tensor:
    """The sum of a float32 CPU tensor over the processes, of which each filled its own rows and left the others 0."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def gathered(items: Sequence[Item]) -> list[Item]:
    """The items of all processes, in the order of their ranks."""
    if world_size() == 1:
        return list(items)
    lists: list[list[Item]] = [[]] * world_size()
    dist.all_gather_object(lists, list(items))
    return [item for part in lists for item in part]
