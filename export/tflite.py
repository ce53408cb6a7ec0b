"""Torch module → float `.tflite`, compared with what it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from embridge_edge.errors import EdgeError, one_line
from embridge_edge.export.agreement import LARGEST_CONVERSION_ERROR, conversion_error
from embridge_edge.export.flatbuffer import with_readable_names
from embridge_edge.quiet import silenced

if TYPE_CHECKING:
    import torch


def to_tflite(module: torch.nn.Module, example_shape: Sequence[int]) -> bytes:
    """Convert a module to a float `.tflite` with readable tensor names and compare both on random input.

    Args:
        module: in evaluation mode, one input, one output; fold its BatchNorms first.
        example_shape: of the input with its batch axis, such as (1, T, C); fixed in the file.

    Raises:
        EdgeError: litert-torch is missing, cannot convert the module, or what it made computes something else.
    """
    import torch

    from embridge_edge.export.running import run_tflite

    if module.training:
        raise EdgeError("The module is in training mode; call eval() and fold its BatchNorms before converting it.")
    shape = tuple(int(length) for length in example_shape)
    example = torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    with torch.no_grad():
        expected = module(example).numpy()
    model = with_readable_names(_converted(module, example))
    error = conversion_error(expected, run_tflite(model, example.numpy()))
    if not error <= LARGEST_CONVERSION_ERROR:
        raise EdgeError(
            f"The converted model differs from the torch module by {error:.1e} of its largest output (allowed "
            f"{LARGEST_CONVERSION_ERROR:.0e}); check the module for ops that depend on the batch or on training."
        )
    return model


def _converted(module: torch.nn.Module, example: torch.Tensor) -> bytes:
    try:
        with silenced():
            import litert_torch
            from litert_torch import progress

            shown = progress.config.show_progress
            progress.config.show_progress = False
            try:
                return bytes(litert_torch.convert(module, (example,)).model_content())
            finally:
                progress.config.show_progress = shown
    except ImportError as error:
        raise EdgeError(
            f"Converting to TFLite needs litert-torch ({error.name} is missing); install embridge-edge[tflite]."
        ) from None
    except Exception as error:
        raise EdgeError(
            f"litert-torch cannot convert this module ({one_line(error)}); simplify it to supported ops."
        ) from None
