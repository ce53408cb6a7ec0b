/*
 * Float32 arithmetic that gives the same bits on every core: each operation is rounded once, in the order in which it
 * is written. A product that is added must not become a fused multiply-add, which GCC does by default; what would
 * change the results and cannot be switched off from here is refused.
 */
#ifndef EMB_FLOAT_H
#define EMB_FLOAT_H

#include <float.h>
#include <stdint.h>
#include <string.h>

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__)
#error "-ffast-math reorders sums and gives other decisions; build these files without it."
#endif
/* 16 is float32 arithmetic on a core that has float16 as well. */
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16
#error "float is computed in more than 32 bits here; build these files with -msse2 -mfpmath=sse, or for another core."
#endif

#if defined(__GNUC__) && !defined(__clang__)
/* GCC ignores the standard's pragma, and without -std=c99 it contracts. This holds to the end of the file. */
#pragma GCC optimize("fp-contract=off")
#else
#pragma STDC FP_CONTRACT OFF
#endif

/* The 32 bits of a float. */
static inline uint32_t emb_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* The float of 32 bits. */
static inline float emb_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float emb_abs(float x)
{
    return emb_float(emb_bits(x) & 0x7FFFFFFFu);
}

static inline float emb_most(float left, float right)
{
    return left > right ? left : right;
}

static inline float emb_least(float left, float right)
{
    return left < right ? left : right;
}

/* Whole number nearest to x, halves to the even one; |x| below 2^22. */
static inline float emb_rounded(float x)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23: the sum has no bits left for a fraction */
    return (x + shift) - shift;
}

/* Correctly rounded square root of x >= 0, bit by bit, for cores without an instruction for it. */
static inline float emb_sqrt_of_bits(float x)
{
    uint32_t bits = emb_bits(x);
    int32_t exponent = (int32_t)(bits >> 23);
    uint32_t mantissa = bits & 0x007FFFFFu;
    uint64_t left, root = 0, one;
    if (bits == 0 || exponent == 255) {
        return x;
    }
    if (exponent == 0) {
        for (exponent = 1; !(mantissa & 0x00800000u); exponent--) {
            mantissa <<= 1;
        }
    }
    mantissa |= 0x00800000u;
    exponent -= 127;
    /* root = floor(sqrt(m * 2^26 or 27)): 25 bits, one more than the result has, and what is left is never exactly
       half. */
    left = (uint64_t)mantissa << ((exponent & 1) ? 26 : 25);
    for (one = (uint64_t)1 << 50; one != 0; one >>= 2) {
        if (left >= root + one) {
            left -= root + one;
            root = (root >> 1) + one;
        } else {
            root >>= 1;
        }
    }
    exponent = (exponent & 1) ? (exponent - 1) / 2 : exponent / 2;
    return emb_float(((uint32_t)(exponent + 126) << 23) + ((uint32_t)(root + 1) >> 1));
}

/* Square root of x >= 0. Inline assembly, since a compiler's builtin calls the C library where it may set errno. */
static inline float emb_sqrt(float x)
{
#if defined(__GNUC__) && defined(__arm__) && defined(__ARM_FP) && (__ARM_FP & 4)
    float root;
    __asm__("vsqrt.f32 %0, %1" : "=t"(root) : "t"(x));
    return root;
#else
    return emb_sqrt_of_bits(x);
#endif
}

/* Natural logarithm of x > 0 within one unit in the last place, x neither subnormal nor infinite: log32 with the
   coefficients of Cephes' logf (Moshier, "Methods and Programs for Mathematical Functions", 1989). */
float emb_log_ordinary(float x);

/* exp(x) for x <= 0, within two units in the last place; below -87.3 it stays at the least normal float. */
float emb_decay(float x);

#endif
