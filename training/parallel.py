"""A site of several processes: rank 0 does the work of the chain, all ranks step together.

Rank 0 drives `Together` as it would drive a loop of its own. What it asks for is told to the other ranks, which do the
same to their part: batches, parameters and optimizer states travel from it by gloo, so that no other rank reads a
store, holds a key or knows the chain. Gradients travel by the backend of the device. Ranks come from torchrun, or from
`started` on one machine. Messages are JSON and plain arrays, never pickles.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch._C._distributed_c10d import TCPStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from data_contracts.errors import RoundError
from training.inner import InnerLoop, MakeLoop, StepResult, Team, pick_device
from training.model import ModelSpec, Parameters, build
from training.recipe import InnerRecipe

T = TypeVar("T")
Form = Literal["ddp", "fsdp"]
FORMS: tuple[Form, ...] = ("ddp", "fsdp")
Arrays = Mapping[str, NDArray[Any]]

# The ranks wait for rank 0 while it waits for the other sites, for as long as these take. That it died they learn at
# once, by the connection.
_PATIENCE = timedelta(days=30)
_START_S = 300.0


class Together:
    """A model that all ranks of a site train, driven by rank 0. One at a time: a later one takes its place."""

    def __init__(self, spec: ModelSpec, seed: int, recipe: InnerRecipe, form: Form = "ddp") -> None:
        facts = {"spec": spec.model_dump(mode="json"), "seed": seed, "recipe": recipe.model_dump(mode="json")}
        _tell({"do": "build", "form": form, **facts})
        self._loop = _on_all(lambda: _build(spec, seed, recipe, form))

    @property
    def device(self) -> torch.device:
        """The device of rank 0."""
        return self._loop.device

    def step(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64], schedule_step: int, tokens: int | None = None
    ) -> StepResult:
        """Take one optimizer step on windows [B, L], divided among the ranks; as `InnerLoop.step`."""
        _tell({"do": "step", "at": schedule_step, "tokens": tokens}, {"inputs": inputs, "targets": targets})
        return self._loop.step(inputs, targets, schedule_step, tokens)

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Return the whole parameters."""
        _tell({"do": "parameters"})
        return self._loop.parameters()

    def load_parameters(self, parameters: Parameters) -> None:
        """Put whole parameters in place on every rank."""
        _tell({"do": "load_parameters"}, parameters)
        _on_all(lambda: self._loop.load_parameters(parameters))

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the whole optimizer state: what a loop of one process would have, and loads."""
        _tell({"do": "state"})
        return self._loop.state()

    def load_state(self, state: Arrays) -> None:
        """Put a whole optimizer state back on every rank."""
        _tell({"do": "load_state"}, state)
        _on_all(lambda: self._loop.load_state(state))

    def reset(self) -> None:
        """Forget the optimizer's state on every rank."""
        _tell({"do": "reset"})
        self._loop.reset()


def follow() -> None:
    """Do what rank 0 asks for, until it ends."""
    loop: InnerLoop | None = None
    while True:
        message, arrays = _hear()
        if message["do"] == "end":
            return
        try:
            loop = _obey(loop, message, arrays)
        except RoundError:
            # Rank 0 finds the same fault, or is told; what follows from it is for rank 0 to say.
            continue


def _obey(loop: InnerLoop | None, message: Mapping[str, Any], arrays: Arrays) -> InnerLoop:
    do = message["do"]
    if do == "build":
        spec, recipe = ModelSpec.model_validate(message["spec"]), InnerRecipe.model_validate(message["recipe"])
        return _on_all(lambda: _build(spec, message["seed"], recipe, message["form"]))
    assert loop is not None, f"{do} before build"
    if do == "step":
        loop.step(arrays["inputs"], arrays["targets"], message["at"], message["tokens"])
    elif do == "load_parameters":
        _on_all(lambda: loop.load_parameters(arrays))
    elif do == "load_state":
        _on_all(lambda: loop.load_state(arrays))
    else:
        {"parameters": loop.parameters, "state": loop.state, "reset": loop.reset}[do]()
    return loop


def _on_all(do: Callable[[], T]) -> T:
    """Do what every rank does now; where one fails, all do, and none goes on with another model than the others.

    A step needs no such care: what it fails by, loss and norm, is a sum over all ranks.
    """
    fault: RoundError | None = None
    try:
        done = do()
    except RoundError as error:
        fault = error
    faults = torch.tensor([int(fault is not None)])
    dist.all_reduce(faults)
    if fault is not None:
        raise fault
    if int(faults):
        raise RoundError(f"{int(faults)} other ranks of this site failed at what this one did; start the site again")
    return done


@contextmanager
def joined(store: TCPStore | None = None, rank: int | None = None, ranks: int | None = None) -> Iterator[int]:
    """Join the ranks of this site, by torchrun's variables or a given store; yield this process's rank.

    When rank 0 leaves, whyever, it tells the others to end.

    Raises:
        RoundError: another rank has ended, or the connection to it.
    """
    device = pick_device()
    backend = "gloo"
    if device.type != "cpu":
        torch.accelerator.set_device_index(int(os.environ.get("LOCAL_RANK", rank or 0)))
        backend = f"cpu:gloo,{device.type}:{dist.get_default_backend_for_device(device)}"
    if store is None:
        dist.init_process_group(backend, timeout=_PATIENCE)
    else:
        dist.init_process_group(backend, timeout=_PATIENCE, store=store, rank=rank or 0, world_size=ranks or 1)
    try:
        yield dist.get_rank()
    except RuntimeError as error:
        if not _lost(error):
            raise
        raise RoundError(
            f"a rank of this site has ended, or does not answer ({str(error).splitlines()[0]}); start the site again: "
            "it goes on from the chain"
        ) from error
    except BaseException:
        _end()
        raise
    else:
        _end()
    finally:
        dist.destroy_process_group()


def _end() -> None:
    if dist.get_rank() == 0:
        with suppress(RuntimeError):  # they may be dead already
            _tell({"do": "end"})


def _lost(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


@contextmanager
def started(ranks: int, threads: int = 1) -> Iterator[None]:
    """Start the other ranks of this machine as processes, and join them as rank 0; they end with the block.

    Raises:
        RoundError: one of them did not start.
    """
    # gloo would look the host's name up for an address; these ranks are on one machine.
    loopback = {} if os.environ.get("GLOO_SOCKET_IFNAME") else {"GLOO_SOCKET_IFNAME": "lo"}
    os.environ.update(loopback)
    store = TCPStore("127.0.0.1", 0, ranks, is_master=True, timeout=timedelta(seconds=_START_S), wait_for_workers=False)
    command = [sys.executable, "-m", "training.parallel", str(store.port), str(ranks), str(threads)]
    others: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(1, ranks):
            environment = {**os.environ, "LOCAL_RANK": str(rank)}
            others.append(subprocess.Popen([*command, str(rank), str(os.getpid())], env=environment))
        os.environ["LOCAL_RANK"] = "0"
        with joined(store, 0, ranks):
            yield
        for process in others:
            process.wait(timeout=_START_S)
    finally:
        for process in others:
            if process.poll() is None:
                process.kill()
            process.wait()


@contextmanager
def together(ranks: int, form: str, threads: int) -> Iterator[MakeLoop]:
    """Join the ranks that torchrun has started, or start `ranks` on this machine; yield what makes their loop."""
    if form not in FORMS:
        raise RoundError(f"form {form!r} of a site's ranks: not one of {', '.join(FORMS)}")
    with joined() if "WORLD_SIZE" in os.environ else started(ranks, threads):
        yield partial(Together, form=form)


def follower() -> int:
    """Be a rank that torchrun has started beside rank 0; return the exit code."""
    try:
        with joined():
            follow()
    except RoundError as error:
        print(f"rank {os.environ.get('RANK')}: {error}", file=sys.stderr)
        return 1
    return 0


def _build(spec: ModelSpec, seed: int, recipe: InnerRecipe, form: Form) -> InnerLoop:
    device = pick_device()
    if device.type != "cpu":
        device = torch.device(device.type, torch.accelerator.current_device_index())
    model = build(spec, seed).to(device)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if form == "ddp":
        placed = [device] if device.type != "cpu" else None
        return InnerLoop(model, recipe, device, Team(rank, ranks, DistributedDataParallel(model, device_ids=placed)))
    mesh = init_device_mesh(device.type, (ranks,))
    names = set(getattr(model, "_no_split_modules", None) or ())
    for layer in [module for module in model.modules() if type(module).__name__ in names]:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return InnerLoop(model, recipe, device, Team(rank, ranks))


def _tell(message: Mapping[str, Any], arrays: Arrays | None = None) -> None:
    held = {name: np.asarray(array, order="C") for name, array in (arrays or {}).items()}
    shapes = [[name, str(array.dtype), list(array.shape)] for name, array in held.items()]
    text = json.dumps({**message, "arrays": shapes}).encode()
    dist.broadcast(torch.tensor([len(text)], dtype=torch.int64), 0)
    dist.broadcast(torch.frombuffer(bytearray(text), dtype=torch.uint8), 0)
    for array in held.values():
        if array.size:
            dist.broadcast(torch.from_numpy(array.reshape(-1).view(np.uint8).copy()), 0)


def _hear() -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    length = torch.zeros(1, dtype=torch.int64)
    dist.broadcast(length, 0)
    text = torch.zeros(int(length), dtype=torch.uint8)
    dist.broadcast(text, 0)
    message = cast(dict[str, Any], json.loads(text.numpy().tobytes()))
    arrays: dict[str, NDArray[Any]] = {}
    for name, dtype, shape in message.pop("arrays"):
        array = np.zeros(shape, dtype=np.dtype(dtype))
        if array.size:
            data = torch.zeros(array.nbytes, dtype=torch.uint8)
            dist.broadcast(data, 0)
            array = data.numpy().view(array.dtype).reshape(shape)
        arrays[name] = array
    return message, arrays


def main(arguments: Sequence[str]) -> int:
    """Be one of the ranks that `started` starts."""
    from training.process import end_with

    port, ranks, threads, rank, parent = map(int, arguments)
    # What stops a site is told to rank 0, which publishes what is whole and then ends the others.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if not end_with(parent):
        return 3
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    store = TCPStore("127.0.0.1", port, ranks, is_master=False, timeout=timedelta(seconds=_START_S))
    with joined(store, rank, ranks):
        follow()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
