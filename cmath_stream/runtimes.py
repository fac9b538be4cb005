"""Runtimes: what runs a program. Each builds a file from a program, and a callable from the file.

`eager` needs no file. Knows torch and the runtimes' packages, which are imported where they are used; not the
cache the files are kept in, nor which runtime a machine should take.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from cmath_stream.cuda_graphs import Recorded
from cmath_stream.programs import Program
from realtime.errors import CmathStreamError

RuntimeName = Literal["tensorrt", "cuda", "inductor", "onnx", "eager"]
RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)

Call = Callable[..., tuple[Tensor, ...]]


class RuntimeUnavailable(CmathStreamError):
    """This machine cannot build or run such a program; the message says what is missing."""


class Runtime(Protocol):
    """How one runtime builds and loads."""

    suffix: str

    def missing(self) -> str | None:
        """What this machine lacks to build with it, in words; None if nothing."""
        ...

    def build(self, program: Program, path: Path) -> None:
        """Write the file. Raises RuntimeUnavailable."""
        ...

    def load(self, path: Path, threads: int) -> Call:
        """Make it callable with the program's inputs. Raises RuntimeUnavailable."""
        ...


class Inductor:
    """Ahead-of-time Inductor on the CPU: C++ kernels with the weights folded in."""

    suffix = ".pt2"

    def missing(self) -> str | None:
        return None if any(map(shutil.which, ("g++", "clang++"))) else "a C++ compiler (g++)"

    def build(self, program: Program, path: Path) -> None:
        if missing := self.missing():
            raise RuntimeUnavailable(f"inductor needs {missing}")
        from torch._inductor import aoti_compile_and_package

        settings: dict[str, Any] = {"freezing": True}
        if program.name == "ask":
            # A few rows against many small weights: its own products take half the time of the library's.
            settings |= {"max_autotune_gemm": True, "max_autotune_gemm_backends": "CPP"}
            # The engine itself makes the indices; a check at every eight numbers costs a tenth.
            settings["assert_indirect_indexing"] = False
        aoti_compile_and_package(program.exported(), package_path=str(path), inductor_configs=settings)

    def load(self, path: Path, threads: int) -> Call:
        from torch._inductor import aoti_load_package

        try:
            loaded = aoti_load_package(str(path))
        except RuntimeError as error:
            raise RuntimeUnavailable(f"{path}: {str(error).partition(chr(10))[0]}") from error

        def call(*inputs: Any) -> tuple[Tensor, ...]:
            return tuple(loaded(*inputs))

        return call


class Onnx:
    """onnxruntime on the CPU."""

    suffix = ".onnx"

    def missing(self) -> str | None:
        import importlib.util

        lacking = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
        return f"the packages {' and '.join(lacking)} (extra onnx)" if lacking else None

    def build(self, program: Program, path: Path) -> None:
        if missing := self.missing():
            raise RuntimeUnavailable(f"onnx needs {missing}")
        torch.onnx.export(program.exported(), (), str(path), verbose=False, external_data=False)

    def load(self, path: Path, threads: int) -> Call:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own types are not exported
            raise RuntimeUnavailable(f"{path}: {str(error).partition(chr(10))[0]}") from error
        names = [each.name for each in session.get_inputs()]

        def call(*inputs: Any) -> tuple[Tensor, ...]:
            leaves = [leaf.numpy() for leaf in pytree.tree_leaves(inputs)]
            outputs = session.run(None, dict(zip(names, leaves, strict=True)))
            return tuple(torch.from_numpy(np.asarray(each)) for each in outputs)

        return call


class TensorRT:
    """Torch-TensorRT, ahead of time; the whole program one engine."""

    suffix = ".ep"

    def missing(self) -> str | None:
        import importlib.util

        if not torch.cuda.is_available():
            return "a CUDA device"
        lacking = [name for name in ("torch_tensorrt", "tensorrt") if importlib.util.find_spec(name) is None]
        return f"the packages {' and '.join(lacking)} (extra trt)" if lacking else None

    def build(self, program: Program, path: Path) -> None:
        if missing := self.missing():
            raise RuntimeUnavailable(f"tensorrt needs {missing}")
        import torch_tensorrt
        from torch.export.passes import move_to_device_pass

        compiled = torch_tensorrt.dynamo.compile(
            move_to_device_pass(program.exported(), "cuda"),
            arg_inputs=tensorrt_inputs(program, torch_tensorrt),
            min_block_size=1,
        )
        torch_tensorrt.save(compiled, str(path), arg_inputs=_on_cuda(program.inputs(1)), retrace=False)

    def load(self, path: Path, threads: int) -> Call:
        import torch_tensorrt

        try:
            module = torch_tensorrt.load(str(path)).module()
        except RuntimeError as error:
            raise RuntimeUnavailable(f"{path}: {str(error).partition(chr(10))[0]}") from error

        def call(*inputs: Any) -> tuple[Tensor, ...]:
            return tuple(module(*_on_cuda(inputs)))  # what lies there already stays where it is

        return call


class CudaGraphs:
    """The exported program on a card, recorded and replayed (cmath_stream.cuda_graphs)."""

    suffix = ".pt2"

    def missing(self) -> str | None:
        return None if torch.cuda.is_available() else "a CUDA device"

    def build(self, program: Program, path: Path) -> None:
        if missing := self.missing():
            raise RuntimeUnavailable(f"cuda needs {missing}")
        from torch.export.passes import move_to_device_pass

        torch.export.save(move_to_device_pass(program.exported(), "cuda"), str(path))

    def load(self, path: Path, threads: int) -> Call:
        try:
            exported = torch.export.load(str(path))
        except RuntimeError as error:
            raise RuntimeUnavailable(f"{path}: {str(error).partition(chr(10))[0]}") from error
        named = {node.name: node.meta["val"] for node in exported.graph.nodes if node.op == "placeholder"}
        batched = [
            isinstance(named[name].shape[0], torch.SymInt) for name in exported.graph_signature.user_inputs
        ]
        (sizes,) = exported.range_constraints.values()
        return Recorded(exported.module(), batched, int(sizes.upper))


def tensorrt_inputs(program: Program, torch_tensorrt: Any) -> tuple[Any, ...]:
    """The profile: a batch of 1 to the most, best at the most; what has no batch axis is fixed."""
    small, best = program.inputs(1), program.inputs(program.shape.batch)

    def profile(one: Tensor, most: Tensor) -> Any:
        sizes = {"min_shape": one.shape, "opt_shape": most.shape, "max_shape": most.shape}
        return torch_tensorrt.Input(dtype=one.dtype, **sizes)

    made: tuple[Any, ...] = pytree.tree_map(profile, small, best)
    return made


def _on_cuda(inputs: Any) -> Any:
    return pytree.tree_map(lambda each: each.cuda(), inputs)


def device_of(name: str) -> torch.device:
    """Where a runtime computes, and leaves its answers."""
    return torch.device("cuda" if name in ("tensorrt", "cuda") else "cpu")


_BY_NAME: dict[RuntimeName, Runtime] = {
    "tensorrt": TensorRT(),
    "cuda": CudaGraphs(),
    "inductor": Inductor(),
    "onnx": Onnx(),
}


def runtime(name: RuntimeName) -> Runtime:
    """Any but `eager`."""
    return _BY_NAME[name]


def eager(program: Program) -> Call:
    """The program itself."""

    def call(*inputs: Any) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            out: tuple[Tensor, ...] = program.module(*inputs)
        return out

    return call
