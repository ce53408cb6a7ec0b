/* The ring between the interrupt and the main loop, and the way of a sample from there to a decision. */
#include "emb_internal.h"

/*
 * One side writes an index and the other reads it. What was written before must be there when the index is: release and
 * acquire. A compiler without these builtins needs both macros, made of a volatile access and the core's memory barrier
 * (DMB; a barrier for the compiler is enough where an interrupt is the other side).
 */
#if !defined(EMB_ACQUIRE) || !defined(EMB_RELEASE)
#ifdef __GNUC__
#define EMB_ACQUIRE(place) __atomic_load_n(&(place), __ATOMIC_ACQUIRE)
#define EMB_RELEASE(place, value) __atomic_store_n(&(place), (value), __ATOMIC_RELEASE)
#else
#error "Define EMB_ACQUIRE(place) and EMB_RELEASE(place, value) for this compiler."
#endif
#endif

void emb_init(emb_t *emb)
{
    memset(emb, 0, sizeof *emb);
    emb->fresh = 1;
    emb_model_init(&emb->model);
}

void emb_interrupt(emb_t *emb)
{
    emb->broken = 1;
}

uint32_t emb_lost(const emb_t *emb)
{
    return EMB_ACQUIRE(emb->lost);
}

/* Count frames for which there was no room. */
static void emb_lose(emb_t *emb, uint32_t frames)
{
    if (frames != 0) {
        emb->broken = 1;
        emb->missing += frames;
        EMB_RELEASE(emb->lost, emb->lost + frames);
    }
}

/* Copy frames, the chain's channels in its order, to a place of the ring that they do not go beyond. */
static void emb_copy(emb_sample_t (*place)[EMB_CHANNELS], const emb_sample_t *samples, uint32_t frames)
{
#if EMB_CHANNELS_AS_GIVEN
    memcpy(place, samples, frames * sizeof *place);
#else
    uint32_t frame, channel;
    for (frame = 0; frame < frames; frame++) {
        for (channel = 0; channel < EMB_CHANNELS; channel++) {
            place[frame][channel] = samples[frame * EMB_FRAME_CHANNELS + emb_channels[channel]];
        }
    }
#endif
}

size_t emb_push(emb_t *emb, const emb_sample_t *samples, size_t frames)
{
    uint32_t given = emb->given;
    uint32_t room = EMB_RING - (given - EMB_ACQUIRE(emb->taken));
    uint32_t count = frames < room ? (uint32_t)frames : room;
    uint32_t place = given % EMB_RING;
    uint32_t to_end = EMB_RING - place;
    if (count != 0 && emb->broken) {
        if (EMB_ACQUIRE(emb->gap)) {
            count = 0; /* there is one mark only, and the last gap has not been passed yet */
        } else {
            emb->gap_at = given;
            emb->gap_missing = emb->missing;
            emb->broken = 0;
            emb->missing = 0;
            EMB_RELEASE(emb->gap, 1u);
        }
    }
    if (count > to_end) {
        emb_copy(&emb->ring[place], samples, to_end);
        emb_copy(&emb->ring[0], samples + (size_t)to_end * EMB_FRAME_CHANNELS, count - to_end);
    } else if (count != 0) {
        emb_copy(&emb->ring[place], samples, count);
    }
    EMB_RELEASE(emb->given, given + count);
    emb_lose(emb, (uint32_t)frames - count);
    return count;
}

/* Frames that lie ready and follow each other, after a gap has been passed where there is one. */
static uint32_t emb_ready(emb_t *emb)
{
    uint32_t given = EMB_ACQUIRE(emb->given);
    if (EMB_ACQUIRE(emb->gap)) {
        if (emb->gap_at != emb->taken) {
            return emb->gap_at - emb->taken;
        }
        emb->clock += emb->gap_missing;
        emb->fresh = 1;
        EMB_RELEASE(emb->gap, 0u);
    }
    return given - emb->taken;
}

/* Clipping and the half that is added go by the bits of the number: a Cortex-M compares floats in four instructions. */
static inline int8_t emb_as_int8(float x, float offset, float gain)
{
    float steps = (x - offset) * gain;
    const uint32_t sign = emb_bits(steps) & 0x80000000u;
    int32_t whole;
    if ((emb_bits(steps) & 0x7FFFFFFFu) > emb_bits(EMB_LIMIT)) {
        steps = emb_float(sign | emb_bits(EMB_LIMIT));
    }
#if EMB_ROOT
    steps = emb_float(sign | emb_bits(emb_sqrt(emb_float(emb_bits(steps) & 0x7FFFFFFFu))));
#endif
    steps = steps / EMB_INPUT_SCALE;
    if (EMB_LARGEST / EMB_INPUT_SCALE > 512.0f) {
        /* Beyond the range of int8 from whatever zero point, and within that of int32. */
        steps = steps > 512.0f ? 512.0f : steps < -512.0f ? -512.0f : steps;
    }
    /* Halves away from zero. */
    whole = (int32_t)(steps + emb_float(sign | emb_bits(0.5f))) + EMB_INPUT_ZERO_POINT;
    whole = whole > 127 ? 127 : whole;
    return (int8_t)(whole < -128 ? -128 : whole);
}

int8_t emb_quantised(float x, float offset, float gain)
{
    return emb_as_int8(x, offset, gain);
}

/* Samples of one channel from the ring on, filtered. */
static void emb_channel(emb_t *emb, uint32_t place, uint32_t channel, float *out, uint32_t count)
{
    const emb_sample_t *from = &emb->ring[place][channel];
    uint32_t i;
    for (i = 0; i < count; i++) {
        out[i] = (float)from[i * EMB_CHANNELS] * EMB_UNIT;
    }
#if EMB_SECTIONS
    if (emb->fresh) {
        emb_filter_start(emb->state[channel], out[0]);
    }
    emb_filter(emb->state[channel], out, count);
#endif
}

/* Take `count` frames from the ring, of which they do not pass the end, to rows of the network's input. */
static void emb_take_frames(emb_t *emb, uint32_t place, uint32_t count)
{
    uint32_t channel;
#if EMB_FEATURES
    if (emb->fresh) {
        emb_features_start(&emb->features);
    }
    for (channel = 0; channel < EMB_CHANNELS; channel++) {
        emb_channel(emb, place, channel, emb_features_room(&emb->features, channel), count);
    }
    emb->row = (emb->row + emb_features_advance(&emb->features, count, emb->rows, emb->row)) % EMB_ROWS;
#else
    uint32_t i;
    for (channel = 0; channel < EMB_CHANNELS; channel++) {
        const float offset = emb_offset[channel], gain = emb_gain[channel];
        int8_t *column = &emb->rows[emb->row][channel];
        emb_channel(emb, place, channel, emb->work, count);
        for (i = 0; i < count; i++) {
            column[i * EMB_COLUMNS] = emb_as_int8(emb->work[i], offset, gain);
        }
    }
    emb->row = (emb->row + count) % EMB_ROWS;
#endif
}

/* The network's input: the oldest EMB_STEPS rows. */
static void emb_fill(const emb_t *emb, int8_t *input)
{
    uint32_t to_end = EMB_ROWS - emb->row;
    uint32_t count = to_end < EMB_STEPS ? to_end : EMB_STEPS;
    memcpy(input, emb->rows[emb->row], count * sizeof emb->rows[0]);
    memcpy(input + count * EMB_COLUMNS, emb->rows[0], (EMB_STEPS - count) * sizeof emb->rows[0]);
}

int emb_next_input(emb_t *emb)
{
    uint32_t count;
    while ((count = emb_ready(emb)) != 0) {
        const uint32_t place = emb->taken % EMB_RING;
        if (emb->fresh) {
#if EMB_TOKENS
            emb->to_window = EMB_HOP;
            emb->to_ring = EMB_TOKENS;
#else
            emb->to_window = EMB_WINDOW;
#endif
            emb->row = 0;
        }
        count = count < EMB_RING - place ? count : EMB_RING - place;
        count = count < EMB_CHUNK ? count : EMB_CHUNK;
        count = count < emb->to_window ? count : emb->to_window;
#if EMB_FEATURES
        {
            const uint32_t wanted = emb->fresh ? EMB_FIRST_BLOCK : emb_features_wanted(&emb->features);
            count = count < wanted ? count : wanted;
        }
#else
        count = count < EMB_ROWS - emb->row ? count : EMB_ROWS - emb->row;
#endif
        emb_take_frames(emb, place, count);
        emb->fresh = 0;
        emb->clock += count;
        emb->to_window -= count;
        EMB_RELEASE(emb->taken, emb->taken + count);
        if (emb->to_window == 0) {
            emb->to_window = EMB_HOP;
            emb_fill(emb, emb_model_input(&emb->model));
#if EMB_TOKENS
            if (emb->to_ring > 1) { /* one token more, and not a window of them yet */
                emb->to_ring--;
                emb_model_advance(&emb->model);
                continue;
            }
#endif
            return 1;
        }
    }
    return 0;
}

int emb_poll(emb_t *emb, emb_decision_t *decision)
{
    if (!emb_next_input(emb)) {
        return 0;
    }
    decision->number = emb->decisions++;
    decision->first = emb->clock - EMB_WINDOW;
    emb_model_invoke(&emb->model);
    emb_decide(emb_model_output(&emb->model), decision);
    return 1;
}
