/* Requantization of four channels at a time with Helium: shared by the kernels that are written for EMB_MVE. */
#ifndef EMB_REQUANTIZE_MVE_H
#define EMB_REQUANTIZE_MVE_H

#include "emb_core.h"

#ifdef EMB_MVE

#include <arm_mve.h>

/* A function of assembly alone. The compiler must not conclude from its body that it ignores its arguments. */
#if defined(__clang__)
#define EMB_NAKED __attribute__((naked, noinline, used))
#else
#define EMB_NAKED __attribute__((naked, noipa))
#endif
#define EMB_UNUSED __attribute__((unused))

/* How accumulators are scaled. */
typedef enum {
    EMB_ONE_BY_ONE, /* some shift is too large for what follows: emb_requantize */
    EMB_ONCE,       /* rounded once */
    EMB_TWICE,      /* rounded twice */
    EMB_POSITIVE    /* rounded twice, and whatever is negative becomes the least output */
} emb_scaling_t;

/* Assembly that scales the vector `value` by `multiplier`, a vector or a scalar; `shift`
 * is the operands of VRSHL, (value, value, vector) or (value, scalar); `spare` is overwritten.
 *
 * All need shift <= -1. VRSHL rounds halves up.
 * Once: VQDMULH cuts off the lower 31 bits of the product, which do not decide how the rest is rounded.
 * Twice: VQRDMULH is the doubling high multiply; one less where the value is negative makes halves up halves away from
 *   zero.
 * Positive: where negative values become the least output anyway, both are the same. */
#define EMB_SCALE_ONCE(value, spare, multiplier, shift) \
    "vqdmulh.s32 " value ", " value ", " multiplier "\n\t" \
    "vrshl.s32 " shift "\n\t"
#define EMB_SCALE_TWICE(value, spare, multiplier, shift) \
    "vqrdmulh.s32 " value ", " value ", " multiplier "\n\t" \
    "vshr.s32 " spare ", " value ", #31\n\t" \
    "vadd.i32 " value ", " value ", " spare "\n\t" \
    "vrshl.s32 " shift "\n\t"
#define EMB_SCALE_POSITIVE(value, spare, multiplier, shift) \
    "vqrdmulh.s32 " value ", " value ", " multiplier "\n\t" \
    "vrshl.s32 " shift "\n\t"

/* How all of these channels can be scaled. */
EMB_INLINE emb_scaling_t emb_scaling(const emb_requant_t *to, size_t first, size_t channels)
{
    int8_t largest = INT8_MIN;
    for (size_t at = 0; at < channels; at += 16) {
        const mve_pred16_t inside = vctp8q((uint32_t)(channels - at));
        largest = vmaxvq_p_s8(largest, vldrbq_z_s8(to->shift + first + at, inside), inside);
    }
    if (largest > -1) {
        return EMB_ONE_BY_ONE;
    }
    return to->once ? EMB_ONCE : to->min >= to->zero ? EMB_POSITIVE : EMB_TWICE;
}

#endif

#endif
