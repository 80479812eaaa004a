// What folders say of themselves, in JSON: dataset.json and a checkpoint's data.json.
#include "data/rows/data_record.h"
#include "data/shards/dataset_info.h"
#include "tests/data/files/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto info = emo::parse_dataset_info(text, "dataset.json");
  if (info.ok()) {
    if (info->vocab_size < 2 || info->eos_id < 0 || info->eos_id >= info->vocab_size) std::abort();
    for (const emo::DatasetInfo::Shard& shard : info->shards) {
      if (shard.tokens < 0 || shard.documents < 0 || shard.name.find('/') != std::string::npos) {
        std::abort();
      }
    }
  }
  const auto record = emo::parse_data_record(text, "data.json");
  if (record.ok() && !emo::parse_data_record(emo::to_json(*record), "again").ok()) std::abort();
  return 0;
}
