// The path for processors that add products of 8-bit numbers (Cascade Lake and later).
#define CPU_PATH avx512_vnni
#include "vnni.h"

#include "multiply.h"
