// Checked access to arrays in a GPU's memory, torch's, cupy's or any other's, through what they say
// of themselves in __cuda_array_interface__ (version 3), but for the stream that it may name: the
// caller names the one that all arrays are ready on. Whose memory a pointer is to, the core asks
// the driver.
#pragma once

#include <pybind11/pybind11.h>

#include "arrays.hpp"

namespace relprop {

constexpr const char *cuda_interface = "__cuda_array_interface__";

inline bool is_on_device(const py::object &array) { return py::hasattr(array, cuda_interface); }

inline int64_t samples_of(const py::object &array, const char *name) {
    if (!is_on_device(array) && !py::isinstance<py::array>(array))
        throw py::type_error(std::string(name) + " must be an array.");
    const auto shape = py::tuple(array.attr("shape"));
    return shape.empty() ? 0 : shape[0].cast<int64_t>();
}

// Whether strides in bytes are those of floats without gaps, in C order.
inline bool is_dense(const py::handle &strides, const Shape &shape) {
    if (strides.is_none())
        return true;
    const auto given = strides.cast<Shape>();
    if (given.size() != shape.size())
        return false;
    int64_t expected = sizeof(float);
    for (size_t axis = shape.size(); axis-- > 0;) {
        if (shape[axis] > 1 && given[axis] != expected)
            return false;
        expected *= shape[axis];
    }
    return true;
}

// The pointer, and whether it may be written through.
inline std::pair<float *, bool> floats_on_device(const py::object &array, const char *name,
                                                 const Shape &shape) {
    if (!is_on_device(array))
        throw py::type_error(std::string(name) + " must be in the device's memory, as scores are.");
    const auto interface = array.attr(cuda_interface).cast<py::dict>();
    const auto type = interface["typestr"].cast<std::string>();
    if (type != "<f4")
        throw py::type_error(std::string(name) + " must be float32, not " + type + ".");
    const auto found = interface["shape"].cast<Shape>();
    if (found != shape)
        throw py::value_error(std::string(name) + " must have shape " + text_of(shape) + ", not " +
                              text_of(found) + ".");
    if (interface.contains("strides") && !is_dense(interface["strides"], shape))
        throw py::value_error(std::string(name) + " must be C-contiguous.");
    if (interface.contains("mask") && !interface["mask"].is_none())
        throw py::value_error(std::string(name) + " must have no mask.");
    const auto data = interface["data"].cast<std::pair<uintptr_t, bool>>();
    if (data.first % alignof(float) != 0)
        throw py::value_error(std::string(name) + " must be aligned.");
    return {reinterpret_cast<float *>(data.first), !data.second};
}

inline const float *read_on_device(const py::object &array, const char *name, const Shape &shape) {
    return floats_on_device(array, name, shape).first;
}

inline float *write_on_device(const py::object &array, const char *name, const Shape &shape) {
    const auto [data, writeable] = floats_on_device(array, name, shape);
    if (!writeable)
        throw py::value_error(std::string(name) + " must be writeable.");
    return data;
}

} // namespace relprop
