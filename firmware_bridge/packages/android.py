"""For phones: a Gradle library module around the C library of a signal chain, with the model beside it for LiteRT."""

from __future__ import annotations

from importlib.resources import files
from pathlib import PurePosixPath

from embridge_edge.firmware_bridge.chain.emission import input_channels, ring_frames
from embridge_edge.firmware_bridge.device import Device
from embridge_edge.firmware_bridge.packages.rendering import filled, template
from embridge_edge.firmware_bridge.program import Profile

MODEL_ASSET = "model_int8.tflite"
"""The model's name among the assets of an Android library."""
_PACKAGE = PurePosixPath("org/embridge/edge")
_JAVA_ARRAYS = {16: "short[]", 32: "int[]"}
_KOTLIN_ARRAYS = {16: "ShortArray", 32: "IntArray"}


def halves() -> dict[str, str]:
    """`emb_poll` in two halves, beside the files of `device_library`: for a network that LiteRT computes."""
    folder = files("embridge_edge.firmware_bridge.chain") / "c"
    return {
        "include/emb_litert.h": (folder / "emb_litert.h").read_text("utf-8"),
        "src/emb_litert.c": (folder / "emb_litert.c").read_text("utf-8"),
    }


def android_files(device: Device, model: bytes, model_file: str, profile: Profile) -> dict[str, str | bytes]:
    """What Android needs beside the CMake package, by path: the Gradle module below `android/`, and a toolchain file.

    Args:
        device: chain and head of the library, which must have the files of `halves`.
        model: the `.tflite` file that the library was made of, for those who run it with LiteRT.
        model_file: its name, printable ASCII.
    """
    chain, samples = device.chain, device.samples
    values = {
        "java_array": _JAVA_ARRAYS[samples.bits],
        "kotlin_array": _KOTLIN_ARRAYS[samples.bits],
        "rate_hz": repr(float(chain.rate_hz)),
        "channels": str(input_channels(chain, samples)),
        "ring": str(ring_frames(chain, samples)),
        "ring_s": f"{ring_frames(chain, samples) / chain.rate_hz:.2g}",
        "model_asset": MODEL_ASSET,
        "model_file": model_file,
        "profile": profile,
    }
    cpp = "src/main/cpp"
    module: dict[str, str | bytes] = {
        "README.md": filled("android.md.in", values),
        "build.gradle.kts": template("android.build.gradle.kts"),
        "consumer-rules.pro": template("consumer-rules.pro"),
        f"{cpp}/CMakeLists.txt": template("jni.CMakeLists.txt"),
        f"{cpp}/emb_jni.c": template("emb_jni.c"),
        f"{cpp}/emb_jni.h": template("emb_jni.h"),
        f"src/main/java/{_PACKAGE}/EmbNative.java": filled("EmbNative.java.in", values),
        f"src/main/kotlin/{_PACKAGE}/EmbDecoder.kt": filled("EmbDecoder.kt.in", values),
        f"src/main/assets/{MODEL_ASSET}": model,
        "sample/DecisionsActivity.kt": template("DecisionsActivity.kt"),
        "sample/LiteRtDecisions.kt": template("LiteRtDecisions.kt"),
    }
    toolchain = {"cmake/aarch64-linux-gnu.cmake": template("aarch64-linux-gnu.cmake")}
    return {**toolchain, **{f"android/{path}": content for path, content in module.items()}}
