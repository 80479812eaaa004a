#include "train/tensor_copy.h"

#include <c10/util/Half.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/bf16.h"
#include "train/manifest.h"

namespace emo {
namespace {

constexpr size_t kPiece = 1 << 20;  // elements converted at a time

SafetensorsWriter::Entry entry_of(const TensorCopy& copy) {
  return {copy.name, copy.dtype, copy.shape};
}

float element(const TensorRecord& record, size_t i) {
  if (record.dtype == "F32") {
    float value = 0;
    std::memcpy(&value, record.bytes.data() + 4 * i, 4);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, record.bytes.data() + 2 * i, 2);
  if (record.dtype == "BF16") return widen(Bf16(bits, Bf16::from_bits()));
  return static_cast<float>(c10::Half(bits, c10::Half::from_bits()));
}

template <typename E>
absl::Status append_converted(const TensorRecord& source, size_t count, SafetensorsWriter* writer) {
  std::vector<E> piece(std::min(count, kPiece));
  for (size_t begin = 0; begin < count; begin += kPiece) {
    const size_t n = std::min(kPiece, count - begin);
    for (size_t i = 0; i < n; ++i) piece[i] = narrow<E>(element(source, begin + i));
    absl::Status status =
        writer->append({reinterpret_cast<const char*>(piece.data()), n * sizeof(E)});
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status append_bytes(absl::string_view bytes, SafetensorsWriter* writer) {
  for (size_t begin = 0; begin < bytes.size(); begin += 4 * kPiece) {
    const absl::string_view piece = bytes.substr(begin, 4 * kPiece);
    absl::Status status = writer->append(piece);
    if (!status.ok()) return status;
    forget_pages(piece);
  }
  return absl::OkStatus();
}

absl::Status append_zeros(uint64_t bytes, SafetensorsWriter* writer) {
  const std::string zeros(std::min<uint64_t>(bytes, kPiece), '\0');
  absl::Status status;
  for (uint64_t done = 0; status.ok() && done < bytes; done += zeros.size()) {
    status = writer->append(
        absl::string_view(zeros).substr(0, std::min<uint64_t>(zeros.size(), bytes - done)));
  }
  return status;
}

absl::Status append_copy(const TensorCopy& copy, SafetensorsWriter* writer) {
  const TensorRecord& source = *copy.source;
  const auto width = static_cast<uint64_t>(dtype_size(copy.dtype));
  const uint64_t there = entry_of(copy).bytes() / width;
  const uint64_t here = source.bytes.size() / static_cast<uint64_t>(dtype_size(source.dtype));
  const uint64_t count = std::min(there, here);
  absl::Status status;
  will_read(source.bytes);
  if (copy.dtype == source.dtype) {
    status = append_bytes(source.bytes.substr(0, count * width), writer);
  } else if (copy.dtype == "F32") {
    status = append_converted<float>(source, count, writer);
  } else {
    status = append_converted<Bf16>(source, count, writer);
  }
  forget_pages(source.bytes);
  return status.ok() ? append_zeros((there - count) * width, writer) : status;
}

// Consecutive tensors of at most this many bytes together, or one larger tensor.
std::vector<std::vector<TensorCopy>> cut_into_shards(const std::vector<TensorCopy>& copies,
                                                     uint64_t max_shard_bytes) {
  std::vector<std::vector<TensorCopy>> shards;
  uint64_t bytes = 0;
  for (const TensorCopy& copy : copies) {
    const uint64_t size = entry_of(copy).bytes();
    if (shards.empty() || bytes + size > max_shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(copy);
    bytes += size;
  }
  return shards;
}

}  // namespace

absl::StatusOr<std::vector<TensorCopy>> match_tensors(const TensorFolder& folder,
                                                      const ModelConfig& config,
                                                      const TensorNaming& naming) {
  std::vector<TensorCopy> copies;
  WrongTensors wrong;
  std::set<std::string> expected;
  for (const ParameterInfo& parameter : make_layout(config, {}).parameters) {
    const std::string name = naming(parameter.name);
    expected.insert(name);
    const TensorRecord* record = folder.find(name);
    if (record == nullptr) {
      wrong.add(name + " is missing");
    } else if ((record->dtype != "F32" && record->dtype != "BF16" && record->dtype != "F16") ||
               record->shape != parameter.shape) {
      wrong.add(absl::StrCat(name, " is ", record->dtype, " ", shape_string(record->shape),
                             ", expected F32, BF16 or F16 ", shape_string(parameter.shape)));
    } else {
      copies.push_back(
          {parameter.name, record->dtype == "F16" ? "F32" : record->dtype, record->shape, record});
    }
  }
  for (const auto& [name, record] : folder.tensors()) {
    // Old files keep the rotary embedding's frequencies, which follow from the config.
    if (!expected.contains(name) && !absl::EndsWith(name, "rotary_emb.inv_freq")) {
      wrong.add(name + " is not part of this model");
    }
  }
  absl::Status status = wrong.status(folder.where() + ": tensors do not fit the model");
  if (!status.ok()) return status;
  return copies;
}

absl::StatusOr<std::vector<WrittenFile>> write_copies(FileSystem& fs, const std::string& folder,
                                                      const std::vector<TensorCopy>& copies,
                                                      uint64_t max_shard_bytes) {
  const std::vector<std::vector<TensorCopy>> shards = cut_into_shards(copies, max_shard_bytes);
  std::vector<WrittenFile> files;
  OrderedJson map = OrderedJson::object();
  uint64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shards.size() == 1 ? "model.safetensors"
                                                : absl::StrFormat("model-%05d-of-%05d.safetensors",
                                                                  i + 1, shards.size());
    std::vector<SafetensorsWriter::Entry> entries;
    for (const TensorCopy& copy : shards[i]) {
      entries.push_back(entry_of(copy));
      map[copy.name] = name;
      total += entries.back().bytes();
    }
    absl::StatusOr<SafetensorsWriter> writer =
        SafetensorsWriter::create(fs, folder, name, entries, {{"format", "pt"}});
    if (!writer.ok()) return writer.status();
    for (const TensorCopy& copy : shards[i]) {
      absl::Status status = append_copy(copy, &*writer);
      if (!status.ok()) return status;
    }
    absl::StatusOr<WrittenFile> file = writer->finish();
    if (!file.ok()) return file.status();
    files.push_back(*std::move(file));
  }
  if (shards.size() == 1) return files;
  const OrderedJson index = {{"metadata", {{"total_size", total}}}, {"weight_map", map}};
  absl::StatusOr<WrittenFile> file =
      write_text_file(fs, folder, "model.safetensors.index.json", to_text(index));
  if (!file.ok()) return file.status();
  files.push_back(*std::move(file));
  return files;
}

}  // namespace emo
