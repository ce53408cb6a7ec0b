"""From an int8 graph to C that runs on a microcontroller. `graph` reads a `.tflite` into plain values that the memory
planner and the emitter work on."""
