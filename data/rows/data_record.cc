#include "data/rows/data_record.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "data/files/file_system.h"
#include "data/files/json.h"
#include "data/program/first_lines.h"

namespace emo {
namespace {

constexpr size_t kListed = 12;
constexpr uint64_t kMostBytes = uint64_t{256} << 20;

absl::StatusOr<DataFile> read_file_entry(const Json& entry, const std::string& where) {
  absl::StatusOr<std::string> name = json_field<std::string>(entry, "name", where);
  absl::StatusOr<int64_t> tokens = json_field<int64_t>(entry, "tokens", where);
  absl::StatusOr<std::string> sample = json_field<std::string>(entry, "sample", where);
  for (const absl::Status& status : {name.status(), tokens.status(), sample.status()}) {
    if (!status.ok()) return status;
  }
  return DataFile{*name, *tokens, *sample};
}

// "" where nothing has.
std::string change_of(const DataFile& then, const DataFile& now) {
  if (then == now) return "";
  if (then.name != now.name) return absl::StrCat("was ", then.name, ", is ", now.name);
  if (then.tokens != now.tokens) {
    return absl::StrCat(now.name, ": had ", then.tokens, " tokens, has ", now.tokens);
  }
  return absl::StrCat(now.name, ": as long as before, with other ids");
}

}  // namespace

std::string to_json(const DataRecord& record) {
  OrderedJson files = OrderedJson::array();
  for (const DataFile& file : record.files) {
    files.push_back({{"name", file.name}, {"tokens", file.tokens}, {"sample", file.sample}});
  }
  OrderedJson json = {{"fingerprint", record.fingerprint}, {"files", files}};
  for (const SourcePosition& source : record.sources) {
    json["sources"].push_back(
        {{"label", source.label}, {"sequences", source.sequences}, {"epochs", source.epochs}});
  }
  return to_text(json);
}

absl::StatusOr<DataRecord> read_data_record(const std::string& folder) {
  const std::string path = absl::StrCat(folder, "/", kDataRecordFile);
  if (!path_exists(path)) return absl::NotFoundError(path + ": no such file");
  absl::StatusOr<std::string> text = read_file(path, kMostBytes);
  if (!text.ok()) return text.status();
  return parse_data_record(*text, path);
}

absl::StatusOr<DataRecord> parse_data_record(const std::string& text, const std::string& path) {
  absl::StatusOr<Json> json = parse_json(text, path);
  if (!json.ok()) return json.status();
  absl::StatusOr<std::string> fingerprint = json_field<std::string>(*json, "fingerprint", path);
  if (!fingerprint.ok()) return fingerprint.status();
  absl::StatusOr<std::vector<Json>> files = json_field<std::vector<Json>>(*json, "files", path);
  if (!files.ok()) return files.status();
  DataRecord record{*std::move(fingerprint), {}, {}};
  for (const Json& entry : *files) {
    absl::StatusOr<DataFile> file = read_file_entry(entry, path);
    if (!file.ok()) return file.status();
    record.files.push_back(*std::move(file));
  }
  return record;
}

std::vector<std::string> changes_since(const DataRecord& record, const ChunkSource& now) {
  std::vector<std::string> lines;
  if (now.matches(record.fingerprint)) return lines;
  const std::vector<DataFile>& files = now.files();
  for (size_t i = 0; i < std::min(files.size(), record.files.size()); ++i) {
    const std::string change = change_of(record.files[i], files[i]);
    if (!change.empty()) lines.push_back(absl::StrCat("file ", i, ": ", change));
  }
  if (files.size() != record.files.size()) {
    lines.push_back(absl::StrCat(record.files.size(), " files then, ", files.size(), " now"));
  }
  if (lines.empty()) {
    lines.emplace_back(
        "the same files, but another vocabulary, end token, labels, weights or packing");
  }
  return first_lines(std::move(lines), kListed);
}

}  // namespace emo
