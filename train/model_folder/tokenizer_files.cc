#include "train/model_folder/tokenizer_files.h"

#include "data/files/json.h"

namespace emo {

SpecialTokens special_tokens(const std::string& tokenizer_json, const ModelDescription& d) {
  SpecialTokens special;
  absl::StatusOr<Json> json = parse_json(tokenizer_json, "tokenizer.json");
  if (!json.ok() || !json->is_object())
    return special;  // data/tokenizer/tokenizer.h reports what is wrong
  const auto see = [&](const std::string& text, const Json& id) {
    if (!id.is_number_integer()) return;
    if (id == d.eos_id && special.eos.empty()) special.eos = text;
    const bool pads = d.pad_id ? id == *d.pad_id
                               : text == "<|pad|>" || (text == "<|padding|>" && special.pad_id < 0);
    if (pads) {
      special.pad_id = id.get<int64_t>();
      special.pad = text;
    }
    if (text == "<|im_end|>") special.turn_end_id = id.get<int64_t>();
  };
  if (json->contains("added_tokens")) {
    for (const Json& token : (*json)["added_tokens"]) {
      if (token.is_object() && token.contains("id") && token.contains("content") &&
          token["content"].is_string()) {
        see(token["content"].get<std::string>(), token["id"]);
      }
    }
  }
  const Json::json_pointer vocabulary("/model/vocab");
  if (special.eos.empty() && json->contains(vocabulary)) {
    for (const auto& [text, id] : json->at(vocabulary).items()) {
      if (id == d.eos_id) special.eos = text;
    }
  }
  return special;
}

std::vector<std::string> tokenizer_file_names() {
  return {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
          "merges.txt",     "chat_template.jinja"};
}

std::vector<std::pair<std::string, std::string>> tokenizer_files(const std::string& tokenizer_json,
                                                                 const ModelDescription& d) {
  const SpecialTokens special = special_tokens(tokenizer_json, d);
  OrderedJson map = OrderedJson::object();
  if (!special.eos.empty()) map["eos_token"] = special.eos;
  const std::string& pad = special.pad.empty() ? special.eos : special.pad;
  if (!pad.empty()) map["pad_token"] = pad;
  OrderedJson config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                        {"model_max_length", d.max_positions},
                        {"model_input_names", {"input_ids", "attention_mask"}},
                        {"add_bos_token", false},
                        {"add_eos_token", false},
                        {"clean_up_tokenization_spaces", false}};
  config.update(map);
  return {{"tokenizer.json", tokenizer_json},
          {"tokenizer_config.json", to_text(config)},
          {"special_tokens_map.json", to_text(map)}};
}

}  // namespace emo
