/* Vector table, reset and faults of an Armv6-M, Armv7-M or Armv8-M core (Arm DDI 0403, DDI 0419, DDI 0553). */
#include <stdint.h>
#include <string.h>

#include "emb_board.h"

#define REG(address) (*(volatile uint32_t *)(address))
#define CCR REG(0xE000ED14u)
#define SHCSR REG(0xE000ED24u)
#define CFSR REG(0xE000ED28u)
#define HFSR REG(0xE000ED2Cu)
#define MMFAR REG(0xE000ED34u)
#define BFAR REG(0xE000ED38u)
#define CPACR REG(0xE000ED88u)

#define MPU_TYPE REG(0xE000ED90u)
#define MPU_CTRL REG(0xE000ED94u)
#define MPU_RNR REG(0xE000ED98u)
#define MPU_RBAR REG(0xE000ED9Cu)
#define MPU_RASR REG(0xE000EDA0u)

#define STACK_PAINT 0xC5C5C5C5u
#define INTERRUPTS 96
#define FRAME_BYTES 32u
#define STACK_LIMIT_PASSED (1u << 20)

/* Placed by board.ld. */
extern uint32_t emb_stack_guard[], emb_stack_bottom[], emb_stack_top[], emb_fault_stack_top[];
extern uint32_t emb_data_start[], emb_data_end[], emb_bss_start[], emb_bss_end[];
extern const uint32_t emb_data_image[];

extern int main(void);
void emb_board_reset(void);
void emb_board_reset_c(void);
void emb_board_fault_entry(void);
void emb_board_fault(const uint32_t *frame, uint32_t exception_return);
void emb_board_interrupt_entry(void);

typedef void (*vector_t)(void);

__attribute__((section(".vectors"), used)) static const vector_t vectors[16 + INTERRUPTS] = {
    (vector_t)(uintptr_t)emb_stack_top,
    emb_board_reset,
    emb_board_fault_entry, /* NMI */
    emb_board_fault_entry, /* HardFault */
    emb_board_fault_entry, /* MemManage */
    emb_board_fault_entry, /* BusFault */
    emb_board_fault_entry, /* UsageFault */
    emb_board_fault_entry, /* SecureFault */
    emb_board_fault_entry,
    emb_board_fault_entry,
    emb_board_fault_entry,
    emb_board_interrupt_entry, /* SVCall */
    emb_board_interrupt_entry, /* DebugMonitor */
    emb_board_fault_entry,
    emb_board_interrupt_entry, /* PendSV */
    emb_board_interrupt_entry, /* SysTick */
    [16 ... 16 + INTERRUPTS - 1] = emb_board_interrupt_entry,
};

/* Paint the whole stack before anything uses it, hence no C here. */
__attribute__((naked, noreturn)) void emb_board_reset(void)
{
    __asm volatile(".syntax unified\n"
                   "    ldr  r0, =emb_stack_bottom\n"
                   "    ldr  r1, =emb_stack_top\n"
                   "    mov  sp, r1\n"
                   "    ldr  r2, =%c0\n"
                   "1:  str  r2, [r0]\n"
                   "    adds r0, #4\n"
                   "    cmp  r0, r1\n"
                   "    blo  1b\n"
#if __ARM_ARCH >= 8
                   "    ldr  r0, =emb_stack_bottom\n"
                   "    msr  msplim, r0\n"
#endif
                   "    bl   emb_board_reset_c\n"
                   :
                   : "i"(STACK_PAINT));
}

#if __ARM_ARCH < 8
/* Armv6-M and Armv7-M have no stack limit register: the KiB below the stack admits no access (DDI 0403, B3.5). */
static void guard_the_stack(void)
{
    if (MPU_TYPE == 0u) {
        return;
    }
    MPU_RNR = 0u;
    MPU_RBAR = (uint32_t)(uintptr_t)emb_stack_guard;
    MPU_RASR = (1u << 28) | (9u << 1) | 1u; /* never executed, no access, 2^(9 + 1) bytes, on */
    MPU_CTRL = 5u;                          /* elsewhere the default map, on */
    __asm volatile("dsb\n isb" ::: "memory");
}
#endif

/* Everything that C needs, then main(). */
void emb_board_reset_c(void)
{
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    CPACR |= 0xFu << 20; /* CP10 and CP11: FPU and MVE */
    __asm volatile("dsb\n isb" ::: "memory");
#endif
#if defined(__ARM_FEATURE_MVE)
    CCR |= 1u << 19; /* low-overhead branches */
#endif
#if __ARM_ARCH == 6
    CCR |= 1u << 3; /* an Armv6-M core faults on unaligned access, the machine under it would not */
#else
    CCR |= 1u << 4; /* a division by zero is a fault */
    SHCSR |= 7u << 16; /* MemManage, BusFault, UsageFault by their own names */
#endif
    memcpy(emb_data_start, emb_data_image, (size_t)((uintptr_t)emb_data_end - (uintptr_t)emb_data_start));
    memset(emb_bss_start, 0, (size_t)((uintptr_t)emb_bss_end - (uintptr_t)emb_bss_start));
#if __ARM_ARCH < 8
    guard_the_stack();
#endif
    emb_board_start();
    emb_board_exit(main());
}

size_t emb_board_stack_used(void)
{
    const size_t size = (size_t)((uintptr_t)emb_stack_top - (uintptr_t)emb_stack_bottom);
    size_t untouched = 0u;

    while (untouched < size && emb_stack_bottom[untouched / sizeof(uint32_t)] == STACK_PAINT) {
        untouched += sizeof(uint32_t);
    }
    return size - untouched;
}

/* Report on a stack of its own: the program's may be what is broken. */
__attribute__((naked)) void emb_board_fault_entry(void)
{
    __asm volatile(".syntax unified\n"
                   "    mov  r0, sp\n"
                   "    mov  r1, lr\n"
#if __ARM_ARCH >= 8
                   "    movs r2, #0\n"
                   "    msr  msplim, r2\n"
#endif
                   "    ldr  r2, =emb_fault_stack_top\n"
                   "    mov  sp, r2\n"
                   "    bl   emb_board_fault\n");
}

/* " name=0x0123abcd" on the UART. */
static void print_register(const char *name, uint32_t value)
{
    emb_board_print(" ");
    emb_board_print(name);
    emb_board_print("=");
    emb_board_print_hex(value);
}

static uint32_t exception_number(void)
{
    uint32_t number;

    __asm volatile("mrs %0, ipsr" : "=r"(number));
    return number;
}

static const char *fault_name(uint32_t number)
{
    static const char *const names[] = {"NMI", "HardFault", "MemManage", "BusFault", "UsageFault", "SecureFault"};

    return number >= 2u && number < 8u ? names[number - 2u] : "interrupt";
}

/* One line with what happened and where, then the end. `frame`: what the core pushed, unless the stack is what
 * overflowed: then it lies outside of it (Armv6-M, Armv7-M) or was not written (Armv8-M, whose CFSR says so). */
void emb_board_fault(const uint32_t *frame, uint32_t exception_return)
{
    const uintptr_t bottom = (uintptr_t)emb_stack_bottom;
    const uintptr_t top = (uintptr_t)emb_stack_top;

    emb_board_print("\nemb_board fault: ");
    emb_board_print(fault_name(exception_number()));
    if ((uintptr_t)frame < bottom || (uintptr_t)frame + FRAME_BYTES > top || (CFSR & STACK_LIMIT_PASSED) != 0u) {
        emb_board_print(" stack overflow");
    } else {
        print_register("pc", frame[6]);
        print_register("lr", frame[5]);
    }
    print_register("exc_return", exception_return);
    print_register("cfsr", CFSR);
    print_register("hfsr", HFSR);
    print_register("mmfar", MMFAR);
    print_register("bfar", BFAR);
    emb_board_print("\n");
    emb_board_exit(EMB_BOARD_FAULT);
}

void emb_board_interrupt_entry(void)
{
    emb_board_interrupt((int)exception_number() - 16);
}

__attribute__((weak)) void emb_board_interrupt(int number)
{
    emb_board_print("\nemb_board fault: interrupt ");
    emb_board_print(number < 0 ? "-" : "");
    emb_board_print_u32((uint32_t)(number < 0 ? -number : number));
    emb_board_print(" without a handler\n");
    emb_board_exit(EMB_BOARD_FAULT);
}
