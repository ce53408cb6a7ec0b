"""Folding a student's batch normalisation into its convolutions and Linears: the graph that is deployed has none."""

from __future__ import annotations

import copy
from typing import cast

from torch import nn

from embridge_edge.errors import EdgeError
from embridge_edge.model.checkpoint import Checkpoint
from embridge_edge.model.student import NormedConvolution
from embridge_edge.model.students import AnyStudent
from embridge_edge.model.transformer_student import AttentionBlock, NormedLinear


def fold_batchnorm(student: AnyStudent) -> AnyStudent:
    """A copy in evaluation mode that computes the same without BatchNorm (within rounding), ready for conversion. LayerNorms stay."""
    folded = copy.deepcopy(student).eval()
    for module in folded.modules():
        if isinstance(module, NormedConvolution) and isinstance(module.norm, nn.BatchNorm2d):
            module.convolution = nn.utils.fusion.fuse_conv_bn_eval(cast(nn.Conv2d, module.convolution), module.norm)
            module.norm = nn.Identity()
        elif isinstance(module, AttentionBlock) or (
            isinstance(module, NormedLinear) and isinstance(module.norm, nn.BatchNorm1d)
        ):
            module.fold()  # a block folds its own Linears first, which then have nothing left to fold
    return folded


def folded(checkpoint: Checkpoint) -> AnyStudent:
    """A student checkpoint's network, folded.

    Raises:
        EdgeError: the checkpoint is no student.
    """
    if checkpoint.kind != "student":
        raise EdgeError(f"This checkpoint is a {checkpoint.kind}; only a student is deployed: run distill first.")
    return fold_batchnorm(cast(AnyStudent, checkpoint.network()))
