// A run's data, as its config says: where rows come from, and in which order.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "data/rows/chunk_source.h"
#include "data/rows/loader.h"
#include "data/tokenizer/tokenizer_identity.h"
#include "train/config/run_config.h"

namespace emo {

struct RunData {
  std::unique_ptr<ChunkSource> source;
  LoaderOptions loader;
  // tokenizer.json, to be written into checkpoints whatever happens to its file; "": there is none.
  std::string tokenizer;
};

// What made the ids of a run's data out of text.
struct DataTokenizer {
  std::string file;  // a tokenizer.json; "": none is known, as of synthetic documents
  TokenizerIdentity identity;
  int64_t eos_id = -1;
};

// Local. Of a folder of emo prepare what it wrote down, of token files what the config says.
// NotFound where a named file is missing, else as read_dataset_info() and identify_tokenizer().
absl::StatusOr<DataTokenizer> tokenizer_of(const RunConfig& config);

// Not collective, but where data.index names a folder ranks that share it make what is not there
// one after another. NotFound where files are missing, DataLoss where they cannot be read, or the
// data's vocabulary is larger than the model's; else as open_rows().
absl::StatusOr<RunData> open_run_data(const RunConfig& config,
                                      const OpenReadable& open = open_readable);

}  // namespace emo
