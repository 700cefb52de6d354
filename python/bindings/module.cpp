// relprop._core: the table of contents of the compiled core.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "kernels.hpp"
#include "packed.hpp"
#include "parallel.hpp"
#include "registers.hpp"

namespace py = pybind11;

PYBIND11_MODULE(_core, module) {
    module.doc() = "The compiled core of relprop.";
    module.attr("__version__") = RELPROP_VERSION;
#ifdef RELPROP_WITH_CUDA
    module.attr("with_cuda") = true;
#else
    module.attr("with_cuda") = false;
#endif
    module.def(
        "instruction_set", [] { return relprop::cpu_kernels().name; },
        "Name of the CPU kernels in use: avx512, avx2 or portable.");
    module.def("threads", &relprop::threads, "Threads that a run uses.");
    module.def("set_threads", &relprop::set_threads, py::arg("count"),
               "Set the threads that a run uses.");
    module.def("packed_bytes", &relprop::packed_bytes,
               "Bytes of packed weights that the Plans of this process hold together.");

    module.def(
        "multiply_adds",
        [](int64_t rounds) {
            if (rounds < 0)
                throw std::invalid_argument("rounds must be >= 0, not " + std::to_string(rounds) +
                                            ".");
            py::gil_scoped_release release;
            return relprop::cpu_kernels().multiply_adds(rounds, nullptr);
        },
        py::arg("rounds"),
        "Multiply and add in registers alone, on every thread at once; return how often.");

    relprop::register_rules(module);
    relprop::register_plan(module);
    relprop::register_regions(module);
    relprop::register_moments(module);
    relprop::register_canvas(module);
}
