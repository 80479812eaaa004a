#include "train/metrics/metrics_log.h"

#include "absl/strings/str_split.h"
#include "data/files/json.h"

namespace emo {
namespace {

constexpr uint64_t kMaxLog = uint64_t{1} << 36;

// The lines of steps up to `step`. A torn last line, of a run that was killed, is dropped.
std::string lines_up_to(const std::string& text, int64_t step) {
  std::string kept;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const Json json = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
    const bool has_step = json.is_object() && json.contains("step") && json["step"].is_number();
    if (has_step && json["step"].get<int64_t>() <= step) {
      kept.append(line.data(), line.size());
      kept += '\n';
    }
  }
  return kept;
}

}  // namespace

absl::StatusOr<MetricsLog> MetricsLog::open(FileSystem& fs, const std::string& run_folder,
                                            int64_t resumed_step) {
  const std::string path = run_folder + "/metrics.jsonl";
  std::string kept;
  if (path_exists(path)) {
    absl::StatusOr<std::string> text = read_file(path, kMaxLog);
    if (!text.ok()) return text.status();
    kept = lines_up_to(*text, resumed_step);
  }
  absl::Status status = fs.make_directories(run_folder + "/tb");
  if (!status.ok()) return status;
  // The log goes on in a file that starts as what was kept, and takes the old one's name.
  absl::StatusOr<std::unique_ptr<WritableFile>> file = fs.create(path + ".new", Writing::kPrompt);
  if (!file.ok()) return file.status();
  status = (*file)->append(kept);
  if (status.ok()) status = fs.rename(path + ".new", path);
  if (!status.ok()) return status;
  absl::StatusOr<TensorBoardWriter> tensorboard = TensorBoardWriter::create(fs, run_folder + "/tb");
  if (!tensorboard.ok()) return tensorboard.status();
  return MetricsLog(*std::move(file), *std::move(tensorboard));
}

absl::Status MetricsLog::write(int64_t step, const Metrics& metrics) {
  OrderedJson line = {{"step", step}};
  for (const auto& [name, value] : metrics) {
    line[name] = value;
    absl::Status status = tensorboard_.scalar(name, step, value);
    if (!status.ok()) return status;
  }
  return file_->append(to_line(line));
}

}  // namespace emo
