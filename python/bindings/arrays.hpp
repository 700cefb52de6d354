// Checked access to numpy arrays: the only place where a pointer is taken from Python.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace relprop {

namespace py = pybind11;
using Shape = std::vector<int64_t>;

inline std::string text_of(const Shape &shape) {
    std::string text = "(";
    for (size_t i = 0; i < shape.size(); ++i)
        text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + (shape.size() == 1 ? ",)" : ")");
}

inline Shape shape_of(const py::array &array) {
    return {array.shape(), array.shape() + array.ndim()};
}

// The array must be of T, C-contiguous, aligned and of the given shape.
template <class T> const T *read(const py::array &array, const char *name, const Shape &shape) {
    constexpr int wanted = static_cast<int>(py::array::c_style) |
                           static_cast<int>(py::detail::npy_api::NPY_ARRAY_ALIGNED_);
    if (!py::isinstance<py::array_t<T>>(array))
        throw py::type_error(std::string(name) + " must be " +
                             py::str(py::dtype::of<T>()).cast<std::string>() + ", not " +
                             py::str(array.dtype()).cast<std::string>() + ".");
    if ((array.flags() & wanted) != wanted)
        throw py::value_error(std::string(name) + " must be C-contiguous and aligned.");
    if (shape_of(array) != shape)
        throw py::value_error(std::string(name) + " must have shape " + text_of(shape) + ", not " +
                              text_of(shape_of(array)) + ".");
    return static_cast<const T *>(array.data());
}

template <class T> T *write(py::array &array, const char *name, const Shape &shape) {
    read<T>(array, name, shape);
    if (!array.writeable())
        throw py::value_error(std::string(name) + " must be writeable.");
    return static_cast<T *>(array.mutable_data());
}

// What keeps an array for code that knows no Python.
inline std::shared_ptr<const void> owner_of(const py::array &array) {
    return {new py::array(array), [](const py::array *held) {
                py::gil_scoped_acquire acquired;
                delete held;
            }};
}

// A copy of a float32 array of any of the given shape; empty where the argument is None.
inline std::vector<float> copy(const py::object &object, const char *name, const Shape &shape) {
    if (object.is_none())
        return {};
    const auto array = object.cast<py::array>();
    const float *data = read<float>(array, name, shape);
    return {data, data + array.size()};
}

} // namespace relprop
