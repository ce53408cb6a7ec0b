"""From a torch module to files that devices run, and back: `tflite` and `onnx` convert and quantize, `metadata` puts
the signal chain, labels and head inside the file, `reading` opens an artifact and runs it on every runtime that is
compared, `flatbuffer` rewrites a `.tflite` so that TensorFlow Lite Micro can read it, `bundle` and `signing` say what a
bundle holds and who signed it. Heavy libraries load inside the functions."""
