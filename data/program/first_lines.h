// Long lists in one message.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace emo {

// The first `most` lines; where there are more, "and N more" behind them.
std::vector<std::string> first_lines(std::vector<std::string> lines, size_t most);

}  // namespace emo
