#include "emb_rows.h"

#ifdef EMB_MVE

#include <arm_mve.h>

#include "emb_requantize_mve.h"

#define FEW 6 /* rows for which laying weights side by side does not pay */

/* What one_row_NAME works on. */
typedef struct {
    const int8_t *x;      /* a row of inputs */
    size_t count;         /* its length */
    size_t weights_step;  /* from the end of one row of weights, in whole vectors, to the fourth after it */
    const int32_t *end;   /* of the biases */
    const int8_t *shift;
    const int32_t *multiplier;
    int32_t zero[4], min[4], max[4];
} one_row_t;

/* What two_rows_NAME works on; q registers are loaded from its end. */
typedef struct {
    int32_t bias[4];
    const int8_t *beside;
    size_t steps;      /* vectors of a row */
    size_t to_next;    /* from the end of a row, in whole vectors, to the row after the next */
    size_t in_pitch;
    int32_t zero;
    size_t out_pitch;
    const int8_t *end; /* of the inputs: where the next row would begin */
    int32_t unused;
    int32_t multiplier[4], shift[4], min[4], max[4];
} two_rows_t;

/* One row of inputs times all rows of weights, four at a time. Naked: GCC 12 moves the accumulators, which must be even
 * registers, in and out of others at every turn, 45 instructions instead of 21. */
#define ONE_ROW(name, SCALE) \
    EMB_NAKED static void name(EMB_UNUSED const one_row_t *p, EMB_UNUSED const int8_t *weights, \
                               EMB_UNUSED const int32_t *bias, EMB_UNUSED int8_t *out) \
    { \
        __asm("push {r4-r11, lr}\n\t" \
              "vpush {d8-d15}\n\t" \
              "mov r5, r1\n\t"  /* weights: r5, r7, r8, r9 */ \
              "mov r10, r2\n\t" /* bias */ \
              "mov r1, r3\n\t"  /* out */ \
              "vldrw.u32 q3, [r0, #24]\n\t" \
              "vldrw.u32 q6, [r0, #40]\n\t" \
              "vldrw.u32 q7, [r0, #56]\n\t" \
              "ldrd r3, r11, [r0, #16]\n\t" /* shift, multiplier */ \
              "ldrd r6, r7, [r0]\n\t" \
              "ldrd r8, r9, [r0, #8]\n\t" \
              "push {r6-r9}\n" \
              "1:\n\t" \
              "ldrd r0, r2, [r10], #8\n\t" /* accumulators: r0, r2, r4, r6 */ \
              "ldrd r4, r6, [r10], #8\n\t" \
              "ldrd r12, lr, [sp]\n\t" /* x, count */ \
              "add r7, r5, lr\n\t" \
              "add r8, r7, lr\n\t" \
              "add r9, r8, lr\n\t" \
              "dlstp.8 lr, lr\n" \
              "2:\n\t" \
              "vldrb.8 q0, [r12], #16\n\t" \
              "vldrb.8 q1, [r5], #16\n\t" \
              "vmladava.s8 r0, q0, q1\n\t" \
              "vldrb.8 q2, [r7], #16\n\t" \
              "vmladava.s8 r2, q0, q2\n\t" \
              "vldrb.8 q1, [r8], #16\n\t" \
              "vmladava.s8 r4, q0, q1\n\t" \
              "vldrb.8 q2, [r9], #16\n\t" \
              "vmladava.s8 r6, q0, q2\n\t" \
              "letp lr, 2b\n\t" \
              "ldrd r7, r8, [sp, #8]\n\t" /* weights_step, end */ \
              "vldrw.u32 q4, [r11], #16\n\t" \
              "vmov q0[2], q0[0], r0, r4\n\t" \
              "vldrb.s32 q5, [r3], #4\n\t" \
              "vmov q0[3], q0[1], r2, r6\n\t" \
              SCALE("q0", "q1", "q4", "q0, q5") \
              "vadd.i32 q0, q0, q3\n\t" \
              "add r5, r7\n\t" \
              "vmax.s32 q0, q0, q6\n\t" \
              "cmp r10, r8\n\t" \
              "vmin.s32 q0, q0, q7\n\t" \
              "vstrb.32 q0, [r1], #4\n\t" \
              "bne 1b\n\t" \
              "add sp, #16\n\t" \
              "vpop {d8-d15}\n\t" \
              "pop {r4-r11, pc}"); \
    }

/* Pairs of rows of inputs times four rows of weights side by side. The accumulators take all even registers. */
#define TWO_ROWS(name, SCALE) \
    EMB_NAKED static void name(EMB_UNUSED const two_rows_t *p, EMB_UNUSED const int8_t *x, EMB_UNUSED int8_t *out) \
    { \
        __asm("push {r3-r11, lr}\n\t" \
              "vpush {d8-d15}\n\t" \
              "mov r11, r0\n\t" \
              "mov r9, r1\n\t" \
              "mov r1, r2\n\t" /* out */ \
              "vldrw.u32 q4, [r11, #48]\n\t" \
              "vldrw.u32 q5, [r11, #64]\n\t" \
              "vldrw.u32 q6, [r11, #80]\n\t" \
              "vldrw.u32 q7, [r11, #96]\n\t" \
              "ldr r3, [r11, #28]\n\t" \
              "add r3, r9\n" /* one row in r9, the next in r3 */ \
              "1:\n\t" \
              "ldrd r0, r2, [r11]\n\t" \
              "ldrd r4, r6, [r11, #8]\n\t" \
              "ldrd r8, r10, [r11]\n\t" \
              "ldrd r12, lr, [r11, #8]\n\t" \
              "ldrd r5, r7, [r11, #16]\n" /* beside, steps */ \
              "2:\n\t" \
              "vldrb.8 q0, [r9], #16\n\t" \
              "vldrb.8 q2, [r5], #16\n\t" \
              "vmladava.s8 r0, q0, q2\n\t" \
              "vldrb.8 q1, [r3], #16\n\t" \
              "vmladava.s8 r8, q1, q2\n\t" \
              "vldrb.8 q3, [r5], #16\n\t" \
              "vmladava.s8 r2, q0, q3\n\t" \
              "vmladava.s8 r10, q1, q3\n\t" \
              "vldrb.8 q2, [r5], #16\n\t" \
              "vmladava.s8 r4, q0, q2\n\t" \
              "vmladava.s8 r12, q1, q2\n\t" \
              "vldrb.8 q3, [r5], #16\n\t" \
              "vmladava.s8 r6, q0, q3\n\t" \
              "vmladava.s8 lr, q1, q3\n\t" \
              "subs r7, #1\n\t" \
              "bne 2b\n\t" \
              "vmov q0[2], q0[0], r0, r4\n\t" \
              "vmov q0[3], q0[1], r2, r6\n\t" \
              "vmov q1[2], q1[0], r8, r12\n\t" \
              "vmov q1[3], q1[1], r10, lr\n\t" \
              "ldrd r4, r6, [r11, #24]\n\t" /* to_next, in_pitch */ \
              "ldrd r8, r10, [r11, #32]\n\t" /* zero, out_pitch */ \
              "ldr r0, [r11, #40]\n\t" /* end */ \
              SCALE("q0", "q2", "q4", "q0, q5") \
              "vadd.i32 q0, q0, r8\n\t" \
              "add r9, r4\n\t" \
              SCALE("q1", "q3", "q4", "q1, q5") \
              "vadd.i32 q1, q1, r8\n\t" \
              "add r3, r9, r6\n\t" \
              "vmax.s32 q0, q0, q6\n\t" \
              "vmin.s32 q0, q0, q7\n\t" \
              "vstrb.32 q0, [r1]\n\t" \
              "add r1, r10\n\t" \
              "vmax.s32 q1, q1, q6\n\t" \
              "vmin.s32 q1, q1, q7\n\t" \
              "vstrb.32 q1, [r1]\n\t" \
              "add r1, r10\n\t" \
              "cmp r9, r0\n\t" \
              "bne 1b\n\t" \
              "vpop {d8-d15}\n\t" \
              "pop {r3-r11, pc}"); \
    }

ONE_ROW(one_row_once, EMB_SCALE_ONCE)
ONE_ROW(one_row_twice, EMB_SCALE_TWICE)
ONE_ROW(one_row_positive, EMB_SCALE_POSITIVE)
TWO_ROWS(two_rows_twice, EMB_SCALE_TWICE)
TWO_ROWS(two_rows_positive, EMB_SCALE_POSITIVE)

/* Channels from o on, as many fours as there are. */
static void one_row(emb_scaling_t how, const emb_rows_t *p, one_row_t *row, size_t o, size_t fours, int8_t *out)
{
    const size_t channel = p->first + o;
    const int8_t *weights = p->weights + o * p->count;
    const int32_t *bias = p->to->bias + channel;
    row->end = bias + 4 * fours;
    row->shift = p->to->shift + channel;
    row->multiplier = p->to->multiplier + channel;
    (how == EMB_ONCE ? one_row_once : how == EMB_TWICE ? one_row_twice : one_row_positive)(row, weights, bias, out + o);
}

static void single_rows(emb_scaling_t how, const emb_rows_t *p, const int8_t *in, size_t rows, int8_t *out)
{
    one_row_t row = {.count = p->count, .weights_step = 4 * p->count - EMB_BESIDE(p->count) / 4};
    vst1q_s32(row.zero, vdupq_n_s32(p->to->zero));
    vst1q_s32(row.min, vdupq_n_s32(p->to->min));
    vst1q_s32(row.max, vdupq_n_s32(p->to->max));
    for (; rows > 0; --rows) {
        row.x = in;
        one_row(how, p, &row, 0, p->channels / 4, out);
        if (p->channels % 4 > 0) { /* the last four overlap those before */
            one_row(how, p, &row, p->channels - 4, 1, out);
        }
        in += p->in_pitch;
        out += p->out_pitch;
    }
}

static void lay_beside(const int8_t *weights, size_t count, int8_t *beside)
{
    const int8_t *w0 = weights, *w1 = w0 + count, *w2 = w1 + count, *w3 = w2 + count;
    for (size_t left = count; left >= 16; left -= 16) {
        vstrbq_s8(beside, vldrbq_s8(w0));
        vstrbq_s8(beside + 16, vldrbq_s8(w1));
        vstrbq_s8(beside + 32, vldrbq_s8(w2));
        vstrbq_s8(beside + 48, vldrbq_s8(w3));
        w0 += 16, w1 += 16, w2 += 16, w3 += 16;
        beside += 64;
    }
    if (count % 16 > 0) {
        const mve_pred16_t inside = vctp8q((uint32_t)(count % 16));
        vstrbq_s8(beside, vldrbq_z_s8(w0, inside));
        vstrbq_s8(beside + 16, vldrbq_z_s8(w1, inside));
        vstrbq_s8(beside + 32, vldrbq_z_s8(w2, inside));
        vstrbq_s8(beside + 48, vldrbq_z_s8(w3, inside));
    }
}

static void paired_rows(emb_scaling_t how, const emb_rows_t *p, const int8_t *in, size_t pairs, int8_t *out)
{
    const size_t steps = (p->count + 15u) / 16u;
    two_rows_t two = {.beside = p->beside, .steps = steps, .to_next = 2 * p->in_pitch - 16 * steps,
                      .in_pitch = p->in_pitch, .zero = p->to->zero, .out_pitch = p->out_pitch,
                      .end = in + 2 * pairs * p->in_pitch};
    vst1q_s32(two.min, vdupq_n_s32(p->to->min));
    vst1q_s32(two.max, vdupq_n_s32(p->to->max));
    for (size_t next = 0; next < p->channels; next += 4) {
        const size_t o = next + 4 <= p->channels ? next : p->channels - 4; /* the last four may overlap those before */
        const size_t channel = p->first + o;
        vst1q_s32(two.bias, vld1q_s32(p->to->bias + channel));
        vst1q_s32(two.multiplier, vld1q_s32(p->to->multiplier + channel));
        vst1q_s32(two.shift, vldrbq_s32(p->to->shift + channel));
        lay_beside(p->weights + o * p->count, p->count, p->beside);
        (how == EMB_TWICE ? two_rows_twice : two_rows_positive)(&two, in, out + o);
    }
}

static int32_t product(const int8_t *x, const int8_t *weights, size_t count, int32_t sum)
{
    for (size_t k = 0; k < count; k += 16) {
        const mve_pred16_t inside = vctp8q((uint32_t)(count - k));
        sum = vmladavaq_s8(sum, vldrbq_z_s8(x + k, inside), vldrbq_z_s8(weights + k, inside));
    }
    return sum;
}

static void one_by_one(const emb_rows_t *p, const int8_t *in, size_t rows, int8_t *out)
{
    for (; rows > 0; --rows) {
        for (size_t o = 0; o < p->channels; ++o) {
            const int32_t sum = product(in, p->weights + o * p->count, p->count, p->to->bias[p->first + o]);
            out[o] = emb_requantize(p->to, p->first + o, sum);
        }
        in += p->in_pitch;
        out += p->out_pitch;
    }
}

/* Rows that can be read in whole vectors. */
static size_t whole_rows(const emb_rows_t *p, size_t rows)
{
    const size_t rest = (0u - p->count) % 16u;
    const size_t last = rest <= p->behind ? 0 : (rest - p->behind + p->in_pitch - 1) / p->in_pitch;
    return last < rows ? rows - last : 0;
}

void emb_rows_s8(const emb_rows_t *p, const int8_t *in, size_t rows, int8_t *out)
{
    const emb_scaling_t how = p->channels < 4 ? EMB_ONE_BY_ONE : emb_scaling(p->to, p->first, p->channels);
    if (how == EMB_ONE_BY_ONE) {
        one_by_one(p, in, rows, out);
        return;
    }
    /* Rounding once occurs in FULLY_CONNECTED, which seldom has more than one row. */
    const size_t pairs = p->beside != NULL && rows >= FEW && how != EMB_ONCE ? whole_rows(p, rows) / 2 : 0;
    if (pairs > 0) {
        paired_rows(how, p, in, pairs, out);
    }
    single_rows(how, p, in + 2 * pairs * p->in_pitch, rows - 2 * pairs, out + 2 * pairs * p->out_pitch);
}

#else

/* Four channels at a time, so that an input is loaded once for four products. */
static void sums_of_four(const int8_t *in, const int8_t *weights, size_t count, int32_t sums[4])
{
    const int8_t *w0 = weights, *w1 = w0 + count, *w2 = w1 + count, *w3 = w2 + count;
    int32_t a = sums[0], b = sums[1], c = sums[2], d = sums[3];
    for (size_t k = 0; k < count; ++k) {
        const int32_t x = in[k];
        a += x * w0[k];
        b += x * w1[k];
        c += x * w2[k];
        d += x * w3[k];
    }
    sums[0] = a;
    sums[1] = b;
    sums[2] = c;
    sums[3] = d;
}

static int32_t sum_of_one(const int8_t *in, const int8_t *weights, size_t count, int32_t sum)
{
    for (size_t k = 0; k < count; ++k) {
        sum += in[k] * weights[k];
    }
    return sum;
}

void emb_rows_s8(const emb_rows_t *p, const int8_t *in, size_t rows, int8_t *out)
{
    for (; rows > 0; --rows) {
        const int8_t *weights = p->weights;
        for (size_t o = 0; o < p->channels;) {
            const size_t together = p->channels - o < 4 ? 1 : 4;
            int32_t sums[4];
            memcpy(sums, p->to->bias + p->first + o, together * sizeof *sums);
            if (together == 4) {
                sums_of_four(in, weights, p->count, sums);
            } else {
                sums[0] = sum_of_one(in, weights, p->count, sums[0]);
            }
            weights += together * p->count;
            for (size_t c = 0; c < together; ++c, ++o) {
                out[o] = emb_requantize(p->to, p->first + o, sums[c]);
            }
        }
        in += p->in_pitch;
        out += p->out_pitch;
    }
}

#endif
