// Elementary functions of a vector's lanes, to two or three bits: libm's take a number at a time.
// Only formulas that are exact where the function is 0 or tends to 0.
#pragma once

#include "simd.hpp"

namespace relprop::RELPROP_ISA {

typedef int32_t IntVec __attribute__((vector_size(lanes * 4)));

// The functions that activations.hpp asks for.
struct Lanes {
    typedef Vec Value;

    // exp(x) = 2 scale (1 + rest), with rest = exp(r) - 1 by its Taylor polynomial for what is
    // left of x / ln(2) beside a whole number, |r| <= ln(2) / 2. scale is half a power of two, so
    // that the largest results do not overflow on the way.
    struct Exponential {
        Vec scale, rest;

        [[gnu::always_inline]] explicit Exponential(Vec x) {
            constexpr float shift = 12582912.0f; // 1.5 * 2^23: a sum's last bits are a whole number
            const Vec above = x < least ? Vec{} + least : x; // NaN stays
            const Vec bounded = above > 89.0f ? Vec{} + 89.0f : above;
            const Vec shifted = bounded * 1.44269504f + shift;
            const Vec n = shifted - shift;
            const Vec r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f; // ln(2), in two parts
            scale = (Vec)(((IntVec)shifted + 126) << 23);
            Vec sum = Vec{} + 1.0f / 5040;
            for (const float factor : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f})
                sum = sum * r + factor;
            rest = sum * r;
        }
    };
    static constexpr float least = -86.6f; // exp of less is as good as 0

    // 0 instead of the last of float's normal numbers and the ones below them.
    [[gnu::always_inline]] static inline Vec exp(Vec x) {
        const Exponential e(x);
        return x < least ? Vec{} : (e.rest + 1.0f) * e.scale * 2.0f;
    }

    // exp(x) - 1.
    [[gnu::always_inline]] static inline Vec expm1(Vec x) {
        const Exponential e(x);
        return (e.rest * e.scale + (e.scale - 0.5f)) * 2.0f;
    }

    [[gnu::always_inline]] static inline Vec tanh(Vec x) {
        const Vec twice = x > 20.0f ? Vec{} + 40.0f : x + x;
        const Vec e = expm1(twice);
        return e / (e + 2.0f);
    }

    // log(1 + x) for x from 0 to 1, as 2 atanh(x / (2 + x)) by its Taylor series.
    [[gnu::always_inline]] static inline Vec log1p(Vec x) {
        const Vec s = x / (x + 2.0f), square = s * s;
        Vec sum = Vec{} + 2.0f / 15;
        for (const float factor :
             {2.0f / 13, 2.0f / 11, 2.0f / 9, 2.0f / 7, 2.0f / 5, 2.0f / 3, 2.0f})
            sum = sum * square + factor;
        return sum * s;
    }

    // The standard normal distribution's share below x. That beyond |x| is exp(-x^2 / 2) times a
    // slowly falling factor: t P(t) with t = 1 / (1 + 0.35 |x|) and P the polynomial of degree 8
    // with the least relative error from 0 to 13.5, 3e-8.
    [[gnu::always_inline]] static inline Vec normal_share(Vec x) {
        const Vec t = 1.0f / (0.35f * (x < 0.0f ? -x : x) + 1.0f);
        Vec sum = Vec{} - 0.029126254841685295f;
        for (const float factor : {0.14387406408786774f, -0.2555081844329834f, 0.15893322229385376f,
                                   -0.02293967641890049f, 0.10543392598628998f, 0.1198522076010704f,
                                   0.13985911011695862f, 0.1396215707063675f})
            sum = sum * t + factor;
        const Vec beyond = sum * t * exp(-0.5f * x * x);
        return x < 0.0f ? beyond : 1.0f - beyond;
    }

    [[gnu::always_inline]] static inline Vec sqrt(Vec x) {
        for (int lane = 0; lane < lanes; ++lane)
            x[lane] = __builtin_sqrtf(x[lane]);
        return x;
    }

    [[gnu::always_inline]] static inline Vec pow(Vec x, float exponent) {
        for (int lane = 0; lane < lanes; ++lane)
            x[lane] = __builtin_powf(x[lane], exponent);
        return x;
    }
};

} // namespace relprop::RELPROP_ISA
