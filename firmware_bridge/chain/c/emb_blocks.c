/*
 * One pass over the samples of a block adds up what the chain's features need and nothing else. Of each sum at most
 * eight terms are added in float32, these totals as pairs: in the order of the Python chain, and with nearly its
 * precision.
 */
#include "emb_blocks.h"

#if EMB_HAS_SUMS

/* The terms. Names on the right are those of emb_next. */
#define EMB_TERM_absolute s.size
#define EMB_TERM_square s.squared
#define EMB_TERM_power_3 (s.squared * s.size)
#define EMB_TERM_root_above emb_sqrt(emb_most(s.x, 0.0f))
#define EMB_TERM_root_below emb_sqrt(emb_most(0.0f - s.x, 0.0f))
#define EMB_TERM_step_absolute emb_abs(s.step)
#define EMB_TERM_step_square (s.step * s.step)
#define EMB_TERM_bend_absolute emb_abs(s.bend)
#define EMB_TERM_bend_square (s.bend * s.bend)
#define EMB_TERM_large_steps (uint32_t)(emb_abs(s.step) > EMB_WAMP_LIMIT)
#define EMB_TERM_turns (uint32_t)(s.scaled * s.scaled_before < 0.0f)

/* Both slopes are multiplied by this, so that the sign of their product survives for any float. */
#define EMB_HUGE 0x1p75f

typedef struct {
    float x, size, squared, step, bend, scaled, scaled_before;
} emb_sample_state_t;

/* One sample on. What no term asks for is dropped by the compiler. */
static inline emb_sample_state_t emb_next(emb_sample_state_t s, float x)
{
    const float step = x - s.x;
    s.x = x;
    s.size = emb_abs(x);
    s.squared = x * x;
    s.bend = step - s.step;
    s.step = step;
    s.scaled_before = s.scaled;
    s.scaled = step * EMB_HUGE;
    return s;
}

#if EMB_HAS_CROSSINGS
/* Changes of sign. Zeros, of either sign, have none: a crossing is between the samples beside them. */
static void emb_count_crossings(const float *samples, uint32_t count, emb_sums_t *sums)
{
    uint32_t held, crossings = 0, i = 0;
    while (i < count && (emb_bits(samples[i]) << 1) == 0) {
        i++;
    }
    sums->opened = i < count ? samples[i] : 0.0f;
    held = emb_bits(sums->opened);
    for (; i < count; i++) {
        const uint32_t bits = emb_bits(samples[i]);
        if ((bits << 1) != 0) {
            crossings += (bits ^ held) >> 31;
            held = bits;
        }
    }
    sums->crossings = crossings;
    sums->closed = emb_float(held);
}
#endif

#if EMB_HAS_HIGHEST
static float emb_highest(const float *samples, uint32_t count)
{
    float highest = samples[0];
    uint32_t i;
    for (i = 1; i < count; i++) {
        highest = emb_most(highest, samples[i]);
    }
    return highest;
}
#endif

#if EMB_HAS_LOG_ONE
/* Sum of log(|x| + 1): one logarithm, of the product, whose power of two is counted apart. */
static emb_pair_t emb_sum_log_one(const float *samples, uint32_t count)
{
    static const emb_pair_t log_2 = {0.6931472f, -1.9046542e-09f};
    emb_pair_t product = {1.0f, 0.0f};
    int32_t exponent = 0;
    uint32_t i;
    for (i = 0; i < count; i++) {
        int32_t here;
        float scale;
        product = emb_pair_multiply(product, emb_two_sum(emb_abs(samples[i]), 1.0f));
        here = (int32_t)(emb_bits(product.hi) >> 23) - 127;
        scale = emb_float((uint32_t)(127 - here) << 23);
        product.hi *= scale;
        product.lo *= scale;
        exponent += here;
    }
    return emb_pair_add(emb_pair_times(log_2, (float)exponent), emb_pair_log(product));
}
#endif

#if EMB_CENTRED
/* Powers of x less the first sample: around the mean they would cancel less, but that is known only at the end. */
static void emb_sum_centred(const float *samples, uint32_t count, emb_sums_t *sums)
{
    uint32_t i, order;
    sums->reference = samples[0];
    for (order = 0; order < EMB_CENTRED; order++) {
        sums->centred[order] = emb_pair(0.0f);
    }
    for (i = 0; i < count; i++) {
        emb_pair_t centred = emb_two_sum(samples[i], -sums->reference);
        centred.hi *= EMB_CENTRED_SCALE;
        centred.lo *= EMB_CENTRED_SCALE;
        sums->centred[0] = emb_pair_add(sums->centred[0], centred);
#if EMB_CENTRED > 1
        {
            const emb_pair_t squared = emb_pair_multiply(centred, centred);
            sums->centred[1] = emb_pair_add(sums->centred[1], squared);
#if EMB_CENTRED > 2
            sums->centred[2] = emb_pair_add(sums->centred[2], emb_pair_multiply(squared, centred));
#endif
#if EMB_CENTRED > 3
            sums->centred[3] = emb_pair_add(sums->centred[3], emb_pair_multiply(squared, squared));
#endif
        }
#endif
    }
}
#endif

#define EMB_ADD(name) part_##name += EMB_TERM_##name;

/* Sums over x, or over y where `logarithms` is set; those that are counted are of x alone. */
static inline void emb_side_sums(const float *samples, uint32_t count, emb_sums_t *sums, emb_side_t *side,
                                 int logarithms)
{
#define EMB_VALUE(at) (logarithms ? emb_log_ordinary((at) * (at) + 0x1p-52f) : (at))
    emb_sample_state_t s = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    uint32_t begin, end = count < 2 ? count : 2, i;
#define EMB_DECLARE(name) float part_##name = 0.0f;
    EMB_LEVEL_SUMS(EMB_DECLARE)
    EMB_STEP_SUMS(EMB_DECLARE)
    EMB_BEND_SUMS(EMB_DECLARE)
#undef EMB_DECLARE
#if EMB_HAS_LARGE_STEPS
    uint32_t large_steps = 0;
#endif
#if EMB_HAS_TURNS
    uint32_t turns = 0;
#endif
    side->count = count;
    s = emb_next(s, EMB_VALUE(samples[-2]));
    s = emb_next(s, EMB_VALUE(samples[-1]));

    /* The first sample has no step within the block, the second no bend. */
    s = emb_next(s, EMB_VALUE(samples[0]));
    EMB_LEVEL_SUMS(EMB_ADD)
#define EMB_EARLY(name) side->early_##name = EMB_TERM_##name;
    EMB_STEP_SUMS(EMB_EARLY)
    EMB_BEND_SUMS(EMB_EARLY)
#undef EMB_EARLY
#if EMB_HAS_LARGE_STEPS
    if (!logarithms) {
        sums->early_large_steps = EMB_TERM_large_steps;
    }
#endif
#if EMB_HAS_TURNS
    if (!logarithms) {
        sums->early_turns = EMB_TERM_turns;
        sums->late_turns = 0;
    }
#endif
#define EMB_NONE(name) side->late_##name = 0.0f;
    EMB_BEND_SUMS(EMB_NONE)
#undef EMB_NONE
    if (count > 1) {
        s = emb_next(s, EMB_VALUE(samples[1]));
        EMB_LEVEL_SUMS(EMB_ADD)
        EMB_STEP_SUMS(EMB_ADD)
#define EMB_LATE(name) side->late_##name = EMB_TERM_##name;
        EMB_BEND_SUMS(EMB_LATE)
#undef EMB_LATE
#if EMB_HAS_LARGE_STEPS
        large_steps += EMB_TERM_large_steps;
#endif
#if EMB_HAS_TURNS
        if (!logarithms) {
            sums->late_turns = EMB_TERM_turns;
        }
#endif
    }
#define EMB_FIRST(name)                                                                                                \
    side->name = emb_pair(part_##name);                                                                                \
    part_##name = 0.0f;
    EMB_LEVEL_SUMS(EMB_FIRST)
    EMB_STEP_SUMS(EMB_FIRST)
    EMB_BEND_SUMS(EMB_FIRST)
#undef EMB_FIRST

#define EMB_FLUSH(name)                                                                                                \
    side->name = emb_pair_plus(side->name, part_##name);                                                               \
    part_##name = 0.0f;
    /* What is left of the first eight samples, whole eights, and what is left of the last. */
    for (begin = end; begin < count; begin = end) {
        end = begin < 8 ? 8 : begin + 8;
        end = end < count ? end : count;
        for (i = begin; i < end; i++) {
            s = emb_next(s, EMB_VALUE(samples[i]));
            EMB_LEVEL_SUMS(EMB_ADD)
            EMB_STEP_SUMS(EMB_ADD)
            EMB_BEND_SUMS(EMB_ADD)
#if EMB_HAS_LARGE_STEPS
            large_steps += EMB_TERM_large_steps;
#endif
#if EMB_HAS_TURNS
            turns += EMB_TERM_turns;
#endif
        }
        EMB_LEVEL_SUMS(EMB_FLUSH)
        EMB_STEP_SUMS(EMB_FLUSH)
        EMB_BEND_SUMS(EMB_FLUSH)
    }
#undef EMB_FLUSH
#undef EMB_VALUE
    if (!logarithms) {
#if EMB_HAS_LARGE_STEPS
        sums->large_steps = large_steps;
#endif
#if EMB_HAS_TURNS
        sums->turns = turns;
#endif
    }
    (void)s;
    (void)sums;
}

void emb_block_sums(const float *samples, uint32_t count, emb_sums_t *sums)
{
    emb_side_sums(samples, count, sums, &sums->x, 0);
#if EMB_HAS_LOGARITHMS
    emb_side_sums(samples, count, sums, &sums->y, 1);
#endif
#if EMB_HAS_CROSSINGS
    emb_count_crossings(samples, count, sums);
#endif
#if EMB_HAS_HIGHEST
    sums->highest = emb_highest(samples, count);
#endif
#if EMB_HAS_LOG_ONE
    sums->log_one = emb_sum_log_one(samples, count);
#endif
#if EMB_CENTRED
    emb_sum_centred(samples, count, sums);
#endif
}

/* The float32 sums of one side. Every member is written after what it comes of was read: `out` may be `a` or `b`. */
static void emb_join_sides(const emb_side_t *a, const emb_side_t *b, emb_side_t *out)
{
    const int single = a->count == 1;
    const uint32_t count = a->count + b->count;
#define EMB_LEVEL(name) out->name = emb_pair_add(a->name, b->name);
    EMB_LEVEL_SUMS(EMB_LEVEL)
#undef EMB_LEVEL
#define EMB_STEP(name)                                                                                                 \
    out->name = emb_pair_add(a->name, emb_pair_plus(b->name, b->early_##name));                                        \
    out->early_##name = a->early_##name;
    EMB_STEP_SUMS(EMB_STEP)
#undef EMB_STEP
/* Where a has one sample, the first bend of b reaches before a, and belongs to the second sample of both. */
#define EMB_BEND(name)                                                                                                 \
    {                                                                                                                  \
        const float early = b->early_##name, late = b->late_##name;                                                    \
        const emb_pair_t within = emb_pair_add(b->name, single ? emb_pair(late) : emb_two_sum(early, late));           \
        out->late_##name = single ? early : a->late_##name;                                                            \
        out->early_##name = a->early_##name;                                                                           \
        out->name = emb_pair_add(a->name, within);                                                                     \
    }
    EMB_BEND_SUMS(EMB_BEND)
#undef EMB_BEND
    out->count = count;
    (void)single;
}

/* Sums that are counted or have terms of their own; as above, `out` may be `a` or `b`. */
static void emb_join_others(const emb_sums_t *a, const emb_sums_t *b, emb_sums_t *out)
{
#if EMB_CENTRED
    {
        /* Powers around the reference of a; from the highest down, as each needs the lower ones of b. */
        const float n = (float)b->x.count;
        const emb_pair_t one = b->centred[0];
        emb_pair_t shift = emb_two_sum(b->reference, -a->reference);
        emb_pair_t inner;
#if EMB_CENTRED > 1
        const emb_pair_t two = b->centred[1];
#endif
#if EMB_CENTRED > 2
        const emb_pair_t three = b->centred[2];
#endif
        shift.hi *= EMB_CENTRED_SCALE;
        shift.lo *= EMB_CENTRED_SCALE;
#if EMB_CENTRED > 3
        inner = emb_pair_add(emb_pair_times(one, 4.0f), emb_pair_times(shift, n));
        inner = emb_pair_add(emb_pair_times(two, 6.0f), emb_pair_multiply(shift, inner));
        inner = emb_pair_add(emb_pair_times(three, 4.0f), emb_pair_multiply(shift, inner));
        inner = emb_pair_add(b->centred[3], emb_pair_multiply(shift, inner));
        out->centred[3] = emb_pair_add(a->centred[3], inner);
#endif
#if EMB_CENTRED > 2
        inner = emb_pair_add(emb_pair_times(one, 3.0f), emb_pair_times(shift, n));
        inner = emb_pair_add(emb_pair_times(two, 3.0f), emb_pair_multiply(shift, inner));
        out->centred[2] = emb_pair_add(a->centred[2], emb_pair_add(three, emb_pair_multiply(shift, inner)));
#endif
#if EMB_CENTRED > 1
        inner = emb_pair_add(emb_pair_times(one, 2.0f), emb_pair_times(shift, n));
        out->centred[1] = emb_pair_add(a->centred[1], emb_pair_add(two, emb_pair_multiply(shift, inner)));
#endif
        inner = emb_pair_add(one, emb_pair_times(shift, n));
        out->centred[0] = emb_pair_add(a->centred[0], inner);
        out->reference = a->reference;
    }
#endif
#if EMB_HAS_CROSSINGS
    {
        /* Between the last sample of a that is not zero and the first one of b. */
        const float left = a->closed, right = b->opened;
        const uint32_t apart = (uint32_t)((left < 0.0f && right > 0.0f) || (left > 0.0f && right < 0.0f));
        out->crossings = a->crossings + b->crossings + apart;
        out->opened = a->opened != 0.0f ? a->opened : b->opened;
        out->closed = b->closed != 0.0f ? b->closed : a->closed;
    }
#endif
#if EMB_HAS_HIGHEST
    out->highest = emb_most(a->highest, b->highest);
#endif
#if EMB_HAS_LOG_ONE
    out->log_one = emb_pair_add(a->log_one, b->log_one);
#endif
#if EMB_HAS_LARGE_STEPS
    out->large_steps = a->large_steps + b->large_steps + b->early_large_steps;
    out->early_large_steps = a->early_large_steps;
#endif
#if EMB_HAS_TURNS
    {
        const int single = a->x.count == 1;
        const uint32_t early = b->early_turns, late = b->late_turns;
        out->turns = a->turns + b->turns + late + (single ? 0 : early);
        out->late_turns = single ? early : a->late_turns;
        out->early_turns = a->early_turns;
    }
#endif
    (void)a;
    (void)b;
    (void)out;
}

void emb_join(const emb_sums_t *a, const emb_sums_t *b, emb_sums_t *out)
{
    emb_join_others(a, b, out);
    emb_join_sides(&a->x, &b->x, &out->x);
#if EMB_HAS_LOGARITHMS
    emb_join_sides(&a->y, &b->y, &out->y);
#endif
}

#endif
