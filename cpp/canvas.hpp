// A map laid over a canvas of another size: each pixel's relevance goes to the cells that it
// overlaps, in proportion to the area. On the host, where the maps of a dataset are added up.
#pragma once

#include <cstdint>

namespace relprop {

void lay_on_canvas(const float *map, // [height, width]
                   int64_t height, int64_t width,
                   double *canvas, // [rows, columns]  out
                   int64_t rows, int64_t columns);

} // namespace relprop
