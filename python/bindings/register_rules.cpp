// The core's Rule, made from keywords; relprop.rules holds the user's rules.
#include <pybind11/pybind11.h>

#include <iterator>
#include <stdexcept>
#include <string>

#include "registers.hpp"
#include "rules.hpp"

namespace relprop {
namespace {

RuleKind kind_of(const std::string &name) {
    constexpr const char *names[] = {"epsilon",  "alpha_beta", "gamma",   "z_box",
                                     "w_square", "flat",       "gradient"};
    for (size_t i = 0; i < std::size(names); ++i)
        if (name == names[i])
            return static_cast<RuleKind>(i);
    throw std::invalid_argument("kind must be the name of a rule, not \"" + name + "\".");
}

BiasMode bias_of(const std::string &name) {
    if (name == "absorb")
        return BiasMode::absorb;
    if (name == "exclude")
        return BiasMode::exclude;
    if (name == "distribute")
        return BiasMode::distribute;
    throw std::invalid_argument("bias must be absorb, exclude or distribute, not \"" + name +
                                "\".");
}

} // namespace

void register_rules(py::module_ &module) {
    py::class_<Rule>(module, "Rule", "A rule as the kernels read it.")
        .def(py::init([](const std::string &kind, const std::string &bias, float epsilon,
                         float alpha, float beta, float gamma) {
                 if (!(epsilon > 0.0f))
                     throw std::invalid_argument("epsilon must be > 0, not " +
                                                 std::to_string(epsilon) + ".");
                 return Rule{kind_of(kind), bias_of(bias), epsilon, alpha, beta, gamma};
             }),
             py::arg("kind"), py::arg("bias") = "absorb", py::arg("epsilon") = 1e-6f,
             py::arg("alpha") = 1.0f, py::arg("beta") = 0.0f, py::arg("gamma") = 0.0f);
}

} // namespace relprop
