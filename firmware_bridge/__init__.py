"""From an int8 graph to C that runs on a microcontroller.

`graph` reads a `.tflite` into plain values; `passes` and `lowering` make a `program` of it, calls of the kernels in `kernels/`;
`emit` writes that down. `chain` does the same for the signal chain, `device` joins both, `packages` dresses them for build systems.
`verifying` compares what came out with the runtimes that it must equal.
"""
