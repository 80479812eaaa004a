// What `emo experts retention` has measured so far, in a file beside its output: the same command
// goes on from there.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/files/json.h"
#include "eval/experts/retention.h"
#include "parallel/mesh.h"

namespace emo {

// What decides the numbers of one model: of the same identity they are the same.
std::string retention_identity(const OpenedModel& model, const TokenDataset& calibration,
                               const TokenDataset& test, const RetentionOptions& options);

class RetentionDraft {
 public:
  // Collective; every rank gets the same. Reads what stands in "OUTPUT.part", if anything; nothing
  // is kept for an output that is "" or no file. DataLoss where the file is damaged.
  static absl::StatusOr<RetentionDraft> open(const Mesh& mesh, const std::string& output);

  // Domains of a model that were measured already: [columns] each. Says so where what stands there
  // was measured otherwise.
  std::map<std::string, DomainLosses> known(const std::string& model, const std::string& identity,
                                            size_t columns) const;

  // Collective: the first rank writes. Errors as of FileSystem.
  absl::Status keep(const std::string& model, const std::string& identity,
                    const std::string& domain, const DomainLosses& losses);

  // On the first rank: what was kept is no longer needed.
  absl::Status remove() const;

 private:
  RetentionDraft(const Mesh& mesh, std::string path) : mesh_(&mesh), path_(std::move(path)) {}
  const Mesh* mesh_;
  std::string path_;  // "": nothing is kept
  Json models_ = Json::object();
};

}  // namespace emo
