// The path for every processor, compiled without extra instruction sets.
#define CPU_PATH portable
#include "common/lanes.h"
#include "problem.h"

namespace deformable_conv::portable {

using namespace common::portable;

// the vector of a type, and whether 3x3 kernels with 16, 32 and 64 channels are compiled apart
template <typename T>
struct Path {
  using Vector = Lanes<Compute<T>, 4>;
  static constexpr bool kSpecialised = false;
};
}  // namespace deformable_conv::portable

#include "backward.h"
