// See canvas.hpp.
#include "canvas.hpp"

#include <algorithm>
#include <vector>

namespace relprop {
namespace {

// Adds to each of `cells` what it overlaps of `size` pixels in a row; both fill the same length,
// which has size * cells units: a pixel has `cells` of them, a cell `size`.
template <typename Add> void share_out(int64_t size, int64_t cells, Add add) {
    for (int64_t cell = 0; cell < cells; ++cell) {
        const int64_t from = cell * size, to = from + size;
        for (int64_t pixel = from / cells; pixel * cells < to; ++pixel) {
            const int64_t overlap =
                std::min(to, (pixel + 1) * cells) - std::max(from, pixel * cells);
            add(cell, pixel, static_cast<double>(overlap) / static_cast<double>(cells));
        }
    }
}

} // namespace

void lay_on_canvas(const float *map, int64_t height, int64_t width, double *canvas, int64_t rows,
                   int64_t columns) {
    std::vector<double> stretched(static_cast<size_t>(rows * width)); // [rows, width]
    share_out(height, rows, [&](int64_t row, int64_t y, double share) {
        double *to = stretched.data() + row * width;
        const float *from = map + y * width;
        for (int64_t x = 0; x < width; ++x)
            to[x] += share * static_cast<double>(from[x]);
    });
    std::fill(canvas, canvas + rows * columns, 0.0);
    for (int64_t row = 0; row < rows; ++row)
        share_out(width, columns, [&](int64_t column, int64_t x, double share) {
            canvas[row * columns + column] +=
                share * stretched[static_cast<size_t>(row * width + x)];
        });
}

} // namespace relprop
