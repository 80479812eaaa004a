#include "train/model_files.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace emo {
namespace {

constexpr size_t kListed = 12;  // wrong tensors named in one message

void widen(const TensorRecord& record, float* out) {
  if (record.dtype == "F32") {
    std::memcpy(out, record.bytes.data(), record.bytes.size());
    return;
  }
  for (size_t i = 0; i < record.bytes.size() / 2; ++i) {  // bf16: the upper half of an fp32
    uint16_t half = 0;
    std::memcpy(&half, record.bytes.data() + 2 * i, 2);
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    std::memcpy(out + i, &bits, 4);
  }
}

}  // namespace

absl::StatusOr<TensorFolder> TensorFolder::open_file(const std::string& path) {
  TensorFolder folder;
  folder.where_ = path;
  absl::Status status = folder.add(path);
  if (!status.ok()) return status;
  return folder;
}

absl::StatusOr<TensorFolder> TensorFolder::open(const std::string& path, const std::string& stem) {
  const std::string index_path = path + "/" + stem + ".safetensors.index.json";
  if (!path_exists(index_path)) return open_file(path + "/" + stem + ".safetensors");
  TensorFolder folder;
  folder.where_ = path;
  absl::StatusOr<Json> index = read_json_file(index_path);
  if (!index.ok()) return index.status();
  if (!index->contains("weight_map") || !(*index)["weight_map"].is_object()) {
    return absl::DataLossError(index_path + ": no 'weight_map'");
  }
  std::map<std::string, bool> opened;
  for (const auto& [name, file] : (*index)["weight_map"].items()) {
    if (!file.is_string() || absl::StrContains(file.get<std::string>(), "/") ||
        file.get<std::string>() == "..") {
      return absl::DataLossError(absl::StrCat(index_path, ": tensor ", name, " is in ", file.dump(),
                                              ", which is not a file of this folder"));
    }
    if (opened[file.get<std::string>()]) continue;
    opened[file.get<std::string>()] = true;
    absl::Status status = folder.add(path + "/" + file.get<std::string>());
    if (!status.ok()) return status;
  }
  for (const auto& [name, file] : (*index)["weight_map"].items()) {
    if (folder.find(name) == nullptr) {
      return absl::DataLossError(
          absl::StrCat(index_path, ": tensor ", name, " is not in ", file.get<std::string>()));
    }
  }
  return folder;
}

absl::Status TensorFolder::add(const std::string& path) {
  absl::StatusOr<SafetensorsFile> file = SafetensorsFile::open(path);
  if (!file.ok()) return file.status();
  files_.push_back(std::make_unique<SafetensorsFile>(*std::move(file)));
  for (const auto& [name, record] : files_.back()->tensors()) {
    if (!by_name_.emplace(name, &record).second) {
      return absl::DataLossError(
          absl::StrCat(path, ": tensor ", name, " stands in another file too"));
    }
  }
  return absl::OkStatus();
}

const TensorRecord* TensorFolder::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

TensorFolder TensorFolder::renamed(const std::map<std::string, TensorRecord>& tensors,
                                   std::deque<std::string> owned) && {
  TensorFolder folder;
  folder.where_ = where_;
  folder.files_ = std::move(files_);
  folder.owned_ = std::move(owned);
  folder.new_ = tensors;
  for (const auto& [name, record] : folder.new_) folder.by_name_.emplace(name, &record);
  return folder;
}

void TensorFolder::keep_open(TensorFolder other) { kept_open_.push_back(std::move(other)); }

void TensorFolder::release(const TensorRecord& record) const {
  const auto is = [&](const std::string& bytes) { return bytes.data() == record.bytes.data(); };
  const auto owns = [&](const TensorFolder& folder) {
    return std::any_of(folder.owned_.begin(), folder.owned_.end(), is);
  };
  if (!owns(*this) && std::none_of(kept_open_.begin(), kept_open_.end(), owns)) {
    release_pages(record.bytes);
  }
}

absl::Status read_parameters(const TensorFolder& folder, const std::string& prefix,
                             const ModelConfig& config, const ParameterLayout& layout, bool exact,
                             const FlatBuffers& buffers) {
  std::vector<std::string> wrong;
  for (const ParameterInfo& parameter : layout.parameters) {
    const std::string name = prefix + parameter.name;
    const TensorRecord* record = folder.find(name);
    if (record == nullptr) {
      wrong.push_back(name + " is missing");
    } else if ((record->dtype != "F32" && record->dtype != "BF16") ||
               record->shape != parameter.shape) {
      wrong.push_back(absl::StrCat(name, " is ", record->dtype, " ", shape_string(record->shape),
                                   ", expected F32 or BF16 ", shape_string(parameter.shape)));
    } else {
      widen(*record, parameter_data(parameter, buffers));
    }
  }
  if (exact) {
    std::map<std::string, bool> expected;
    for (const ParameterInfo& p : make_layout(config, {}).parameters)
      expected[prefix + p.name] = true;
    for (const auto& [name, record] : folder.tensors()) {
      if (absl::StartsWith(name, prefix) && !expected.contains(name)) {
        wrong.push_back(name + " is not part of this model");
      }
    }
  }
  if (wrong.empty()) return absl::OkStatus();
  const size_t count = wrong.size();
  if (count > kListed) {
    wrong.resize(kListed);
    wrong.push_back(absl::StrCat("and ", count - kListed, " more"));
  }
  return absl::DataLossError(absl::StrCat(folder.where(), ": tensors do not fit the model:\n  ",
                                          absl::StrJoin(wrong, "\n  ")));
}

std::vector<NamedTensor> tensors_of(const ParameterLayout& layout, const FlatBuffers& buffers,
                                    ParameterBuffer which, const std::string& prefix) {
  std::vector<NamedTensor> tensors;
  for (const ParameterInfo& parameter : layout.parameters) {
    if (parameter.buffer != which) continue;
    const auto* data = reinterpret_cast<const char*>(parameter_data(parameter, buffers));
    tensors.push_back({prefix + parameter.name, "F32", parameter.shape,
                       absl::string_view(data, static_cast<size_t>(parameter.numel()) * 4)});
  }
  return tensors;
}

}  // namespace emo
