#include "data/prepare/token_file_options.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace emo {

void add_token_file_options(OptionList* list, TokenFileOptions* options,
                            const std::string& data_help) {
  list->add("DATA", &options->data,
            absl::StrCat(data_help,
                         "a mix (a file .txt of lines 'label,path'), a token file or a pattern of "
                         "such"))
      .required();
  list->add("--root", &options->names.root, "before a mix's relative paths; else its own folder");
  list->add("--tokenizer-name", &options->names.tokenizer, "in the place of {TOKENIZER} in a mix");
  Option& vocab_size = list->add("--vocab-size", &options->vocab_size, "ids are below it");
  Option& eos_id = list->add("--eos-id", &options->eos_id, "the token that ends a document");
  vocab_size.at_least(2);
  eos_id.at_least(0);
  if (data_help.empty()) {
    vocab_size.required();
    eos_id.required();
  }
  list->add("--dtype", &options->dtype, "of ids in files without a header")
      .one_of(id_type_names())
      .show_default();
  list->add("--sequence-length", &options->sequence_length, "tokens in a row")
      .range(2, 1 << 24)
      .show_default();
}

absl::StatusOr<std::vector<MixFile>> list_token_files(const TokenFileOptions& options) {
  absl::StatusOr<std::vector<MixFile>> files = absl::EndsWith(options.data, ".txt")
                                                   ? read_mix(options.data, options.names)
                                                   : files_of_pattern(options.data);
  if (files.ok() && (options.vocab_size < 0 || options.eos_id < 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.data,
                     ": token files say neither their vocabulary nor what ends a document; give "
                     "--vocab-size and --eos-id"));
  }
  if (files.ok() && options.eos_id >= options.vocab_size) {
    return absl::InvalidArgumentError("--eos-id must be below --vocab-size");
  }
  return files;
}

absl::StatusOr<std::unique_ptr<TokenChunks>> open_token_files(const TokenFileOptions& options,
                                                              int64_t group) {
  absl::StatusOr<std::vector<MixFile>> files = list_token_files(options);
  if (!files.ok()) return files.status();
  return TokenChunks::open(*std::move(files),
                           {options.sequence_length, group, options.vocab_size, width_of(options),
                            static_cast<int32_t>(options.eos_id), open_readable});
}

int64_t width_of(const TokenFileOptions& options) {
  const std::vector<std::string>& names = id_type_names();
  const auto at = std::find(names.begin(), names.end(), options.dtype) - names.begin();
  return token_width(static_cast<IdType>(at), options.vocab_size);
}

}  // namespace emo
