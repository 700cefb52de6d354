// Chooses the instruction set of the CPU kernels at run time.
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#include "kernels.hpp"

namespace relprop {

namespace portable {
extern const Kernels backend;
}
#ifdef RELPROP_HAS_AVX2
namespace avx2 {
extern const Kernels backend;
}
#endif
#ifdef RELPROP_HAS_AVX512
namespace avx512 {
extern const Kernels backend;
}
#endif

namespace {

bool runs_here(const Kernels &kernels) {
#ifdef RELPROP_HAS_AVX512
    if (&kernels == &avx512::backend)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
#endif
#ifdef RELPROP_HAS_AVX2
    if (&kernels == &avx2::backend)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return &kernels == &portable::backend;
}

const Kernels &choose() {
    const Kernels *built[] = {
#ifdef RELPROP_HAS_AVX512
        &avx512::backend,
#endif
#ifdef RELPROP_HAS_AVX2
        &avx2::backend,
#endif
        &portable::backend};
    const char *wanted = std::getenv("RELPROP_ISA");
    for (const Kernels *kernels : built)
        if ((wanted == nullptr || std::string_view(wanted) == kernels->name) && runs_here(*kernels))
            return *kernels;
    throw std::runtime_error("RELPROP_ISA must name an instruction set that was built and runs on "
                             "this machine (avx512, avx2, portable), not \"" +
                             std::string(wanted ? wanted : "") + "\".");
}

} // namespace

const Kernels &cpu_kernels() {
    static const Kernels &chosen = choose();
    return chosen;
}

int wanted_winograd() {
    const char *wanted = std::getenv("RELPROP_PRODUCT");
    const std::string_view name = wanted ? wanted : "";
    if (!wanted)
        return -1;
    if (name == "plain")
        return 0;
    if (name == "winograd2" || name == "winograd4")
        return name.back() - '0';
    throw std::runtime_error("RELPROP_PRODUCT must be plain, winograd2 or winograd4, not \"" +
                             std::string(name) + "\".");
}

#if !defined(RELPROP_WITH_CUDA)
const Kernels &cuda_kernels(int, Precision) {
    throw std::runtime_error("relprop was built without CUDA: install it again with "
                             "RELPROP_CUDA=ON and nvcc on the machine, or use device=\"cpu\".");
}
#endif

} // namespace relprop
