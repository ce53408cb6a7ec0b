"""C for bare-metal programs on the emulated boards: start-up, UART, tick window, stack watch, and the linker script."""
