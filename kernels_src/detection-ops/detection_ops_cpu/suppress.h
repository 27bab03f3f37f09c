// Non-maximum suppression: each box of a group is compared with those that were left before it. Loops over plain
// arrays, which the compiler turns into vectors.
#pragma once

#include "common/buffer.h"
#include "problem.h"

namespace detection_ops::CPU_PATH {

using namespace common::CPU_PATH;

// The boxes of a group that are left so far
class Survivors {
  Buffer<float> memory_;
  float *left_, *top_, *right_, *bottom_, *area_;
  int64_t count_ = 0;

  static float smaller(float a, float b) { return b < a ? b : a; }
  static float larger(float a, float b) { return a < b ? b : a; }

 public:
  explicit Survivors(int64_t most)
      : left_(memory_.at_least(5 * most)),
        top_(left_ + most),
        right_(top_ + most),
        bottom_(right_ + most),
        area_(bottom_ + most) {}

  void clear() { count_ = 0; }

  // Adds the box unless it overlaps one of them by more than the threshold. Comparisons with an overlap that is not a
  // number, as that of two boxes without area, fail.
  bool add(const float* box, float threshold) {
    constexpr int64_t kTogether = 256;  // boxes between two looks at whether one was hit
    const float left = box[0], top = box[1], right = box[2], bottom = box[3], area = (right - left) * (bottom - top);
    for (int64_t first = 0; first < count_; first += kTogether) {
      const int64_t end = first + kTogether < count_ ? first + kTogether : count_;
      int32_t hits = 0;
      for (int64_t i = first; i < end; ++i) {
        const float width = larger(smaller(right, right_[i]) - larger(left, left_[i]), 0);
        const float height = larger(smaller(bottom, bottom_[i]) - larger(top, top_[i]), 0);
        const float intersection = width * height;
        hits += intersection / (area_[i] + area - intersection) > threshold;
      }
      if (hits) return false;
    }
    left_[count_] = left, top_[count_] = top, right_[count_] = right, bottom_[count_] = bottom, area_[count_] = area;
    ++count_;
    return true;
  }
};

void suppress(const SuppressProblem& p, int64_t begin, int64_t end) {
  int64_t most = 0;
  for (int64_t group = begin; group < end; ++group) {
    const int64_t size = p.first[group + 1] - p.first[group];
    most = size > most ? size : most;
  }
  Survivors survivors(most);
  for (int64_t group = begin; group < end; ++group, survivors.clear())
    for (int64_t i = p.first[group]; i < p.first[group + 1]; ++i)
      p.stays[p.members[i]] = survivors.add(p.boxes + 4 * p.members[i], p.iou_threshold);
}

}  // namespace detection_ops::CPU_PATH
