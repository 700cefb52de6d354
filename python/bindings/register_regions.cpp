// region_sums: the relevance of images by region and by channel.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "arrays.hpp"
#include "device_arrays.hpp"
#include "kernels.hpp"
#include "memory.hpp"
#include "registers.hpp"

namespace relprop {
namespace {

using Float64 = py::array_t<double>;

// One pass without branches, and a second one where a label lies outside [-1, count).
void check_labels(const int32_t *labels, const Shape &shape, int count) {
    const auto is_bad = [count](int32_t label) {
        return static_cast<uint32_t>(label) + 1u > static_cast<uint32_t>(count);
    };
    int64_t size = 1, at = 0;
    for (const int64_t axis : shape)
        size *= axis;
    bool any = false;
    for (int64_t i = 0; i < size; ++i)
        any |= is_bad(labels[i]);
    if (!any)
        return;
    while (!is_bad(labels[at]))
        ++at;
    Shape place = shape;
    int64_t rest = at;
    for (size_t axis = shape.size(); axis-- > 0; rest /= shape[axis])
        place[axis] = rest % shape[axis];
    throw std::invalid_argument("labels must lie in [-1, " + std::to_string(count) + "), not be " +
                                std::to_string(labels[at]) + " at " + text_of(place) + ".");
}

void check_values(const Shape &shape) {
    if (shape.size() < 3)
        throw std::invalid_argument("values must have a sample, a channel and a pixel axis, not "
                                    "shape " +
                                    text_of(shape) + ".");
    if (shape[1] > std::numeric_limits<int>::max())
        throw std::invalid_argument("values must have fewer than 2^31 channels.");
}

Regions read_regions(const py::object &values, const py::array &labels, int count, bool on_device) {
    if (!on_device && !py::isinstance<py::array>(values))
        throw py::type_error("values must be a numpy array, where no GPU is named.");
    if (count < 1)
        throw std::invalid_argument("count must be >= 1, not " + std::to_string(count) + ".");
    Shape shape = values.attr("shape").cast<Shape>();
    check_values(shape);
    Regions of{};
    of.values = on_device ? read_on_device(values, "values", shape)
                          : read<float>(values.cast<py::array>(), "values", shape);
    of.n = shape[0];
    of.channels = static_cast<int>(shape[1]);
    of.count = count;
    of.pixels = std::accumulate(shape.begin() + 2, shape.end(), int64_t{1}, std::multiplies<>());
    of.shared_labels = labels.ndim() > 0 && labels.shape(0) == 1;
    shape.erase(shape.begin() + 1);
    if (of.shared_labels)
        shape[0] = 1;
    of.labels = read<int32_t>(labels, "labels", shape);
    return of;
}

// The sums of relevance in a GPU's memory, in the order of the caller's stream; labels and sums are
// the host's.
void sum_on_device(const Kernels &kernels, Regions of, Stream stream) {
    const int64_t labels = (of.shared_labels ? 1 : of.n) * of.pixels;
    const int64_t places = of.n * of.count * 3, channels = of.n * of.channels;
    if (of.n * of.pixels == 0) { // no values: a pointer to nowhere
        std::fill_n(of.sums, places, 0.0);
        std::fill_n(of.channel_sums, channels, 0.0);
        return;
    }
    const int64_t scratch = of.n * regions_scratch(of.pixels, of.count, of.channels);
    double *const sums = of.sums, *const channel_sums = of.channel_sums;
    const Using device(kernels.device, kernels.device_index);
    Memory there(kernels, 2 * (places + channels + scratch)), regions(kernels, labels);
    if (kernels.device->owner(of.values) != kernels.device_index)
        throw std::invalid_argument("values must be in the memory of GPU " +
                                    std::to_string(kernels.device_index) + ".");
    regions.fill(of.labels, labels * static_cast<int64_t>(sizeof(int32_t)));
    of.labels = reinterpret_cast<const int32_t *>(regions.data());
    of.sums = reinterpret_cast<double *>(there.data());
    of.channel_sums = of.sums + places;
    of.scratch = of.channel_sums + channels;
    kernels.regions(of, stream);
    constexpr int64_t each = sizeof(double);
    kernels.device->copy(sums, of.sums, places * each, stream);
    kernels.device->copy(channel_sums, of.channel_sums, channels * each, stream);
    kernels.device->wait(stream);
}

std::pair<Float64, Float64> region_sums(const py::object &values, const py::array &labels,
                                        int count, std::optional<int> gpu, uintptr_t stream) {
    Regions of = read_regions(values, labels, count, gpu.has_value());
    const Shape shape = shape_of(labels);
    Float64 sums(Shape{of.n, count, 3}), channel_sums(Shape{of.n, of.channels});
    of.sums = sums.mutable_data();
    of.channel_sums = channel_sums.mutable_data();
    {
        py::gil_scoped_release released;
        check_labels(of.labels, shape, count);
        if (gpu)
            sum_on_device(cuda_kernels(*gpu, Precision::float32), of,
                          reinterpret_cast<Stream>(stream));
        else
            cpu_kernels().regions(of, nullptr);
    }
    return {sums, channel_sums};
}

} // namespace

void register_regions(py::module_ &module) {
    module.def("region_sums", &region_sums, py::arg("values"), py::arg("labels"), py::arg("count"),
               py::arg("gpu") = py::none(), py::arg("stream") = 0,
               "Sum the relevance of each region, with its positive part and its pixels, and of "
               "each channel.");
}

} // namespace relprop
