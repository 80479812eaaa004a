#include "train/model_folder/manifest.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace emo {

OrderedJson file_json(const WrittenFile& file) {
  return {{"name", file.name}, {"size", file.size}, {"sha256", file.sha256}};
}

absl::StatusOr<WrittenFile> write_text_file(FileSystem& fs, const std::string& folder,
                                            const std::string& name, const std::string& text) {
  absl::StatusOr<std::unique_ptr<WritableFile>> file =
      fs.create(folder + "/" + name, Writing::kPrompt);
  if (!file.ok()) return file.status();
  absl::Status status = (*file)->append(text);
  if (status.ok()) status = (*file)->sync();
  if (status.ok()) status = (*file)->close();
  if (!status.ok()) return status;
  return WrittenFile{name, text.size(), sha256_hex(text)};
}

absl::Status write_manifest(FileSystem& fs, const std::string& folder,
                            const std::vector<WrittenFile>& files) {
  OrderedJson manifest = {{"format", "emo-checkpoint-1"}, {"files", OrderedJson::array()}};
  for (const WrittenFile& file : files) manifest["files"].push_back(file_json(file));
  absl::StatusOr<WrittenFile> last = write_text_file(fs, folder, kManifest, to_text(manifest));
  return last.ok() ? fs.sync_directory(folder) : last.status();
}

absl::StatusOr<std::vector<WrittenFile>> read_manifest(const std::string& folder) {
  const std::string path = folder + "/" + kManifest;
  if (!path_exists(path)) {
    return absl::NotFoundError(folder + ": no MANIFEST; not a complete checkpoint");
  }
  absl::StatusOr<Json> json = read_json_file(path);
  if (!json.ok()) return json.status();
  std::vector<WrittenFile> files;
  if (!json->is_object() || !json->contains("files") || !(*json)["files"].is_array()) {
    return absl::DataLossError(path + ": no list 'files'");
  }
  for (const Json& entry : (*json)["files"]) {
    absl::StatusOr<std::string> name = json_field<std::string>(entry, "name", path);
    absl::StatusOr<uint64_t> size = json_field<uint64_t>(entry, "size", path);
    absl::StatusOr<std::string> hash = json_field<std::string>(entry, "sha256", path);
    for (const absl::Status& status : {name.status(), size.status(), hash.status()}) {
      if (!status.ok()) return status;
    }
    if (absl::StrContains(*name, "/")) return absl::DataLossError(path + ": file name " + *name);
    files.push_back({*name, *size, *hash});
  }
  if (files.empty()) return absl::DataLossError(path + ": lists no files");
  return files;
}

absl::Status verify_file(const std::string& folder, const WrittenFile& expected) {
  absl::StatusOr<MappedFile> file = MappedFile::open(folder + "/" + expected.name);
  if (!file.ok()) return file.status();
  if (file->bytes().size() != expected.size) {
    return absl::DataLossError(absl::StrCat(file->path(), ": ", file->bytes().size(),
                                            " bytes, MANIFEST says ", expected.size));
  }
  if (sha256_hex(file->bytes()) != expected.sha256) {
    return absl::DataLossError(file->path() + ": its SHA-256 is not what MANIFEST says; damaged");
  }
  return absl::OkStatus();
}

}  // namespace emo
