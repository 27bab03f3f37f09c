// The last line of every path: its code for each type.
namespace deformable_conv::DEFORMABLE_CONV_PATH {

#define DEFORMABLE_CONV_INSTANTIATE(T)                               \
  template void forward<T>(const Problem<T>&, T*, int64_t, int64_t); \
  template void backward<T>(const Problem<T>&, const Gradients<T>&, int64_t, int64_t);
DEFORMABLE_CONV_INSTANTIATE(float)
DEFORMABLE_CONV_INSTANTIATE(double)
DEFORMABLE_CONV_INSTANTIATE(BFloat16)
DEFORMABLE_CONV_INSTANTIATE(Half)

}  // namespace deformable_conv::DEFORMABLE_CONV_PATH
