// The path for bfloat16 on processors with AMX (Sapphire Rapids and later); it is compiled for AVX-512 too.
#define CPU_PATH amx
#include "amx_convolve.h"
