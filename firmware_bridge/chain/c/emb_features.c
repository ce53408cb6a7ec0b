/* From filtered samples to rows of features: the sums of a window out of those of its blocks, whole frames where
   needed. */
#include "emb_internal.h"

#if EMB_FEATURES

#include "emb_blocks.h"

void emb_features_start(emb_features_t *features)
{
    memset(features, 0, sizeof *features);
}

/* Samples in the block that is not complete. */
static uint32_t emb_block_length(const emb_features_t *features)
{
#if EMB_HEAD
    return features->rest ? EMB_STRIDE - EMB_HEAD : EMB_HEAD;
#else
    (void)features;
    return EMB_STRIDE;
#endif
}

uint32_t emb_features_wanted(const emb_features_t *features)
{
    return emb_block_length(features) - features->filled;
}

float *emb_features_room(emb_features_t *features, uint32_t channel)
{
    return &features->samples[channel][2 + features->filled];
}

/* Whether the block that is complete now completes a window: one of EMB_HOPS hops, and the head of one more. */
static int emb_completes(const emb_features_t *features)
{
#if EMB_HEAD
    return !features->rest && features->hops == EMB_HOPS;
#else
    return features->hops + 1 >= EMB_HOPS;
#endif
}

/* Features of one channel as int8, beside those of the others in a row. */
static void emb_write(const float *columns, uint32_t channel, int8_t *row)
{
    uint32_t column = channel * EMB_FEATURES, i;
    for (i = 0; i < EMB_FEATURES; i++, column++) {
        row[column] = emb_quantised(columns[i], emb_offset[column], emb_gain[column]);
    }
}

#if EMB_BLOCK_SUMS && EMB_GROUP
/*
 * The sums of one more hop. Hops are joined in groups of EMB_GROUP: what a group ends with from each of its hops on,
 * and what the next one begins with up to each of its hops, together make each window (van Herk, "A fast algorithm for
 * local minimum and maximum filters on rectangular and octagonal kernels", Pattern Recognition Letters 13(7), 1992). A
 * hop's place in the group is free by the time it comes: the window that began with the old one is over.
 */
static void emb_add_hop(emb_features_t *features, uint32_t channel, const emb_sums_t *hop)
{
    emb_sums_t *group = features->group[channel];
    emb_sums_t *prefix = &features->prefix[channel];
    const uint32_t place = features->place;
    uint32_t before;
    group[place] = *hop;
    if (place == 0) {
        *prefix = *hop;
    } else {
        emb_join(prefix, hop, prefix);
    }
    if (place == EMB_GROUP - 1) {
        for (before = EMB_GROUP - 1; before-- > 0;) {
            emb_join(&group[before], &group[before + 1], &group[before]);
        }
    }
}

/* The sums of the last EMB_GROUP hops, from the one at `oldest` in the group on. */
static void emb_last_hops(const emb_features_t *features, uint32_t channel, uint32_t oldest, emb_sums_t *window)
{
    if (oldest == 0) {
        *window = features->group[channel][0];
    } else {
        emb_join(&features->group[channel][oldest], &features->prefix[channel], window);
    }
}
#endif

#if EMB_BLOCK_SUMS
/* The sums of a block; where it completes a window, those of the window. */
static void emb_window_sums(emb_features_t *features, uint32_t channel, int completes, emb_sums_t *sums)
{
    const float *samples = features->samples[channel] + 2;
    (void)completes;
#if EMB_HEAD
    if (!features->rest) {
        emb_sums_t *head = &features->pending[channel];
        emb_block_sums(samples, EMB_HEAD, head);
        if (completes) {
#if EMB_GROUP
            emb_last_hops(features, channel, features->place, sums);
            emb_join(sums, head, sums);
#else
            *sums = *head;
#endif
        }
    } else {
#if EMB_GROUP
        emb_block_sums(samples, EMB_STRIDE - EMB_HEAD, sums);
        emb_join(&features->pending[channel], sums, sums);
        emb_add_hop(features, channel, sums);
#endif
    }
#elif EMB_GROUP
    emb_block_sums(samples, EMB_STRIDE, sums);
    emb_add_hop(features, channel, sums);
    if (completes) {
        emb_last_hops(features, channel, (features->place + 1) % EMB_GROUP, sums);
    }
#else
    emb_block_sums(samples, EMB_STRIDE, sums);
#endif
}
#endif

#if EMB_HELD
/* Put a block behind the samples that are held, in place of the oldest. */
static void emb_hold(emb_features_t *features, uint32_t channel, uint32_t count)
{
    const float *samples = features->samples[channel] + 2;
    uint32_t at = features->oldest, i;
    for (i = 0; i < count; i++) {
        features->held[channel][at] = samples[i];
        at = at + 1 < EMB_HELD ? at + 1 : 0;
    }
}

/* EMB_FRAME samples from the `start`-th oldest on, in order. */
static const float *emb_frame(emb_features_t *features, uint32_t channel, uint32_t start)
{
    const float *held = features->held[channel];
    const uint32_t first = (features->oldest + start) % EMB_HELD;
    const uint32_t to_end = EMB_HELD - first;
    const uint32_t count = to_end < EMB_FRAME ? to_end : EMB_FRAME;
    memcpy(features->frame + 2, held + first, count * sizeof *held);
    memcpy(features->frame + 2 + count, held, (EMB_FRAME - count) * sizeof *held);
    return features->frame + 2;
}
#endif

uint32_t emb_features_advance(emb_features_t *features, uint32_t count, int8_t rows[][EMB_COLUMNS], uint32_t row)
{
    const uint32_t length = emb_block_length(features);
    int completes;
    uint32_t channel;
    features->filled += count;
    if (features->filled < length) {
        return 0;
    }
    completes = emb_completes(features);
#if EMB_HELD
    for (channel = 0; channel < EMB_CHANNELS; channel++) {
        emb_hold(features, channel, length);
    }
    features->oldest = (features->oldest + length) % EMB_HELD;
#endif
    for (channel = 0; channel < EMB_CHANNELS; channel++) {
        float *samples = features->samples[channel];
#if EMB_HAS_SUMS
        emb_sums_t sums;
#endif
#if EMB_BLOCK_SUMS
        emb_window_sums(features, channel, completes, &sums);
#endif
#if EMB_FRAMES_ANEW
        if (completes) {
            uint32_t step;
            for (step = 0; step < EMB_STEPS; step++) {
                const float *frame = emb_frame(features, channel, step * EMB_FRAME);
#if EMB_HAS_SUMS
                emb_block_sums(frame, EMB_FRAME, &sums);
                emb_columns(&sums, frame, features->work, features->columns);
#else
                emb_columns(NULL, frame, features->work, features->columns);
#endif
                emb_write(features->columns, channel, rows[step]);
            }
        }
#else
        if (completes) {
#if EMB_HELD && EMB_HAS_SUMS
            emb_columns(&sums, emb_frame(features, channel, 0), features->work, features->columns);
#elif EMB_HELD
            emb_columns(NULL, emb_frame(features, channel, 0), features->work, features->columns);
#else
            emb_columns(&sums, NULL, NULL, features->columns);
#endif
            emb_write(features->columns, channel, rows[row]);
        }
#endif
        /* The two samples before the next block; in this order, since a block may be a single one. */
        samples[0] = samples[length];
        samples[1] = samples[length + 1];
    }
    features->filled = 0;
#if EMB_HEAD
    features->rest = !features->rest;
    if (!features->rest) {
        features->hops += features->hops != EMB_HOPS;
#if EMB_GROUP
        features->place = (features->place + 1) % EMB_GROUP;
#endif
    }
#else
    features->hops += features->hops != EMB_HOPS;
#if EMB_GROUP
    features->place = (features->place + 1) % EMB_GROUP;
#endif
#endif
    (void)row;
    return completes ? (EMB_FRAMES_ANEW ? EMB_STEPS : 1) : 0;
}

#endif
