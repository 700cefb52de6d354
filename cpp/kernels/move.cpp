// Values that only change places: slices, pads, reshapes, permutations, broadcasts (one index
// table serves them all), and the two memory orders of images.
#include "backend.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {

void gather(const Gather &p, Stream) {
    const int64_t parts = (p.to_size + slab - 1) / slab;
    parallel_for(p.n * parts, [&](int64_t task) {
        const float *in = p.in + task / parts * p.from_size;
        float *out = p.out + task / parts * p.to_size;
        const int64_t first = task % parts * slab;
        const int64_t last = first + slab < p.to_size ? first + slab : p.to_size;
        for (int64_t i = first; i < last; ++i)
            out[i] = p.index[i] >= 0 ? in[p.index[i]] : p.value;
    });
}

void gather_relevance(const Gather &p, Stream) {
    const int64_t parts = (p.from_size + slab - 1) / slab;
    parallel_for(p.n * parts, [&](int64_t task) {
        const float *r = p.in + task / parts * p.to_size;
        float *out = p.out + task / parts * p.from_size;
        const int64_t first = task % parts * slab;
        const int64_t last = first + slab < p.from_size ? first + slab : p.from_size;
        for (int64_t i = first; i < last; ++i) {
            double sum = p.add ? static_cast<double>(out[i]) : 0.0; // a broadcast has many readers
            for (int32_t k = p.offsets[i]; k < p.offsets[i + 1]; ++k)
                sum += static_cast<double>(r[p.reader[k]]);
            out[i] = static_cast<float>(sum);
        }
    });
}

void to_channels_last(const float *in, float *out, int64_t n, Image image, Stream) {
    const int64_t rows = static_cast<int64_t>(image.depth) * image.height;
    parallel_for(n * rows, [&](int64_t task) {
        const float *row = in + task / rows * image.size() + task % rows * image.width;
        float *to = out + task * image.width * image.channels;
        for (int c = 0; c < image.channels; ++c)
            for (int x = 0; x < image.width; ++x)
                to[static_cast<int64_t>(x) * image.channels + c] = row[c * image.pixels() + x];
    });
}

void to_channels_first(const float *in, float *out, int64_t n, Image image, Stream) {
    const int64_t rows = static_cast<int64_t>(image.depth) * image.height;
    parallel_for(n * rows, [&](int64_t task) {
        const float *from = in + task * image.width * image.channels;
        float *row = out + task / rows * image.size() + task % rows * image.width;
        for (int c = 0; c < image.channels; ++c)
            for (int x = 0; x < image.width; ++x)
                row[c * image.pixels() + x] = from[static_cast<int64_t>(x) * image.channels + c];
    });
}

} // namespace relprop::RELPROP_ISA
