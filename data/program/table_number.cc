#include "data/program/table_number.h"

#include <cmath>

#include "absl/strings/str_format.h"

namespace emo {

std::string table_number(double value, int width, int digits, Sign sign) {
  if (std::isnan(value)) return absl::StrFormat("%*s", width, "-");
  if (sign == Sign::kAlways) return absl::StrFormat("%+*.*f", width, digits, value);
  return absl::StrFormat("%*.*f", width, digits, value);
}

}  // namespace emo
