// One function per category of what the module offers.
#pragma once

#include <pybind11/pybind11.h>

namespace relprop {

namespace py = pybind11;

void register_rules(py::module_ &module);
void register_plan(py::module_ &module);
void register_regions(py::module_ &module);
void register_moments(py::module_ &module);
void register_canvas(py::module_ &module);

} // namespace relprop
