/* What test_boards.py runs on every board: the first word of the input says which of the things below. */
#include <stdint.h>
#include <string.h>

#include "emb_board.h"
#if defined(__ARM_FEATURE_MVE)
#include <arm_mve.h>
#endif

#define FACTORS 64

typedef struct {
    uint32_t what, count;
    union {
        uint32_t words[128];
        float factors[2][FACTORS];
        int8_t bytes[2][FACTORS];
    } as;
} input_t;

static const char text[] = "constant";
static uint32_t initialised[2] = {0x01234567u, 42u};
static uint32_t zeroed[3];
static volatile int32_t interrupt_seen;

void emb_board_interrupt(int number)
{
    interrupt_seen = number;
}

/* Exactly twice `turns` instructions inside of the window, or none. */
__attribute__((naked, noinline)) static uint32_t window_of(uint32_t turns)
{
    (void)turns;
    __asm volatile(".syntax unified\n"
                   "    push {r4, lr}\n"
                   "    mov  r4, r0\n"
                   "    cmp  r4, #0\n"
                   "    beq  2f\n"
                   "    bl   emb_board_window_open\n"
                   "1:  subs r4, #1\n"
                   "    bne  1b\n"
                   "    bl   emb_board_window_close\n"
                   "    pop  {r4, pc}\n"
                   "2:  bl   emb_board_window_open\n"
                   "    bl   emb_board_window_close\n"
                   "    pop  {r4, pc}\n");
}

/* Uses 1 KiB of stack and a little for each of `depth` calls. */
__attribute__((noinline)) static uint32_t dig(uint32_t depth)
{
    volatile uint32_t filled[256];
    size_t i;

    for (i = 0; i < 256u; i++) {
        filled[i] = depth;
    }
    return depth == 0u ? 0u : dig(depth - 1u) + filled[depth & 255u];
}

/* Vectors, where the core has them, else one at a time. */
static int32_t dot(const int8_t *a, const int8_t *b)
{
    int32_t sum = 0;
    size_t i;

#if defined(__ARM_FEATURE_MVE)
    for (i = 0; i < FACTORS; i += 16u) {
        sum = vmladavaq_s8(sum, vldrbq_s8(a + i), vldrbq_s8(b + i));
    }
#else
    for (i = 0; i < FACTORS; i++) {
        sum += (int32_t)a[i] * (int32_t)b[i];
    }
#endif
    return sum;
}

int main(void)
{
    const input_t *input = emb_board_input();
    uint32_t i, value;
    float products[FACTORS];

    switch (input->what) {
    case 'h': /* what the start-up code owes to C */
        emb_board_print(text);
        for (i = 0; i < 2u; i++) {
            emb_board_print(" ");
            emb_board_print_u32(initialised[i]);
        }
        for (i = 0; i < 3u; i++) {
            emb_board_print(" ");
            emb_board_print_u32(zeroed[i]);
        }
        emb_board_print(" ");
        emb_board_print_hex(UINT32_MAX - 1u);
        emb_board_print("\n");
        return 200;
    case 'f': /* the FPU */
        for (i = 0; i < FACTORS; i++) {
            products[i] = input->as.factors[0][i] * input->as.factors[1][i];
        }
        emb_board_output(products, sizeof products);
        return 0;
    case 'v': /* MVE */
        value = (uint32_t)dot(input->as.bytes[0], input->as.bytes[1]);
        emb_board_output(&value, sizeof value);
        return 0;
    case 'u': /* the UART in both directions */
        for (i = 0; i < input->count; i++) {
            unsigned char byte;

            emb_board_read(&byte, 1u);
            emb_board_write(&byte, 1u);
        }
        return 0;
    case 'm': /* four bytes from each of these addresses */
        for (i = 0; i < input->count; i++) {
            emb_board_output((const void *)(uintptr_t)input->as.words[i], 4u);
        }
        return 0;
    case 't': /* ticks of windows of known length */
        for (i = 0; i < input->count; i++) {
            value = window_of(input->as.words[i]);
            emb_board_output(&value, sizeof value);
        }
        return 0;
    case 's': /* stack before and after it was used */
        value = (uint32_t)emb_board_stack_used();
        emb_board_output(&value, sizeof value);
        (void)dig(input->count);
        value = (uint32_t)emb_board_stack_used();
        emb_board_output(&value, sizeof value);
        return 0;
    case 'p': /* PendSV */
        *(volatile uint32_t *)0xE000ED04u = 1u << 28;
        __asm volatile("dsb\n isb" ::: "memory");
        return interrupt_seen == -2 ? 0 : 1;
    case 'b': /* nothing answers there on any board */
        *(volatile uint32_t *)0xF0000000u = 1u;
        return 0;
    case 'i':
        __asm volatile("udf #0");
        return 0;
    case 'n': /* a word that is not aligned */
        __asm volatile("ldr %0, [%1]" : "=l"(value) : "l"((uintptr_t)input + 1u));
        return 3;
    default: /* never ends */
        emb_board_print("waiting\n");
        for (;;) {
        }
    }
}
