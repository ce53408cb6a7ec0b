"""Quantization-aware training: a network learns with the rounding that it will meet in int8.

NNCF puts fake quantizers behind activations and in front of weights and makes their ranges parameters. It does so for the runtimes that
it knows, and leaves out tensors that TFLite rounds: a softmax's input, the output, learned tables that are added. So its quantizers are
taken as they are, more of the same kind are added where they are missing, and which tensor of the int8 graph each stands for is found by
values (`export.qat`), which no converter's naming can confuse.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from embridge_edge.compression.observers import Range
from embridge_edge.errors import EdgeError, one_line
from embridge_edge.model.students import AnyStudent
from embridge_edge.quiet import silenced

Floats = npt.NDArray[np.float32]

LEVELS = 256
PLACED_WINDOWS = 8
OFF_GRID = 1e-3
"""Steps by which 0 may be off the grid: what 32 bits leave."""

_HOOKS = "__nncf_hooks"
_CONSTANT = "nncf_model_const"
_QUANTIZING = ("asymmetric_quantize", "symmetric_quantize")


class Parts(nn.Module):
    """A student as one function of its windows that gives its tokens besides its embedding, as the losses of distillation read them."""

    def __init__(self, student: AnyStudent) -> None:
        super().__init__()
        self.student = student

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.student.tokens(windows)
        return tokens, self.student.embed(tokens)


@dataclass(frozen=True)
class Grid:
    """What int8 makes of a tensor: real value = step × (integer − zero), `step` and `zero` float32 and int64, one or one per channel."""

    step: Floats
    zero: npt.NDArray[np.int64]


@dataclass
class FakeQuantized:
    """A folded student with rounding in it.

    Attributes:
        network: windows `[n, T, C]` to tokens and embedding, as int8 will compute them. Its parameters are the student's and the
            quantizers' ranges.
        folded: the student that it was made from.
        ops: where a value arises, in order of execution: NNCF's names of operations.
        biases: operation → its parameter that is added and not rounded.
        steady: quantizers whose grid the runtime fixes.
    """

    network: nn.Module
    folded: AnyStudent
    ops: tuple[str, ...]
    biases: Mapping[str, str]
    steady: dict[str, Grid] = field(default_factory=dict)

    @property
    def quantizers(self) -> dict[str, Any]:
        """NNCF's modules by their names, one that serves several places once."""
        from nncf.torch.quantization.layers import BaseQuantizer

        return {name: one for name, one in self.network.named_modules() if isinstance(one, BaseQuantizer)}

    def embed(self, windows: Floats) -> Floats:
        """Embeddings `[n, D]` as the network computes them, with rounding."""
        kind = next(self.network.parameters()).dtype
        with torch.no_grad():
            return np.asarray(self.network(torch.from_numpy(windows).to(kind))[1].numpy(), np.float32)

    def settle(self) -> None:
        """Go on in 64 bits, with every quantizer exactly on the grid that int8 gets, whose scales have 32.

        In 32 bits a sum falls on the wrong side of the middle between two steps in one window of a hundred.
        """
        grids = {name: self.grid(name) for name in self.quantizers}
        self.network.double()
        with torch.no_grad():
            for name, grid in grids.items():
                step, learnt = torch.from_numpy(grid.step).double(), self.quantizers[name].get_trainable_params()
                if "scale" in learnt:
                    learnt["scale"].copy_((step * self.quantizers[name].level_high).reshape(learnt["scale"].shape))
                else:
                    learnt["input_low"].copy_(-step * torch.from_numpy(grid.zero + LEVELS // 2))
                    learnt["input_range"].copy_(step * (LEVELS - 1))

    def trained(self) -> AnyStudent:
        """A copy of the student, without rounding, that holds the weights as they are now."""
        student = copy.deepcopy(self.folded)
        now = {name.removeprefix("student."): value for name, value in self.network.named_parameters()}
        with torch.no_grad():
            for name, value in student.named_parameters():
                value.copy_(now[name])
        return student.eval()

    def heard(self, windows: Floats) -> tuple[dict[str, list[Floats]], dict[str, Floats]]:
        """What every quantizer is given, and what every operation puts out, while nothing is rounded.

        Returns: quantizer → values, one array for each time that it is called; operation → values.
        """
        from nncf.torch.function_hook import register_post_function_hook

        given: dict[str, list[Floats]] = {}
        put_out = {name: _Recorder() for name in self.ops}
        with self._unrounded(), torch.no_grad():
            undo = [register_post_function_hook(self.network, name, 0, one) for name, one in put_out.items()]
            for name, module in self.quantizers.items():
                undo.append(module.register_forward_pre_hook(_recording_into(given.setdefault(name, []))))
            try:
                self.network(torch.from_numpy(windows))
            finally:
                for handle in undo:
                    handle.remove()
        return given, {name: one.values for name, one in put_out.items() if one.values is not None}

    @contextmanager
    def _unrounded(self) -> Iterator[None]:
        modules = list(self.quantizers.values())
        learns = [[parameter.requires_grad for parameter in module.parameters()] for module in modules]
        for module in modules:
            module.disable_quantization()
        try:
            yield
        finally:
            for module, each in zip(modules, learns, strict=True):
                module.enable_quantization()
                for parameter, needed in zip(module.parameters(), each, strict=True):
                    parameter.requires_grad_(needed)

    def places(self, name: str) -> tuple[str, ...]:
        """Every place where a quantizer is called."""
        module = self.quantizers[name]
        return tuple(place for place, one in self.network.named_modules(remove_duplicate=False) if one is module)

    def quantizes(self, name: str, op: str) -> bool:
        """Whether a quantizer is called at the output of an operation (and not only in front of another one)."""
        return any(place.startswith(f"{_HOOKS}.post_hooks.{op.replace('.', ':')}__0.") for place in self.places(name))

    def bias_of(self, name: str) -> Tensor | None:
        """The bias of the layer whose weights a quantizer rounds; None where it has none."""
        (place, *others) = self.places(name)
        op = place.removeprefix(f"{_HOOKS}.pre_hooks.").rpartition("__")[0].replace(":", ".")
        if others or op not in self.biases:
            return None
        return dict(self.network.named_parameters())[self.biases[op]]

    def move(self, name: str, op: str) -> str:
        """Call a quantizer at the output of an operation, instead of where NNCF calls it; returns its new name.

        Raises:
            EdgeError: it serves several places.
        """
        from nncf.torch.function_hook import register_post_function_hook

        places = self.places(name)
        if len(places) > 1:
            raise EdgeError(
                f"The quantizer {name} serves {len(places)} tensors and not {op}; leave out [quantize.qat]."
            )
        module = self.quantizers[name]
        hooks, _, number = name.rpartition(".")
        parent, _, key = hooks.rpartition(".")
        slot = cast(nn.ModuleDict, self.network.get_submodule(hooks))
        del slot[number]
        if not len(slot):
            del cast(nn.ModuleDict, self.network.get_submodule(parent))[key]
        register_post_function_hook(self.network, op, 0, module)
        return self.name_of(module)

    def name_of(self, module: nn.Module) -> str:
        """The name of one of the quantizers."""
        return next(name for name, one in self.quantizers.items() if one is module)

    def add(self, op: str) -> str:
        """Put one more quantizer at the output of an operation, or behind a parameter; returns its name."""
        from nncf.common.quantization.structs import QuantizationScheme
        from nncf.torch.function_hook import register_post_function_hook
        from nncf.torch.quantization.layers import AsymmetricQuantizer, PTQuantizerSpec

        spec = PTQuantizerSpec(
            num_bits=8,
            mode=QuantizationScheme.ASYMMETRIC,
            signedness_to_force=None,
            narrow_range=False,
            half_range=False,
            scale_shape=(1,),
            logarithm_scale=False,
        )
        quantizer = AsymmetricQuantizer(spec)
        register_post_function_hook(self.network, op, 0, quantizer)
        return self.name_of(quantizer)

    def round_before(self, op: str, part: npt.NDArray[np.float64]) -> None:
        """Have an operation's output rounded to parts of its step before its quantizer rounds it to a step.

        Args:
            part: of real values, one, or `[channels, 1, 1]` for a convolution.
        """
        hooks = self.network.get_submodule(f"{_HOOKS}.post_hooks.{op.replace('.', ':')}__0")
        slot = cast(nn.ModuleDict, hooks)
        kept = {key: module for key, module in slot.items() if not isinstance(module, _RoundedBefore)}
        slot.clear()
        slot[str(1 + max(map(int, kept)))] = _RoundedBefore(part)
        slot.update(kept)

    def start_at(self, name: str, limits: Range) -> None:
        """Set the range that a quantizer of activations begins with; where it begins at 0, as behind a ReLU, it stays there.

        NNCF puts 0 on the grid by moving an end of the range, but not where less than half a step lies below 0: 0 then falls between
        two integers, and a tenth of the values behind a ReLU were rounded another way than int8 does.
        """
        low, high = limits
        learnt = self.quantizers[name].get_trainable_params()
        with torch.no_grad():
            learnt["input_low"].fill_(low)
            learnt["input_range"].fill_(max(high - low, 1e-9))
        learnt["input_low"].requires_grad_(low != 0.0)

    def hold(self, name: str, grid: Grid) -> None:
        """Give a quantizer of activations a grid that training does not move: the one that the runtime fixes."""
        step, zero = float(grid.step[0]), int(grid.zero[0])
        low = -step * (zero + LEVELS // 2)
        self.start_at(name, (low, low + step * (LEVELS - 1)))
        for parameter in self.quantizers[name].get_trainable_params().values():
            parameter.requires_grad_(False)
        self.steady[name] = grid

    def grid(self, name: str) -> Grid:
        """The grid of a quantizer, with the zero point as int8 counts."""
        from nncf.torch.quantization.layers import SymmetricQuantizer
        from nncf.torch.quantization.quantize_functions import TuneRange

        module = self.quantizers[name]
        with torch.no_grad():
            if isinstance(module, SymmetricQuantizer):
                reach = module.scale.detach().abs().flatten() + module.eps
                return Grid((reach / module.level_high).float().numpy(), np.zeros(reach.numel(), np.int64))
            low, reach = TuneRange.apply(module.input_low, module.input_range.abs() + module.eps, module.levels)
            step = reach / (module.levels - 1)
            places = -low / step
            zero = torch.round(places).to(torch.int64)
            if float((places - zero).abs().max()) > OFF_GRID or not 0 <= int(zero) < LEVELS:
                raise EdgeError(
                    f"The quantizer {name} has learnt a grid without 0; lower the learning rate of [quantize.qat], or take fewer steps."
                )
            zero = zero - LEVELS // 2
        return Grid(step.float().numpy(), zero.numpy())

    def integers(self, name: str, values: Floats, axis: int | None) -> npt.NDArray[np.int8]:
        """A constant as the quantizer rounds it, in integers.

        Args:
            values: in any layout; the channels of a quantizer with several steps lie along `axis`.
        """
        grid = self.grid(name)
        moved = np.moveaxis(values, axis, 0) if axis is not None else values
        module = self.quantizers[name]
        shape = (len(moved), -1, *(1,) * (len(module.scale_shape) - 2)) if axis is not None else (-1,)
        with torch.no_grad():
            given = torch.from_numpy(np.array(moved)).to(next(self.network.parameters()).dtype)
            rounded = module(given.reshape(shape)).numpy()
        steps = grid.step.reshape(-1, *(1,) * (rounded.ndim - 1)) if axis is not None else grid.step
        whole = (np.rint(rounded / steps).astype(np.int64) + int(grid.zero[0])).reshape(moved.shape)
        if np.abs(whole.astype(np.int64)).max() > LEVELS // 2:
            raise EdgeError(
                f"The quantizer {name} has learnt integers beyond int8; lower the learning rate of [quantize.qat]."
            )
        whole = np.moveaxis(whole, 0, axis) if axis is not None else whole
        return np.ascontiguousarray(whole).astype(np.int8)


class _RoundedBefore(nn.Module):
    """Rounds to parts of a step, the middle away from 0: what a kernel does before it rounds the result to a step."""

    def __init__(self, part: npt.NDArray[np.float64]) -> None:
        super().__init__()
        self.part = torch.from_numpy(part)

    def forward(self, values: Tensor) -> Tensor:
        # Of a number of parts in the middle between two steps the larger is next: a shift of less than a part decides for it.
        whole = torch.round(values / self.part)
        return (whole + 0.25 * torch.sign(whole)) * self.part


class _Recorder(nn.Module):
    """Hands a value on as it is and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.values: Floats | None = None

    def forward(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            self.values = value.detach().numpy().copy()
        return value


def _recording_into(found: list[Floats]) -> Any:
    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        found.append(given[0].detach().numpy().copy())

    return note


def fake_quantized(student: AnyStudent, windows: Floats) -> FakeQuantized:
    """Put NNCF's fake quantizers into a folded student: per-channel weights without −128, asymmetric activations per tensor.

    Args:
        windows: float32 `[n, T, C]`; a few are enough, since ranges are set afterwards (`start_at`).

    Raises:
        EdgeError: NNCF is missing, or cannot handle the student.
    """
    folded = copy.deepcopy(student).eval()
    examples = torch.from_numpy(np.ascontiguousarray(windows[:PLACED_WINDOWS], np.float32))
    with _nncf() as nncf:
        from nncf.quantization.advanced_parameters import OverflowFix, QuantizationParameters
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        settings = nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            # In front of a depthwise convolution NNCF gives each channel a range of its own, which no runtime here has.
            activations_quantization_params=QuantizationParameters(per_channel=False),
            # Else the first layer's weights get seven bits, for processors whose products overflow 16: what runs a .tflite is not like
            # that, and the ONNX file is quantized by itself (`export.onnx`).
            overflow_fix=OverflowFix.DISABLE,
            disable_bias_correction=True,  # another one than ours (`export.bias`), which the plan asks for or not
        )
        network = nncf.quantize(
            Parts(copy.deepcopy(folded)),
            nncf.Dataset([one[None] for one in examples]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(examples),
            advanced_parameters=settings,
        )
        from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import build_nncf_graph

        graph = build_nncf_graph(network, examples)
    nodes = sorted(graph.get_all_nodes(), key=lambda one: one.node_id)
    skipped = (_CONSTANT, "nncf_model_output", *_QUANTIZING)
    ops = [node for node in nodes if node.node_type not in skipped]
    read = {
        node.node_name: [one for one in graph.get_previous_nodes(node) if one.node_type == _CONSTANT] for node in ops
    }
    biases = {name: constants[0].node_name for name, constants in read.items() if len(constants) == 1}
    return FakeQuantized(network, folded, tuple(node.node_name for node in ops), biases)


@contextmanager
def _nncf() -> Iterator[Any]:
    """NNCF, silent, and its errors as one line."""
    # It reports every use to its makers unless this is set, and nobody has asked the user.
    os.environ.setdefault("NNCF_CI", "1")
    try:
        with silenced():
            import nncf
            from nncf.torch.quantization import quantize_functions
            from nncf.torch.quantization.reference import torch_executor

            # It would compile kernels of its own in C++ or CUDA when they are first used: a minute or three, a compiler that has to be
            # there, and a lock that hangs the next run after a Ctrl-C. Its plain torch ones take the same 40 ms for a step of a student.
            plain = {"Quantize_forward": torch_executor.forward, "Quantize_backward": torch_executor.backward}
            quantize_functions.QuantizedFunctionsCPU = plain
            quantize_functions.QuantizedFunctionsCUDA = plain
            nncf.set_log_level(logging.ERROR)
            yield nncf
    except ImportError as error:
        raise EdgeError(
            f"Quantization-aware training needs NNCF ({error.name} is missing); install embridge-edge[qat]."
        ) from None
    except EdgeError:
        raise
    except Exception as error:
        raise EdgeError(f"NNCF cannot quantize this student ({one_line(error)}); leave out [quantize.qat].") from None
