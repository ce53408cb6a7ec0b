/* Logarithms and exponentials, with the same polynomials as the Python chain, so that both leave the same error. */
#include "emb_pair.h"

static const emb_pair_t emb_log_2 = {0.6931472f, -1.9046542e-09f};

/*
 * With x = 2^k * m, sqrt(1/2) <= m < sqrt(2), f = m - 1 and s = f / (f + 2): log x = k log 2 + f - f^2/2 + s (f^2/2 +
 * R), R = 2/3 s^2 + 2/5 s^4 + ... to the fifth term (Abramowitz and Stegun, "Handbook of Mathematical Functions",
 * 1964, 4.1.27). Terms that stand below 2^-44 of the result are float32.
 */
emb_pair_t emb_pair_log(emb_pair_t x)
{
    static const emb_pair_t thirds = {0.6666667f, -1.9868216e-08f};
    static const emb_pair_t fifths = {0.4f, -5.9604646e-09f};
    static const emb_pair_t sevenths = {0.2857143f, -1.2772424e-08f};
    int32_t k = 0;
    uint32_t lifted;
    float scale;
    emb_pair_t f, s, z, series, half;
    if (!(x.hi > 0.0f)) {
        return emb_pair(EMB_LOG_OF_ZERO);
    }
    if (x.hi < 0x1p-60f) { /* keeps lo away from the subnormal numbers */
        x.hi *= 0x1p64f;
        x.lo *= 0x1p64f;
        k = -64;
    } else if (x.hi > 0x1p60f) {
        x.hi *= 0x1p-64f;
        x.lo *= 0x1p-64f;
        k = 64;
    }
    lifted = emb_bits(x.hi) + (0x3F800000u - 0x3F3504F3u);
    scale = emb_float((254u - (lifted >> 23)) << 23);
    k += (int32_t)(lifted >> 23) - 127;
    f = emb_pair_plus(emb_pair(x.hi * scale), -1.0f);
    f = emb_pair_plus(f, x.lo * scale);
    s = emb_pair_divide(f, emb_pair_plus(f, 2.0f));
    z = emb_pair_multiply(s, s);
    series = emb_pair_add(sevenths, emb_pair_times(z, 0.22222222f + z.hi * 0.18181819f));
    series = emb_pair_add(fifths, emb_pair_multiply(z, series));
    series = emb_pair_multiply(z, emb_pair_add(thirds, emb_pair_multiply(z, series)));
    half = emb_pair_multiply(f, f);
    half.hi *= 0.5f;
    half.lo *= 0.5f;
    series = emb_pair_multiply(s, emb_pair_add(half, series));
    f = emb_pair_subtract(f, emb_pair_subtract(half, series));
    return emb_pair_add(emb_pair_times(emb_log_2, (float)k), f);
}

/* With x = n log 2 + r, |r| <= log(2) / 2: exp x = 2^n (1 + r + r^2/2 + ... + r^9/9!) (the same, 4.2.1). */
emb_pair_t emb_pair_exp(emb_pair_t x)
{
    static const emb_pair_t factors[] = {
        {0.0013888889f, -3.3631094e-11f}, {0.008333334f, -4.346172e-10f}, {0.041666668f, -1.2417635e-09f},
        {0.16666667f, -4.967054e-09f},    {0.5f, 0.0f},                   {1.0f, 0.0f},
        {1.0f, 0.0f},
    };
    emb_pair_t r, series;
    float n, tail, power;
    uint32_t at;
    if (x.hi < -87.0f) {
        return emb_pair(0.0f);
    }
    n = emb_rounded(x.hi * 1.442695f);
    r = emb_pair_subtract(x, emb_pair_times(emb_log_2, n));
    tail = 0.0001984127f + r.hi * (2.4801588e-05f + r.hi * 2.7557319e-06f);
    series = emb_pair_add(factors[0], emb_pair_times(r, tail));
    for (at = 1; at < sizeof factors / sizeof factors[0]; at++) {
        series = emb_pair_add(factors[at], emb_pair_multiply(series, r));
    }
    power = emb_float((uint32_t)((int32_t)n + 127) << 23);
    series.hi *= power;
    series.lo *= power;
    return series;
}

float emb_log_ordinary(float x)
{
    uint32_t lifted = emb_bits(x) - 0x3F3504F3u;
    float k = (float)((int32_t)((lifted >> 23) ^ 0x100u) - 256); /* the upper nine bits, with their sign */
    float f = emb_float((lifted & 0x007FFFFFu) + 0x3F3504F3u) - 1.0f;
    float square = f * f, fourth = square * square, eighth = fourth * fourth;
    /* Halves and halves of halves by themselves, as the Python chain has them. */
    float a = (-0.24999994f * f + 0.3333333f) + (-0.16668057f * f + 0.20000714f) * square;
    float b = (-0.12420141f * f + 0.14249323f) + (-0.1151461f * f + 0.116769984f) * square;
    float series = (b * fourth + a) + 0.070376836f * eighth;
    float low = (square * f) * series + k * -0.00021219444f;
    low = low - square * 0.5f;
    return (f + low) + k * 0.6933594f;
}

float emb_decay(float x)
{
    float held = emb_most(x, -87.33f);
    float n = emb_rounded(held * 1.442695f);
    float r = (held - n * 0.69314575f) - n * 1.4286068e-06f;
    float series = 0.0001984127f;
    series = series * r + 0.0013888889f;
    series = series * r + 0.008333334f;
    series = series * r + 0.041666668f;
    series = series * r + 0.16666667f;
    series = series * r + 0.5f;
    series = series * r + 1.0f;
    series = series * r + 1.0f;
    return series * emb_float((uint32_t)((int32_t)n + 127) << 23);
}
