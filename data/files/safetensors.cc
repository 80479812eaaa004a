#include "data/files/safetensors.h"

#include <algorithm>
#include <cstring>
#include <future>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/files/json.h"
#include "data/files/output.h"

namespace emo {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // as the format's own implementation

// Elements of a shape times the element's size, or an error where that overflows 63 bits.
absl::StatusOr<uint64_t> byte_size(const std::vector<int64_t>& shape, int64_t element) {
  uint64_t size = static_cast<uint64_t>(element);
  for (const int64_t extent : shape) {
    if (extent < 0) return absl::DataLossError("a negative extent");
    if (__builtin_mul_overflow(size, static_cast<uint64_t>(extent), &size) || size >> 62 != 0) {
      return absl::DataLossError("a shape whose size overflows");
    }
  }
  return size;
}

struct Entry {
  std::string dtype;
  std::vector<int64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

absl::StatusOr<Entry> parse_entry(const Json& json, const std::string& where) {
  absl::StatusOr<std::string> dtype = json_field<std::string>(json, "dtype", where);
  if (!dtype.ok()) return dtype.status();
  for (const char* key : {"shape", "data_offsets"}) {
    const bool numbers = json.contains(key) && json[key].is_array() &&
                         std::all_of(json[key].begin(), json[key].end(),
                                     [](const Json& n) { return n.is_number_unsigned(); });
    if (!numbers) {
      return absl::DataLossError(absl::StrCat(where, ": '", key, "' must be a list of sizes"));
    }
  }
  if (json["data_offsets"].size() != 2) {
    return absl::DataLossError(absl::StrCat(where, ": 'data_offsets' must have two entries"));
  }
  if (dtype_size(*dtype) == 0) {
    return absl::DataLossError(absl::StrCat(where, ": unknown dtype '", *dtype, "'"));
  }
  Entry entry{*dtype, json["shape"].get<std::vector<int64_t>>(),
              json["data_offsets"][0].get<uint64_t>(), json["data_offsets"][1].get<uint64_t>()};
  absl::StatusOr<uint64_t> size = byte_size(entry.shape, dtype_size(*dtype));
  if (!size.ok()) return absl::DataLossError(absl::StrCat(where, ": ", size.status().message()));
  if (entry.end < entry.begin || entry.end - entry.begin != *size) {
    return absl::DataLossError(absl::StrCat(where, ": offsets ", entry.begin, " to ", entry.end,
                                            ", expected ", *size, " bytes for ", entry.dtype, " ",
                                            shape_string(entry.shape)));
  }
  return entry;
}

}  // namespace

int64_t dtype_size(const std::string& dtype) {
  static const std::map<std::string, int64_t> sizes = {
      {"F64", 8},  {"I64", 8}, {"U64", 8}, {"F32", 4}, {"I32", 4}, {"U32", 4}, {"F16", 2},
      {"BF16", 2}, {"I16", 2}, {"U16", 2}, {"I8", 1},  {"U8", 1},  {"BOOL", 1}};
  const auto found = sizes.find(dtype);
  return found == sizes.end() ? 0 : found->second;
}

std::string shape_string(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  absl::StatusOr<MappedFile> mapped = MappedFile::open(path);
  if (!mapped.ok()) return mapped.status();
  SafetensorsFile file(*std::move(mapped));
  absl::Status status = file.parse();
  if (!status.ok()) return status;
  return file;
}

absl::Status SafetensorsFile::parse() {
  const absl::string_view bytes = file_->bytes();
  const std::string& where = file_->path();
  if (bytes.size() < 8) {
    return absl::DataLossError(
        absl::StrCat(where, ": ", bytes.size(), " bytes, too short for a safetensors header"));
  }
  uint64_t header_size = 0;
  will_read(bytes.substr(0, 8));
  std::memcpy(&header_size, bytes.data(), 8);
  if (header_size > kMaxHeader || header_size > bytes.size() - 8) {
    return absl::DataLossError(absl::StrCat(where, ": header of ", header_size,
                                            " bytes in a file of ", bytes.size(),
                                            "; truncated, or not a safetensors file"));
  }
  will_read(bytes.substr(8, header_size));
  absl::StatusOr<Json> header = parse_json(bytes.substr(8, header_size), where);
  if (!header.ok()) return header.status();
  if (!header->is_object()) return absl::DataLossError(where + ": header is not an object");

  const absl::string_view data = bytes.substr(8 + header_size);
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (const auto& [name, value] : header->items()) {
    if (name == "__metadata__") {
      for (const auto& [key, text] : value.items()) {
        if (!text.is_string()) return absl::DataLossError(where + ": metadata is not text");
        metadata_[key] = text.get<std::string>();
      }
      continue;
    }
    absl::StatusOr<Entry> entry = parse_entry(value, absl::StrCat(where, ": tensor ", name));
    if (!entry.ok()) return entry.status();
    if (entry->end > data.size()) {
      return absl::DataLossError(absl::StrCat(where, ": tensor ", name, " ends at byte ",
                                              entry->end, " of ", data.size(), "; truncated?"));
    }
    ranges.emplace_back(entry->begin, entry->end);
    tensors_[name] = {entry->dtype, entry->shape,
                      data.substr(entry->begin, entry->end - entry->begin), file_.get()};
  }
  std::sort(ranges.begin(), ranges.end());
  uint64_t covered = 0;
  for (const auto& [begin, end] : ranges) {
    if (begin != covered) {
      return absl::DataLossError(
          absl::StrCat(where, ": tensors overlap or leave a hole at byte ", covered));
    }
    covered = end;
  }
  if (covered != data.size()) {
    return absl::DataLossError(
        absl::StrCat(where, ": tensors cover ", covered, " of ", data.size(), " bytes"));
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorRecord> SafetensorsFile::find(const std::string& name,
                                                   const std::string& dtype,
                                                   const std::vector<int64_t>& shape) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::NotFoundError(absl::StrCat(path(), ": tensor ", name, " is missing"));
  }
  const TensorRecord& record = found->second;
  if (record.dtype != dtype || record.shape != shape) {
    return absl::DataLossError(absl::StrCat(path(), ": tensor ", name, " is ", record.dtype, " ",
                                            shape_string(record.shape), ", expected ", dtype, " ",
                                            shape_string(shape)));
  }
  return record;
}

uint64_t SafetensorsWriter::Entry::bytes() const {
  auto size = static_cast<uint64_t>(dtype_size(dtype));
  for (const int64_t extent : shape) size *= static_cast<uint64_t>(extent);
  return size;
}

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::create(
    FileSystem& fs, const std::string& folder, const std::string& name,
    const std::vector<Entry>& entries, const std::map<std::string, std::string>& metadata) {
  absl::StatusOr<std::unique_ptr<WritableFile>> file =
      fs.create(folder + "/" + name, Writing::kStreamed);
  if (!file.ok()) return file.status();
  return start(*std::move(file), name, entries, metadata);
}

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::start(
    std::unique_ptr<WritableFile> file, const std::string& name, const std::vector<Entry>& entries,
    const std::map<std::string, std::string>& metadata) {
  OrderedJson header = OrderedJson::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const Entry& entry : entries) {
    header[entry.name] = {{"dtype", entry.dtype},
                          {"shape", entry.shape},
                          {"data_offsets", {offset, offset + entry.bytes()}}};
    offset += entry.bytes();
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // data starts at a multiple of 8
  const uint64_t header_size = text.size();
  text.insert(0, reinterpret_cast<const char*>(&header_size), 8);

  SafetensorsWriter writer;
  writer.name_ = name;
  writer.expected_ = text.size() + offset;
  writer.file_ = std::move(file);
  absl::Status status = writer.append(text);
  if (!status.ok()) return status;
  return writer;
}

absl::Status SafetensorsWriter::append(absl::string_view bytes) {
  size_ += bytes.size();
  // Hashing and writing take about as long as each other.
  const auto beside = bytes.size() < kHashedBeside ? std::launch::deferred : std::launch::async;
  const std::future<void> hashed = std::async(beside, [&] { hash_.update(bytes); });
  absl::Status status = file_->append(bytes);
  hashed.wait();
  return status;
}

absl::StatusOr<WrittenFile> SafetensorsWriter::finish() {
  if (size_ != expected_) {
    return absl::InternalError(
        absl::StrCat(name_, ": ", size_, " bytes written, ", expected_, " announced"));
  }
  absl::Status status = file_->sync();
  if (status.ok()) status = file_->close();
  if (!status.ok()) return status;
  return WrittenFile{name_, size_, hash_.hex_digest()};
}

namespace {

std::vector<SafetensorsWriter::Entry> entries_of(const std::vector<NamedTensor>& tensors) {
  std::vector<SafetensorsWriter::Entry> entries;
  entries.reserve(tensors.size());
  for (const NamedTensor& tensor : tensors) {
    entries.push_back({tensor.name, tensor.dtype, tensor.shape});
  }
  return entries;
}

absl::StatusOr<WrittenFile> write_all(absl::StatusOr<SafetensorsWriter> writer,
                                      const std::vector<NamedTensor>& tensors) {
  if (!writer.ok()) return writer.status();
  for (const NamedTensor& tensor : tensors) {
    absl::Status status = writer->append(tensor.bytes);
    if (!status.ok()) return status;
  }
  return writer->finish();
}

}  // namespace

absl::StatusOr<WrittenFile> write_safetensors(FileSystem& fs, const std::string& folder,
                                              const std::string& name,
                                              const std::vector<NamedTensor>& tensors,
                                              const std::map<std::string, std::string>& metadata) {
  return write_all(SafetensorsWriter::create(fs, folder, name, entries_of(tensors), metadata),
                   tensors);
}

absl::Status write_safetensors_output(FileSystem& fs, const std::string& path,
                                      const std::vector<NamedTensor>& tensors,
                                      const std::map<std::string, std::string>& metadata) {
  absl::StatusOr<std::unique_ptr<WritableFile>> file = create_output(fs, path, Writing::kStreamed);
  if (!file.ok()) return file.status();
  return write_all(SafetensorsWriter::start(*std::move(file), path, entries_of(tensors), metadata),
                   tensors)
      .status();
}

}  // namespace emo
