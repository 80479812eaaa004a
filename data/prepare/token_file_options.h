// Token files as options of a command say them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/mix/mix.h"
#include "data/program/options.h"
#include "data/rows/token_chunks.h"

namespace emo {

struct TokenFileOptions {
  std::string data;  // a mix (.txt), a token file or a pattern
  MixNames names;
  int64_t vocab_size = -1;
  int64_t eos_id = -1;
  std::string dtype = "by_vocabulary";
  int64_t sequence_length = 4096;
};

// `data_help` says what else DATA may be, for a command that takes more than token files: it then
// works without --vocab-size and --eos-id.
void add_token_file_options(OptionList* list, TokenFileOptions* options,
                            const std::string& data_help = "");

// InvalidArgument where --vocab-size and --eos-id are missing or do not fit together.
absl::StatusOr<std::vector<MixFile>> list_token_files(const TokenFileOptions& options);

// The files as rows, of a multiple of `group` a file; see TokenChunksOptions.
absl::StatusOr<std::unique_ptr<TokenChunks>> open_token_files(const TokenFileOptions& options,
                                                              int64_t group);

// Bytes of an id in files without a header.
int64_t width_of(const TokenFileOptions& options);

}  // namespace emo
