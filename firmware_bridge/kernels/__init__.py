"""The kernels that generated code calls: C99, portable or with the instructions of a core, and their headers."""
