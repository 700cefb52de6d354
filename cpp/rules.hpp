// Every rule as data, and its message: what a neuron sends back per unit of contribution.
// Shared by the CPU kernels and the CUDA kernels; formulas and sources are in docs/rules.md.
#pragma once

#include "host_device.hpp"

namespace relprop {

// The gradient has no message: it hands down the relevance itself.
enum class RuleKind { epsilon, alpha_beta, gamma, z_box, w_square, flat, gradient };
enum class BiasMode { absorb, exclude, distribute };

struct Rule {
    RuleKind kind = RuleKind::epsilon;
    BiasMode bias = BiasMode::absorb;
    float epsilon = 1e-6f; // epsilon's parameter; every other rule's stabilizer
    float alpha = 1.0f;
    float beta = 0.0f;
    float gamma = 0.0f;
};

// What follows is for a number, or for a vector of them where the compiler has such.

// What goes with the positive and with the negative contributions of one neuron.
template <class Number> struct Parts {
    Number pos;
    Number neg;
};

// The sums that a message divides by. z is the pre-activation with its bias (only its sign is
// read from here), sum the denominator's plain sum: Z+ + Z-, with the bias or without.
template <class Number> struct Sums {
    Number pos;
    Number neg;
    Number sum;
    Number z;
};

// a / b. A GPU's own division of floats branches for those near the ends of their range; this one
// errs by a bit in the last place, and takes divisors below 1e-38 for 0 and above 8e37 for
// infinity.
template <class Number> RELPROP_HD Number quotient(Number a, Number b) {
#ifdef __CUDA_ARCH__
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(b));
    const float near = a * inverse, nearer = fmaf(fmaf(-near, b, a), inverse, near);
    return nearer == nearer ? nearer : near; // b is 0 or infinite
#else
    return a / b;
#endif
}

// z + e sign(z), with sign(0) = +1.
template <class Number> RELPROP_HD Number stabilize(Number z, float e) {
    return z < 0.0f ? z - e : z + e;
}

// s+ and s- from the sums and the relevance r. The rules that do not split (epsilon, z_box,
// w_square, flat) read sum alone; alpha_beta reads pos and neg; gamma reads pos, sum and z.
template <class Number>
RELPROP_HD Parts<Number> message(const Rule &rule, const Sums<Number> &of, Number r) {
    const Number none{};
    switch (rule.kind) {
    case RuleKind::alpha_beta: { // Bach et al. 2015, Eq. 60
        // An empty part has nothing to hand down; its message would be R / 1e-6 times zeros.
        const Number pos = quotient<Number>(rule.alpha * r, stabilize(of.pos, rule.epsilon));
        const Parts<Number> only{of.pos > 0.0f ? pos : none, none};
        if (rule.beta == 0.0f)
            return only;
        const Number neg = quotient<Number>(-rule.beta * r, stabilize(of.neg, rule.epsilon));
        return {only.pos, of.neg < 0.0f ? neg : none};
    }
    case RuleKind::gamma: { // Andeol et al. 2021; Z- is sum - Z+, and no term below cancels
        const float g = rule.gamma;
        const Number sum = of.z > 0.0f ? of.sum + g * of.pos : (1.0f + g) * of.sum - g * of.pos;
        const Number s = quotient(r, stabilize(sum, rule.epsilon));
        const Number smaller = of.z == 0.0f ? none : s;
        const Number larger = (1.0f + g) * smaller;
        return {of.z > 0.0f ? larger : smaller, of.z > 0.0f ? smaller : larger};
    }
    default: {
        const Number s = quotient(r, stabilize(of.sum, rule.epsilon));
        return {s, s};
    }
    }
}

// What the message hands down together with the bias: Z+ s+ + Z- s-.
template <class Number>
RELPROP_HD Number handed(const Rule &rule, const Sums<Number> &of, const Parts<Number> &s) {
    switch (rule.kind) {
    case RuleKind::alpha_beta:
        return of.pos * s.pos + of.neg * s.neg;
    case RuleKind::gamma: // written with the denominators of message(), so that nothing cancels
        return of.z > 0.0f ? s.neg * (of.sum + rule.gamma * of.pos)
                           : s.pos * ((1.0f + rule.gamma) * of.sum - rule.gamma * of.pos);
    default:
        return of.sum * s.pos;
    }
}

} // namespace relprop
