#include "train/model_folder/model_files.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/program/first_lines.h"

namespace emo {
namespace {

void widen_record(const TensorRecord& record, float* out) {
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

constexpr size_t kListed = 12;  // wrong tensors named in one message

}  // namespace

void WrongTensors::add(const absl::Status& status) {
  only_missing_files_ = only_missing_files_ && absl::IsNotFound(status);
  lines_.emplace_back(status.message());
}

void WrongTensors::add(const std::string& what) {
  only_missing_files_ = false;
  lines_.push_back(what);
}

absl::Status WrongTensors::status(const std::string& what) const {
  if (lines_.empty()) return absl::OkStatus();
  const std::string message =
      absl::StrCat(what, ":\n  ", absl::StrJoin(first_lines(lines_, kListed), "\n  "));
  return only_missing_files_ ? absl::NotFoundError(message) : absl::DataLossError(message);
}

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
  absl::StatusOr<Json> index = read_json_file(index_path);
  if (!index.ok()) return index.status();
  if (!index->contains("weight_map") || !(*index)["weight_map"].is_object()) {
    return absl::DataLossError(index_path + ": no 'weight_map'");
  }
  TensorFolder folder;
  folder.where_ = path;
  WrongTensors wrong;
  std::map<std::string, absl::Status> opened;  // by file
  for (const auto& [name, file] : (*index)["weight_map"].items()) {
    const std::string text = file.is_string() ? file.get<std::string>() : "";
    if (text.empty() || absl::StrContains(text, "/") || text == "..") {
      wrong.add(absl::StrCat(name, " is in ", file.dump(), ", which is no file of this folder"));
      continue;
    }
    const auto [entry, is_new] = opened.try_emplace(text);
    if (is_new) {
      entry->second = folder.add(path + "/" + text);
      if (!entry->second.ok()) wrong.add(entry->second);
    }
    if (entry->second.ok() && folder.find(name) == nullptr) {
      wrong.add(absl::StrCat(name, " is not in ", text));
    }
  }
  absl::Status status = wrong.status(index_path + ": the index does not fit the folder");
  if (!status.ok()) return status;
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

absl::Status read_parameters(const TensorFolder& folder, const std::string& prefix,
                             const ModelConfig& config, const ParameterLayout& layout, bool exact,
                             FlatBuffers* buffers) {
  WrongTensors wrong;
  for (const ParameterInfo& parameter : layout.parameters) {
    const std::string name = prefix + parameter.name;
    const TensorRecord* record = folder.find(name);
    if (record == nullptr) {
      wrong.add(name + " is missing");
    } else if ((record->dtype != "F32" && record->dtype != "BF16") ||
               record->shape != parameter.shape) {
      wrong.add(absl::StrCat(name, " is ", record->dtype, " ", shape_string(record->shape),
                             ", expected F32 or BF16 ", shape_string(parameter.shape)));
    } else {
      will_read(record->bytes);
      widen_record(*record, parameter_data(parameter, *buffers));
      if (record->file != nullptr) release_pages(record->bytes);
    }
  }
  if (exact) {
    std::map<std::string, bool> expected;
    for (const ParameterInfo& p : make_layout(config, {}).parameters)
      expected[prefix + p.name] = true;
    for (const auto& [name, record] : folder.tensors()) {
      if (absl::StartsWith(name, prefix) && !expected.contains(name)) {
        wrong.add(name + " is not part of this model");
      }
    }
  }
  return wrong.status(folder.where() + ": tensors do not fit the model");
}

std::vector<NamedTensor> tensors_of(const ParameterLayout& layout, const FlatBuffers& buffers,
                                    ParameterBuffer which, const std::string& prefix) {
  const at::Tensor& buffer = which == ParameterBuffer::kDense ? buffers.dense : buffers.experts;
  const auto width = static_cast<int64_t>(buffer.element_size());
  const char* type = buffer.scalar_type() == at::kBFloat16 ? "BF16" : "F32";
  std::vector<NamedTensor> tensors;
  for (const ParameterInfo& parameter : layout.parameters) {
    if (parameter.buffer != which) continue;
    const auto* data = static_cast<const char*>(buffer.const_data_ptr()) + parameter.offset * width;
    tensors.push_back({prefix + parameter.name, type, parameter.shape,
                       absl::string_view(data, static_cast<size_t>(parameter.numel() * width))});
  }
  return tensors;
}

}  // namespace emo
