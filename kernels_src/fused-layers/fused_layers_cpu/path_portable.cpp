// The path for every processor, compiled without extra instruction sets.
#define CPU_PATH portable
#include "common/lanes.h"
#include "problem.h"

namespace fused_layers::portable {

using namespace common::portable;

template <typename T>
struct Path {
  using Vector = Lanes<Compute<T>, 4>;
};
}  // namespace fused_layers::portable

#include "all_types.h"
