// A Hugging Face tokenizer.json of the byte-level BPE kind (GPT-2, cl100k, dolma2, Llama 3): the
// same ids as the `tokenizers` package gives with add_special_tokens=False, for any valid UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/pre_tokenizer.h"

namespace emo {

class Tokenizer {
 public:
  // DataLoss naming the part that is missing, contradicts another or is of a kind that is not
  // supported.
  static absl::StatusOr<Tokenizer> from_file(const std::string& path);
  static absl::StatusOr<Tokenizer> from_json(const Json& json, const std::string& where);

  // Words seen before, to their tokens. One per thread; it may be kept over many calls.
  using Cache = absl::flat_hash_map<std::string, std::vector<int32_t>>;

  // Appends the tokens of `text`, which must be valid UTF-8 (DataLoss names the first bad byte).
  // Added tokens that stand in the text become their ids, as in `tokenizers`.
  absl::Status encode(absl::string_view text, std::vector<int32_t>* tokens, Cache* cache) const;

  // The text of tokens; bytes that are not valid UTF-8 stay as they are. InvalidArgument for an id
  // that is not in the vocabulary.
  absl::StatusOr<std::string> decode(const std::vector<int32_t>& tokens) const;

  int64_t vocab_size() const { return static_cast<int64_t>(bytes_of_.size()); }  // largest id + 1

  // The id of an added or ordinary token, given as it is written in the file; -1 where none.
  int32_t id_of(const std::string& token) const;

  // The document end: `name`, or where that is "" the first of the usual names that exists.
  absl::StatusOr<int32_t> eos_id(const std::string& name) const;

 private:
  struct Added {
    std::string content;
    int32_t id;
  };
  Tokenizer() : bpe_({}) {}
  static absl::StatusOr<Tokenizer> parse(const Json& json, const std::string& where);
  absl::Status read_model(const Json& model, const std::string& where);
  absl::Status read_added_tokens(const Json& json, const std::string& where);
  absl::Status encode_plain(absl::string_view text, std::vector<int32_t>* tokens,
                            Cache* cache) const;

  PreTokenizer pre_tokenizer_;
  Bpe bpe_;
  bool ignore_merges_ = false;  // a word that is a token is that token, whatever the merges give
  absl::flat_hash_map<std::string, int32_t> id_of_;        // as written in the file
  absl::flat_hash_map<std::string, int32_t> id_of_bytes_;  // by what the token stands for
  std::vector<std::string> bytes_of_;                      // by id
  std::vector<bool> known_;                                // by id: ids may have gaps
  std::vector<Added> added_;                               // longest first
};

}  // namespace emo
