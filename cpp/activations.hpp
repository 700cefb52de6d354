// Activation functions and their derivatives, value by value, for both devices.
#pragma once

#include <type_traits>

#include "kernels.hpp"

// The compiler's own on the host: std's inline functions would be merged across instruction sets.
#ifdef __CUDA_ARCH__
#define RELPROP_MATH(name) name##f
#else
#define RELPROP_MATH(name) __builtin_##name##f
#endif

namespace relprop {

RELPROP_HD float sigmoid(float x) { return 1.0f / (1.0f + RELPROP_MATH(exp)(-x)); }

// The sigmoid's derivative, in a form that does not cancel.
RELPROP_HD float bump(float x) {
    const float e = RELPROP_MATH(exp)(x < 0.0f ? x : -x);
    return e / ((1.0f + e) * (1.0f + e));
}

RELPROP_HD float hard_sigmoid(float x) {
    const float y = x + 3.0f;
    return (y < 0.0f ? 0.0f : y > 6.0f ? 6.0f : y) / 6.0f;
}

// The exponents of squares, quotients and lengths have instructions of their own.
RELPROP_HD float power(float x, float exponent) {
    return exponent == 2.0f    ? x * x
           : exponent == -1.0f ? 1.0f / x
           : exponent == 0.5f  ? RELPROP_MATH(sqrt)(x)
                               : RELPROP_MATH(pow)(x, exponent);
}

template <Function function> RELPROP_HD float activated(float v, float parameter) {
    if constexpr (function == Function::leaky_relu) {
        return v < 0.0f ? parameter * v : v;
    } else if constexpr (function == Function::elu) {
        return v < 0.0f ? parameter * RELPROP_MATH(expm1)(v) : v;
    } else if constexpr (function == Function::silu) {
        return v * sigmoid(v);
    } else if constexpr (function == Function::gelu) {
        return 0.5f * v * RELPROP_MATH(erfc)(-0.70710678118654752f * v);
    } else if constexpr (function == Function::gelu_tanh) {
        const float inner = 0.79788456080286536f * (v + 0.044715f * v * v * v);
        return 0.5f * v * (1.0f + RELPROP_MATH(tanh)(inner));
    } else if constexpr (function == Function::sigmoid) {
        return sigmoid(v);
    } else if constexpr (function == Function::tanh) {
        return RELPROP_MATH(tanh)(v);
    } else if constexpr (function == Function::hard_sigmoid) {
        return hard_sigmoid(v);
    } else if constexpr (function == Function::hard_swish) {
        return v * hard_sigmoid(v);
    } else if constexpr (function == Function::exp) {
        return RELPROP_MATH(exp)(v);
    } else if constexpr (function == Function::power) {
        return power(v, parameter);
    } else { // softplus: log(1 + exp(v)) without overflow
        const float rest = RELPROP_MATH(log1p)(RELPROP_MATH(exp)(v < 0.0f ? v : -v));
        return v > 0.0f ? v + rest : rest;
    }
}

// The derivative at v, times g.
template <Function function> RELPROP_HD float gradient_of(float v, float g, float parameter) {
    if constexpr (function == Function::leaky_relu) {
        return v > 0.0f ? g : parameter * g;
    } else if constexpr (function == Function::elu) {
        return v > 0.0f ? g : parameter * RELPROP_MATH(exp)(v) * g;
    } else if constexpr (function == Function::silu) {
        return (sigmoid(v) + v * bump(v)) * g;
    } else if constexpr (function == Function::gelu) {
        const float share = 0.5f * RELPROP_MATH(erfc)(-0.70710678118654752f * v);
        const float density = 0.39894228040143268f * RELPROP_MATH(exp)(-0.5f * v * v);
        return (share + v * density) * g;
    } else if constexpr (function == Function::gelu_tanh) { // (1 + tanh(u)) / 2 = sigmoid(2 u)
        const float twice = 1.5957691216057307f * (v + 0.044715f * v * v * v);
        const float slope = 1.5957691216057307f * (1.0f + 0.134145f * v * v);
        return (sigmoid(twice) + v * bump(twice) * slope) * g;
    } else if constexpr (function == Function::sigmoid) {
        return bump(v) * g;
    } else if constexpr (function == Function::tanh) {
        return 4.0f * bump(2.0f * v) * g;
    } else if constexpr (function == Function::hard_sigmoid) {
        return v > -3.0f && v < 3.0f ? g / 6.0f : 0.0f;
    } else if constexpr (function == Function::hard_swish) {
        return v <= -3.0f ? 0.0f : v < 3.0f ? (v / 3.0f + 0.5f) * g : g;
    } else if constexpr (function == Function::exp) {
        return RELPROP_MATH(exp)(v) * g;
    } else if constexpr (function == Function::power) {
        return parameter * power(v, parameter - 1.0f) * g;
    } else { // softplus
        return sigmoid(v) * g;
    }
}

template <Function function> using FunctionConstant = std::integral_constant<Function, function>;

// Calls body(constant) with the function as a constant of the compiler's.
template <class Body> static inline void with_function(Function function, const Body &body) {
    switch (function) {
    case Function::leaky_relu:
        return body(FunctionConstant<Function::leaky_relu>{});
    case Function::elu:
        return body(FunctionConstant<Function::elu>{});
    case Function::silu:
        return body(FunctionConstant<Function::silu>{});
    case Function::gelu:
        return body(FunctionConstant<Function::gelu>{});
    case Function::gelu_tanh:
        return body(FunctionConstant<Function::gelu_tanh>{});
    case Function::sigmoid:
        return body(FunctionConstant<Function::sigmoid>{});
    case Function::tanh:
        return body(FunctionConstant<Function::tanh>{});
    case Function::hard_sigmoid:
        return body(FunctionConstant<Function::hard_sigmoid>{});
    case Function::hard_swish:
        return body(FunctionConstant<Function::hard_swish>{});
    case Function::softplus:
        return body(FunctionConstant<Function::softplus>{});
    case Function::exp:
        return body(FunctionConstant<Function::exp>{});
    case Function::power:
        return body(FunctionConstant<Function::power>{});
    }
}

} // namespace relprop
