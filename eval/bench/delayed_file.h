// Files that answer late, as those behind a network do.
#pragma once

#include <chrono>

#include "data/files/readable_file.h"

namespace emo {

// Opens files of which every read takes `delay` longer.
OpenReadable opens_delayed(std::chrono::microseconds delay);

}  // namespace emo
