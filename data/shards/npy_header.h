// The header of NumPy's file format (numpy/lib/format.py, versions 1 to 3), as far as it describes
// a one-dimensional array of integers.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace emo {

struct NpyHeader {
  int64_t size = 0;        // of the header: where the numbers begin
  int64_t width = 0;       // bytes of a number: 1, 2, 4 or 8, little-endian
  bool is_signed = false;  //
  int64_t count = 0;       // of numbers
};

// Whether a file begins so. Others are numbers from their first byte on, as OLMo's `.npy` files.
bool begins_as_npy(absl::string_view bytes);

// The longest header that is read.
constexpr int64_t kMostNpyHeader = 1 << 16;

// From the first bytes of a file, the whole header among them. DataLoss where it is damaged, or
// says another order of bytes, another type or another number of dimensions; `where` names the
// file.
absl::StatusOr<NpyHeader> parse_npy_header(absl::string_view bytes, const std::string& where);

}  // namespace emo
