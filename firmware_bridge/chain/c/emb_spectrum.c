/*
 * Real Fourier transform in float32: even and odd samples are the real and imaginary parts of half as many complex
 * numbers (Sorensen, Jones, Heideman and Burrus, "Real-valued fast Fourier transform algorithms", IEEE TASSP 35(6),
 * 1987), whose transform is Stockham's self-sorting one ("High-speed convolution and correlation", AFIPS 28, 1966) in
 * steps of four and, where needed, one of two. Operations and their order are those of the Python chain.
 */
#include "emb_whole.h"

#if EMB_SPECTRUM

/* Generated: roots of unity of the steps of four in their order, (u, v, w) each, and of the last step. */
extern const float emb_turns[];
extern const float emb_last_turns[];

/* Four complex numbers from x on that lie `apart`, transformed, turned by the roots at `turn` and written `step`
   apart. */
static void emb_four(const float *x, uint32_t apart, float *y, uint32_t step, const float *turn)
{
    const float *b = x + apart, *c = x + 2 * apart, *d = x + 3 * apart;
    const float even_r = x[0] + c[0], even_i = x[1] + c[1];
    const float odd_r = b[0] + d[0], odd_i = b[1] + d[1];
    const float less_r = x[0] - c[0], less_i = x[1] - c[1];
    const float cross_r = b[1] - d[1], cross_i = d[0] - b[0];
    const float ur = less_r + cross_r, ui = less_i + cross_i;
    const float vr = even_r - odd_r, vi = even_i - odd_i;
    const float wr = less_r - cross_r, wi = less_i - cross_i;
    y[0] = even_r + odd_r;
    y[1] = even_i + odd_i;
    y[step] = ur * turn[0] - ui * turn[1];
    y[step + 1] = ur * turn[1] + ui * turn[0];
    y[2 * step] = vr * turn[2] - vi * turn[3];
    y[2 * step + 1] = vr * turn[3] + vi * turn[2];
    y[3 * step] = wr * turn[4] - wi * turn[5];
    y[3 * step + 1] = wr * turn[5] + wi * turn[4];
}

/* Complex transform of EMB_SPECTRUM / 2 numbers at x, with y as room; returns which of them holds the result. */
static float *emb_transform(float *x, float *y)
{
    uint32_t points = EMB_SPECTRUM / 2, stride = 1;
    const float *turn = emb_turns;
    float *other;
    while (points >= 4) {
        /* `stride` interleaved transforms of `points` numbers; the first roots of each step are 1. */
        const uint32_t part = points / 4, step = 2 * stride;
        uint32_t p, k;
        for (p = 0; p < part; p++, turn += 6) {
            for (k = 0; k < step; k += 2) {
                emb_four(x + p * step + k, part * step, y + 4 * p * step + k, step, turn);
            }
        }
        points = part;
        stride *= 4;
        other = x;
        x = y;
        y = other;
    }
    if (points == 2) {
        const uint32_t apart = 2 * stride;
        uint32_t i;
        for (i = 0; i < apart; i++) {
            y[i] = x[i] + x[i + apart];
            y[i + apart] = x[i] - x[i + apart];
        }
        x = y;
    }
    return x;
}

const float *emb_spectrum(const float *samples, float *work)
{
    const uint32_t half = EMB_SPECTRUM / 2;
    float *powers = work + 2 * EMB_SPECTRUM;
    const float *z;
    uint32_t k;
    memcpy(work, samples, EMB_FRAME * sizeof *work);
    for (k = EMB_FRAME; k < EMB_SPECTRUM; k++) {
        work[k] = 0.0f;
    }
    z = emb_transform(work, work + EMB_SPECTRUM);
    powers[0] = (z[0] + z[1]) * (z[0] + z[1]);
    powers[half] = (z[0] - z[1]) * (z[0] - z[1]);
    for (k = 1; k <= half / 2; k++) {
        const float *near = z + 2 * k, *far = z + 2 * (half - k);
        const float *turn = emb_last_turns + 2 * k;
        const float even_r = (near[0] + far[0]) * 0.5f, even_i = (near[1] - far[1]) * 0.5f;
        const float odd_r = (near[1] + far[1]) * 0.5f, odd_i = (far[0] - near[0]) * 0.5f;
        const float turned_r = odd_r * turn[0] - odd_i * turn[1];
        const float turned_i = odd_r * turn[1] + odd_i * turn[0];
        const float r = even_r + turned_r, i = even_i + turned_i;
        const float s = even_r - turned_r, j = turned_i - even_i;
        powers[k] = r * r + i * i;
        powers[half - k] = s * s + j * j;
    }
    return powers;
}

/* Sum of powers times the `order`-th power of the bin's number, 0 to 2; the last bin is left out. */
static emb_pair_t emb_weighted(const float *powers, uint32_t order)
{
    emb_pair_t sum = {0.0f, 0.0f};
    uint32_t k;
    for (k = 0; k < EMB_SPECTRUM / 2; k++) {
        const float weight = order == 0 ? 1.0f : order == 1 ? (float)k : (float)(k * k);
        sum = emb_pair_add(sum, emb_two_product(powers[k], weight));
    }
    return sum;
}

/* Hertz between two bins. */
static emb_pair_t emb_bin_hz(void)
{
    emb_pair_t hertz = {EMB_BIN_HZ_HI, EMB_BIN_HZ_LO};
    return hertz;
}

float emb_mean_frequency(const float *powers)
{
    const emb_pair_t total = emb_weighted(powers, 0);
    if (!(total.hi > 0.0f)) {
        return 0.0f;
    }
    return emb_pair_divide(emb_pair_multiply(emb_weighted(powers, 1), emb_bin_hz()), total).hi;
}

float emb_median_frequency(const float *powers)
{
    emb_pair_t middle = emb_weighted(powers, 0), running = {0.0f, 0.0f};
    uint32_t k;
    if (!(middle.hi > 0.0f)) {
        return 0.0f;
    }
    middle.hi *= 0.5f;
    middle.lo *= 0.5f;
    for (k = 0; k < EMB_SPECTRUM / 2; k++) {
        running = emb_pair_plus(running, powers[k]);
        if (emb_pair_above(running, middle)) {
            break;
        }
    }
    return emb_pair_times(emb_bin_hz(), (float)k).hi;
}

float emb_mean_power(const float *powers)
{
    const emb_pair_t scale = {EMB_MEAN_POWER_HI, EMB_MEAN_POWER_LO};
    return emb_pair_multiply(emb_weighted(powers, 0), scale).hi;
}

float emb_spectral_moment(const float *powers)
{
    const emb_pair_t scale = {EMB_MOMENT_HI, EMB_MOMENT_LO};
    return emb_pair_multiply(emb_weighted(powers, 2), scale).hi;
}

#endif
