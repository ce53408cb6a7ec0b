/* What the parts of the chain know of each other; firmware includes emb.h alone. */
#ifndef EMB_INTERNAL_H
#define EMB_INTERNAL_H

#include "emb.h"
#include "emb_pair.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One biquad, and what a constant input comes out multiplied with. */
typedef struct {
    float b0, b1, b2, a1, a2;
    float level;
} emb_biquad_t;

/* Tables that are generated, in emb_tables.c. */
#if EMB_SECTIONS
extern const emb_biquad_t emb_biquads[EMB_SECTIONS];
#endif
extern const uint8_t emb_channels[EMB_CHANNELS]; /* places of the chain's channels in a frame */
extern const float emb_offset[EMB_COLUMNS];
extern const float emb_gain[EMB_COLUMNS];
extern const char *const emb_labels[EMB_SCORES];
extern const int16_t emb_head_rows[EMB_SCORES][EMB_EMBEDDING];
extern const int32_t emb_head_sums[EMB_SCORES]; /* of each row */
extern const emb_pair_t emb_head_scale[EMB_SCORES];
extern const float emb_head_bias[EMB_SCORES];

/* State that a filter has when `level` has always been its input. */
void emb_filter_start(float state[][2], float level);

/* Filter samples of one channel in place. */
void emb_filter(float state[][2], float *samples, uint32_t count);

/* (x - offset) * gain, clipped, companded where the chain says so, as the network's int8, of one column. */
int8_t emb_quantised(float x, float offset, float gain);

/* Take samples until a window is complete: 1 with the network's input filled (a window, or the hop at its end), or 0. */
int emb_next_input(emb_t *emb);

/* What the head makes of the network's output. */
void emb_decide(const int8_t *embedding, emb_decision_t *decision);

#if EMB_FEATURES
/* Forget the samples so far. */
void emb_features_start(emb_features_t *features);

/* Samples of each channel that may be put behind emb_features_room before the next block is complete. */
uint32_t emb_features_wanted(const emb_features_t *features);

/* Where the next samples of a channel go, in order. */
float *emb_features_room(emb_features_t *features, uint32_t channel);

/* `count` samples of each channel were put there. Writes the rows of int8 columns that they complete; returns how
   many. */
uint32_t emb_features_advance(emb_features_t *features, uint32_t count, int8_t rows[][EMB_COLUMNS], uint32_t row);

/* Generated, in emb_tables.c: the features of one channel of one frame, from its sums, its samples, or both. */
void emb_columns(const emb_sums_t *sums, const float *samples, float *work, float *columns);
#endif

#ifdef __cplusplus
}
#endif

#endif
