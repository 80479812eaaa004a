#include "train/model_folder/tensor_copy.h"

#include <c10/util/Half.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/files/streamed_reader.h"
#include "model/host/bf16.h"
#include "train/model_folder/manifest.h"

namespace emo {
namespace {

constexpr size_t kPiece = 1 << 20;  // elements converted, or bytes of zeros written, at a time

SafetensorsWriter::Entry entry_of(const TensorCopy& copy) {
  return {copy.name, copy.dtype, copy.shape};
}

// The leading bytes of the source that are copied; what the new tensor has beyond them is zero.
absl::string_view copied_bytes(const TensorCopy& copy) {
  const TensorRecord& source = *copy.source;
  const uint64_t there = entry_of(copy).bytes() / static_cast<uint64_t>(dtype_size(copy.dtype));
  return source.bytes.substr(0, there * static_cast<uint64_t>(dtype_size(source.dtype)));
}

float element(const std::string& dtype, const char* bytes) {
  if (dtype == "F32") {
    float value = 0;
    std::memcpy(&value, bytes, 4);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, bytes, 2);
  if (dtype == "BF16") return widen(Bf16(bits, Bf16::from_bits()));
  return static_cast<float>(c10::Half(bits, c10::Half::from_bits()));
}

template <typename Stored>
absl::Status append_converted(const std::string& dtype, absl::string_view bytes,
                              SafetensorsWriter* writer) {
  const auto width = static_cast<size_t>(dtype_size(dtype));
  std::vector<Stored> piece(std::min(bytes.size() / width, kPiece));
  absl::Status status;
  for (; status.ok() && !bytes.empty(); bytes.remove_prefix(piece.size() * width)) {
    piece.resize(std::min(bytes.size() / width, kPiece));
    for (size_t i = 0; i < piece.size(); ++i) {
      piece[i] = narrow<Stored>(element(dtype, bytes.data() + i * width));
    }
    status = writer->append(
        {reinterpret_cast<const char*>(piece.data()), piece.size() * sizeof(Stored)});
  }
  return status;
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

// `reader` is at the copied bytes.
absl::Status append_copy(const TensorCopy& copy, StreamedReader* reader,
                         SafetensorsWriter* writer) {
  const std::string& from = copy.source->dtype;
  uint64_t left = copied_bytes(copy).size();
  const uint64_t copied = left / static_cast<uint64_t>(dtype_size(from)) *
                          static_cast<uint64_t>(dtype_size(copy.dtype));
  while (left > 0) {
    const absl::StatusOr<absl::string_view> bytes = reader->next();
    if (!bytes.ok()) return bytes.status();
    const absl::Status status = copy.dtype == from ? writer->append(*bytes)
                                : copy.dtype == "F32"
                                    ? append_converted<float>(from, *bytes, writer)
                                    : append_converted<Bf16>(from, *bytes, writer);
    if (!status.ok()) return status;
    left -= bytes->size();
  }
  return append_zeros(entry_of(copy).bytes() - copied, writer);
}

absl::StatusOr<WrittenFile> write_shard(FileSystem& fs, const std::string& folder,
                                        const std::string& name,
                                        const std::vector<TensorCopy>& copies,
                                        const BytesWritten& written, uint64_t* total) {
  std::vector<SafetensorsWriter::Entry> entries;
  std::vector<StreamedReader::Part> parts;
  for (const TensorCopy& copy : copies) {
    entries.push_back(entry_of(copy));
    parts.push_back({copy.source->file, copied_bytes(copy)});
  }
  absl::StatusOr<SafetensorsWriter> writer =
      SafetensorsWriter::create(fs, folder, name, entries, {{"format", "pt"}});
  if (!writer.ok()) return writer.status();
  StreamedReader reader(parts);
  for (size_t i = 0; i < copies.size(); ++i) {
    absl::Status status = append_copy(copies[i], &reader, &*writer);
    if (!status.ok()) return status;
    *total += entries[i].bytes();
    written(*total);
  }
  return writer->finish();
}

// Consecutive tensors of at most this many bytes together, or one larger tensor.
std::vector<std::vector<TensorCopy>> cut_into_shards(const std::vector<TensorCopy>& copies,
                                                     uint64_t max_shard_bytes) {
  std::vector<std::vector<TensorCopy>> shards(1);
  uint64_t bytes = 0;
  for (const TensorCopy& copy : copies) {
    const uint64_t size = entry_of(copy).bytes();
    if (!shards.back().empty() && bytes + size > max_shard_bytes) {
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

std::vector<TensorCopy> all_tensors(const TensorFolder& folder) {
  std::vector<TensorCopy> copies;
  for (const auto& [name, record] : folder.tensors()) {
    copies.push_back({name, record->dtype, record->shape, record});
  }
  return copies;
}

uint64_t bytes_of(const std::vector<TensorCopy>& copies) {
  uint64_t bytes = 0;
  for (const TensorCopy& copy : copies) bytes += entry_of(copy).bytes();
  return bytes;
}

absl::StatusOr<std::vector<WrittenFile>> write_copies(FileSystem& fs, const std::string& folder,
                                                      const std::vector<TensorCopy>& copies,
                                                      uint64_t max_shard_bytes,
                                                      const BytesWritten& written) {
  const std::vector<std::vector<TensorCopy>> shards = cut_into_shards(copies, max_shard_bytes);
  std::vector<WrittenFile> files;
  OrderedJson map = OrderedJson::object();
  uint64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shards.size() == 1 ? "model.safetensors"
                                                : absl::StrFormat("model-%05d-of-%05d.safetensors",
                                                                  i + 1, shards.size());
    for (const TensorCopy& copy : shards[i]) map[copy.name] = name;
    absl::StatusOr<WrittenFile> file = write_shard(fs, folder, name, shards[i], written, &total);
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
