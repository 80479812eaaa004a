#include "train/run_data.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/files/file_system.h"
#include "data/rows/open_rows.h"
#include "data/rows/synthetic.h"
#include "data/shards/dataset_info.h"

namespace emo {
namespace {

constexpr uint64_t kMostTokenizerBytes = 1u << 28;

absl::StatusOr<Rows> open_rows_of(const RunConfig& config, const OpenReadable& open) {
  RowsOptions options = config.rows();
  options.open = open;
  absl::StatusOr<Rows> rows = open_rows(options);
  if (!rows.ok()) return rows.status();
  if (rows->chunks->vocab_size() > config.model.vocab_size) {
    return absl::DataLossError(
        absl::StrCat(config.data.path[0], ": its tokenizer has ", rows->chunks->vocab_size(),
                     " tokens, model.vocab_size is ", config.model.vocab_size));
  }
  return rows;
}

// The tokenizer's file, "" where there is none; NotFound where one is named and not there.
absl::StatusOr<std::string> tokenizer_file(const RunConfig& config) {
  const std::string& named = config.data.tokenizer;
  if (!named.empty()) {
    std::string file = is_directory(named) ? named + "/tokenizer.json" : named;
    if (!path_exists(file)) {
      return absl::NotFoundError(absl::StrCat("data.tokenizer: ", file, ": no such file"));
    }
    return file;
  }
  if (config.data.synthetic || !is_prepared(config.rows())) return "";
  std::string beside = config.data.path[0] + "/tokenizer.json";
  return path_exists(beside) ? beside : "";
}

}  // namespace

absl::StatusOr<DataTokenizer> tokenizer_of(const RunConfig& config) {
  absl::StatusOr<std::string> file = tokenizer_file(config);
  if (!file.ok()) return file.status();
  if (!config.data.synthetic && is_prepared(config.rows())) {
    absl::StatusOr<DatasetInfo> info = read_dataset_info(config.data.path[0]);
    if (!info.ok()) return info.status();
    return DataTokenizer{*std::move(file), info->tokenizer, info->eos_id};
  }
  DataTokenizer tokenizer{*std::move(file), {}, config.data.eos_id};
  if (tokenizer.file.empty()) return tokenizer;
  absl::StatusOr<TokenizerIdentity> identity = identify_tokenizer_file(tokenizer.file);
  if (!identity.ok()) return identity.status();
  tokenizer.identity = *std::move(identity);
  return tokenizer;
}

absl::StatusOr<RunData> open_run_data(const RunConfig& config, const OpenReadable& open) {
  RunData run;
  absl::StatusOr<std::string> tokenizer = tokenizer_file(config);
  if (!tokenizer.ok()) return tokenizer.status();
  if (!tokenizer->empty()) {
    absl::StatusOr<std::string> text = read_file(*tokenizer, kMostTokenizerBytes);
    if (!text.ok()) return text.status();
    run.tokenizer = *std::move(text);
  }
  run.loader = config.loader();
  if (config.data.synthetic) {
    run.source =
        std::make_unique<SyntheticChunks>(*config.data.synthetic, config.data.sequence_length);
    return run;
  }
  absl::StatusOr<Rows> rows = open_rows_of(config, open);
  if (!rows.ok()) return rows.status();
  run.source = std::move(rows->chunks);
  run.loader.reference = std::move(rows->reference);
  run.loader.mix = std::move(rows->mix);
  return run;
}

}  // namespace emo
