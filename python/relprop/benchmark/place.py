"""Where everybody runs, on this machine's processors or on a GPU; what differs is here."""

from __future__ import annotations

import copy
import gc
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn.modules.conv import _ConvNd

from relprop.devices import Precision, gpu_of

Run = Callable[[], Any]
"""One forward pass, or one with the pass back that returns what arrives at the input."""


@dataclass(frozen=True)
class Holding:
    """A run whose library keeps tensors of it, until it runs again or for good."""

    run: Run
    drop: Callable[[], None]
    """Has the library drop them."""

    def __call__(self) -> Any:
        return self.run()


def let_go(run: Run) -> None:
    """Have a run hold nothing of what it computed; not to be timed."""
    if isinstance(run, Holding):
        run.drop()


@dataclass(frozen=True)
class Turn:
    """What one run took."""

    wall: float
    cpu: float
    """Seconds of all threads of the process together."""


class Place(Protocol):
    """Where contenders run."""

    rotation: ClassVar[int]
    """Batches of noise that are explained in turn."""
    only_channels_last: ClassVar[bool]
    """Whether torch takes part with that memory format alone: on a GPU it is the faster, and cuDNN
    tries every layer in every format for seconds."""
    in_a_row: ClassVar[int]
    """Times that torch's bare products run for one look at the clock: several on a GPU, which has
    the next launch while it computes."""

    @property
    def device(self) -> str:
        """Its name for an Explainer, and for torch."""
        ...

    @property
    def precision(self) -> Precision:
        """That of everybody's products."""
        ...

    def label(self, threads: int) -> str:
        """What tables call it."""
        ...

    def facts(self) -> dict[str, Any]:
        """What a report says of the machine besides its processor."""
        ...

    def settings(self) -> AbstractContextManager[None]:
        """Make torch's settings those of this place while something is measured."""
        ...

    def autocast(self) -> Any:
        """The context in which torch's modules compute in this precision."""
        ...

    def tensor(self, tensor: Tensor) -> Tensor:
        """A tensor of the host's in the memory that is computed on."""
        ...

    def operand(self, tensor: Tensor) -> Tensor:
        """The same, rounded as a factor of products."""
        ...

    def given(self, images: Tensor) -> Any:
        """Images here as relprop takes them."""
        ...

    def model(self, module: nn.Module, memory: Any) -> nn.Module:
        """A module of the host's as torch runs it, in a memory format."""
        ...

    def captured(self, run: Run) -> Run:
        """A run without Python: all that it starts on a GPU at once."""
        ...

    def turn(self, run: Run) -> Turn:
        """Time a run, to the end of all that it started."""
        ...

    def release(self) -> None:
        """Give back memory that torch keeps for later."""
        ...


@dataclass(frozen=True)
class Cpu:
    """The processors of this machine."""

    rotation: ClassVar[int] = 1
    only_channels_last: ClassVar[bool] = False
    in_a_row: ClassVar[int] = 1
    device: str = "cpu"
    precision: Precision = "float32"

    def label(self, threads: int) -> str:
        return "1 thread" if threads == 1 else f"{threads} threads"

    def facts(self) -> dict[str, Any]:
        return {}

    def settings(self) -> AbstractContextManager[None]:
        return nullcontext()

    def autocast(self) -> Any:
        return nullcontext()

    def tensor(self, tensor: Tensor) -> Tensor:
        return tensor

    def operand(self, tensor: Tensor) -> Tensor:
        return tensor

    def given(self, images: Tensor) -> Any:
        return images.numpy()

    def model(self, module: nn.Module, memory: Any) -> nn.Module:
        if memory == torch.contiguous_format:
            return module
        return copy.deepcopy(module).to(memory_format=memory)

    def captured(self, run: Run) -> Run:
        raise NotImplementedError("a CPU has no graphs to capture")

    def turn(self, run: Run) -> Turn:
        cpu, wall = time.process_time(), time.perf_counter()
        run()
        return Turn(time.perf_counter() - wall, time.process_time() - cpu)

    def release(self) -> None:
        pass


CPU = Cpu()


@dataclass(frozen=True)
class Gpu:
    """A GPU, torch computing as exactly as relprop does."""

    rotation: ClassVar[int] = 4
    only_channels_last: ClassVar[bool] = True
    in_a_row: ClassVar[int] = 8
    gpu: int
    precision: Precision = "float32"

    @property
    def device(self) -> str:
        return f"cuda:{self.gpu}"

    def label(self, threads: int) -> str:
        return f"{torch.cuda.get_device_name(self.gpu)}, {self.precision}"

    def facts(self) -> dict[str, Any]:
        return {
            "device": {
                "name": torch.cuda.get_device_name(self.gpu),
                "driver": _driver(),
                "cuda": torch.version.cuda,
                "precision": self.precision,
            }
        }

    @contextmanager
    def settings(self) -> Iterator[None]:
        matmul, tf32 = torch.backends.cuda.matmul, self.precision == "tf32"
        before = matmul.allow_tf32
        flags = cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=tf32)
        with torch.cuda.device(self.gpu), flags:
            matmul.allow_tf32 = tf32
            try:
                yield
            finally:
                matmul.allow_tf32 = before

    def autocast(self) -> Any:
        if self.precision != "bf16":
            return nullcontext()
        # Its cache knows no frozen weights, and would not outlive a captured graph.
        return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)

    def tensor(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device)

    def operand(self, tensor: Tensor) -> Tensor:
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        return tensor.to(self.device, dtype)

    def given(self, images: Tensor) -> Any:
        return images

    def model(self, module: nn.Module, memory: Any) -> nn.Module:
        model = copy.deepcopy(module).to(self.device, memory_format=memory)
        if self.precision == "bf16":  # autocast would round frozen weights in every run
            for part in model.modules():
                if isinstance(part, (_ConvNd, nn.Linear)):
                    part.to(torch.bfloat16)
        return model

    def captured(self, run: Run) -> Run:
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(3):  # cuDNN chooses its algorithms, which no graph may contain
                run()
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = run()
        held = (found, run)  # a graph does not hold what it reads: the run's model

        def replay() -> Any:
            graph.replay()
            return held[0]

        return replay

    def turn(self, run: Run) -> Turn:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        cpu = time.process_time()
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return Turn(1e-3 * begin.elapsed_time(end), time.process_time() - cpu)

    def release(self) -> None:
        gc.collect()  # hooks and modules refer to each other
        torch.cuda.empty_cache()

    def tensors_held(self) -> int:
        """Bytes of torch's tensors now; the peak begins here."""
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())

    def tensors_peak(self) -> int:
        """Bytes of torch's tensors at most."""
        return int(torch.cuda.max_memory_allocated())

    def used(self) -> int:
        """Bytes that are not free, whoever holds them."""
        free, total = torch.cuda.mem_get_info()
        return int(total - free)


def place_of(device: str, precision: Precision = "float32") -> Place:
    """Return the place of a device's name.

    Raises
    ------
    ValueError
        If it names none, or a CPU is asked for a GPU's precision.
    RuntimeError
        If relprop or torch cannot use the GPU.
    """
    gpu = gpu_of(device)
    if gpu is None:
        if precision != "float32":
            raise ValueError(f'precision must be float32 on a CPU, not "{precision}".')
        return CPU
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu >= count:
        raise RuntimeError(
            f"{device} is not there for torch {torch.__version__}, which relprop is compared "
            f"with: it sees {count} GPUs."
        )
    return Gpu(gpu, precision)


def _driver() -> str | None:
    """The driver's version, which torch does not tell."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return next(iter(told.split()), None)
