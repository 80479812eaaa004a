// A model's parameters in files: Hugging Face folders, one tensor for each parameter.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/files/json.h"
#include "data/files/safetensors.h"
#include "model/config.h"
#include "model/parameters.h"

namespace emo {

// What is wrong with the tensors of a folder, collected so that one error lists it all.
class WrongTensors {
 public:
  void add(const std::string& what);
  void add(const absl::Status& status);
  // OK where there is nothing; NotFound where files are missing and nothing else is wrong, else
  // DataLoss: `what`, then a line for each, the first dozen.
  absl::Status status(const std::string& what) const;

 private:
  std::vector<std::string> lines_;
  bool only_missing_files_ = true;
};

// The safetensors files of a folder, as one: model.safetensors, or the files that
// model.safetensors.index.json names (or the same with another `stem`).
class TensorFolder {
 public:
  TensorFolder() = default;
  TensorFolder(TensorFolder&&) = default;
  TensorFolder& operator=(TensorFolder&&) = default;
  TensorFolder(const TensorFolder&) = delete;
  TensorFolder& operator=(const TensorFolder&) = delete;
  ~TensorFolder() = default;

  // NotFound where files are missing; DataLoss that lists every entry of the index that points
  // outside the folder, or at a tensor that its file does not have, and every damaged file.
  static absl::StatusOr<TensorFolder> open(const std::string& folder, const std::string& stem);
  static absl::StatusOr<TensorFolder> open_file(const std::string& path);

  // The record of a name; null where there is none.
  const TensorRecord* find(const std::string& name) const;
  const std::map<std::string, const TensorRecord*>& tensors() const { return by_name_; }
  const std::string& where() const { return where_; }

  // The same folder with other names: `tensors` of new name and record, which point into this
  // folder or into `owned`, bytes that move in with them. Consumes the folder.
  TensorFolder renamed(const std::map<std::string, TensorRecord>& tensors,
                       std::deque<std::string> owned) &&;

  // Keeps the files of another folder open, into which records of this one point.
  void keep_open(TensorFolder other);

 private:
  absl::Status add(const std::string& path);
  std::string where_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::deque<std::string> owned_;            // bytes that no file has
  std::vector<TensorFolder> kept_open_;      // see keep_open
  std::map<std::string, TensorRecord> new_;  // records of a renamed folder
  std::map<std::string, const TensorRecord*> by_name_;
};

// Copies into `buffers` what this rank holds: names are `prefix` + the parameters' names, fp32 or
// bf16 (widened). Local. DataLoss that lists every tensor that is missing or has another shape or
// type, and (`exact`) every tensor with that prefix that the model does not have; then the buffers
// hold what did fit.
absl::Status read_parameters(const TensorFolder& folder, const std::string& prefix,
                             const ModelConfig& config, const ParameterLayout& layout, bool exact,
                             FlatBuffers* buffers);

// The parameters of a layout as tensors to write; they point into `buffers`, fp32 or bf16 on the
// host.
std::vector<NamedTensor> tensors_of(const ParameterLayout& layout, const FlatBuffers& buffers,
                                    ParameterBuffer which, const std::string& prefix);

}  // namespace emo
