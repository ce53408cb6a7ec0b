#include "emb_convolution.h"

#include "emb_dsp.h"

/* Where one channel of the input lies in its plane; around it the plane holds the input's zero point. */
typedef struct {
    size_t rows, columns; /* of the input that are copied */
    size_t pitch;         /* plane_w: from one row of the plane to the next */
    size_t inside;        /* of the first copied byte in the plane */
    size_t row_step;      /* in the plane, from one row of the kernel to the next */
} plane_t;

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static plane_t place_plane(const emb_depthwise_t *p, size_t plane_h)
{
    const size_t plane_w = (size_t)(p->out_w - 1) * p->stride_w + p->kernel_w;
    const size_t above = least(p->pad_top, plane_h);
    const size_t before = least(p->pad_left, plane_w);
    const plane_t place = {least(p->in_h, plane_h - above), least(p->in_w, plane_w - before), plane_w,
                           above * plane_w + before, p->dilation_h * plane_w};
    return place;
}

#if defined(EMB_DSP)

/* The loops below are assembler because pointers, taps and sums take all registers, and the compiler moves half of them
 * to and fro: docs/kernels.md has the counts. What they work through stands in structures; what is loaded together is
 * adjacent. Requantization is that of emb_dsp.h. */
#define FIELD(type, name) [name] "i"(offsetof(type, name))

typedef struct {
    const int8_t *in;
    int8_t *plane;
    size_t step; /* from one byte of the channel to the next */
    size_t rows, quads; /* of four bytes in a row */
    size_t skip; /* bytes of code: what is left of a row takes up to three blocks */
    size_t in_gap, plane_gap; /* from the end of a row to the next */
} copy_job_t;

/* One byte, in instructions of four bytes. */
#define ONE_BYTE                                                                                                       \
    "ldrb.w r10, [r1]\n"                                                                                               \
    "add.w r1, r1, r3\n"                                                                                               \
    "strb.w r10, [r2], #1\n"
#define ONE_BYTE_BYTES (3 * 4)

/* One channel into its plane. */
static void copy_channel(const emb_depthwise_t *p, const plane_t *place, const int8_t *in, int8_t *plane)
{
    const copy_job_t job = {in, plane + place->inside, p->in_c, place->rows, place->columns / 4,
                            (3 - place->columns % 4) * ONE_BYTE_BYTES, (p->in_w - place->columns) * p->in_c,
                            place->pitch - place->columns};
    register const copy_job_t *r0 __asm("r0") = &job;
    if (place->rows == 0) {
        return;
    }
    __asm volatile(
        "push {r0, r7}\n" /* r7 may be the frame pointer, which must not be named below */
        "ldmia r0, {r1, r2, r3, r4, r5, r6, r8, r9}\n" /* the fields in order */
        "add r0, r3, r3, lsl #1\n"
        "1:\n" /* a row */
        "movs r7, r5\n"
        "beq 3f\n"
        "2:\n"
        "ldrb r10, [r1]\n"
        "ldrb r11, [r1, r3]\n"
        "ldrb r12, [r1, r3, lsl #1]\n"
        "ldrb lr, [r1, r0]\n"
        "add r1, r1, r3, lsl #2\n"
        "strb r10, [r2], #1\n"
        "strb r11, [r2], #1\n"
        "strb r12, [r2], #1\n"
        "strb lr, [r2], #1\n"
        "subs r7, r7, #1\n"
        "bne 2b\n"
        "3:\n"
        "add pc, r6\n" /* past those of the three blocks that are not needed; pc is four bytes ahead */
        "nop.n\n"
        ONE_BYTE ONE_BYTE ONE_BYTE
        "add r1, r1, r8\n"
        "add r2, r2, r9\n"
        "subs r4, r4, #1\n"
        "bne 1b\n"
        "pop {r0, r7}\n"
        : "+r"(r0)
        :
        : "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "cc", "memory");
}

static uint32_t halves(int lower, int upper)
{
    return (uint32_t)(uint16_t)lower | (uint32_t)upper << 16;
}

/* A 3 × 3 kernel. Taps and bias are doubled, as requantization wants the accumulator to be. */
typedef struct {
    uint32_t outer_0, outer_1, outer_2; /* of each row of the kernel the first and the last tap, */
    uint32_t middle_01, middle_2;       /* and that between them */
    const int8_t *in;
    size_t row_step; /* in the plane, from one row of the kernel to the next */
    int8_t *out;
    int32_t bias;
    int32_t multiplier, right; /* see emb_dsp.h */
    int32_t zero_twice;
    size_t channels;
    size_t pairs, singles; /* of outputs in a row */
    size_t stride;
    size_t rows, gap; /* of outputs; in the plane, from behind a row to the next */
} job_3x3_t;

/* All outputs of a channel. Bytes 0 … 3 of each row are loaded at once: the even ones meet the outer taps of the left
 * output and the odd ones its middle tap, and the other way round for the output to the right: 18 products in 21
 * instructions. */
static void convolve_3x3(const emb_depthwise_t *p, const plane_t *place, const int8_t *plane, const int8_t *w, size_t o,
                         size_t channels, int8_t *out)
{
    const size_t pairs = p->stride_w == 1 ? p->out_w / 2u : 0u;
    const size_t singles = p->out_w - 2 * pairs;
    job_3x3_t job = {
        halves(2 * w[0], 2 * w[2]), halves(2 * w[3], 2 * w[5]), halves(2 * w[6], 2 * w[8]),
        halves(2 * w[1], 2 * w[4]), halves(2 * w[7], 0), plane, place->row_step, out, 2 * p->out.bias[o],
        p->out.multiplier[o], ~p->out.shift[o], 2 * p->out.zero + 1, channels, pairs, singles, p->stride_w, p->out_h,
        p->stride_h * place->pitch - 2 * pairs - singles * p->stride_w};
    register job_3x3_t *r0 __asm("r0") = &job;
    __asm volatile(
        "push {r0, r7}\n" /* r7 may be the frame pointer, which must not be named below */
        "mov lr, r0\n"
        "ldrd r0, r1, [lr, %[outer_0]]\n" /* and outer_1 */
        "ldrd r2, r3, [lr, %[outer_2]]\n" /* and middle_01 */
        "ldrd r4, r10, [lr, %[middle_2]]\n" /* and the input */
        "ldrd r11, r12, [lr, %[row_step]]\n" /* and the output */
        "1:\n" /* a row of outputs */
        "ldr r7, [lr, %[pairs]]\n"
        "cmp r7, #0\n"
        "beq 3f\n"
        "2:\n"
        "ldr r5, [r10, r11]\n"
        "ldr r9, [lr, %[bias]]\n"
        "sxtb16 r6, r5, ror #8\n"
        "sxtb16 r5, r5\n"
        "smlad r8, r5, r1, r9\n"
        "smlad r9, r6, r1, r9\n"
        "smlabt r8, r6, r3, r8\n"
        "smlatt r9, r5, r3, r9\n"
        "ldr r5, [r10, r11, lsl #1]\n"
        "sxtb16 r6, r5, ror #8\n"
        "sxtb16 r5, r5\n"
        "smlad r8, r5, r2, r8\n"
        "smlad r9, r6, r2, r9\n"
        "smlabb r8, r6, r4, r8\n"
        "smlatb r9, r5, r4, r9\n"
        "ldr r5, [r10], #2\n"
        "sxtb16 r6, r5, ror #8\n"
        "sxtb16 r5, r5\n"
        "smlad r8, r5, r0, r8\n"
        "smlad r9, r6, r0, r9\n"
        "smlabb r8, r6, r3, r8\n"
        "smlatb r9, r5, r3, r9\n"
        "ldrd r5, r6, [lr, %[multiplier]]\n" /* and the shift */
        "smmulr r8, r8, r5\n"
        "smmulr r9, r9, r5\n"
        "add r8, r8, r8, asr #31\n"
        "add r9, r9, r9, asr #31\n"
        "asr r8, r8, r6\n"
        "asr r9, r9, r6\n"
        "ldrd r5, r6, [lr, %[zero_twice]]\n" /* and the number of channels */
        "add r8, r8, r5\n"
        "add r9, r9, r5\n"
        "ssat r8, #8, r8, asr #1\n"
        "ssat r9, #8, r9, asr #1\n"
        "strb r8, [r12]\n"
        "strb r9, [r12, r6]\n"
        "add r12, r12, r6, lsl #1\n"
        "subs r7, r7, #1\n"
        "bne 2b\n"
        "3:\n"
        "ldr r7, [lr, %[singles]]\n"
        "cmp r7, #0\n"
        "beq 5f\n"
        "4:\n"
        "ldr r5, [r10, r11]\n"
        "ldr r8, [lr, %[bias]]\n"
        "sxtb16 r6, r5, ror #8\n"
        "sxtb16 r5, r5\n"
        "smlad r8, r5, r1, r8\n"
        "smlabt r8, r6, r3, r8\n"
        "ldr r5, [r10, r11, lsl #1]\n"
        "sxtb16 r6, r5, ror #8\n"
        "sxtb16 r5, r5\n"
        "smlad r8, r5, r2, r8\n"
        "smlabb r8, r6, r4, r8\n"
        "ldr r5, [r10]\n"
        "sxtb16 r6, r5, ror #8\n"
        "sxtb16 r5, r5\n"
        "smlad r8, r5, r0, r8\n"
        "smlabb r8, r6, r3, r8\n"
        "ldrd r5, r6, [lr, %[multiplier]]\n" /* and the shift */
        "ldr r9, [lr, %[stride]]\n"
        "smmulr r8, r8, r5\n"
        "add r10, r10, r9\n"
        "add r8, r8, r8, asr #31\n"
        "asr r8, r8, r6\n"
        "ldrd r5, r6, [lr, %[zero_twice]]\n" /* and the number of channels */
        "add r8, r8, r5\n"
        "ssat r8, #8, r8, asr #1\n"
        "strb r8, [r12]\n"
        "add r12, r12, r6\n"
        "subs r7, r7, #1\n"
        "bne 4b\n"
        "5:\n"
        "ldrd r5, r6, [lr, %[rows]]\n" /* and from the end of a row to the start of the next */
        "add r10, r10, r6\n"
        "subs r5, r5, #1\n"
        "str r5, [lr, %[rows]]\n"
        "bne 1b\n"
        "pop {r0, r7}\n"
        : "+r"(r0)
        : FIELD(job_3x3_t, outer_0), FIELD(job_3x3_t, outer_2), FIELD(job_3x3_t, middle_2), FIELD(job_3x3_t, row_step),
          FIELD(job_3x3_t, bias), FIELD(job_3x3_t, multiplier), FIELD(job_3x3_t, zero_twice), FIELD(job_3x3_t, pairs),
          FIELD(job_3x3_t, singles), FIELD(job_3x3_t, stride), FIELD(job_3x3_t, rows)
        : "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "cc", "memory");
}

/* Any kernel. */
typedef struct {
    size_t count; /* of pairs of outputs */
    const int8_t *in, *taps;
    size_t apart; /* in the plane, from one output's inputs to those of the next */
    int32_t bias;
    size_t kernel_h;
    size_t quad_bytes, row_bytes; /* of a row of taps, those in whole quads and all */
    size_t kernel_gap;            /* in the plane, from behind a row of the kernel to the next */
    int32_t multiplier, right;    /* see emb_dsp.h */
    int32_t zero_twice;
    int8_t *out;
    size_t channels; /* from an output to the next */
} job_any_t;

/* Outputs two at a time, so that they share the taps: eight products in 15 instructions, and in seven the two of each
 * tap that is left in a row. */
static void convolve_pairs(job_any_t *job)
{
    register job_any_t *r0 __asm("r0") = job;
    __asm volatile(
        "push {r0, r7}\n" /* r7 may be the frame pointer, which must not be named below */
        "mov lr, r0\n"
        "1:\n" /* two outputs, or one where no more are left */
        "ldrd r1, r0, [lr, %[in]]\n" /* and the taps */
        "ldrd r2, r8, [lr, %[apart]]\n" /* and the bias */
        "mov r9, r8\n"
        "ldr r10, [lr, %[kernel_h]]\n"
        "2:\n" /* a row of the kernel */
        "ldrd r11, r12, [lr, %[quad_bytes]]\n" /* and the bytes of a whole row */
        "add r11, r11, r0\n"
        "add r12, r12, r0\n"
        "cmp r0, r11\n"
        "beq 4f\n"
        "3:\n"
        "ldr r3, [r0], #4\n"
        "ldr r7, [r1, r2]\n"
        "ldr r5, [r1], #4\n"
        "sxtb16 r4, r3, ror #8\n"
        "sxtb16 r3, r3\n"
        "sxtb16 r6, r5, ror #8\n"
        "sxtb16 r5, r5\n"
        "smlad r8, r6, r4, r8\n"
        "smlad r8, r5, r3, r8\n"
        "sxtb16 r6, r7, ror #8\n"
        "sxtb16 r7, r7\n"
        "smlad r9, r6, r4, r9\n"
        "smlad r9, r7, r3, r9\n"
        "cmp r0, r11\n"
        "bne 3b\n"
        "4:\n"
        "cmp r0, r12\n"
        "beq 6f\n"
        "5:\n"
        "ldrsb r3, [r0], #1\n"
        "ldrsb r6, [r1, r2]\n"
        "ldrsb r5, [r1], #1\n"
        "smlabb r9, r6, r3, r9\n"
        "smlabb r8, r5, r3, r8\n"
        "cmp r0, r12\n"
        "bne 5b\n"
        "6:\n"
        "ldr r3, [lr, %[kernel_gap]]\n"
        "add r1, r1, r3\n"
        "subs r10, r10, #1\n"
        "bne 2b\n"
        "ldrd r3, r4, [lr, %[multiplier]]\n" /* and the shift */
        "lsl r8, r8, #1\n"
        "lsl r9, r9, #1\n"
        "smmulr r8, r8, r3\n"
        "smmulr r9, r9, r3\n"
        "add r8, r8, r8, asr #31\n"
        "add r9, r9, r9, asr #31\n"
        "asr r8, r8, r4\n"
        "asr r9, r9, r4\n"
        "ldr r3, [lr, %[zero_twice]]\n"
        "add r8, r8, r3\n"
        "add r9, r9, r3\n"
        "ssat r8, #8, r8, asr #1\n"
        "ssat r9, #8, r9, asr #1\n"
        "ldrd r5, r6, [lr, %[out]]\n" /* and from an output to the next */
        "strb r8, [r5]\n"
        "strb r9, [r5, r6]\n"
        "add r5, r5, r6, lsl #1\n"
        "str r5, [lr, %[out]]\n"
        "ldrd r3, r1, [lr, %[count]]\n" /* and the input */
        "add r1, r1, r2, lsl #1\n"
        "subs r3, r3, #1\n"
        "strd r3, r1, [lr, %[count]]\n"
        "bne 1b\n"
        "pop {r0, r7}\n"
        : "+r"(r0)
        : FIELD(job_any_t, count), FIELD(job_any_t, in), FIELD(job_any_t, apart), FIELD(job_any_t, kernel_h),
          FIELD(job_any_t, quad_bytes), FIELD(job_any_t, kernel_gap), FIELD(job_any_t, multiplier),
          FIELD(job_any_t, zero_twice), FIELD(job_any_t, out)
        : "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "cc", "memory");
}

static void convolve_any(const emb_depthwise_t *p, const plane_t *place, const int8_t *plane, const int8_t *w, size_t o,
                         size_t channels, int8_t *out)
{
    const size_t pairs = p->out_w / 2u;
    job_any_t job = {pairs, plane, w, p->stride_w, p->out.bias[o], p->kernel_h, p->kernel_w & ~3u, p->kernel_w,
                     place->row_step - p->kernel_w, p->out.multiplier[o], ~p->out.shift[o], 2 * p->out.zero + 1, out,
                     channels};
    for (size_t rows = p->out_h; rows > 0; --rows) {
        job.in = plane;
        job.count = pairs;
        job.apart = p->stride_w;
        job.channels = channels;
        if (pairs > 0) {
            convolve_pairs(&job);
        }
        if (p->out_w % 2u) { /* the last output twice, to the same place */
            job.count = 1;
            job.apart = 0;
            job.channels = 0;
            convolve_pairs(&job);
            job.out += channels;
        }
        plane += p->stride_h * place->pitch;
    }
}

/* All outputs of channel o. */
static void convolve(const emb_depthwise_t *p, const plane_t *place, const int8_t *plane, const int8_t *w, size_t o,
                     size_t channels, int8_t *out)
{
    if (p->kernel_h == 3 && p->kernel_w == 3) {
        convolve_3x3(p, place, plane, w, o, channels, out);
    } else {
        convolve_any(p, place, plane, w, o, channels, out);
    }
    emb_dsp_clamp(&p->out, out, (size_t)p->out_h * p->out_w, channels);
}

#else

/* One channel into its plane. */
static void copy_channel(const emb_depthwise_t *p, const plane_t *place, const int8_t *in, int8_t *plane)
{
    for (size_t y = 0; y < place->rows; ++y) {
        for (size_t x = 0; x < place->columns; ++x) {
            plane[place->inside + y * place->pitch + x] = in[(y * p->in_w + x) * p->in_c];
        }
    }
}

/* All outputs of channel o. */
static void convolve(const emb_depthwise_t *p, const plane_t *place, const int8_t *plane, const int8_t *w, size_t o,
                     size_t channels, int8_t *out)
{
    for (size_t y = 0; y < p->out_h; ++y) {
        for (size_t x = 0; x < p->out_w; ++x) {
            const int8_t *from = plane + y * p->stride_h * place->pitch + x * p->stride_w;
            int32_t sum = p->out.bias[o];
            for (size_t ky = 0; ky < p->kernel_h; ++ky) {
                for (size_t kx = 0; kx < p->kernel_w; ++kx) {
                    sum += from[ky * place->row_step + kx] * w[ky * p->kernel_w + kx];
                }
            }
            *out = emb_requantize(&p->out, o, sum);
            out += channels;
        }
    }
}

#endif

void emb_depthwise_planes_s8(const emb_depthwise_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    const size_t plane_h = (size_t)(p->out_h - 1) * p->stride_h + (size_t)(p->kernel_h - 1) * p->dilation_h + 1u;
    const plane_t place = place_plane(p, plane_h);
    const size_t channels = (size_t)p->in_c * p->depth;
    const size_t kernel = (size_t)p->kernel_h * p->kernel_w;
    int8_t *plane = (int8_t *)scratch;
    memset(plane, p->in_zero, plane_h * place.pitch); /* the padding stays from channel to channel */
    for (uint16_t batch = 0; batch < p->batches; ++batch) {
        const int8_t *weights = p->weights;
        for (size_t o = 0; o < channels; ++o) {
            if (o % p->depth == 0) {
                copy_channel(p, &place, in + o / p->depth, plane);
            }
            convolve(p, &place, plane, weights, o, channels, out + o);
            weights += kernel;
        }
        in += (size_t)p->in_h * p->in_w * p->in_c;
        out += (size_t)p->out_h * p->out_w * channels;
    }
}
