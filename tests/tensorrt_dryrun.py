"""What Torch-TensorRT would make of CMATH's programs: its own lowering, converters and partitioner, no GPU.

Run as a program of its own, for it puts stand-ins in the place of TensorRT and of a card before it imports
torch_tensorrt. Prints one JSON object a program: operators supported and in all, engines, names refused.
"""

from __future__ import annotations

import json
import os
import sys
import types
import warnings
from typing import Any, get_args

import torch
from torch import Tensor, nn

from cmath_stream.model import CMATH, CMATHConfig, PerModality
from cmath_stream.programs import Precision, Program, Shape, programs


class _Inert(type):
    """A class of which every attribute is another one."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _Inert(name, (), {"__init__": lambda self, *args, **kwargs: None})
        setattr(cls, name, made)
        return made


class _StandIn(types.ModuleType):
    tensorrt: _StandIn
    __version__ = "11.0.0.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "tensorrt_rtx":  # the other TensorRT, which this one is not
            raise AttributeError(name)
        made = _Inert(name, (), {"__init__": lambda self, *args, **kwargs: None})
        setattr(self, name, made)
        return made


def stand_in() -> Any:
    """torch_tensorrt, imported without TensorRT or a card."""
    tensorrt = _StandIn("tensorrt")
    tensorrt.tensorrt = tensorrt
    tensorrt.__path__, tensorrt.__file__ = [], "tensorrt.py"
    sys.modules["tensorrt"] = sys.modules["tensorrt.tensorrt"] = tensorrt
    cuda: Any = torch.cuda
    cuda.get_device_capability = lambda *args: (9, 0)
    cuda.current_device = lambda: 0
    cuda.mem_get_info = lambda *args: (1 << 36, 1 << 36)
    properties: Any = torch._C
    if not hasattr(properties, "_CudaDeviceProperties"):
        properties._CudaDeviceProperties = type("_CudaDeviceProperties", (), {})
    is_file = os.path.isfile
    os.path.isfile = lambda path: "libtorchtrt" not in str(path) and is_file(path)
    try:
        import torch_tensorrt
    finally:
        os.path.isfile = is_file
    return torch_tensorrt


def examined(torch_tensorrt: Any, program: Program) -> dict[str, Any]:
    """The vendor's dry run of a program, as numbers."""
    from torch_tensorrt.dynamo import _compiler

    from cmath_stream.runtimes import tensorrt_inputs

    caught: list[Any] = []
    _compiler.to_torch_device = lambda device: torch.device("cpu")  # what is left to torch
    _compiler.dryrun_stats_display = lambda tracker, enabled: caught.append(tracker)
    torch_tensorrt.dynamo.compile(
        program.exported(),
        arg_inputs=tensorrt_inputs(program, torch_tensorrt),
        dryrun=True,
        min_block_size=1,
    )
    (tracker,) = caught
    return {
        "supported": tracker.supported_ops_in_graph,
        "total": tracker.total_ops_in_graph,
        "engines": tracker.tensorrt_graph_count,
        "refused": dict(tracker.unsupported_ops),
        "to_run_in_torch": list(tracker.to_run_in_torch),
    }


class Refused(nn.Module):
    """A program with an operator that TensorRT does not know."""

    def __init__(self, model: CMATH) -> None:
        super().__init__()
        self.model = model
        self.inner = programs(model, Shape(8, 4, 64))["window"].module

    def forward(
        self, features: PerModality, presence: Tensor, mask: Tensor, speaker: Tensor
    ) -> tuple[Tensor, Tensor]:
        logits, alone = self.inner(features, presence, mask, speaker)
        return torch.special.bessel_j0(logits), alone


def main() -> None:
    warnings.simplefilter("ignore")
    torch_tensorrt = stand_in()
    torch.manual_seed(0)
    for window in (4, 32):
        dims = (("text", 24), ("audio", 6))  # a third brings no other operator, and twice the time
        config = CMATHConfig(dims=dims, width=32, heads=4, window=window, fusion="experts")
        model = CMATH(config, decoder=False).eval()
        shape = Shape(8, window, 8 * window)
        for precision in get_args(Precision):
            for name, program in programs(model, shape, precision).items():
                if name == "remember" and window > 4:
                    continue  # it is the same for every window
                found = examined(torch_tensorrt, program)
                print(json.dumps({"program": name, "window": window, "precision": precision, **found}))
        if window == 4:
            refused = Program("window", Refused(model).eval(), shape)
            print(json.dumps({"program": "refused", **examined(torch_tensorrt, refused)}))


if __name__ == "__main__":
    main()
