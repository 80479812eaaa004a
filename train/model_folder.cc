#include "train/model_folder.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "train/manifest.h"

namespace emo {
namespace {

using Shard = std::vector<NamedTensor>;

// Tensors in order of their names, as many a file as fit.
std::vector<Shard> deal_shards(const TensorFolder& tensors, uint64_t max_bytes) {
  std::vector<Shard> shards(1);
  uint64_t bytes = 0;
  for (const auto& [name, record] : tensors.tensors()) {
    if (!shards.back().empty() && bytes + record->bytes.size() > max_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back({name, record->dtype, record->shape, record->bytes});
    bytes += record->bytes.size();
  }
  return shards;
}

absl::Status write_files(FileSystem& fs, const std::string& folder, const ModelFolder& model,
                         const std::function<void(uint64_t)>& written) {
  const std::vector<Shard> shards = deal_shards(*model.tensors, model.max_shard_bytes);
  std::vector<WrittenFile> files;
  OrderedJson map = OrderedJson::object();
  uint64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name =
        absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, shards.size());
    absl::StatusOr<WrittenFile> file =
        write_safetensors(fs, folder, name, shards[i], {{"format", "pt"}});
    if (!file.ok()) return file.status();
    files.push_back(*std::move(file));
    for (const NamedTensor& tensor : shards[i]) {
      map[tensor.name] = name;
      total += tensor.bytes.size();
      model.tensors->release(*model.tensors->find(tensor.name));
    }
    if (written) written(total);
  }
  std::vector<std::pair<std::string, std::string>> texts = model.texts;
  texts.emplace_back("config.json", to_text(model.config));
  const OrderedJson index = {{"metadata", {{"total_size", total}}}, {"weight_map", map}};
  texts.emplace_back("model.safetensors.index.json", to_text(index));
  for (const auto& [name, text] : texts) {
    absl::StatusOr<WrittenFile> file = write_text_file(fs, folder, name, text);
    if (!file.ok()) return file.status();
    files.push_back(*std::move(file));
  }
  return write_manifest(fs, folder, files);
}

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

absl::Status write_model_folder(FileSystem& fs, const std::string& folder, const ModelFolder& model,
                                const std::function<void(uint64_t bytes)>& written) {
  std::string target = folder;
  while (target.size() > 1 && target.back() == '/') target.pop_back();
  if (path_exists(target)) return absl::AlreadyExistsError(target + ": stands already");
  const std::string temporary = target + ".tmp";
  absl::Status status = fs.remove_all(temporary);  // what an earlier crash left
  if (status.ok()) status = fs.make_directories(temporary);
  if (status.ok()) status = write_files(fs, temporary, model, written);
  if (status.ok()) status = fs.rename(temporary, target);
  if (status.ok()) status = fs.sync_directory(parent_of(target));
  return status;
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> companion_files(
    const std::string& folder) {
  std::vector<std::pair<std::string, std::string>> files;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                           "generation_config.json", "configuration_emo.py", "modeling_emo.py"}) {
    const std::string path = absl::StrCat(folder, "/", name);
    if (!path_exists(path)) continue;
    absl::StatusOr<std::string> text = read_file(path, 1u << 28);
    if (!text.ok()) return text.status();
    files.emplace_back(name, *std::move(text));
  }
  return files;
}

}  // namespace emo
