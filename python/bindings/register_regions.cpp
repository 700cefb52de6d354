// region_sums: the relevance of images by region and by channel.
#include <pybind11/pybind11.h>

#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "arrays.hpp"
#include "kernels.hpp"
#include "registers.hpp"

namespace relprop {
namespace {

using Float64 = py::array_t<double>;

// The first label outside [-1, count), or -1: one pass without branches, a second where one is.
int64_t first_bad(const int32_t *labels, int64_t size, int count) {
    const auto is_bad = [count](int32_t label) {
        return static_cast<uint32_t>(label) + 1u > static_cast<uint32_t>(count);
    };
    bool any = false;
    for (int64_t i = 0; i < size; ++i)
        any |= is_bad(labels[i]);
    int64_t at = any ? 0 : -1;
    while (any && !is_bad(labels[at]))
        ++at;
    return at;
}

// The place in an array of the value number `at`.
Shape place_of(int64_t at, const Shape &shape) {
    Shape place(shape.size());
    for (size_t axis = shape.size(); axis-- > 0; at /= shape[axis])
        place[axis] = at % shape[axis];
    return place;
}

void check_shapes(const py::array &values, int count) {
    if (values.ndim() < 3)
        throw std::invalid_argument("values must have a sample, a channel and a pixel axis, not "
                                    "shape " +
                                    text_of(shape_of(values)) + ".");
    if (values.shape(1) > std::numeric_limits<int>::max())
        throw std::invalid_argument("values must have fewer than 2^31 channels.");
    if (count < 1)
        throw std::invalid_argument("count must be >= 1, not " + std::to_string(count) + ".");
}

std::pair<Float64, Float64> region_sums(const py::array &values, const py::array &labels,
                                        int count) {
    check_shapes(values, count);
    Shape shape = shape_of(values);
    Regions of{};
    of.values = read<float>(values, "values", shape);
    of.n = shape[0];
    of.channels = static_cast<int>(shape[1]);
    of.count = count;
    shape.erase(shape.begin() + 1);
    of.shared_labels = labels.ndim() > 0 && labels.shape(0) == 1;
    if (of.shared_labels)
        shape[0] = 1;
    of.labels = read<int32_t>(labels, "labels", shape);
    of.pixels = 1;
    for (size_t axis = 1; axis < shape.size(); ++axis)
        of.pixels *= shape[axis];

    Float64 sums(Shape{of.n, count, 3}), channel_sums(Shape{of.n, of.channels});
    of.sums = sums.mutable_data();
    of.channel_sums = channel_sums.mutable_data();
    int64_t bad = -1;
    {
        py::gil_scoped_release release;
        bad = first_bad(of.labels, shape[0] * of.pixels, count);
        if (bad < 0)
            cpu_kernels().regions(of, nullptr);
    }
    if (bad >= 0)
        throw std::invalid_argument("labels must lie in [-1, " + std::to_string(count) +
                                    "), not be " + std::to_string(of.labels[bad]) + " at " +
                                    text_of(place_of(bad, shape)) + ".");
    return {sums, channel_sums};
}

} // namespace

void register_regions(py::module_ &module) {
    module.def("region_sums", &region_sums, py::arg("values"), py::arg("labels"), py::arg("count"),
               "Sum the relevance of each region, with its positive part and its pixels, and of "
               "each channel.");
}

} // namespace relprop
