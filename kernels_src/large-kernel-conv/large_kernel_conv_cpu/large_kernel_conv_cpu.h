#pragma once

#include <string>

// The compute path that runs now: amx, avx512_bf16, avx512, avx2 or portable
std::string cpu_path();
