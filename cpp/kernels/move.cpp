// Values that only change places: slices, pads, reshapes, permutations, broadcasts (one index
// table serves them all), and the two memory orders of images.
#include "backend.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {

namespace {

// Calls body(sample, first, last) for places of a slab each.
template <class Body> void each_slab(const Gather &p, int64_t size, const Body &body) {
    const int64_t places = size / p.width, most = slab / p.width > 0 ? slab / p.width : 1;
    const int64_t parts = (places + most - 1) / most;
    parallel_for(p.n * parts, [&](int64_t task) {
        const int64_t first = task % parts * most;
        body(task / parts, first, first + most < places ? first + most : places);
    });
}

} // namespace

void gather(const Gather &p, Stream) {
    each_slab(p, p.to_size, [&](int64_t sample, int64_t first, int64_t last) {
        const float *in = p.in + sample * p.from_size;
        float *out = p.out + sample * p.to_size;
        if (p.width == 1) {
            for (int64_t i = first; i < last; ++i)
                out[i] = p.index[i] >= 0 ? in[p.index[i]] : p.value;
            return;
        }
        for (int64_t i = first; i < last; ++i) {
            float *to = out + i * p.width;
            if (p.index[i] < 0) {
                for (int k = 0; k < p.width; ++k)
                    to[k] = p.value;
                continue;
            }
            const float *from = in + static_cast<int64_t>(p.index[i]) * p.width;
            for (int k = 0; k < p.width; ++k)
                to[k] = from[k];
        }
    });
}

void gather_relevance(const Gather &p, Stream) {
    each_slab(p, p.from_size, [&](int64_t sample, int64_t first, int64_t last) {
        const float *r = p.in + sample * p.to_size;
        float *out = p.out + sample * p.from_size;
        for (int64_t i = first; i < last; ++i) {
            const int32_t begin = p.offsets[i], end = p.offsets[i + 1];
            float *to = out + i * p.width;
            if (end - begin <= 1) { // nobody reads it, or one
                const float *from =
                    begin < end ? r + static_cast<int64_t>(p.reader[begin]) * p.width : nullptr;
                if (from && p.add)
                    for (int k = 0; k < p.width; ++k)
                        to[k] += from[k];
                else if (from)
                    for (int k = 0; k < p.width; ++k)
                        to[k] = from[k];
                else if (!p.add)
                    for (int k = 0; k < p.width; ++k)
                        to[k] = 0.0f;
                continue;
            }
            for (int k = 0; k < p.width; ++k) {
                double sum = p.add ? static_cast<double>(to[k]) : 0.0; // a broadcast has many
                for (int32_t j = begin; j < end; ++j)
                    sum += static_cast<double>(r[static_cast<int64_t>(p.reader[j]) * p.width + k]);
                to[k] = static_cast<float>(sum);
            }
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
