// Whether the way over Fourier transforms is the faster one for a convolution.
#pragma once

#include <algorithm>

#include "problem.h"

namespace large_kernel_conv::CPU_PATH {

// The part of a kernel that meets the image reaches so far on each side.
struct Reach {
  int64_t height, width;
  explicit Reach(const Geometry& g)
      : height(std::min(g.kernel_height / 2, g.height - 1)), width(std::min(g.kernel_width / 2, g.width - 1)) {}
};

// Half the coefficients that a row needs so that products do not wrap around into it, made up to 2^a 3^b > 1
inline int64_t transform_length(const Geometry& g) {
  for (int64_t length = std::max<int64_t>(2, (g.width + Reach(g).width + 1) / 2);; ++length) {
    int64_t rest = length;
    while (rest % 2 == 0) rest /= 2;
    while (rest % 3 == 0) rest /= 3;
    if (rest == 1) return length;
  }
}

// Costs are in multiply-additions of vectors. The constants were fitted to times on a Zen 4 processor; neither the
// batch nor the number of threads takes part, as no output may depend on them.
inline bool fourier_is_faster(const Geometry& g, int taps_at_once) {
  constexpr double kDirect = 1.25, kTransform = 35, kMostBytes = 64 << 20;
  const Reach reach(g);
  const auto pairs = [](int64_t size, int64_t reach) { return double(size * (2 * reach + 1) - reach * (reach + 1)); };
  const double row_pairs = pairs(g.height, reach.height), length = double(transform_length(g));
  const double direct = kDirect / taps_at_once * row_pairs * pairs(g.width, reach.width);
  const double fourier = length * (4 * row_pairs + kTransform * (2 * g.height + 2 * reach.height + 1));
  return fourier < direct && length * g.height * 128 < kMostBytes;
}

}  // namespace large_kernel_conv::CPU_PATH
