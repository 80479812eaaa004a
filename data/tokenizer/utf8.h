// UTF-8, as far as the data path needs it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace emo {

// Offset of the first byte that is not part of valid UTF-8 (RFC 3629: no surrogates, nothing
// overlong, nothing above U+10FFFF), or npos where all is valid.
size_t first_invalid_utf8(absl::string_view text);

// The code point that starts at text[*at]; moves *at behind it.
// REQUIRES: `text` is valid UTF-8, *at is the beginning of a character.
uint32_t next_code_point(absl::string_view text, size_t* at);

// REQUIRES: a code point that UTF-8 has: at most U+10FFFF, no surrogate.
void append_code_point(uint32_t code_point, std::string* text);

}  // namespace emo
