// Rows as polynomials modulo x^2M + 1, whose products are M products of complex numbers after a fast transform.
//
// As x^M takes the place of i, a row of 2M real coefficients is one of M complex ones, row[n] + i row[n + M], modulo
// x^M - i. A stage of the transform parts remainders modulo x^n - z into those modulo x^(n / R) - z', for each of the
// R roots z' of z; the last have one coefficient, the value of the polynomial at a root of x^M - i. In which order they
// come does not matter to products.
#pragma once

#include <cmath>

#include "channel_lanes.h"

namespace large_kernel_conv::CPU_PATH {

// Complex numbers, one for each channel of a block; correlate() takes them as pixels, and conjugates the kernel.
template <class V>
struct Complex {
  static constexpr int size = 2 * V::size, kRows = 1, kColumns = V::kColumns, kTaps = 1;
  using Scalar = typename V::Scalar;
  using Element = Scalar;
  using Factor = Complex;
  typename V::Vector re, im;

  static ALWAYS_INLINE Complex zero() { return {V::zero().v, V::zero().v}; }
  static ALWAYS_INLINE Complex load(const Scalar* p, int64_t to_im = V::size) {
    return {V::load(p).v, V::load(p + to_im).v};
  }
  ALWAYS_INLINE void store(Scalar* p, int64_t to_im = V::size) const { V{re}.store(p), V{im}.store(p + to_im); }
  ALWAYS_INLINE void add(Complex a) { *this = *this + a; }
  ALWAYS_INLINE void add_product(Complex a, Complex kernel) {
    re += a.re * kernel.re, im += a.im * kernel.re;
    re += a.im * kernel.im, im -= a.re * kernel.im;
  }
  ALWAYS_INLINE Complex plus_i(Scalar s, Complex a) const { return {re - a.im * s, im + a.re * s}; }
  ALWAYS_INLINE Complex times(Scalar c, Scalar s) const { return {re * c - im * s, im * c + re * s}; }
  ALWAYS_INLINE Complex operator+(Complex a) const { return {re + a.re, im + a.im}; }
  ALWAYS_INLINE Complex operator-(Complex a) const { return {re - a.re, im - a.im}; }
};

// a[q] becomes the sum over p of a[p] exp(kSign 2 pi i p q / R).
template <int kSign, class C>
ALWAYS_INLINE void transform(C (&a)[2]) {
  const C first = a[0];
  a[0] = first + a[1];
  a[1] = first - a[1];
}
template <int kSign, class C>
ALWAYS_INLINE void transform(C (&a)[3]) {
  constexpr typename C::Scalar kHalf = 0.5, kSine = kSign * 0.86602540378443864676;
  const C sum = a[1] + a[2], difference = a[1] - a[2];
  const C middle = {a[0].re - kHalf * sum.re, a[0].im - kHalf * sum.im};
  a[0] = a[0] + sum;
  a[1] = middle.plus_i(kSine, difference);
  a[2] = middle.plus_i(-kSine, difference);
}
template <int kSign, class C>
ALWAYS_INLINE void transform(C (&a)[4]) {
  const C even[2] = {a[0] + a[2], a[0] - a[2]}, odd[2] = {a[1] + a[3], a[1] - a[3]};
  a[0] = even[0] + odd[0];
  a[1] = even[1].plus_i(kSign, odd[1]);
  a[2] = even[0] - odd[0];
  a[3] = even[1].plus_i(-kSign, odd[1]);
}

// Where M of them lie, in steps of `step`
template <typename A>
struct Place {
  A* data;
  int64_t step, to_im;
};

template <class V>
class Transform {
  using A = typename V::Scalar;

 public:
  const int64_t length;  // M = 2^a 3^b > 1

  explicit Transform(int64_t length) : length(length) {
    A* factor = factor_buffer_.at_least(4 * length);
    Buffer<double> angle_buffer;
    double* angles = angle_buffer.at_least(length);  // of the z
    angles[0] = M_PI / 2;
    int64_t remainders = 1;
    for (int64_t size = length; size > 1; remainders *= stages_[count_++].radix, size = length / remainders) {
      const int radix = size % 4 == 0 ? 4 : size % 3 == 0 ? 3 : 2;
      stages_[count_] = {radix, size, factor};
      for (int64_t r = 0; r < remainders; ++r)
        for (int i = 1; i < radix; ++i) {
          *factor++ = A(std::cos(angles[r] * i / radix));
          *factor++ = A(std::sin(angles[r] * i / radix));
        }
      for (int64_t r = remainders; r-- > 0;)  // in place, so from the last on
        for (int i = radix; i-- > 0;) angles[r * radix + i] = (angles[r] + 2 * M_PI * i) / radix;
    }
  }

  // Leaves the row as it is.
  void forward(Place<const A> row, Place<A> work, Place<A> out) const {
    for (int i = 0; i < count_; ++i) run<1>(stages_[i], i ? constant(work) : row, i + 1 < count_ ? work : out);
  }
  // M times the row
  void inverse(Place<const A> in, Place<A> row) const {
    for (int i = count_; i-- > 0;) run<-1>(stages_[i], i + 1 < count_ ? constant(row) : in, row);
  }

 private:
  struct Stage {
    int radix;
    int64_t size;      // n
    const A* factors;  // z^(i / R), i from 1 to R - 1, for each remainder
  };
  Stage stages_[64];
  int count_ = 0;
  Buffer<A> factor_buffer_;

  static Place<const A> constant(Place<A> place) { return {place.data, place.step, place.to_im}; }

  template <int kSign>
  void run(const Stage& stage, Place<const A> in, Place<A> out) const {
    if (stage.radix == 4) return run<kSign, 4>(stage, in, out);
    if (stage.radix == 3) return run<kSign, 3>(stage, in, out);
    return run<kSign, 2>(stage, in, out);
  }

  template <int kSign, int R>
  void run(const Stage& stage, Place<const A> in, Place<A> out) const {
    const int64_t part = stage.size / R;
    const A* factors = stage.factors;
    for (int64_t begin = 0; begin < length; begin += stage.size, factors += 2 * (R - 1)) {
      for (int64_t n = begin; n < begin + part; ++n) {
        Complex<V> a[R];
#pragma GCC unroll 4
        for (int i = 0; i < R; ++i) {
          a[i] = Complex<V>::load(in.data + (n + i * part) * in.step, in.to_im);
          if (kSign > 0 && i > 0) a[i] = a[i].times(factors[2 * i - 2], factors[2 * i - 1]);
        }
        transform<kSign>(a);
#pragma GCC unroll 4
        for (int i = 0; i < R; ++i) {
          if (kSign < 0 && i > 0) a[i] = a[i].times(factors[2 * i - 2], -factors[2 * i - 1]);
          a[i].store(out.data + (n + i * part) * out.step, out.to_im);
        }
      }
    }
  }
};

}  // namespace large_kernel_conv::CPU_PATH
