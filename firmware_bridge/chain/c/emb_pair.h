/*
 * Numbers of some 48 bits as an unevaluated sum of two float32: what the Python chain adds up in float64, on cores
 * that have no double. (Dekker, "A floating-point technique for extending the available precision", Numerische
 * Mathematik 18, 1971; Knuth, "The Art of Computer Programming", volume 2, 4.2.2.)
 *
 * hi is the sum rounded to float32, lo what is left. Magnitudes must lie below 2^115 for a product; products below
 * 2^-100 lose the bits of lo.
 */
#ifndef EMB_PAIR_H
#define EMB_PAIR_H

#include "emb_float.h"
#include "emb_state.h"

static inline emb_pair_t emb_pair(float x)
{
    emb_pair_t pair = {0.0f, 0.0f};
    pair.hi = x;
    return pair;
}

/* a + b exactly, for |a| >= |b|. */
static inline emb_pair_t emb_quick_sum(float a, float b)
{
    emb_pair_t sum;
    sum.hi = a + b;
    sum.lo = b - (sum.hi - a);
    return sum;
}

/* a + b exactly. */
static inline emb_pair_t emb_two_sum(float a, float b)
{
    emb_pair_t sum;
    float part;
    sum.hi = a + b;
    part = sum.hi - a;
    sum.lo = (a - (sum.hi - part)) + (b - part);
    return sum;
}

/* a * b exactly. */
static inline emb_pair_t emb_two_product(float a, float b)
{
    emb_pair_t product;
    product.hi = a * b;
#if defined(__GNUC__) && defined(__arm__) && defined(__ARM_FEATURE_FMA) && (__ARM_FP & 4)
    product.lo = -product.hi;
    __asm__("vfma.f32 %0, %1, %2" : "+t"(product.lo) : "t"(a), "t"(b));
#else
    {
        const float split = 4097.0f; /* 2^12 + 1 cuts 24 bits in two halves of 12 */
        float a_high = split * a, b_high = split * b, a_low, b_low;
        a_high = a_high - (a_high - a);
        b_high = b_high - (b_high - b);
        a_low = a - a_high;
        b_low = b - b_high;
        product.lo = ((a_high * b_high - product.hi) + a_high * b_low + a_low * b_high) + a_low * b_low;
    }
#endif
    return product;
}

static inline emb_pair_t emb_pair_negative(emb_pair_t a)
{
    a.hi = -a.hi;
    a.lo = -a.lo;
    return a;
}

/* a + b with a float b: what a sum gains by eight samples. */
static inline emb_pair_t emb_pair_plus(emb_pair_t a, float b)
{
    emb_pair_t sum = emb_two_sum(a.hi, b);
    return emb_quick_sum(sum.hi, sum.lo + a.lo);
}

static inline emb_pair_t emb_pair_add(emb_pair_t a, emb_pair_t b)
{
    emb_pair_t high = emb_two_sum(a.hi, b.hi);
    emb_pair_t low = emb_two_sum(a.lo, b.lo);
    high = emb_quick_sum(high.hi, high.lo + low.hi);
    return emb_quick_sum(high.hi, high.lo + low.lo);
}

static inline emb_pair_t emb_pair_subtract(emb_pair_t a, emb_pair_t b)
{
    return emb_pair_add(a, emb_pair_negative(b));
}

/* a * b with a float b. */
static inline emb_pair_t emb_pair_times(emb_pair_t a, float b)
{
    emb_pair_t product = emb_two_product(a.hi, b);
    return emb_quick_sum(product.hi, product.lo + a.lo * b);
}

static inline emb_pair_t emb_pair_multiply(emb_pair_t a, emb_pair_t b)
{
    emb_pair_t product = emb_two_product(a.hi, b.hi);
    return emb_quick_sum(product.hi, product.lo + (a.hi * b.lo + a.lo * b.hi));
}

static inline emb_pair_t emb_pair_divide(emb_pair_t a, emb_pair_t b)
{
    float first = a.hi / b.hi;
    emb_pair_t left = emb_pair_subtract(a, emb_pair_times(b, first));
    float second = left.hi / b.hi;
    left = emb_pair_subtract(left, emb_pair_times(b, second));
    return emb_pair_plus(emb_quick_sum(first, second), left.hi / b.hi);
}

/* Square root of a >= 0. */
static inline emb_pair_t emb_pair_sqrt(emb_pair_t a)
{
    float root = emb_sqrt(a.hi);
    if (!(root > 0.0f)) {
        return emb_pair(0.0f);
    }
    return emb_quick_sum(root, emb_pair_subtract(a, emb_two_product(root, root)).hi / (2.0f * root));
}

static inline int emb_pair_above(emb_pair_t a, emb_pair_t b)
{
    return a.hi > b.hi || (a.hi == b.hi && a.lo > b.lo);
}

/* The larger of two, b where they are equal. */
static inline emb_pair_t emb_pair_most(emb_pair_t a, emb_pair_t b)
{
    return emb_pair_above(a, b) ? a : b;
}

static inline emb_pair_t emb_pair_abs(emb_pair_t a)
{
    return a.hi < 0.0f ? emb_pair_negative(a) : a;
}

/* Stands for the logarithm of 0: its exponential is 0, and sums of it stay finite. */
#define EMB_LOG_OF_ZERO (-1e30f)

/* Natural logarithm; EMB_LOG_OF_ZERO of 0 and below. */
emb_pair_t emb_pair_log(emb_pair_t x);

/* Exponential of x below 88; 0 below -87. */
emb_pair_t emb_pair_exp(emb_pair_t x);

#endif
