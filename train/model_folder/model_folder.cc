#include "train/model_folder/model_folder.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "data/program/progress.h"
#include "train/model_folder/manifest.h"
#include "train/model_folder/tokenizer_files.h"

namespace emo {
namespace {

absl::StatusOr<std::vector<WrittenFile>> write_files(FileSystem& fs, const std::string& work,
                                                     const std::string& folder,
                                                     const ModelFolder& model) {
  constexpr int64_t kMegabyte = 1'000'000;
  Progress progress(work, static_cast<int64_t>(bytes_of(model.copies)) / kMegabyte, "MB", true);
  absl::StatusOr<std::vector<WrittenFile>> files = write_copies(
      fs, folder, model.copies, model.max_shard_bytes,
      [&](uint64_t bytes) { progress.update(static_cast<int64_t>(bytes) / kMegabyte); });
  if (!files.ok()) return files.status();
  TextFiles texts = model.texts;
  texts.emplace_back("config.json", to_text(model.config));
  for (const auto& [name, text] : texts) {
    absl::StatusOr<WrittenFile> file = write_text_file(fs, folder, name, text);
    if (!file.ok()) return file.status();
    files->push_back(*std::move(file));
  }
  absl::Status status = write_manifest(fs, folder, *files);
  if (!status.ok()) return status;
  return files;
}

}  // namespace

absl::StatusOr<std::vector<WrittenFile>> write_model_folder(FileSystem& fs, const std::string& work,
                                                            const std::string& folder,
                                                            const ModelFolder& model) {
  std::string target = folder;
  while (target.size() > 1 && target.back() == '/') target.pop_back();
  if (path_exists(target)) return absl::AlreadyExistsError(target + ": stands already");
  const std::string temporary = absl::StrCat(target, ".tmp-", ::getpid());
  absl::Status status = fs.remove_all(temporary);  // a crash of the same number, as in a container
  if (status.ok()) status = fs.make_directories(temporary);
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<WrittenFile>> files = write_files(fs, work, temporary, model);
  status = files.ok() ? fs.rename(temporary, target) : files.status();
  if (!status.ok()) {
    fs.remove_all(temporary).IgnoreError();  // the first error is what matters
    return status;
  }
  status = fs.sync_directory(parent_folder(target));
  if (!status.ok()) return status;
  return files;
}

absl::StatusOr<TextFiles> text_files(const std::string& folder,
                                     const std::vector<std::string>& names) {
  TextFiles files;
  for (const std::string& name : names) {
    const std::string path = absl::StrCat(folder, "/", name);
    if (!path_exists(path)) continue;
    absl::StatusOr<std::string> text = read_file(path, 1u << 28);
    if (!text.ok()) return text.status();
    files.emplace_back(name, *std::move(text));
  }
  return files;
}

absl::StatusOr<TextFiles> companion_files(const std::string& folder) {
  std::vector<std::string> names = tokenizer_file_names();
  names.insert(names.end(), {"generation_config.json", "configuration_emo.py", "modeling_emo.py"});
  return text_files(folder, names);
}

}  // namespace emo
