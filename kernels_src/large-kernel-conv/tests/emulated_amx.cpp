// The code of the AMX path with its tile registers in plain C++, as a function for ctypes.
#define LARGE_KERNEL_CONV_EMULATE_AMX
#include "path_amx.cpp"

namespace large_kernel_conv {

// Images, weight and output are contiguous in (N, C, H, W) layout, or in (N, H, W, C) layout with channels_last.
extern "C" void convolve(const BFloat16* input, const BFloat16* weight, const BFloat16* bias, BFloat16* output,
                         const int64_t* sizes, int64_t channels_last, int64_t chunks) {
  const Geometry g{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]};
  const int64_t pixels = g.height * g.width, taps = g.kernel_height * g.kernel_width;
  const auto view = [&](auto* data) {
    return channels_last ? View<std::remove_pointer_t<decltype(data)>>{data, pixels * g.channels, 1,
                                                                       g.width * g.channels, g.channels}
                         : View<std::remove_pointer_t<decltype(data)>>{data, pixels * g.channels, pixels, g.width, 1};
  };
  const Convolution<BFloat16> problem{g, view(input), {weight, 0, taps, g.kernel_width, 1}, bias, view(output), chunks};
  const int64_t blocks = (g.channels + amx::kChannelBlock - 1) / amx::kChannelBlock;
  amx::convolve(problem, 0, blocks * chunks, portable::convolve<BFloat16>);
}

}  // namespace large_kernel_conv
