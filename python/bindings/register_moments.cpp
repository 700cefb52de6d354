// add_moments: sums and sums of squares of arrays, as pairs of float64.
#include <pybind11/pybind11.h>

#include "arrays.hpp"
#include "double_double.hpp"
#include "registers.hpp"

namespace relprop {
namespace {

void add(const py::array &values, py::array high, py::array low) {
    const Shape shape = shape_of(values);
    Shape pairs = {2};
    pairs.insert(pairs.end(), shape.begin(), shape.end());
    const double *of_values = read<double>(values, "values", shape);
    double *of_high = write<double>(high, "high", pairs),
           *of_low = write<double>(low, "low", pairs);
    const int64_t count = values.size();
    py::gil_scoped_release release;
    add_moments(of_values, count, of_high, of_low);
}

} // namespace

void register_moments(py::module_ &module) {
    using namespace pybind11::literals;
    module.def("add_moments", add, "values"_a, "high"_a, "low"_a,
               "Add values to the pairs high[0] and low[0], and their squares to high[1], low[1].");
}

} // namespace relprop
