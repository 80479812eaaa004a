// Numbers in tables for people.
#pragma once

#include <string>

namespace emo {

enum class Sign { kOfNegative, kAlways };

// `value` with `digits` behind the point, in `width` columns; "-" where it is NaN, as a mean over
// nothing is. (JSON holds null there.)
std::string table_number(double value, int width, int digits, Sign sign = Sign::kOfNegative);

}  // namespace emo
