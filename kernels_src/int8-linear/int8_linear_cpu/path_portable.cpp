// The path for every processor, compiled without extra instruction sets.
#define CPU_PATH portable
#include "common/lanes.h"
#include "problem.h"

namespace int8_linear::portable {

using namespace common::portable;

using Vector = Lanes<float, kLanes>;
constexpr int kPanels = 1;

// Sixteen sums of products of unsigned and signed 8-bit numbers.
struct Sums {
  struct Weights {
    const int8_t* p;
  };
  struct Quad {
    const uint8_t* p;
  };
  int32_t lane[kLanes];

  static ALWAYS_INLINE Weights weights(const int8_t* p) { return {p}; }
  static ALWAYS_INLINE Quad quad(const uint8_t* p) { return {p}; }
  static ALWAYS_INLINE Sums start(const int8_t* weight_sums, int32_t zero_point) {
    Sums r;
    memcpy(r.lane, weight_sums, sizeof(r.lane));
    for (int i = 0; i < kLanes; ++i) r.lane[i] *= -zero_point;
    return r;
  }
  ALWAYS_INLINE void add(Quad input, Weights w) {
    for (int i = 0; i < kLanes; ++i)
      for (int j = 0; j < kQuad; ++j) lane[i] += int32_t(input.p[j]) * w.p[i * kQuad + j];
  }
  ALWAYS_INLINE Vector numbers() const {
    return Vector::each([&](int i) { return float(lane[i]); });
  }
};

// Rounds numbers between 0 and 255 to the nearest, halves to even.
ALWAYS_INLINE void store_rounded(const Vector& v, uint8_t* p, int count) {
  for (int i = 0; i < count; ++i) p[i] = uint8_t(v.lane[i] + 0x1.8p23f - 0x1.8p23f);
}

}  // namespace int8_linear::portable

#include "multiply.h"
