// Non-maximum suppression: who would suppress whom, for all pairs at once; then one block goes from the best box to the
// worst.
#pragma once

#include "problem.cuh"

namespace detection_ops {

// A word for each box and 64 others: a bit for each of these that is worse, of its group, and overlaps it too much.
__global__ void __launch_bounds__(kThreads) overlap_kernel(SuppressProblem p, uint64_t* hits) {
  const int64_t number = thread_number(), i = number / p.words, first = number % p.words * 64;
  if (i >= p.count) return;
  const auto area = [](const float* box) { return (box[2] - box[0]) * (box[3] - box[1]); };
  const float* const box = p.boxes + 4 * i;
  uint64_t word = 0;
  for (int64_t j = first > i ? first : i + 1; j < first + 64 && j < p.count; ++j) {
    const float* const other = p.boxes + 4 * j;
    const float width = fmax(fmin(box[2], other[2]) - fmax(box[0], other[0]), 0.0f);
    const float height = fmax(fmin(box[3], other[3]) - fmax(box[1], other[1]), 0.0f);
    const float intersection = width * height;
    // a comparison with what is not a number fails
    const bool hit = intersection / (area(box) + area(other) - intersection) > p.iou_threshold;
    word |= uint64_t(hit && p.groups[i] == p.groups[j]) << (j - first);
  }
  hits[number] = word;
}

__global__ void __launch_bounds__(kThreads) sweep_kernel(SuppressProblem p, const uint64_t* hits, bool* stays) {
  uint64_t* const suppressed = reinterpret_cast<uint64_t*>(shared_memory());
  for (int64_t word = threadIdx.x; word < p.words; word += kThreads) suppressed[word] = 0;
  for (int64_t i = 0; i < p.count; ++i) {
    __syncthreads();
    const bool stay = !(suppressed[i / 64] >> i % 64 & 1);  // a bit that no thread changes any more
    if (threadIdx.x == 0) stays[i] = stay;
    if (!stay) continue;
    for (int64_t word = i / 64 + threadIdx.x; word < p.words; word += kThreads)
      suppressed[word] |= hits[i * p.words + word];
  }
}

}  // namespace detection_ops
