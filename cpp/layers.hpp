// Geometry of the layers and the index arithmetic that both devices share.
#pragma once

#include <cstdint>

#include "host_device.hpp"

namespace relprop {

// Images are stored channels last: (n, depth, height, width, channels). What has fewer axes in
// space has a depth, or a depth and a height, of 1.
struct Image {
    int depth = 1;
    int height = 1;
    int width = 1;
    int channels = 1;
    int64_t pixels() const { return static_cast<int64_t>(depth) * height * width; }
    int64_t size() const { return pixels() * channels; }
};

// A place in an image, a step between two of them, or a size.
struct Pixel {
    int z = 0;
    int y = 0;
    int x = 0;
};

RELPROP_HD bool inside(const Image &image, const Pixel &at) {
    return at.z >= 0 && at.z < image.depth && at.y >= 0 && at.y < image.height && at.x >= 0 &&
           at.x < image.width;
}

// The pixel's number among those of a batch.
RELPROP_HD int64_t row_of(const Image &image, int64_t n, const Pixel &at) {
    return ((n * image.depth + at.z) * image.height + at.y) * image.width + at.x;
}

RELPROP_HD int ceil_div(int a, int b) { return a / b + (a % b > 0); } // a + b may overflow
RELPROP_HD int smaller(int a, int b) { return a < b ? a : b; }
RELPROP_HD int larger(int a, int b) { return a > b ? a : b; }

// One axis of a pooling layer.
struct PoolAxis {
    int size;    // of the input
    int outputs; // windows
    int kernel;  // unused where adaptive
    int stride;
    int pad_before;
    int pad_after;
    int dilation;
    bool adaptive;
};

// The real inputs of a window: begin, begin + step, ... < end; span counts padding as well.
struct Window {
    int begin;
    int end;
    int step;
    int span;
};

RELPROP_HD Window window_at(const PoolAxis &axis, int output) {
    if (axis.adaptive) {
        const int begin = static_cast<int>(static_cast<int64_t>(output) * axis.size / axis.outputs);
        const int end = static_cast<int>(
            (static_cast<int64_t>(output + 1) * axis.size + axis.outputs - 1) / axis.outputs);
        return {begin, end, 1, end - begin};
    }
    const int start = output * axis.stride - axis.pad_before;
    // Columns that ceil mode adds beyond the padding count for nothing, as in torch.
    const int stop =
        smaller(start + axis.dilation * (axis.kernel - 1) + 1, axis.size + axis.pad_after);
    int begin = start;
    if (begin < 0)
        begin += ceil_div(-begin, axis.dilation) * axis.dilation;
    return {begin, smaller(stop, axis.size), axis.dilation, stop - start};
}

// The windows that may cover an input position: first ... last, inclusive (under dilation not
// every one of them does).
struct Cover {
    int first;
    int last;
};

RELPROP_HD Cover windows_over(const PoolAxis &axis, int position) {
    if (axis.adaptive) {
        const int64_t p = position;
        return {static_cast<int>(p * axis.outputs / axis.size),
                static_cast<int>(((p + 1) * axis.outputs + axis.size - 1) / axis.size) - 1};
    }
    const int reach = position + axis.pad_before - axis.dilation * (axis.kernel - 1);
    return {reach <= 0 ? 0 : ceil_div(reach, axis.stride),
            smaller((position + axis.pad_before) / axis.stride, axis.outputs - 1)};
}

// Whether a window reads an input position.
RELPROP_HD bool reads(const Window &window, int position) {
    return position >= window.begin && position < window.end &&
           (position - window.begin) % window.step == 0;
}

// A window of local response normalisation, `before` positions before its centre and the rest
// behind.
RELPROP_HD Window window_around(int centre, int before, int size, int length) {
    const int begin = centre - before;
    return {larger(begin, 0), size < length - begin ? begin + size : length, 1, size};
}

// How many inputs a window along one axis reads.
RELPROP_HD int taps_of(const Window &w) { return (w.end - w.begin + w.step - 1) / w.step; }

// Of as many floats the sum is a float's, one after the other; those of more would drift, and are
// float64's.
constexpr int64_t most_summed_as_floats = 16;

// How many inputs a window along one axis counts in an average.
RELPROP_HD float counted(bool count_include_pad, const Window &w) {
    return static_cast<float>(count_include_pad ? w.span : w.end - w.begin);
}

// What average pooling divides the sum over a window by, which counts so many inputs.
RELPROP_HD float average_divisor(int divisor, float inputs) {
    if (divisor > 0)
        return static_cast<float>(divisor);
    return inputs > 0.0f ? inputs : 1.0f;
}

RELPROP_HD float average_divisor(int divisor, bool count_include_pad, const Window &z,
                                 const Window &y, const Window &x) {
    return average_divisor(divisor, counted(count_include_pad, z) * counted(count_include_pad, y) *
                                        counted(count_include_pad, x));
}

// One value of an image batch; place_at finds it from its index.
struct Place {
    int64_t n;
    Pixel at;
    int c;
};

RELPROP_HD Place place_at(int64_t index, const Image &image) {
    const int64_t pixel = index / image.channels, row = pixel / image.width;
    const int64_t plane = row / image.height;
    return {plane / image.depth,
            {static_cast<int>(plane % image.depth), static_cast<int>(row % image.height),
             static_cast<int>(pixel % image.width)},
            static_cast<int>(index % image.channels)};
}

// A divisor that is known before a launch: below 2^31 a multiplication and a shift take the place
// of the division, which GPUs are slow at (Granlund & Montgomery 1994).
struct Divisor {
    int64_t by;
    uint32_t factor;
    int shift;
};

RELPROP_HD Divisor divisor_of(int64_t by) {
    if (by > INT32_MAX)
        return {by, 0, 31};
    int shift = 0;
    while ((int64_t{1} << shift) < by)
        ++shift;
    const uint64_t rest = (uint64_t{1} << shift) - static_cast<uint64_t>(by);
    return {by, static_cast<uint32_t>((rest << 32) / static_cast<uint64_t>(by) + 1), shift};
}

// n / divisor for n >= 0.
RELPROP_HD int64_t divided(int64_t n, const Divisor &divisor) {
    if (n > INT32_MAX)
        return n / divisor.by;
    const uint32_t low = static_cast<uint32_t>(n);
    const uint32_t high = static_cast<uint32_t>((uint64_t{low} * divisor.factor) >> 32);
    return (high + low) >> divisor.shift;
}

// What place_by divides by in an image, to find the places that place_at does.
struct Places {
    Divisor channels, width, height, depth;
};

RELPROP_HD Places places_of(const Image &image) {
    return {divisor_of(image.channels), divisor_of(image.width), divisor_of(image.height),
            divisor_of(image.depth)};
}

RELPROP_HD Place place_by(int64_t index, const Places &of) {
    const int64_t pixel = divided(index, of.channels), row = divided(pixel, of.width);
    const int64_t plane = divided(row, of.height), n = divided(plane, of.depth);
    return {n,
            {static_cast<int>(plane - n * of.depth.by),
             static_cast<int>(row - plane * of.height.by),
             static_cast<int>(pixel - row * of.width.by)},
            static_cast<int>(index - pixel * of.channels.by)};
}

} // namespace relprop
