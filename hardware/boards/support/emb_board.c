/* UART, tick window, bulk data and exit of the emulated boards. What differs between them comes from boards.py: the
 * macros EMB_BOARD_UART, EMB_BOARD_FPGAIO (addresses) and EMB_BOARD_SYSTICK_HZ. */
#include "emb_board.h"

/* CMSDK APB UART (Arm DDI 0479, 4.3). */
typedef struct {
    volatile uint32_t data, state, control, interrupt, divider;
} uart_t;

#define UART ((uart_t *)EMB_BOARD_UART)
#define UART_TX_FULL 1u
#define UART_RX_FULL 2u
#define UART_ENABLE 3u  /* transmit and receive */
#define UART_DIVIDER 16u /* the smallest that the UART takes: the emulator knows no baud rate */

/* SysTick (Arm DDI 0403, B3.3). */
typedef struct {
    volatile uint32_t control, reload, value, calibration;
} systick_t;

#define SYSTICK ((systick_t *)0xE000E010u)
#define SYSTICK_ON 5u /* from the processor clock, without interrupt */
#define SYSTICK_BITS 24
#define SYSTICK_MASK 0xFFFFFFu

/* A free-running count of hundredths of a second (FPGAIO, Arm DAI 0385), to know how often SysTick wrapped. */
#define CLOCK_100HZ (*(volatile uint32_t *)(EMB_BOARD_FPGAIO + 0x14u))
#define TICKS_PER_CENTISECOND (EMB_BOARD_SYSTICK_HZ / 100u)
/* One wrap less than 32 bits hold, because the hundredths of a second may be one too few. */
#define MOST_CENTISECONDS ((UINT32_MAX - SYSTICK_MASK) / TICKS_PER_CENTISECOND)

/* Semihosting (Arm's "Semihosting for AArch32 and AArch64"). */
#define SYS_OPEN 0x01u
#define SYS_WRITE 0x05u
#define SYS_EXIT_EXTENDED 0x20u
#define OPEN_APPEND_BINARY 9u
#define APPLICATION_EXIT 0x20026u

/* Placed by board.ld. */
extern uint32_t emb_input_start[], emb_input_end[];

void emb_board_start(void)
{
    UART->divider = UART_DIVIDER;
    UART->control = UART_ENABLE;
    /* QEMU looks for input when something wakes its main loop, and enabling the receiver does not; a timer does. */
    SYSTICK->reload = SYSTICK_MASK;
    SYSTICK->control = SYSTICK_ON;
}

void emb_board_write(const void *data, size_t size)
{
    const unsigned char *byte = data;

    while (size-- > 0u) {
        while ((UART->state & UART_TX_FULL) != 0u) {
        }
        UART->data = *byte++;
    }
}

size_t emb_board_read(void *data, size_t size)
{
    unsigned char *byte = data;
    size_t left;

    for (left = size; left > 0u; left--) {
        while ((UART->state & UART_RX_FULL) == 0u) {
        }
        *byte++ = (unsigned char)UART->data;
    }
    return size;
}

void emb_board_print(const char *text)
{
    size_t size = 0u;

    while (text[size] != '\0') {
        size++;
    }
    emb_board_write(text, size);
}

void emb_board_print_u32(uint32_t value)
{
    char digits[10];
    size_t at = sizeof digits;

    do {
        digits[--at] = (char)('0' + (char)(value % 10u));
        value /= 10u;
    } while (value != 0u);
    emb_board_write(&digits[at], sizeof digits - at);
}

void emb_board_print_hex(uint32_t value)
{
    int shift;

    emb_board_print("0x");
    for (shift = 28; shift >= 0; shift -= 4) {
        emb_board_write(&"0123456789abcdef"[(value >> shift) & 15u], 1u);
    }
}

const void *emb_board_input(void)
{
    return emb_input_start;
}

size_t emb_board_input_capacity(void)
{
    return (size_t)((uintptr_t)emb_input_end - (uintptr_t)emb_input_start);
}

/* Ask the emulator for `operation`; what it answers. */
static uint32_t semihosting(uint32_t operation, const void *parameter)
{
    register uint32_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = parameter;

    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

/* The file stands in the folder that the emulator was started in; see emulation.py. */
void emb_board_output(const void *data, size_t size)
{
    static const char name[] = "output.bin";
    static uint32_t handle; /* 0: not yet open; the emulator counts from 1 */
    uint32_t words[3];

    if (handle == 0u) {
        words[0] = (uint32_t)(uintptr_t)name;
        words[1] = OPEN_APPEND_BINARY;
        words[2] = sizeof name - 1u;
        handle = semihosting(SYS_OPEN, words);
    }
    words[0] = handle;
    words[1] = (uint32_t)(uintptr_t)data;
    words[2] = (uint32_t)size;
    if (handle == UINT32_MAX || semihosting(SYS_WRITE, words) != 0u) {
        emb_board_print("\nemb_board fault: the host takes no output\n");
        emb_board_exit(EMB_BOARD_FAULT);
    }
}

static uint32_t window_opened_at; /* hundredths of a second */

void emb_board_window_prepare(void);
uint32_t emb_board_window_ticks(uint32_t value);

/* Everything of opening that must not be inside of the window. */
void emb_board_window_prepare(void)
{
    SYSTICK->control = 0u;
    SYSTICK->reload = SYSTICK_MASK;
    SYSTICK->control = SYSTICK_ON;
    window_opened_at = CLOCK_100HZ;
}

/* Ticks from the value that SysTick had when the window was closed. The hundredths of a second are exact to one, a
 * 1/67th of a wrap or less: rounding gives the number of wraps. */
uint32_t emb_board_window_ticks(uint32_t value)
{
    const uint32_t centiseconds = CLOCK_100HZ - window_opened_at;
    const uint32_t since_wrap = SYSTICK_MASK - value;
    uint32_t wraps;

    if (centiseconds >= MOST_CENTISECONDS) {
        return EMB_BOARD_OVERFLOW;
    }
    wraps = (centiseconds * TICKS_PER_CENTISECOND - since_wrap + (1u << (SYSTICK_BITS - 1))) >> SYSTICK_BITS;
    return (wraps << SYSTICK_BITS) + since_wrap;
}

/* Opening and closing are written out so that what they add to the window is the same four instructions on every core:
 * the return from here, the call of emb_board_window_close and its two loads. emulation.py takes them off again. A
 * write of any value clears SysTick, which goes on from the reload value. */
__attribute__((naked)) void emb_board_window_open(void)
{
    __asm volatile(".syntax unified\n"
                   "    push {r4, lr}\n"
                   "    bl   emb_board_window_prepare\n"
                   "    ldr  r0, =0xE000E018\n"
                   "    movs r1, #0\n"
                   "    str  r1, [r0]\n"
                   ".global emb_board_window_opened\n"
                   "emb_board_window_opened:\n"
                   "    pop  {r4, pc}\n");
}

__attribute__((naked)) uint32_t emb_board_window_close(void)
{
    __asm volatile(".syntax unified\n"
                   "    ldr  r0, =0xE000E018\n"
                   "    ldr  r0, [r0]\n"
                   "    ldr  r1, =emb_board_window_ticks\n"
                   "    bx   r1\n");
}

void emb_board_exit(int status)
{
    uint32_t words[2];

    words[0] = APPLICATION_EXIT;
    words[1] = (uint32_t)status & 0xFFu;
    for (;;) {
        (void)semihosting(SYS_EXIT_EXTENDED, words);
    }
}
