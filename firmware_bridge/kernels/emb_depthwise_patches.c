#include "emb_depthwise_patches.h"

#ifdef EMB_MVE

#include "emb_requantize_mve.h"

/* Four outputs of one channel at a time.
 *
 * Sixteen inputs of a channel, a patch, lie in a vector: four lines of four pixels. One VMLADAV with the weights, moved
 * to where the output has its kernel in the patch, gives an output; lanes beside the kernel have weight 0. Where the
 * outputs of a block have their kernels in one patch (3 x 3 with stride 1: 2 x 2 outputs), four vectors of weights stay
 * in registers. Otherwise one does, and each output has a patch of its own.
 *
 * For this the input is brought from channels side by side to "quads": line after line, of each of sixteen channels
 * four neighbouring pixels. VST4 does it, with four vectors of sixteen channels. Lines run along the longer axis of the
 * output; a strip is as wide as a quad. A picture that is one pixel wide is one strip, with four pixels of the line in
 * each quad. */
#define FEW 50        /* products of a channel for which all this takes longer than it saves */
#define LANES 16u     /* channels of a quad, inputs of a patch */
#define QUAD 64u      /* bytes of a line */
#define PATCH_LINES 4 /* of four pixels */
#define PATCH_BYTES (PATCH_LINES * QUAD)

/* One of the two axes of the picture. */
typedef struct {
    int in, out, kernel, stride, dilation, pad;
    size_t in_step, out_step, weight_step; /* bytes between neighbours */
} axis_t;

/* Where a block of outputs begins: bytes in the quads, and in the output. */
typedef struct {
    uint32_t quads, out;
} block_t;

/* What `blocks_NAME` works on. */
typedef struct {
    const int8_t *four[4]; /* sixteen bytes each: weights of four outputs, or offsets of four patches */
    const int8_t *one;     /* offsets of the one patch, or the weights */
    const block_t *blocks;
    size_t count;
    int32_t zero;
    const int32_t *bias, *multiplier;
    const int8_t *shift;
    uint32_t out[4];        /* offsets of the outputs of a block */
    uint32_t patches[4][4]; /* what `four` or `one` points at: offsets of the lines of a patch */
} plan_t;

/* How a call is cut into pieces. */
typedef struct {
    const emb_depthwise_t *p;
    axis_t line, strip; /* along the lines, and across them */
    int in_line;        /* the quads lie along the line: the picture has no other axis */
    int one_patch;      /* the outputs of a block have one patch */
    int outputs_along, outputs_across; /* of a block */
    int blocks_of_strip, lines, strips;
    int room; /* strips that fit into the scratch */
    const int8_t *taps[LANES]; /* weights of the first channels for each lane of a patch, or `zeros` */
    int8_t *zeros;             /* 16 zeros, then 16 bytes for the weights of a channel */
    int8_t *outside;           /* 16 zero points */
    int8_t *weights;           /* quads of the weights: PATCH_LINES lines */
    block_t *blocks;
    int8_t *quads;
} layout_t;

#define WEIGHTS_OF_FOUR \
    "vldrw.u32 q4, [r5, q5]\n\t" \
    "vmladav.s8 r0, q4, q0\n\t" \
    "vmladav.s8 r2, q4, q1\n\t" \
    "vmladav.s8 r4, q4, q2\n\t" \
    "vmladav.s8 r6, q4, q3\n\t"
#define PATCHES_OF_FOUR \
    "vldrw.u32 q4, [r5, q0]\n\t" \
    "vmladav.s8 r0, q4, q5\n\t" \
    "vldrw.u32 q7, [r5, q1]\n\t" \
    "vmladav.s8 r2, q7, q5\n\t" \
    "vldrw.u32 q4, [r5, q2]\n\t" \
    "vmladav.s8 r4, q4, q5\n\t" \
    "vldrw.u32 q7, [r5, q3]\n\t" \
    "vmladav.s8 r6, q7, q5\n\t"

/* All blocks of a channel. The output is only saturated to eight bits. */
#define BLOCKS(name, PRODUCTS, SCALE) \
    EMB_NAKED static void name(EMB_UNUSED const plan_t *plan, EMB_UNUSED const int8_t *quads, EMB_UNUSED int8_t *out, \
                               EMB_UNUSED size_t channel) \
    { \
        __asm("push {r4-r11, lr}\n\t" \
              "vpush {d8-d15}\n\t" \
              "ldrd r4, r5, [r0]\n\t" \
              "vldrb.8 q0, [r4]\n\t" \
              "vldrb.8 q1, [r5]\n\t" \
              "ldrd r4, r5, [r0, #8]\n\t" \
              "vldrb.8 q2, [r4]\n\t" \
              "vldrb.8 q3, [r5]\n\t" \
              "ldrd r4, r12, [r0, #16]\n\t" /* one, blocks */ \
              "vldrb.8 q5, [r4]\n\t" \
              "ldrd r4, r11, [r0, #24]\n\t" /* count, zero */ \
              "ldrd r8, r9, [r0, #32]\n\t" /* bias, multiplier */ \
              "ldr r10, [r0, #40]\n\t" /* shift */ \
              "vldrw.u32 q6, [r0, #44]\n\t" \
              "ldr r8, [r8, r3, lsl #2]\n\t" \
              "ldr r9, [r9, r3, lsl #2]\n\t" \
              "ldrsb r10, [r10, r3]\n\t" \
              "mov r3, r2\n\t" \
              "dls lr, r4\n" \
              "1:\n\t" \
              "ldrd r5, r7, [r12], #8\n\t" \
              "add r5, r1\n\t" \
              "add r7, r3\n\t" \
              PRODUCTS \
              "vmov q4[2], q4[0], r0, r4\n\t" \
              "vmov q4[3], q4[1], r2, r6\n\t" \
              "vadd.i32 q4, q4, r8\n\t" \
              SCALE("q4", "q7", "r9", "q4, r10") \
              "vadd.i32 q4, q4, r11\n\t" \
              "vqmovnb.s32 q4, q4\n\t" \
              "vqmovnb.s16 q4, q4\n\t" \
              "vstrb.32 q4, [r7, q6]\n\t" \
              "le lr, 1b\n\t" \
              "vpop {d8-d15}\n\t" \
              "pop {r4-r11, pc}"); \
    }

BLOCKS(one_patch_twice, WEIGHTS_OF_FOUR, EMB_SCALE_TWICE)
BLOCKS(one_patch_positive, WEIGHTS_OF_FOUR, EMB_SCALE_POSITIVE)
BLOCKS(patches_twice, PATCHES_OF_FOUR, EMB_SCALE_TWICE)
BLOCKS(patches_positive, PATCHES_OF_FOUR, EMB_SCALE_POSITIVE)

/* `count` quads from four pixels of sixteen channels each; every line the pixels are `step` bytes further. Returns the end
 * of the quads. */
EMB_NAKED static int8_t *transpose(EMB_UNUSED const int8_t *const from[4], EMB_UNUSED const size_t step[4],
                                   EMB_UNUSED int count, EMB_UNUSED uint32_t inside, EMB_UNUSED int8_t *quads)
{
    __asm("push {r4-r11, lr}\n\t"
          "vmsr p0, r3\n\t"
          "mov lr, r2\n\t"
          "ldrd r8, r9, [r1]\n\t"
          "ldrd r10, r11, [r1, #8]\n\t"
          "ldrd r4, r5, [r0]\n\t"
          "ldrd r6, r7, [r0, #8]\n\t"
          "ldr r0, [sp, #36]\n\t" /* behind what was pushed */
          "wls lr, lr, 2f\n"
          "1:\n\t"
          "vpstttt\n\t"
          "vldrbt.8 q0, [r4]\n\t"
          "vldrbt.8 q1, [r5]\n\t"
          "vldrbt.8 q2, [r6]\n\t"
          "vldrbt.8 q3, [r7]\n\t"
          "add r4, r8\n\t"
          "add r5, r9\n\t"
          "add r6, r10\n\t"
          "add r7, r11\n\t"
          "vst40.8 {q0, q1, q2, q3}, [r0]\n\t"
          "vst41.8 {q0, q1, q2, q3}, [r0]\n\t"
          "vst42.8 {q0, q1, q2, q3}, [r0]\n\t"
          "vst43.8 {q0, q1, q2, q3}, [r0]!\n\t"
          "le lr, 1b\n"
          "2:\n\t"
          "pop {r4-r11, pc}");
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* The strip whose first output is `first`, channels from `in` on, as quads. */
static void lay_strip(const layout_t *l, const int8_t *in, int first, mve_pred16_t inside, int8_t *quads)
{
    static const size_t stay[4] = {0, 0, 0, 0};
    const int8_t *const outside[4] = {l->outside, l->outside, l->outside, l->outside};
    const int before = smaller(l->line.pad, l->lines), pixels = smaller(l->line.in, l->lines - before);
    const int8_t *from[4];
    size_t step[4];
    for (int j = 0; j < 4; ++j) {
        const int x = first * l->strip.stride - l->strip.pad + j;
        const int is_inside = x >= 0 && x < l->strip.in;
        from[j] = is_inside ? in + x * (int)l->strip.in_step : l->outside;
        step[j] = is_inside ? l->line.in_step : 0;
    }
    quads = transpose(outside, stay, before, inside, quads);
    quads = transpose(from, step, pixels, inside, quads);
    transpose(outside, stay, l->lines - before - pixels, inside, quads);
}

/* The whole picture where it is one line, channels from `in` on, as quads. */
static void lay_line(const layout_t *l, const int8_t *in, mve_pred16_t inside, int8_t *quads)
{
    const size_t pixel = l->line.in_step, step[4] = {4 * pixel, 4 * pixel, 4 * pixel, 4 * pixel};
    for (int at = 0; at < l->lines;) {
        const int x = 4 * at - l->line.pad;
        const int run = x < 0 || x + 4 > l->line.in ? 1 : smaller((l->line.in - x) / 4, l->lines - at);
        const int8_t *from[4];
        for (int j = 0; j < 4; ++j) {
            from[j] = x + j >= 0 && x + j < l->line.in ? in + (x + j) * (int)pixel : l->outside;
        }
        quads = transpose(from, step, run, inside, quads);
        at += run;
    }
}

/* The weights of the first channels for the input at a place of the patch, or zeros. */
static const int8_t *tap_at(const layout_t *l, int line, int place)
{
    const axis_t *a = &l->line, *b = &l->strip;
    const int along = l->in_line ? PATCH_LINES * line + place : line;
    const int across = l->in_line ? 0 : place;
    const int i = along / a->dilation, j = across / b->dilation;
    if (i * a->dilation != along || i >= a->kernel || j * b->dilation != across || j >= b->kernel) {
        return l->zeros;
    }
    return l->p->weights + (size_t)i * a->weight_step + (size_t)j * b->weight_step;
}

/* Weights of the channels from o on, each where it lies in a patch. */
static void lay_weights(const layout_t *l, size_t o, mve_pred16_t inside)
{
    static const size_t stay[4] = {0, 0, 0, 0};
    int8_t *quads = l->weights;
    for (int lane = 0; lane < (int)LANES; lane += 4) {
        const int8_t *from[4];
        for (int j = 0; j < 4; ++j) {
            from[j] = l->taps[lane + j] == l->zeros ? l->zeros : l->taps[lane + j] + o;
        }
        quads = transpose(from, stay, 1, inside, quads);
    }
}

/* Outputs of a block, `most` of them along the line; one that is missing is another one once more. */
static plan_t plan_of(const layout_t *l, const block_t *blocks, size_t count, int most)
{
    const emb_requant_t *to = &l->p->out;
    plan_t plan = {.blocks = blocks, .count = count, .zero = to->zero, .bias = to->bias, .multiplier = to->multiplier,
                   .shift = to->shift};
    for (int i = 0; i < 4; ++i) {
        const int is_square = l->outputs_across > 1;
        const int along = smaller(is_square ? i / 2 : i, most - 1);
        const int across = is_square ? smaller(i % 2, l->strip.out - 1) : 0;
        const int shift = along * l->line.stride * (l->in_line ? 1 : 4) + across * l->strip.stride;
        const uint32_t start = l->one_patch ? 0 : (uint32_t)(along * l->line.stride) * QUAD;
        for (uint32_t line = 0; line < PATCH_LINES; ++line) {
            plan.patches[i][line] = start + line * QUAD;
        }
        plan.out[i] = (uint32_t)((size_t)along * l->line.out_step + (size_t)across * l->strip.out_step);
        plan.four[i] = l->one_patch ? l->zeros + LANES - shift : NULL;
    }
    return plan;
}

/* First output of a block or strip of `step` outputs; the last one may overlap the one before. */
static int first_of(int at, int step, int out)
{
    const int last = out > step ? out - step : 0;
    return smaller(at * step, last);
}

/* The blocks of `count` strips from strip `at` on. */
static void lay_blocks(const layout_t *l, int at, int count)
{
    block_t *block = l->blocks;
    for (int s = 0; s < count; ++s) {
        const int across = first_of(at + s, l->outputs_across, l->strip.out);
        for (int b = 0; b < l->blocks_of_strip; ++b) {
            const int along = l->in_line ? 4 * b : first_of(b, l->outputs_along, l->line.out);
            const int line = (l->in_line ? b : along) * l->line.stride;
            block->quads = (uint32_t)(s * l->lines + line) * QUAD;
            block->out = (uint32_t)((size_t)along * l->line.out_step + (size_t)across * l->strip.out_step);
            ++block;
        }
    }
}

/* Whether kernel and scratch allow it, with lines along the height (`is_tall`) or along the width. */
static int lay_out(const emb_depthwise_t *p, void *scratch, int is_tall, layout_t *l)
{
    const size_t channels = (size_t)p->in_c * p->depth;
    const axis_t h = {p->in_h, p->out_h, p->kernel_h, p->stride_h, p->dilation_h, p->pad_top,
                      (size_t)p->in_w * p->in_c, (size_t)p->out_w * channels, p->kernel_w * channels};
    const axis_t w = {p->in_w, p->out_w, p->kernel_w, p->stride_w, p->dilation_w, p->pad_left,
                      p->in_c, channels, channels};
    const axis_t line = is_tall ? h : w, strip = is_tall ? w : h;
    const int reach_along = (line.kernel - 1) * line.dilation + 1;
    const int reach_across = (strip.kernel - 1) * strip.dilation + 1;
    int is_square; /* a block is 2 x 2 outputs instead of four of a line */
    l->p = p;
    l->line = line;
    l->strip = strip;
    l->in_line = strip.in == 1 && strip.out == 1 && strip.kernel == 1 && strip.pad == 0;
    if (l->in_line ? reach_along + (smaller(line.out, 4) - 1) * line.stride > (int)LANES
                   : reach_along > PATCH_LINES || reach_across > 4) {
        return 0;
    }
    is_square = !l->in_line && reach_along + line.stride <= PATCH_LINES && reach_across + strip.stride <= 4;
    l->one_patch = l->in_line || is_square;
    l->outputs_along = is_square ? 2 : 4;
    l->outputs_across = is_square ? 2 : 1;
    l->blocks_of_strip = (line.out + l->outputs_along - 1) / l->outputs_along;
    l->lines = PATCH_LINES + line.stride * (l->in_line  ? l->blocks_of_strip - 1
                                            : is_square ? first_of(l->blocks_of_strip, 2, line.out)
                                                        : line.out - 1);
    l->strips = (strip.out + l->outputs_across - 1) / l->outputs_across;
    const size_t fixed = 3 * LANES + PATCH_BYTES;
    const size_t blocks = (size_t)l->blocks_of_strip * sizeof(block_t);
    const size_t quads = (size_t)l->lines * QUAD;
    if (p->scratch_bytes < fixed + blocks + quads) {
        return 0;
    }
    const size_t room = (p->scratch_bytes - fixed) / (blocks + quads);
    l->room = room < (size_t)l->strips ? (int)room : l->strips;
    l->zeros = (int8_t *)scratch;
    l->outside = l->zeros + 2 * LANES;
    l->weights = l->outside + LANES;
    l->quads = l->weights + PATCH_BYTES;
    l->blocks = (block_t *)(void *)(l->quads + (size_t)l->room * quads);
    memset(l->zeros, 0, 2 * LANES);
    memset(l->outside, p->in_zero, LANES);
    for (int lane = 0; lane < (int)LANES; ++lane) {
        l->taps[lane] = tap_at(l, lane / 4, lane % 4);
    }
    return 1;
}

typedef void (*blocks_t)(const plan_t *plan, const int8_t *quads, int8_t *out, size_t channel);

/* The channels from o on, sixteen at the most, of the strips that are in the quads. */
static void convolve(const layout_t *l, blocks_t blocks, const plan_t *plan, const plan_t *rest, size_t o, size_t end,
                     int8_t *out)
{
    const size_t first = o / l->p->depth;
    const uint32x4_t lines = vld1q_u32(plan->patches[0]);
    const uint32_t *weights = (const uint32_t *)(const void *)l->weights;
    uint32_t *moved = (uint32_t *)(void *)(l->zeros + LANES);
    for (; o < end; ++o) {
        const int8_t *quads = l->quads + (o / l->p->depth - first) * 4;
        vst1q_u32(moved, vldrwq_gather_offset_u32(weights, lines));
        ++weights;
        if (plan->count > 0) {
            blocks(plan, quads, out + o, o);
        }
        if (rest->count > 0) {
            blocks(rest, quads, out + o, o);
        }
    }
}

/* Points the vectors of a plan at each other. */
static void connect(const layout_t *l, plan_t *plan)
{
    plan->one = l->one_patch ? (const int8_t *)plan->patches[0] : l->zeros + LANES;
    for (int i = 0; i < 4 && !l->one_patch; ++i) {
        plan->four[i] = (const int8_t *)plan->patches[i];
    }
}

static void by_patches(const layout_t *l, blocks_t blocks, const int8_t *in, int8_t *out)
{
    const size_t in_c = l->p->in_c, channels = in_c * l->p->depth;
    /* Only a line has blocks that are not whole: elsewhere they overlap. */
    const int rest = l->in_line ? l->line.out % 4 : 0;
    const int whole = l->blocks_of_strip - (rest > 0);
    plan_t plan = plan_of(l, l->blocks, 0, l->in_line ? 4 : l->line.out);
    plan_t rest_plan = plan_of(l, l->blocks + whole, rest > 0, rest > 0 ? rest : 1);
    connect(l, &plan);
    connect(l, &rest_plan);
    for (size_t o = 0; o < channels; o += LANES) {
        const size_t end = o + LANES < channels ? o + LANES : channels;
        const size_t first = o / l->p->depth;
        const mve_pred16_t inside = vctp8q((uint32_t)(in_c - first));
        lay_weights(l, o, vctp8q((uint32_t)(channels - o)));
        for (int at = 0; at < l->strips; at += l->room) {
            const int strips = smaller(l->room, l->strips - at);
            int8_t *quads = l->quads;
            for (int s = 0; s < strips && !l->in_line; ++s) {
                lay_strip(l, in + first, first_of(at + s, l->outputs_across, l->strip.out), inside, quads);
                quads += (size_t)l->lines * QUAD;
            }
            if (l->in_line) {
                lay_line(l, in + first, inside, quads);
            }
            if (o == 0 || l->room < l->strips) {
                lay_blocks(l, at, strips);
                plan.count = (size_t)(strips * whole);
            }
            convolve(l, blocks, &plan, &rest_plan, o, end, out);
        }
    }
}

static void clamp(int8_t *out, size_t count, int8_t least, int8_t most)
{
    const int8x16_t low = vdupq_n_s8(least), high = vdupq_n_s8(most);
    for (size_t i = 0; i < count; i += 16) {
        const mve_pred16_t inside = vctp8q((uint32_t)(count - i));
        vstrbq_p_s8(out + i, vminq_s8(vmaxq_s8(vldrbq_z_s8(out + i, inside), low), high), inside);
    }
}

int emb_depthwise_patches(const emb_depthwise_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    static const blocks_t blocks[2][2] = {{patches_twice, patches_positive}, {one_patch_twice, one_patch_positive}};
    const size_t channels = (size_t)p->in_c * p->depth;
    const emb_scaling_t how = emb_scaling(&p->out, 0, channels);
    const int is_tall = p->out_h > p->out_w || (p->out_h == p->out_w && p->in_h > p->in_w);
    layout_t layout;
    if (p->depth == 1 && p->out_h * p->out_w * p->kernel_h * p->kernel_w < FEW) {
        return 0;
    }
    if (how == EMB_ONE_BY_ONE || how == EMB_ONCE) {
        return 0;
    }
    /* Long lines share most; where one strip of them is more than there is scratch, short ones do. */
    if (!lay_out(p, scratch, is_tall, &layout) && !lay_out(p, scratch, !is_tall, &layout)) {
        return 0;
    }
    by_patches(&layout, blocks[layout.one_patch][how == EMB_POSITIVE], in, out);
    if (p->out.min > INT8_MIN || p->out.max < INT8_MAX) {
        clamp(out, (size_t)p->out_h * p->out_w * channels, p->out.min, p->out.max);
    }
    return 1;
}

#endif
