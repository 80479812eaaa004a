#include "data/documents/document_reader.h"

#include <zlib.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "data/files/file_system.h"
#include "data/files/json.h"
#include "data/tokenizer/utf8.h"

namespace emo {
namespace {

constexpr size_t kMaxDocument = size_t{1} << 31;  // bytes
constexpr size_t kBlock = 1 << 18;

std::string without_gz(const std::string& path) {
  return std::string(absl::StripSuffix(path, ".gz"));
}

bool holds_json_lines(const std::string& path) {
  const std::string name = without_gz(path);
  return absl::EndsWith(name, ".jsonl") || absl::EndsWith(name, ".json") ||
         absl::EndsWith(name, ".ndjson");
}

// 0 where it cannot be told.
int64_t bytes_of(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  return error ? 0 : static_cast<int64_t>(size);
}

}  // namespace

struct DocumentReader::State {
  std::vector<std::string> files;
  size_t next_file = 0;
  int64_t total = 0;
  int64_t done = 0;  // bytes of the files that are finished

  gzFile file = nullptr;  // zlib reads plain files as they are
  std::string path;
  int64_t line = 0;
  std::string block;  // read, not yet handed out
  size_t at = 0;
  bool ended = false;

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { close(); }

  void close() {
    if (file != nullptr) gzclose(file);
    file = nullptr;
  }

  absl::Status open_next() {
    path = files[next_file++];
    file = gzopen(path.c_str(), "rb");
    if (file == nullptr) return errno_status("cannot open", path);
    gzbuffer(file, kBlock);
    line = 0;
    block.clear();
    at = 0;
    ended = false;
    return absl::OkStatus();
  }

  // Refills `block`; sets `ended` where there is no more.
  absl::Status refill() {
    block.resize(kBlock);
    at = 0;
    const int n = gzread(file, block.data(), static_cast<unsigned>(block.size()));
    int error = Z_OK;
    const char* message = gzerror(file, &error);
    if (n < 0 || (error != Z_OK && error != Z_STREAM_END)) {
      return absl::DataLossError(absl::StrCat(path, ": damaged or truncated gzip file: ", message));
    }
    block.resize(static_cast<size_t>(n));
    ended = n == 0;
    return absl::OkStatus();
  }

  // Appends up to and without the next newline (`by_line`) or the rest of the file.
  absl::Status read_until(bool by_line, std::string* bytes) {
    while (!ended) {
      if (at == block.size()) {
        absl::Status status = refill();
        if (!status.ok()) return status;
        continue;
      }
      const absl::string_view left = absl::string_view(block).substr(at);
      const size_t newline = by_line ? left.find('\n') : absl::string_view::npos;
      const bool found = newline != absl::string_view::npos;
      const size_t n = found ? newline : left.size();
      bytes->append(left.data(), n);
      if (bytes->size() > kMaxDocument) {
        return absl::DataLossError(absl::StrCat(path, ":", line, ": document above 2 GiB"));
      }
      at += n + (found ? 1 : 0);
      if (found) break;
    }
    return absl::OkStatus();
  }
};

DocumentReader::DocumentReader() : state_(std::make_unique<State>()) {}
DocumentReader::DocumentReader(DocumentReader&&) noexcept = default;
DocumentReader& DocumentReader::operator=(DocumentReader&&) noexcept = default;
DocumentReader::~DocumentReader() = default;

absl::StatusOr<DocumentReader> DocumentReader::open(const std::vector<std::string>& inputs) {
  DocumentReader reader;
  for (const std::string& input : inputs) {
    absl::StatusOr<std::vector<std::string>> files = list_files(input);
    if (!files.ok()) return files.status();
    if (files->empty()) return absl::NotFoundError(input + ": the folder holds no file");
    for (const std::string& file : *files) {
      reader.state_->total += bytes_of(file);
      reader.state_->files.push_back(file);
    }
  }
  return reader;
}

absl::StatusOr<bool> DocumentReader::next(RawDocument* document) {
  State& state = *state_;
  for (;;) {
    if (state.file == nullptr) {
      if (state.next_file == state.files.size()) return false;
      absl::Status status = state.open_next();
      if (!status.ok()) return status;
    }
    const bool by_line = holds_json_lines(state.path);
    document->bytes.clear();
    document->file = state.path;
    document->line = by_line ? ++state.line : 0;
    absl::Status status = state.read_until(by_line, &document->bytes);
    if (!status.ok()) return status;
    if (state.ended) {
      const bool empty_file = document->bytes.empty() && state.line <= 1;
      state.done += bytes_of(state.path);
      state.close();
      if (empty_file) return absl::DataLossError(state.path + ": the file is empty");
    }
    const bool blank = by_line && document->bytes.find_first_not_of(" \t\r") == std::string::npos;
    if (!document->bytes.empty() && !blank) return true;  // blank lines are no documents
  }
}

int64_t DocumentReader::bytes_read() const {
  return state_->done +
         (state_->file != nullptr ? static_cast<int64_t>(gzoffset(state_->file)) : 0);
}
int64_t DocumentReader::bytes_total() const { return state_->total; }

std::string place_of(const RawDocument& raw) {
  return raw.line > 0 ? absl::StrCat(raw.file, ":", raw.line) : raw.file;
}

absl::StatusOr<Document> parse_document(const RawDocument& raw, const DocumentFields& fields) {
  const std::filesystem::path path(without_gz(raw.file));
  Document document;
  const size_t bad = first_invalid_utf8(raw.bytes);
  if (bad != absl::string_view::npos) {
    return absl::DataLossError(absl::StrCat(place_of(raw), ": invalid UTF-8 at byte ", bad));
  }
  if (raw.line == 0) {
    const std::string folder = path.parent_path().filename().string();
    document = {raw.bytes, folder.empty() ? "text" : folder, path.filename().string()};
  } else {
    absl::StatusOr<Json> json = parse_json(raw.bytes, place_of(raw), TooDeep::kDropped);
    if (!json.ok()) return json.status();
    absl::StatusOr<std::string> text = json_field<std::string>(*json, fields.text, place_of(raw));
    if (!text.ok()) return text.status();
    absl::StatusOr<std::string> source =
        json_field_or<std::string>(*json, "source", path.stem().string(), place_of(raw));
    if (!source.ok()) return source.status();
    document.text = *std::move(text);
    document.source = *std::move(source);
    const bool has_id = json->contains("id") && !(*json)["id"].is_null();
    const Json id =
        has_id ? (*json)["id"] : Json(absl::StrCat(path.filename().string(), ":", raw.line));
    document.id = id.is_string() ? id.get<std::string>() : id.dump();
  }
  if (!fields.source.empty()) document.source = fields.source;
  for (const std::string* name : {&document.source, &document.id}) {
    if (first_invalid_utf8(*name) != absl::string_view::npos) {
      return absl::DataLossError(place_of(raw) + ": its source label or id is not valid UTF-8");
    }
  }
  return document;
}

}  // namespace emo
