// 1x1 convolutions in channels-last memory: products of rows, the pixels, with a weight (outputs, inputs), and what
// comes right before and after them.
//
// Lanes are rows of the input, and a number of the weight is broadcast to all lanes. So it is the input, the smaller of
// the two, that is brought into another order, and the weight is read as it lies. Rows that fill no vector are
// multiplied along their numbers instead.
#pragma once

#include <algorithm>

#include "common/buffer.h"
#include "common/transpose.h"
#include "gelu.h"
#include "pointwise_problem.h"

namespace fused_layers::CPU_PATH {

// What a lane holds of a row: one number, ...
template <typename T>
struct Singles {
  using V = Vector<T>;
  using Factor = Compute<T>;
  static constexpr int kNumbers = 1;
  static ALWAYS_INLINE V load(const Factor* p) { return V::load(p); }
  static ALWAYS_INLINE V weights(const T* w, int count) { return CPU_PATH::load<V>(w, count); }
  static ALWAYS_INLINE V broadcast(const T* w) { return V::splat(widen(*w)); }
  static ALWAYS_INLINE void add_product(V& total, const V& a, const V& b) { total = fma(a, b, total); }
};

// ... or two neighbours, whose products one instruction adds.
#ifdef __AVX512BF16__
struct Pairs {
  using V = Floats16;
  using Factor = uint32_t;
  static constexpr int kNumbers = 2;
  static ALWAYS_INLINE __m512i load(const Factor* p) { return _mm512_load_si512(p); }
  static ALWAYS_INLINE __m512i weights(const BFloat16* w, int count) {
    return _mm512_maskz_loadu_epi32(__mmask16(V::first(count)), w);
  }
  static ALWAYS_INLINE __m512i broadcast(const BFloat16* w) {
    int pair;
    memcpy(&pair, w, sizeof(pair));
    return _mm512_set1_epi32(pair);
  }
  static ALWAYS_INLINE void add_product(V& total, __m512i a, __m512i b) {
    total.v = _mm512_dpbf16_ps(total.v, (__m512bh)a, (__m512bh)b);
  }
};
#endif

// V::size rows of the input, one factor of each
template <class F>
struct Panel {
  static constexpr int N = F::V::size;
  const typename F::Factor* vectors;
  int64_t depth, step;  // factors in a row; numbers from one vector of rows to the next

  ALWAYS_INLINE auto load(int vector, int64_t k) const { return F::load(vectors + vector * step + k * N); }
};

// sums[t][r]: R outputs, whose weights are `inputs` numbers apart, for T vectors of rows
template <class F, int R, int T, typename W>
__attribute__((noinline)) void multiply_panels(const Panel<F>& panel, const W* weight, int64_t inputs,
                                             typename F::V::Scalar* sums) {
  using V = typename F::V;
  constexpr int N = V::size;
  V total[R][T];
  for (auto& outputs : total)
    for (V& part : outputs) part = V::splat(0);
  const auto* vectors = panel.vectors;
  const int64_t step = panel.step, depth = panel.depth;
  const W* next = weight + kOutputBlock * inputs;  // the next block's come from memory while this one is multiplied
  for (int64_t k = 0; k < depth; ++k, vectors += N, weight += F::kNumbers, next += F::kNumbers * R) {
    __builtin_prefetch(next, 0, 2);
    decltype(F::load(vectors)) rows[T];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) rows[t] = F::load(vectors + t * step);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const auto factor = F::broadcast(weight + r * inputs);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) F::add_product(total[r][t], rows[t], factor);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) total[r][t].store(sums + (t * N + r) * N);
}

template <class F, int R, int T, typename W>
ALWAYS_INLINE void multiply_vectors(int vectors, const Panel<F>& panel, const W* weight, int64_t inputs,
                                    typename F::V::Scalar* sums) {
  if constexpr (T > 1)
    if (vectors < T) return multiply_vectors<F, R, T - 1>(vectors, panel, weight, inputs, sums);
  multiply_panels<F, R, T>(panel, weight, inputs, sums);
}

// found[q][r]: V::size outputs for Q rows, of which `rows` has `depth` factors each
template <class F, int Q, typename W>
__attribute__((noinline)) void multiply_rows(const typename F::Factor* rows, int64_t step, int64_t depth,
                                             const W* weight, int64_t inputs, int outputs,
                                             typename F::V::Scalar* found) {
  using V = typename F::V;
  constexpr int N = V::size, R = N / Q;
  for (int first = 0; first < outputs; first += R) {
    V total[N];
    for (V& part : total) part = V::splat(0);
    for (int64_t k = 0; k < depth; k += N) {
      const int count = int(std::min<int64_t>(N, depth - k));
      decltype(F::load(rows)) row[Q];
#pragma GCC unroll 4
      for (int q = 0; q < Q; ++q) row[q] = F::load(rows + q * step + k);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const auto* w = weight + std::min(first + r, outputs - 1) * inputs + k * F::kNumbers;
        const auto factors = F::weights(w, count);
#pragma GCC unroll 4
        for (int q = 0; q < Q; ++q) F::add_product(total[q * R + r], row[q], factors);
      }
    }
    alignas(64) typename V::Scalar sums[N];
    V::sums(total).store(sums);
    for (int q = 0; q < Q; ++q)
      for (int r = 0; r < R; ++r) found[q * N + first + r] = sums[q * R + r];
  }
}

// What a product does with its input first, and with its sums last.
template <typename T>
struct Around {
  using V = Vector<T>;
  const Pointwise<T>& p;
  const Gelu<T> gelu_of{};

  ALWAYS_INLINE V before(V x, int64_t k, int count) const {
    if (p.input_scale) x = fma(x, load<V>(p.input_scale + k, count), load<V>(p.input_shift + k, count));
    return p.input_relu ? max(V::splat(0), x) : x;  // in this order NaN stays
  }

  // V::size rows, their numbers from k on
  template <class F>
  ALWAYS_INLINE void pack(const T* row, int64_t k, typename F::Factor* out) const {
    constexpr int N = V::size;
    if constexpr (sizeof(typename F::Factor) == F::kNumbers * sizeof(T))
      if (!p.input_scale && !p.input_relu && k + N * F::kNumbers <= p.inputs)  // as they lie
        return transpose<N>(reinterpret_cast<const typename F::Factor*>(row + k), p.inputs / F::kNumbers, out);
    alignas(64) typename F::Factor rows[N][N];
    for (int i = 0; i < N; ++i) load_factors<F>(row + i * p.inputs, k, rows[i]);
    transpose<N>(rows[0], N, out);
  }

  // N * F::kNumbers numbers of a row from k on, zeros beyond its end
  template <class F>
  ALWAYS_INLINE void load_factors(const T* row, int64_t k, typename F::Factor* out) const {
    constexpr int N = V::size;
    for (int part = 0; part < F::kNumbers; ++part, k += N) {
      const int count = int(std::clamp<int64_t>(p.inputs - k, 0, N));
      const V x = count ? before(load<V>(row + k, count), k, count) : V::splat(0);
      if constexpr (F::kNumbers == 1)
        store(count < N ? kept(x, count) : x, out, N);
      else
        store(count < N ? kept(x, count) : x, reinterpret_cast<T*>(out) + part * N, N);
    }
  }

  // The sums of some rows, for the outputs from n on
  ALWAYS_INLINE void after(const typename V::Scalar* sums, int rows, int64_t row, int64_t n, int count) const {
    const V scale = p.scale ? load<V>(p.scale + n, count) : V::splat(1);
    const V bias = p.bias ? load<V>(p.bias + n, count) : V::splat(0);
    const int64_t first = row * p.outputs + n;
    const T* const residual = p.residual ? p.residual + first : nullptr;
    if (count == V::size)
      finish(sums, rows, scale, bias, residual, p.output + first, V::size);
    else
      finish(sums, rows, scale, bias, residual, p.output + first, count);
  }

 private:
  ALWAYS_INLINE void finish(const typename V::Scalar* sums, int rows, const V& scale, const V& bias, const T* residual,
                            T* out, int count) const {
    const Gelu<T> gelu = gelu_of;  // in registers
    for (int i = 0; i < rows; ++i, out += p.outputs) {
      V x = fma(V::load(sums + i * V::size), scale, bias);
      if (p.activation == Activation::gelu) x = gelu(x);
      if (p.activation == Activation::relu) x = max(V::splat(0), x);
      if (residual) x = x + load<V>(residual + i * p.outputs, count);
      store(x, out, count);
    }
  }

  static V kept(const V& x, int count) {  // the rest becomes zero
    alignas(64) typename V::Scalar numbers[V::size];
    x.store(numbers);
    return V::load_first(numbers, count, 0);
  }
};

template <class F, typename T>
void convolve(const Pointwise<T>& p, int64_t begin, int64_t end) {
  using V = Vector<T>;
  using A = Compute<T>;
  using Factor = typename F::Factor;
  constexpr int N = V::size, kOutputs = N / 2, kVectors = 3;
  const Around<T> around{p};
  const int64_t depth = (p.inputs + F::kNumbers - 1) / F::kNumbers, padded = (depth + N - 1) / N * N;
  const int64_t step = (padded + 1) * N;  // odd, which spreads vectors over the cache
  Buffer<Factor> panel_buffer, rest_buffer;
  alignas(64) A sums[kVectors][N][N], found[N * N];
  int64_t packed = -1;  // the chunk whose panel is there
  for (int64_t task = begin; task < end; ++task) {
    const int64_t chunk = task / p.blocks, first = chunk * p.chunk, last = std::min(first + p.chunk, p.rows);
    const int64_t vectors = (last - first) / N, rest = last - first - vectors * N;
    Factor* const panel = panel_buffer.at_least(vectors * step);
    Factor* const rest_rows = rest_buffer.at_least(rest * padded);
    if (chunk != packed) {
      for (int64_t v = 0; v < vectors; ++v)
        for (int64_t k = 0; k < depth; k += N)
          around.template pack<F>(p.input + (first + v * N) * p.inputs, k * F::kNumbers, panel + v * step + k * N);
      for (int64_t i = 0; i < rest; ++i)
        for (int64_t k = 0; k < depth; k += N)
          around.template load_factors<F>(p.input + (last - rest + i) * p.inputs, k * F::kNumbers,
                                          rest_rows + i * padded + k);
    }
    packed = chunk;
    const int64_t block_end = std::min((task % p.blocks + 1) * kOutputBlock, p.outputs);
    for (int64_t n = task % p.blocks * kOutputBlock; n < block_end; n += N) {
      const int count = int(std::min<int64_t>(N, block_end - n));
      const T* const weight = p.weight + n * p.inputs;
      for (int64_t v = 0; v < vectors;) {
        const int64_t tiles = (vectors - v + kVectors - 1) / kVectors;
        const int now = int((vectors - v + tiles - 1) / tiles);
        const Panel<F> part{panel + v * step, depth, step};
        int r = 0;
        for (; r + kOutputs <= count; r += kOutputs)
          multiply_vectors<F, kOutputs, kVectors>(now, part, weight + r * p.inputs, p.inputs, sums[0][r]);
        for (; r < count; ++r)
          multiply_vectors<F, 1, kVectors>(now, part, weight + r * p.inputs, p.inputs, sums[0][r]);
        for (int t = 0; t < now; ++t, ++v) {
          transpose<N>(sums[t][0], N, found);
          around.after(found, N, first + v * N, n, count);
        }
      }
      for (int64_t i = 0; i < rest;) {
        const auto multiply_next = [&](auto number) {
          constexpr int Q = decltype(number)::value;
          multiply_rows<F, Q>(rest_rows + i * padded, padded, depth, weight, p.inputs, count, found);
          around.after(found, Q, last - rest + i, n, count);
          i += Q;
        };
        if (rest - i >= 4)
          multiply_next(std::integral_constant<int, 4>());
        else if (rest - i >= 2)
          multiply_next(std::integral_constant<int, 2>());
        else
          multiply_next(std::integral_constant<int, 1>());
      }
    }
  }
}

template <typename T>
void pointwise_conv(const Pointwise<T>& p, int64_t begin, int64_t end) {
#ifdef __AVX512BF16__
  if constexpr (std::is_same_v<T, BFloat16>)
    if (p.inputs % 2 == 0) return convolve<Pairs>(p, begin, end);
#endif
  convolve<Singles<T>>(p, begin, end);
}

#define INSTANTIATE(T) template void pointwise_conv<T>(const Pointwise<T>&, int64_t, int64_t);
FOR_EACH_TYPE(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fused_layers::CPU_PATH
