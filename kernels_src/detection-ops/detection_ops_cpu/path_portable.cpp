// The path for every processor, compiled without extra instruction sets.
#define CPU_PATH portable
#include "common/lanes.h"
#include "problem.h"

namespace detection_ops::portable {

using namespace common::portable;

// the vector of a type
template <typename T>
struct Path {
  using Vector = Lanes<Compute<T>, 4>;
};
}  // namespace detection_ops::portable

#include "all_operators.h"
