"""From a torch module to files that devices run, and back.

`tflite` and `onnx` convert, `ranges` and `quantizing` make integers of it, `sensitivity` and `mixing` say which layer that hurts and what
16 bits there are worth. `metadata` puts the signal chain, labels and head inside the file; `flatbuffer` rewrites a `.tflite` so that
TensorFlow Lite Micro can read it; `ring` cuts that of a ring student in two. `reading` opens an artifact, `running` runs it on every
runtime that is compared, `comparing` compares, `readback` refuses what was not asked for. `onnx2tf` is the second converter, in one of
the `environments`; `bundle` and `signing` say what a bundle holds and who signed it. Heavy libraries load inside the functions.
"""
