// The path for bfloat16 on processors with AMX (Sapphire Rapids and later); it is compiled for AVX-512 too.
#define LARGE_KERNEL_CONV_PATH amx
#include "amx_convolve.h"
