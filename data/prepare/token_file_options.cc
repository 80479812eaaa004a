#include "data/prepare/token_file_options.h"

#include "absl/strings/match.h"

namespace emo {

void add_token_file_options(OptionList* list, TokenFileOptions* options) {
  list->add("DATA", &options->data,
            "a mix (a file .txt of lines 'label,path'), a token file or a pattern of such")
      .required();
  list->add("--root", &options->names.root, "before a mix's relative paths; else its own folder");
  list->add("--tokenizer-name", &options->names.tokenizer, "in the place of {TOKENIZER} in a mix");
  list->add("--vocab-size", &options->vocab_size, "ids are below it").at_least(2).required();
  list->add("--eos-id", &options->eos_id, "the token that ends a document").at_least(0).required();
  list->add("--dtype", &options->dtype, "of ids in files without a header")
      .one_of({"by_vocabulary", "uint8", "uint16", "uint32", "uint64"})
      .show_default();
  list->add("--sequence-length", &options->sequence_length, "tokens in a row")
      .range(2, 1 << 24)
      .show_default();
}

absl::StatusOr<std::vector<MixFile>> list_token_files(const TokenFileOptions& options) {
  return absl::EndsWith(options.data, ".txt") ? read_mix(options.data, options.names)
                                              : files_of_pattern(options.data);
}

int64_t width_of(const TokenFileOptions& options) {
  if (options.dtype == "uint8") return 1;
  if (options.dtype == "uint16") return 2;
  if (options.dtype == "uint32") return 4;
  return options.dtype == "uint64" ? 8 : token_width(options.vocab_size);
}

}  // namespace emo
