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

// Elementary functions of one number. What follows is written in these, or in those of vectors
// (cpp/kernels/elementary.hpp), whose values have a type of their own.
struct Scalar {
    typedef float Value;

    RELPROP_HD float exp(float x) { return RELPROP_MATH(exp)(x); }
    RELPROP_HD float expm1(float x) { return RELPROP_MATH(expm1)(x); }
    RELPROP_HD float tanh(float x) { return RELPROP_MATH(tanh)(x); }
    RELPROP_HD float log1p(float x) { return RELPROP_MATH(log1p)(x); }
    RELPROP_HD float sqrt(float x) { return RELPROP_MATH(sqrt)(x); }
    RELPROP_HD float pow(float x, float exponent) { return RELPROP_MATH(pow)(x, exponent); }

    // The standard normal distribution's share below x.
    RELPROP_HD float normal_share(float x) {
        return 0.5f * RELPROP_MATH(erfc)(-0.70710678118654752f * x);
    }
};

template <class Math, class V = typename Math::Value> RELPROP_HD V sigmoid(V x) {
    return 1.0f / (1.0f + Math::exp(-x));
}

// The sigmoid's derivative, in a form that does not cancel.
template <class Math, class V = typename Math::Value> RELPROP_HD V bump(V x) {
    const V e = Math::exp(x < 0.0f ? x : -x);
    return e / ((1.0f + e) * (1.0f + e));
}

template <class V> RELPROP_HD V hard_sigmoid(V x) {
    const V y = x + 3.0f, zero{}, six = zero + 6.0f;
    return (y < 0.0f ? zero : y > 6.0f ? six : y) / 6.0f;
}

// The exponents of squares, quotients and lengths have instructions of their own.
template <class Math, class V = typename Math::Value> RELPROP_HD V power(V x, float exponent) {
    return exponent == 2.0f    ? x * x
           : exponent == -1.0f ? 1.0f / x
           : exponent == 0.5f  ? Math::sqrt(x)
                               : Math::pow(x, exponent);
}

template <Function function, class Math, class V = typename Math::Value>
RELPROP_HD V activated(V v, float parameter) {
    if constexpr (function == Function::leaky_relu) {
        return v < 0.0f ? parameter * v : v;
    } else if constexpr (function == Function::elu) {
        return v < 0.0f ? parameter * Math::expm1(v) : v;
    } else if constexpr (function == Function::silu) {
        return v * sigmoid<Math>(v);
    } else if constexpr (function == Function::gelu) {
        return v * Math::normal_share(v);
    } else if constexpr (function == Function::gelu_tanh) { // (1 + tanh(u)) / 2 = sigmoid(2 u)
        return v * sigmoid<Math>(1.5957691216057307f * (v + 0.044715f * v * v * v));
    } else if constexpr (function == Function::sigmoid) {
        return sigmoid<Math>(v);
    } else if constexpr (function == Function::tanh) {
        return Math::tanh(v);
    } else if constexpr (function == Function::hard_sigmoid) {
        return hard_sigmoid(v);
    } else if constexpr (function == Function::hard_swish) {
        return v * hard_sigmoid(v);
    } else if constexpr (function == Function::exp) {
        return Math::exp(v);
    } else if constexpr (function == Function::power) {
        return power<Math>(v, parameter);
    } else { // softplus: log(1 + exp(v)) without overflow
        const V rest = Math::log1p(Math::exp(v < 0.0f ? v : -v));
        return v > 0.0f ? v + rest : rest;
    }
}

// The derivative at v, times g.
template <Function function, class Math, class V = typename Math::Value>
RELPROP_HD V gradient_of(V v, V g, float parameter) {
    if constexpr (function == Function::leaky_relu) {
        return v > 0.0f ? g : parameter * g;
    } else if constexpr (function == Function::elu) {
        return v > 0.0f ? g : parameter * Math::exp(v) * g;
    } else if constexpr (function == Function::silu) {
        return (sigmoid<Math>(v) + v * bump<Math>(v)) * g;
    } else if constexpr (function == Function::gelu) {
        const V density = 0.39894228040143268f * Math::exp(-0.5f * v * v);
        return (Math::normal_share(v) + v * density) * g;
    } else if constexpr (function == Function::gelu_tanh) {
        const V twice = 1.5957691216057307f * (v + 0.044715f * v * v * v);
        const V slope = 1.5957691216057307f * (1.0f + 0.134145f * v * v);
        return (sigmoid<Math>(twice) + v * bump<Math>(twice) * slope) * g;
    } else if constexpr (function == Function::sigmoid) {
        return bump<Math>(v) * g;
    } else if constexpr (function == Function::tanh) {
        return 4.0f * bump<Math>(2.0f * v) * g;
    } else if constexpr (function == Function::hard_sigmoid) {
        const V zero{};
        return v > -3.0f ? (v < 3.0f ? g / 6.0f : zero) : zero;
    } else if constexpr (function == Function::hard_swish) {
        const V zero{};
        return v <= -3.0f ? zero : v < 3.0f ? (v / 3.0f + 0.5f) * g : g;
    } else if constexpr (function == Function::exp) {
        return Math::exp(v) * g;
    } else if constexpr (function == Function::power) {
        return parameter * power<Math>(v, parameter - 1.0f) * g;
    } else { // softplus
        return sigmoid<Math>(v) * g;
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
