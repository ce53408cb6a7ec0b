/* An emulated Arm MPS2 or MPS3 board, bare: what a test program needs of it and nothing else.
 *
 * The start-up code calls main() with the FPU and MVE on, .data and .bss filled and the stack painted; what main()
 * returns is the exit status. No heap, no C library besides memcpy, memmove, memset and memcmp. Programs run in thread
 * mode, privileged, secure where there is that. Not for real hardware: exit and output are semihosting calls. */
#ifndef EMB_BOARD_H
#define EMB_BOARD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A window of more ticks than 32 bits hold. */
#define EMB_BOARD_OVERFLOW UINT32_MAX
/* Exit status after a fault; what the fault was stands on the UART in a line that starts with "emb_board fault:". */
#define EMB_BOARD_FAULT 125

/* Make the UART ready. The start-up code has done it before main(); again does no harm outside of a tick window. */
void emb_board_start(void);

/* Write `size` bytes to the UART; returns when the last one is handed over. */
void emb_board_write(const void *data, size_t size);
/* Read exactly `size` bytes from the UART, waiting for them; returns `size`. QEMU brings some 10 kB/s: for more there
 * is emb_board_input(). */
size_t emb_board_read(void *data, size_t size);
/* Write a text, or a number in decimal or as 0x and eight digits, to the UART. No newline is added. */
void emb_board_print(const char *text);
void emb_board_print_u32(uint32_t value);
void emb_board_print_hex(uint32_t value);

/* What the host loaded for this program, and how many bytes this board can hold of it. */
const void *emb_board_input(void);
size_t emb_board_input_capacity(void);
/* Append `size` bytes to the run's output on the host, past the UART. Any amount. */
void emb_board_output(const void *data, size_t size);

/* Open the tick window: SysTick runs at the processor clock. One window at a time. */
void emb_board_window_open(void);
/* Ticks since the window was opened, or EMB_BOARD_OVERFLOW. `instructions` in emulation.py makes the number of
 * instructions between the two calls of it. */
uint32_t emb_board_window_close(void);

/* How deep the stack was written to since the start, in bytes; what lies deeper was at most reserved. */
size_t emb_board_stack_used(void);

/* Called with the number of an interrupt that the program has enabled (SysTick -1, PendSV -2); a program that uses
 * interrupts defines its own. The one that is here reports a fault. */
void emb_board_interrupt(int number);

/* End the run. The host sees the lowest eight bits of `status`. */
#if defined(__GNUC__)
__attribute__((noreturn))
#endif
void emb_board_exit(int status);

#ifdef __cplusplus
}
#endif

#endif
