/*
 * Features that need all samples of a frame: of its spectrum, of its order, of how often it repeats itself. `samples`
 * are the EMB_FRAME samples of one channel, `work` is room for EMB_WORK numbers.
 */
#ifndef EMB_WHOLE_H
#define EMB_WHOLE_H

#include "emb_internal.h"

/* |X|^2 of the bins 0 to EMB_SPECTRUM / 2 of a frame that is padded to EMB_SPECTRUM with zeros; they lie in `work`. */
const float *emb_spectrum(const float *samples, float *work);

/* MNF, MDF, MNP and SM of such powers: mean and median frequency (Hz), mean power, second spectral moment. */
float emb_mean_frequency(const float *powers);
float emb_median_frequency(const float *powers);
float emb_mean_power(const float *powers);
float emb_spectral_moment(const float *powers);

/* SAMPEN and FUZZYEN, patterns of two samples, tolerance 0.3; 0 for equal samples. */
float emb_sample_entropy(const float *samples);
float emb_fuzzy_entropy(const float *samples, float *work);

/* LS, the second L-moment. */
float emb_l_score(const float *samples, float *work);

#endif
