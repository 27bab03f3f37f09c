// The path for processors that also round to bfloat16 in one instruction (Cooper Lake, Zen 4 and later).
#define CPU_PATH avx512_bf16
#include "vnni.h"

#include "multiply.h"
