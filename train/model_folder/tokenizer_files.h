// The files by which transformers' AutoTokenizer and generate() know a model's tokens.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "train/model_folder/model_description.h"

namespace emo {

// Special tokens as tokenizer.json names them; -1 where it has none. The padding token is the one
// that the description states, else <|pad|> or <|padding|>.
struct SpecialTokens {
  std::string eos;  // the text of the model's end-of-document token, "" where it has none
  int64_t pad_id = -1;
  std::string pad;
  int64_t turn_end_id = -1;  // <|im_end|>
};
// Of a text that is no tokenizer.json: none; who reads it as a tokenizer says what is wrong.
SpecialTokens special_tokens(const std::string& tokenizer_json,
                             const ModelDescription& description);

// What a tokenizer's files may be called; tokenizer.json first.
std::vector<std::string> tokenizer_file_names();

// (name, text) of tokenizer.json itself, tokenizer_config.json and special_tokens_map.json.
std::vector<std::pair<std::string, std::string>> tokenizer_files(
    const std::string& tokenizer_json, const ModelDescription& description);

}  // namespace emo
