#include "emb_pairs.h"

#include "emb_dsp.h"

#if defined(EMB_DSP)

void emb_pairs_widen(const int8_t *in, size_t count, int16_t *wide, size_t rows)
{
    uint32_t *to = (uint32_t *)(void *)wide;
    for (; count >= 4; count -= 4) {
        const uint32_t quad = emb_load32(in);
        in += 4;
        to[0] = emb_even_bytes(quad);
        to[rows] = emb_odd_bytes(quad);
        to += 2 * rows;
    }
    if (count > 0) {
        uint32_t quad = (uint8_t)in[0];
        quad |= count > 1 ? (uint32_t)(uint8_t)in[1] << 8 : 0u;
        quad |= count > 2 ? (uint32_t)(uint8_t)in[2] << 16 : 0u;
        to[0] = emb_even_bytes(quad);
        to[rows] = emb_odd_bytes(quad);
    }
}

/* What the loops below work through. They take all registers, so the rest stands here; what is loaded together is
 * adjacent. */
typedef struct {
    const uint32_t *weights;
    const uint32_t *start; /* of the widened inputs */
    uint32_t skip;         /* bytes of code to leave out of the first round of four blocks */
    const uint32_t *end;   /* of the widened inputs that whole blocks take */
    const int32_t *bias, *multiplier;
    const int8_t *shift;
    int32_t zero_twice; /* 2 × zero point of the output + 1 */
    int8_t *out;
    size_t out_c;
    int32_t left; /* channels */
    uint32_t odd; /* whether four inputs are left behind the blocks */
    uint32_t once;
} job_t;

static job_t job_for(const emb_requant_t *to, const uint32_t *weights, size_t out_c, const int16_t *wide, int8_t *out)
{
    const uint32_t *const start = (const uint32_t *)(const void *)wide;
    const job_t job = {weights, start, 0, start, to->bias, to->multiplier, to->shift, 2 * to->zero + 1, out,
                       out_c, (int32_t)out_c, 0, to->once};
    return job;
}

/* Where the fields of a job lie, for assembler. */
#define FIELD(name) [name] "i"(offsetof(job_t, name))
#define FIELDS_OF_A_JOB                                                                                                \
    FIELD(weights), FIELD(start), FIELD(skip), FIELD(bias), FIELD(shift), FIELD(out), FIELD(left), FIELD(odd)

/* Why assembler: of 14 registers the loop over three rows needs all, and the compiler leaves some 40 instructions
 * around each pair of channels that move values between registers and stack (docs/kernels.md). Requantization is that
 * of emb_dsp.h; as Σ whole halves − Σ b = 256 × Σ a, a shift by seven gives 2 × Σ a. */

/* Four inputs of three rows times a pair of channels: 24 products in 17 instructions of four bytes each. */
#define THREE_ROWS_QUAD                                                                                                \
    "ldrd r9, r10, [r11], #8\n"                                                                                        \
    "ldmia r12!, {r6, r7, r8}\n"                                                                                       \
    "smlad r0, r9, r6, r0\n"                                                                                           \
    "smlad r1, r9, r7, r1\n"                                                                                           \
    "smlad r2, r9, r8, r2\n"                                                                                           \
    "sxtb16 r9, r9\n"                                                                                                  \
    "smlad r3, r9, r6, r3\n"                                                                                           \
    "smlad r4, r9, r7, r4\n"                                                                                           \
    "smlad r5, r9, r8, r5\n"                                                                                           \
    "ldmia r12!, {r6, r7, r8}\n"                                                                                       \
    "smlad r0, r10, r6, r0\n"                                                                                          \
    "smlad r1, r10, r7, r1\n"                                                                                          \
    "smlad r2, r10, r8, r2\n"                                                                                          \
    "sxtb16 r10, r10\n"                                                                                                \
    "smlad r3, r10, r6, r3\n"                                                                                          \
    "smlad r4, r10, r7, r4\n"                                                                                          \
    "smlad r5, r10, r8, r5\n"
#define THREE_ROWS_QUAD_BYTES (17 * 4)

/* Eight inputs of one row times a pair of channels: 16 products in 14 instructions of four bytes each. */
#define ONE_ROW_OCTET                                                                                                  \
    "ldmia r12!, {r3, r4, r5, r6}\n"                                                                                   \
    "ldmia r11!, {r7, r8, r9, r10}\n"                                                                                  \
    "smlad r0, r7, r3, r0\n"                                                                                           \
    "sxtb16 r7, r7\n"                                                                                                  \
    "smlad r0, r8, r4, r0\n"                                                                                           \
    "sxtb16 r8, r8\n"                                                                                                  \
    "smlad r0, r9, r5, r0\n"                                                                                           \
    "sxtb16 r9, r9\n"                                                                                                  \
    "smlad r0, r10, r6, r0\n"                                                                                          \
    "sxtb16 r10, r10\n"                                                                                                \
    "smlad r1, r7, r3, r1\n"                                                                                           \
    "smlad r1, r8, r4, r1\n"                                                                                           \
    "smlad r1, r9, r5, r1\n"                                                                                           \
    "smlad r1, r10, r6, r1\n"
#define ONE_ROW_OCTET_BYTES (14 * 4)

void emb_pairs_three_rows(const emb_requant_t *to, const uint32_t *weights, size_t quads, size_t out_c,
                          const int16_t *wide, int8_t *out)
{
    job_t job = job_for(to, weights, out_c, wide, out);
    job.end += quads * 2 * EMB_PAIRS_ROWS;
    job.skip = (0u - quads) % 4u * THREE_ROWS_QUAD_BYTES;
    register job_t *r0 __asm("r0") = &job;
    __asm volatile(
        "push {r0, r7}\n" /* r7 may be the frame pointer, which must not be named below */
        "mov lr, r0\n"
        "ldr r11, [lr, %[weights]]\n"
        "1:\n" /* a pair of channels: sums of both in r0 to r2, of b in r3 to r5 */
        "ldr r12, [lr, %[start]]\n"
        "ldrd r6, lr, [lr, %[skip]]\n" /* and the end of the inputs */
        "movs r0, #0\n"
        "movs r1, #0\n"
        "movs r2, #0\n"
        "movs r3, #0\n"
        "movs r4, #0\n"
        "movs r5, #0\n"
        "add pc, r6\n" /* past the blocks that the first round leaves out; pc is four bytes ahead */
        "nop.n\n"
        "2:\n"
        THREE_ROWS_QUAD THREE_ROWS_QUAD THREE_ROWS_QUAD THREE_ROWS_QUAD
        "cmp r12, lr\n"
        "bne 2b\n"
        "ldr lr, [sp]\n"
        "ldrd r6, r7, [lr, %[bias]]\n" /* and the multiplier */
        "ldrd r8, r9, [r6], #8\n"
        "sub r0, r0, r3\n" /* 256 times the sum of a */
        "sub r1, r1, r4\n"
        "sub r2, r2, r5\n"
        "lsl r8, r8, #1\n"
        "lsl r9, r9, #1\n"
        "add r0, r8, r0, asr #7\n" /* twice the accumulators */
        "add r1, r8, r1, asr #7\n"
        "add r2, r8, r2, asr #7\n"
        "add r3, r9, r3, lsl #1\n"
        "add r4, r9, r4, lsl #1\n"
        "add r5, r9, r5, lsl #1\n"
        "ldrd r8, r9, [r7], #8\n"
        "strd r6, r7, [lr, %[bias]]\n"
        "ldrd r6, r10, [lr, %[shift]]\n" /* and the zero point */
        "ldrh r7, [r6], #2\n"
        "str r6, [lr, %[shift]]\n"
        "mvn r7, r7\n" /* a shift takes its distance from the lowest byte */
        "smmulr r0, r0, r8\n"
        "smmulr r1, r1, r8\n"
        "smmulr r2, r2, r8\n"
        "smmulr r3, r3, r9\n"
        "smmulr r4, r4, r9\n"
        "smmulr r5, r5, r9\n"
        "add r0, r0, r0, asr #31\n"
        "add r1, r1, r1, asr #31\n"
        "add r2, r2, r2, asr #31\n"
        "add r3, r3, r3, asr #31\n"
        "add r4, r4, r4, asr #31\n"
        "add r5, r5, r5, asr #31\n"
        "asr r0, r0, r7\n"
        "asr r1, r1, r7\n"
        "asr r2, r2, r7\n"
        "lsr r7, r7, #8\n"
        "asr r3, r3, r7\n"
        "asr r4, r4, r7\n"
        "asr r5, r5, r7\n"
        "add r0, r0, r10\n"
        "add r1, r1, r10\n"
        "add r2, r2, r10\n"
        "add r3, r3, r10\n"
        "add r4, r4, r10\n"
        "add r5, r5, r10\n"
        "ssat r0, #8, r0, asr #1\n"
        "ssat r1, #8, r1, asr #1\n"
        "ssat r2, #8, r2, asr #1\n"
        "ssat r3, #8, r3, asr #1\n"
        "ssat r4, #8, r4, asr #1\n"
        "ssat r5, #8, r5, asr #1\n"
        "ldrd r6, r12, [lr, %[out]]\n" /* and the number of channels */
        "strb r1, [r6, r12]\n"
        "strb r2, [r6, r12, lsl #1]\n"
        "strb r0, [r6], #1\n"
        "ldr r7, [lr, %[left]]\n"
        "subs r7, r7, #2\n"
        "str r7, [lr, %[left]]\n"
        "ittt pl\n" /* an odd last channel has no b */
        "strbpl r4, [r6, r12]\n"
        "strbpl r5, [r6, r12, lsl #1]\n"
        "strbpl r3, [r6], #1\n"
        "str r6, [lr, %[out]]\n"
        "bgt 1b\n"
        "pop {r0, r7}\n"
        : "+r"(r0)
        : FIELDS_OF_A_JOB
        : "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "cc", "memory");
    emb_dsp_clamp(to, out, EMB_PAIRS_ROWS * out_c, 1);
}

void emb_pairs_one_row(const emb_requant_t *to, const uint32_t *weights, size_t quads, size_t out_c,
                       const int16_t *wide, int8_t *out)
{
    const size_t octets = quads / 2;
    job_t job = job_for(to, weights, out_c, wide, out);
    job.end += octets * 4;
    job.skip = (octets > 0 ? (0u - octets) % 4u : 4u) * ONE_ROW_OCTET_BYTES;
    job.odd = quads % 2;
    register job_t *r0 __asm("r0") = &job;
    __asm volatile(
        "push {r0, r7}\n" /* r7 may be the frame pointer, which must not be named below */
        "mov r2, r0\n"
        "ldr r11, [r2, %[weights]]\n"
        "1:\n" /* a pair of channels: sum of both in r0, of b in r1 */
        "ldr r12, [r2, %[start]]\n"
        "ldrd r3, lr, [r2, %[skip]]\n" /* and the end of the inputs */
        "movs r0, #0\n"
        "movs r1, #0\n"
        "add pc, r3\n" /* past the blocks that the first round leaves out; pc is four bytes ahead */
        "nop.n\n"
        "2:\n"
        ONE_ROW_OCTET ONE_ROW_OCTET ONE_ROW_OCTET ONE_ROW_OCTET
        "cmp r12, lr\n"
        "bne 2b\n"
        "ldrd r5, r10, [r2, %[odd]]\n" /* and whether to round once */
        "cbz r5, 3f\n"
        "ldrd r3, r4, [r12]\n" /* four inputs that are left */
        "ldrd r7, r8, [r11], #8\n"
        "smlad r0, r7, r3, r0\n"
        "sxtb16 r7, r7\n"
        "smlad r0, r8, r4, r0\n"
        "sxtb16 r8, r8\n"
        "smlad r1, r7, r3, r1\n"
        "smlad r1, r8, r4, r1\n"
        "3:\n"
        "ldrd r3, r4, [r2, %[bias]]\n" /* and the multiplier */
        "ldrd r5, r6, [r3], #8\n"
        "ldrd r7, r8, [r4], #8\n"
        "strd r3, r4, [r2, %[bias]]\n"
        "sub r0, r0, r1\n" /* 256 times the sum of a */
        "lsl r5, r5, #1\n"
        "lsl r6, r6, #1\n"
        "add r0, r5, r0, asr #7\n" /* twice the accumulators */
        "add r1, r6, r1, lsl #1\n"
        "cmp r10, #0\n"
        "bne 4f\n"
        "smmulr r0, r0, r7\n"
        "smmulr r1, r1, r8\n"
        "add r0, r0, r0, asr #31\n"
        "add r1, r1, r1, asr #31\n"
        "b 5f\n"
        "4:\n"
        "smmul r0, r0, r7\n"
        "smmul r1, r1, r8\n"
        "5:\n"
        "ldrd r3, r4, [r2, %[shift]]\n" /* and the zero point */
        "ldrh r5, [r3], #2\n"
        "str r3, [r2, %[shift]]\n"
        "mvn r5, r5\n" /* a shift takes its distance from the lowest byte */
        "asr r0, r0, r5\n"
        "lsr r5, r5, #8\n"
        "asr r1, r1, r5\n"
        "add r0, r0, r4\n"
        "add r1, r1, r4\n"
        "ssat r0, #8, r0, asr #1\n"
        "ssat r1, #8, r1, asr #1\n"
        "ldr r3, [r2, %[out]]\n"
        "ldr r4, [r2, %[left]]\n"
        "strb r0, [r3], #1\n"
        "subs r4, r4, #2\n"
        "str r4, [r2, %[left]]\n"
        "it pl\n" /* an odd last channel has no b */
        "strbpl r1, [r3], #1\n"
        "str r3, [r2, %[out]]\n"
        "bgt 1b\n"
        "pop {r0, r7}\n"
        : "+r"(r0)
        : FIELDS_OF_A_JOB
        : "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "cc", "memory");
    emb_dsp_clamp(to, out, out_c, 1);
}

#else

void emb_pairs_widen(const int8_t *in, size_t count, int16_t *wide, size_t rows)
{
    for (size_t k = 0; k < count; k += 4) {
        for (size_t i = k; i < k + 2; ++i) {
            wide[0] = i < count ? in[i] : 0;
            wide[1] = i + 2 < count ? in[i + 2] : 0;
            wide += 2 * rows;
        }
    }
}

/* One of `rows` alternating rows: Σ of whole halves of the weights 256 × a + b, and Σ of their lower bytes b. */
static void one_of(size_t rows, const emb_requant_t *to, const uint32_t *weights, size_t quads, size_t out_c,
                   const int16_t *wide, int8_t *out)
{
    for (size_t o = 0; o < out_c; o += 2) {
        const int16_t *x = wide;
        uint32_t both = 0;
        int32_t b = 0;
        for (size_t words = 2 * quads; words > 0; --words) {
            const uint32_t word = *weights++;
            both += (uint32_t)((int16_t)(word & 0xffffu) * x[0]);
            both += (uint32_t)((int16_t)(word >> 16) * x[1]);
            b += (int8_t)(word & 0xffu) * x[0];
            b += (int8_t)((word >> 16) & 0xffu) * x[1];
            x += 2 * rows;
        }
        out[o] = emb_requantize(to, o, to->bias[o] + ((int32_t)(both - (uint32_t)b) >> 8));
        if (o + 1 < out_c) {
            out[o + 1] = emb_requantize(to, o + 1, to->bias[o + 1] + b);
        }
    }
}

void emb_pairs_one_row(const emb_requant_t *to, const uint32_t *weights, size_t quads, size_t out_c,
                       const int16_t *wide, int8_t *out)
{
    one_of(1, to, weights, quads, out_c, wide, out);
}

void emb_pairs_three_rows(const emb_requant_t *to, const uint32_t *weights, size_t quads, size_t out_c,
                          const int16_t *wide, int8_t *out)
{
    for (size_t row = 0; row < EMB_PAIRS_ROWS; ++row) {
        one_of(EMB_PAIRS_ROWS, to, weights, quads, out_c, wide + 2 * row, out + row * out_c);
    }
}

#endif
