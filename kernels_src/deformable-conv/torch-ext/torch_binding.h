#pragma once

#include "deformable_conv_cpu.h"
