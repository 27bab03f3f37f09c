// The path for every processor, compiled without extra instruction sets.
#define CPU_PATH portable
#include "common/lanes.h"
#include "problem.h"

namespace winograd_conv::portable {

using namespace common::portable;

struct Path {
  using Vector = Lanes<float, 4>;
  static constexpr int kRows = 4;  // whose sums, with what they are made of, fill the registers
};
}  // namespace winograd_conv::portable

#include "tasks.h"
