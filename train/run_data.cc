#include "train/run_data.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/files/file_system.h"
#include "data/mix/mix.h"
#include "data/rows/dataset_chunks.h"
#include "data/rows/synthetic.h"
#include "data/rows/token_chunks.h"

namespace emo {
namespace {

bool is_prepared(const RunConfig& config) {
  return config.data.mix.empty() && is_directory(config.data.path);
}

absl::StatusOr<std::unique_ptr<ChunkSource>> open_prepared(const RunConfig& config) {
  absl::StatusOr<std::unique_ptr<DatasetChunks>> chunks =
      DatasetChunks::open(config.data.path, config.data.sequence_length, config.data.documents);
  if (!chunks.ok()) return chunks.status();
  if ((*chunks)->vocab_size() > config.model.vocab_size) {
    return absl::DataLossError(
        absl::StrCat(config.data.path, ": its tokenizer has ", (*chunks)->vocab_size(),
                     " tokens, model.vocab_size is ", config.model.vocab_size));
  }
  return chunks;
}

absl::StatusOr<std::unique_ptr<ChunkSource>> open_token_files(const RunConfig& config) {
  const RunConfig::Data& data = config.data;
  if (data.eos_id < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(data.path, ": token files need data.eos_id, the token that ends a document"));
  }
  if (data.documents != DocumentPacking::kCut) {
    return absl::InvalidArgumentError(
        "data.documents: token files are cut; for others emo prepare");
  }
  absl::StatusOr<std::vector<MixFile>> files =
      data.mix.empty() ? files_of_pattern(data.path)
                       : read_mix(data.mix, {data.root, data.tokenizer_name});
  if (!files.ok()) return files.status();
  TokenChunksOptions options;
  options.sequence_length = data.sequence_length;
  options.group = data.order == Order::kReference ? reference_group(data.sequence_length) : 1;
  options.vocab_size = config.model.vocab_size;
  options.width = token_width(data.dtype, config.model.vocab_size);
  options.eos_id = static_cast<int32_t>(data.eos_id);
  return TokenChunks::open(*std::move(files), std::move(options));
}

absl::StatusOr<std::unique_ptr<ChunkSource>> open_source(const RunConfig& config) {
  if (config.data.synthetic) {
    return std::make_unique<SyntheticChunks>(*config.data.synthetic, config.data.sequence_length);
  }
  if (!is_prepared(config)) return open_token_files(config);
  if (config.data.order == Order::kReference) {
    return absl::InvalidArgumentError(absl::StrCat(
        "data.order reference is of token files, whose chunks it keeps together; name those of ",
        config.data.path, ": data.path='", config.data.path, "/tokens-*.npy', and data.eos_id"));
  }
  return open_prepared(config);
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
  if (config.data.synthetic || !is_prepared(config)) return "";
  std::string beside = config.data.path + "/tokenizer.json";
  return path_exists(beside) ? beside : "";
}

}  // namespace

absl::StatusOr<DataTokenizer> tokenizer_of(const RunConfig& config) {
  absl::StatusOr<std::string> file = tokenizer_file(config);
  if (!file.ok()) return file.status();
  if (!config.data.synthetic && is_prepared(config)) {
    absl::StatusOr<DatasetInfo> info = read_dataset_info(config.data.path);
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

absl::StatusOr<RunData> open_run_data(const RunConfig& config) {
  RunData run;
  absl::StatusOr<std::string> tokenizer = tokenizer_file(config);
  if (!tokenizer.ok()) return tokenizer.status();
  run.tokenizer_path = *std::move(tokenizer);
  absl::StatusOr<std::unique_ptr<ChunkSource>> source = open_source(config);
  if (!source.ok()) return source.status();
  run.source = *std::move(source);
  run.loader = config.loader();
  if (config.data.order != Order::kReference) return run;
  const int64_t group = reference_group(config.data.sequence_length);
  absl::StatusOr<std::unique_ptr<ReferenceOrder>> order = ReferenceOrder::create(
      {run.source->num_chunks(), group, config.train.batch, run.loader.seed, config.data.index});
  if (!order.ok()) return order.status();
  run.loader.reference = *std::move(order);
  return run;
}

}  // namespace emo
