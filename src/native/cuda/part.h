// What every file of the CUDA part begins with. All of them become one shared object that the program carries inside
// and opens at run time (mod.rs); what Rust calls is exported, everything else is hidden.

#pragma once

#include "../guarded.h"

// extern "C", found by Part::function under its own name.
#define FLATNCE_EXPORT extern "C" __attribute__((visibility("default")))
