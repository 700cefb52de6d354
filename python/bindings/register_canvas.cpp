// on_canvas: a map of relevance on a canvas of another size.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "arrays.hpp"
#include "canvas.hpp"
#include "registers.hpp"

namespace relprop {
namespace {

py::array_t<double> on_canvas(const py::array &map, int rows, int columns) {
    const Shape shape = shape_of(map);
    if (shape.size() != 2 || map.size() == 0 ||
        std::max(shape[0], shape[1]) > std::numeric_limits<int>::max())
        throw std::invalid_argument("map must have a height and a width, not shape " +
                                    text_of(shape) + ".");
    if (rows < 1 || columns < 1)
        throw std::invalid_argument("rows and columns must be >= 1, not " + std::to_string(rows) +
                                    " and " + std::to_string(columns) + ".");
    const float *values = read<float>(map, "map", shape);
    py::array_t<double> canvas(Shape{rows, columns});
    double *cells = canvas.mutable_data();
    py::gil_scoped_release release;
    lay_on_canvas(values, shape[0], shape[1], cells, rows, columns);
    return canvas;
}

} // namespace

void register_canvas(py::module_ &module) {
    using namespace pybind11::literals;
    module.def("on_canvas", on_canvas, "map"_a, "rows"_a, "columns"_a,
               "Lay a map over a canvas of another size, each pixel shared out by area.");
}

} // namespace relprop
