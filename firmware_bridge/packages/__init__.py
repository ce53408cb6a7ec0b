"""Packages around a generated C library, so that it can be dropped into the build that a firmware already has, and the
route for those who stay with TensorFlow Lite Micro. Pure functions from texts to texts; whoever calls them writes files."""

from embridge_edge.firmware_bridge.packages.android import MODEL_ASSET, android_files, halves
from embridge_edge.firmware_bridge.packages.assembling import pack_archive, package
from embridge_edge.firmware_bridge.packages.description import Description, Port, describe
from embridge_edge.firmware_bridge.packages.formats import FORMATS
from embridge_edge.firmware_bridge.packages.selftest import selftest_files, selftest_inputs
from embridge_edge.firmware_bridge.packages.tflm import RESOLVER_METHODS, tflm_files

__all__ = [
    "FORMATS",
    "MODEL_ASSET",
    "RESOLVER_METHODS",
    "Description",
    "Port",
    "android_files",
    "describe",
    "halves",
    "pack_archive",
    "package",
    "selftest_files",
    "selftest_inputs",
    "tflm_files",
]
