// A product whose two sources are exchanged where x is negative, as two products: one for each part
// of x.
#pragma once

#include "kernels.hpp"

namespace relprop {

template <class Run> static inline void run_parts(const Product &p, const Run &run) {
    if (!p.by_sign)
        return run(p);
    Product part = p;
    part.epilogue.part = Part::positive;
    part.epilogue.sends = false; // the second completes it
    run(part);
    part.source[0].data = p.source[1].data;
    part.source[1].data = p.source[0].data;
    part.epilogue.part = Part::negative;
    part.epilogue.add = true;
    part.epilogue.sends = p.epilogue.sends;
    run(part);
}

} // namespace relprop
