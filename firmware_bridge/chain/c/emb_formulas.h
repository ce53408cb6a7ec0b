/*
 * Features as functions of sums over the EMB_FRAME samples of a window; the generated emb_columns calls those that the
 * chain has. Definitions and papers are those of `embridge-edge features --list`; x is a sample, d a difference of
 * two, e a difference of two of these.
 */
#ifndef EMB_FORMULAS_H
#define EMB_FORMULAS_H

#include "emb_internal.h"

/* Amplitudes below this count as this in a logarithm, so that a silent channel stays finite; powers have its square. */
#define EMB_FLOOR 1e-09f

/* Constants as pairs. */
static inline emb_pair_t emb_pair_of(float hi, float lo)
{
    emb_pair_t pair = {0.0f, 0.0f};
    pair.hi = hi;
    pair.lo = lo;
    return pair;
}

#define EMB_FLOOR_SQUARED emb_pair_of(9.999999e-19f, 1.0200095e-27f)
#define EMB_LOG_10 emb_pair_of(2.3025851f, -3.1975436e-08f)
#define EMB_LOG_FLOOR emb_pair_of(-20.723267f, 7.363342e-07f)
#define EMB_LOG_COUNT_LESS_1 emb_pair_of(EMB_LOG_COUNT_LESS_1_HI, EMB_LOG_COUNT_LESS_1_LO)

/* a / b, 0 where b is 0. */
static inline emb_pair_t emb_ratio(emb_pair_t a, emb_pair_t b)
{
    return emb_abs(b.hi) > 0.0f ? emb_pair_divide(a, b) : emb_pair(0.0f);
}

static inline emb_pair_t emb_over_count(emb_pair_t sum)
{
    return emb_pair_divide(sum, emb_pair((float)EMB_FRAME));
}

static inline emb_pair_t emb_log_floored(emb_pair_t x)
{
    return emb_pair_log(emb_pair_most(x, emb_pair(EMB_FLOOR)));
}

/* IAV, WL, ISD: the sum itself. */
static inline float emb_total(emb_pair_t sum)
{
    return sum.hi;
}

/* ZC, SSC, WAMP. */
static inline float emb_number(uint32_t count)
{
    return (float)count;
}

/* MAV, ACT, MDIFF, TM: sum / N. */
static inline float emb_mean(emb_pair_t sum)
{
    return emb_over_count(sum).hi;
}

/* MAVFD: sum / (N - 1). */
static inline float emb_mean_of_steps(emb_pair_t sum)
{
    return emb_pair_divide(sum, emb_pair((float)(EMB_FRAME - 1))).hi;
}

/* RMS, MZP: root(sum / N). */
static inline float emb_root_mean(emb_pair_t sum)
{
    return emb_pair_sqrt(emb_over_count(sum)).hi;
}

/* DASDV: root(sum / (N - 1)). */
static inline float emb_root_mean_of_steps(emb_pair_t sum)
{
    return emb_pair_sqrt(emb_pair_divide(sum, emb_pair((float)(EMB_FRAME - 1)))).hi;
}

/* LOGMAV. */
static inline float emb_log_mean(emb_pair_t sum)
{
    return emb_log_floored(emb_over_count(sum)).hi;
}

/* LOGRMS. */
static inline float emb_log_root_mean(emb_pair_t sum)
{
    return emb_log_floored(emb_pair_sqrt(emb_over_count(sum))).hi;
}

/* LOGWL. */
static inline float emb_log_total(emb_pair_t sum)
{
    return emb_log_floored(sum).hi;
}

/* MFL: decimal logarithm of sum |d|. */
static inline float emb_log10_total(emb_pair_t sum)
{
    return emb_pair_divide(emb_log_floored(sum), EMB_LOG_10).hi;
}

/* MLK: log(sum |x| + 2^-52) / N. */
static inline float emb_mean_log_kernel(emb_pair_t sum)
{
    return emb_over_count(emb_pair_log(emb_pair_plus(sum, 0x1p-52f))).hi;
}

/* LD: exp(sum log(|x| + 1) / N). */
static inline float emb_log_detector(emb_pair_t log_one)
{
    return emb_pair_exp(emb_over_count(log_one)).hi;
}

/* MSR: |sum of roots| / N, the root of a negative sample imaginary. */
static inline float emb_mean_square_root(emb_pair_t above, emb_pair_t below)
{
    emb_pair_t square = emb_pair_add(emb_pair_multiply(above, above), emb_pair_multiply(below, below));
    return emb_over_count(emb_pair_sqrt(square)).hi;
}

/* PAP: root(x^2) root(d^2) / root(e^2). */
static inline float emb_peak_average_power(emb_pair_t square, emb_pair_t step_square, emb_pair_t bend_square)
{
    emb_pair_t rate = emb_ratio(emb_pair_sqrt(bend_square), emb_pair_sqrt(step_square));
    return emb_ratio(emb_pair_sqrt(square), rate).hi;
}

/* COR: d^2 / (e^2 x^2), one division after the other: the product of both may leave float32. */
static inline float emb_regularization(emb_pair_t square, emb_pair_t step_square, emb_pair_t bend_square)
{
    return emb_ratio(emb_ratio(step_square, bend_square), square).hi;
}

/* MOB: root(d^2 / x^2); COMP: root(e^2 / d^2). */
static inline float emb_root_ratio(emb_pair_t above, emb_pair_t below)
{
    return emb_pair_sqrt(emb_ratio(above, below)).hi;
}

#if EMB_CENTRED
/* MEAN. */
static inline float emb_mean_of(const emb_sums_t *sums)
{
    emb_pair_t offset = emb_over_count(sums->centred[0]);
    offset.hi *= 1.0f / EMB_CENTRED_SCALE;
    offset.lo *= 1.0f / EMB_CENTRED_SCALE;
    return emb_pair_plus(offset, sums->reference).hi;
}
#endif

#if EMB_CENTRED > 1
/* VAR in units of (1 / EMB_CENTRED_SCALE)^2. */
static inline emb_pair_t emb_scaled_variance(const emb_sums_t *sums)
{
    const emb_pair_t offset = emb_over_count(sums->centred[0]);
    const emb_pair_t second = emb_over_count(sums->centred[1]);
    return emb_pair_most(emb_pair_subtract(second, emb_pair_multiply(offset, offset)), emb_pair(0.0f));
}

static inline emb_pair_t emb_variance_pair(const emb_sums_t *sums)
{
    emb_pair_t variance = emb_scaled_variance(sums);
    variance.hi = variance.hi * (1.0f / EMB_CENTRED_SCALE) * (1.0f / EMB_CENTRED_SCALE);
    variance.lo = variance.lo * (1.0f / EMB_CENTRED_SCALE) * (1.0f / EMB_CENTRED_SCALE);
    return variance;
}

/* VAR. */
static inline float emb_variance(const emb_sums_t *sums)
{
    return emb_variance_pair(sums).hi;
}

/* LOGVAR. */
static inline float emb_log_variance(const emb_sums_t *sums)
{
    return emb_pair_log(emb_pair_most(emb_variance_pair(sums), EMB_FLOOR_SQUARED)).hi;
}
#endif

#if EMB_CENTRED > 2
/* SKEW: third moment / variance^1.5; no unit, hence of scaled sums. */
static inline float emb_skewness(const emb_sums_t *sums)
{
    const emb_pair_t offset = emb_over_count(sums->centred[0]);
    const emb_pair_t second = emb_over_count(sums->centred[1]);
    const emb_pair_t third = emb_over_count(sums->centred[2]);
    const emb_pair_t variance = emb_scaled_variance(sums);
    emb_pair_t moment = emb_pair_times(emb_pair_multiply(offset, offset), 2.0f);
    moment = emb_pair_subtract(emb_pair_times(second, 3.0f), moment);
    moment = emb_pair_subtract(third, emb_pair_multiply(offset, moment));
    return emb_ratio(moment, emb_pair_multiply(variance, emb_pair_sqrt(variance))).hi;
}
#endif

#if EMB_CENTRED > 3
/* KURT: fourth moment / variance^2. */
static inline float emb_kurtosis(const emb_sums_t *sums)
{
    const emb_pair_t offset = emb_over_count(sums->centred[0]);
    const emb_pair_t second = emb_over_count(sums->centred[1]);
    const emb_pair_t third = emb_over_count(sums->centred[2]);
    const emb_pair_t variance = emb_scaled_variance(sums);
    emb_pair_t moment = emb_pair_times(emb_pair_multiply(offset, offset), 3.0f);
    moment = emb_pair_multiply(offset, emb_pair_subtract(emb_pair_times(second, 6.0f), moment));
    moment = emb_pair_multiply(offset, emb_pair_subtract(emb_pair_times(third, 4.0f), moment));
    moment = emb_pair_subtract(emb_over_count(sums->centred[3]), moment);
    moment = emb_pair_most(moment, emb_pair(0.0f));
    return emb_ratio(moment, emb_pair_multiply(variance, variance)).hi;
}
#endif

#if EMB_HAS_LOGARITHMS
/* M0, M2, M4, SPARSI, IRF and WLF: b of x and a of y, as -2ab / (a^2 + b^2). */
static inline float emb_joined(emb_pair_t b, emb_pair_t a)
{
    emb_pair_t above = emb_pair_multiply(emb_pair_times(a, -2.0f), b);
    return emb_ratio(above, emb_pair_add(emb_pair_multiply(a, a), emb_pair_multiply(b, b))).hi;
}

static inline emb_pair_t emb_floored(emb_pair_t logarithm)
{
    return emb_pair_most(logarithm, EMB_LOG_FLOOR);
}

/* log(10 (root(sum) / (N - 1))^0.1), and with the N - 1 within the root. */
static inline emb_pair_t emb_log_power(emb_pair_t square)
{
    emb_pair_t scaled = emb_pair_multiply(emb_pair_of(0.05f, -7.4505807e-10f), emb_pair_log(square));
    scaled = emb_pair_add(EMB_LOG_10, scaled);
    return emb_pair_subtract(scaled, emb_pair_multiply(emb_pair_of(0.1f, -1.4901161e-09f), EMB_LOG_COUNT_LESS_1));
}

static inline emb_pair_t emb_log_moment(emb_pair_t square)
{
    emb_pair_t less = emb_pair_subtract(emb_pair_log(square), EMB_LOG_COUNT_LESS_1);
    return emb_pair_add(EMB_LOG_10, emb_pair_multiply(emb_pair_of(0.05f, -7.4505807e-10f), less));
}

/* log |m0 - m2|, or with m4. */
static inline emb_pair_t emb_log_difference(emb_pair_t square, emb_pair_t other_square)
{
    emb_pair_t power = emb_pair_exp(emb_log_power(square));
    return emb_pair_log(emb_pair_abs(emb_pair_subtract(power, emb_pair_exp(emb_log_moment(other_square)))));
}
#endif

/* The sides of these features, x or y. Macros, for a chain without one of them lacks its sums. */
#define EMB_POWER(side) emb_floored(emb_log_power((side).square))
#define EMB_SECOND_MOMENT(side) emb_floored(emb_log_difference((side).square, (side).step_square))
#define EMB_FOURTH_MOMENT(side) emb_floored(emb_log_difference((side).square, (side).bend_square))
#define EMB_SPARSENESS(side) emb_sparseness((side).square, (side).step_square, (side).bend_square)
#define EMB_IRREGULARITY(side) emb_irregularity((side).square, (side).step_square, (side).bend_square)
#define EMB_LENGTH_FACTOR(side) emb_length_factor((side).step_absolute, (side).bend_absolute)

#if EMB_HAS_LOGARITHMS
/* SPARSI: log(root(|m0 - m2| |m0 - m4|) / m0); without steps that is log 1, and without power the floor. */
static inline emb_pair_t emb_sparseness(emb_pair_t square, emb_pair_t step_square, emb_pair_t bend_square)
{
    emb_pair_t both;
    if (!(square.hi > 0.0f)) {
        return EMB_LOG_FLOOR;
    }
    if (!(emb_pair_add(step_square, bend_square).hi > 0.0f)) {
        return emb_pair(0.0f);
    }
    both = emb_pair_add(emb_log_difference(square, step_square), emb_log_difference(square, bend_square));
    return emb_floored(emb_pair_subtract(emb_pair_times(both, 0.5f), emb_log_power(square)));
}

/* IRF: log(m2 / root(m0 m4)). */
static inline emb_pair_t emb_irregularity(emb_pair_t square, emb_pair_t step_square, emb_pair_t bend_square)
{
    emb_pair_t both;
    if (!(bend_square.hi > 0.0f)) {
        return EMB_LOG_FLOOR;
    }
    both = emb_pair_add(emb_log_power(square), emb_log_moment(bend_square));
    return emb_floored(emb_pair_subtract(emb_log_moment(step_square), emb_pair_times(both, 0.5f)));
}

/* WLF: log(root(sum |d| / sum |e|)). */
static inline emb_pair_t emb_length_factor(emb_pair_t step_absolute, emb_pair_t bend_absolute)
{
    if (!(bend_absolute.hi > 0.0f)) {
        return EMB_LOG_FLOOR;
    }
    return emb_floored(emb_pair_times(emb_pair_log(emb_pair_divide(step_absolute, bend_absolute)), 0.5f));
}
#endif

#endif
