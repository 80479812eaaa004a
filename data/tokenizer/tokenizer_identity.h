// Which tokenizer some token ids come from: what it does to text, whatever its file looks like.
// Programs that save a tokenizer write its file anew (other spaces, a post-processor that nothing
// uses), and it stays the same tokenizer.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace emo {

struct TokenizerIdentity {
  // "v2:" and the SHA-256 of all that decides a text's ids: vocabulary, merges, normalizer,
  // pre-tokenizer, added tokens. "" where only the bytes are known.
  std::string meaning;
  // SHA-256 of the file, all that version 0.1.0 wrote down; "" where it is not known.
  std::string bytes;
};

// Of a tokenizer.json's text; `where` names it in errors. DataLoss where it is no JSON object with
// a model, or a part that is read has another JSON type than it must.
absl::StatusOr<TokenizerIdentity> identify_tokenizer(absl::string_view tokenizer_json,
                                                     const std::string& where);

// Of a tokenizer.json. Errors as of read_file(), and as above.
absl::StatusOr<TokenizerIdentity> identify_tokenizer_file(const std::string& path);

// By their meaning; by their bytes where one of them has no meaning.
bool same_tokenizer(const TokenizerIdentity& a, const TokenizerIdentity& b);

}  // namespace emo
