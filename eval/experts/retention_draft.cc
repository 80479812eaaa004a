#include "eval/experts/retention_draft.h"

#include <cmath>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "data/files/file_system.h"
#include "data/files/output.h"
#include "data/files/sha256.h"
#include "parallel/agreement.h"
#include "train/model_folder/hugging_face.h"

namespace emo {
namespace {

constexpr uint64_t kMostBytes = 1ull << 30;

// {"models": {name: {"identity", "domains": {label: {"ids", "tokens", "losses"}}}}, "sha256" of the
// models}; DataLoss where that does not fit.
absl::StatusOr<Json> parse_draft(const std::string& text, const std::string& path) {
  absl::StatusOr<Json> json = parse_json(text, path);
  if (json.ok() && json->contains("models") && (*json)["models"].is_object() &&
      json->value("sha256", "") == sha256_hex((*json)["models"].dump())) {
    return (*json)["models"];
  }
  return absl::DataLossError(
      path + ": what an earlier call has kept there is damaged; remove it to measure all anew");
}

// What is no number is null in JSON.
std::vector<double> numbers_of(const Json& list) {
  std::vector<double> numbers;
  for (const Json& item : list) {
    numbers.push_back(item.is_null() ? std::nan("") : item.get<double>());
  }
  return numbers;
}

// What the first rank reads, on every rank.
absl::StatusOr<std::string> read_for_all(const Mesh& mesh, const std::string& path) {
  absl::StatusOr<std::string> text = std::string();
  if (mesh.is_first() && path_exists(path)) text = read_file(path, kMostBytes);
  absl::Status status = agree(*mesh.world, text.status());
  if (!status.ok()) return status;
  return gather_texts(*mesh.world, *text).front();
}

}  // namespace

std::string retention_identity(const OpenedModel& model, const TokenDataset& calibration,
                               const TokenDataset& test, const RetentionOptions& options) {
  std::string text = absl::StrCat(model.identity, "\n", to_config_json(model.description).dump(),
                                  "\n", to_json(calibration.info()), "\n", to_json(test.info()),
                                  "\n", at::toString(model.model->parameters.dense.scalar_type()),
                                  " ", model.model->device().str(), "\n", options.test_documents,
                                  " ", options.seed, "\n");
  for (const Cut& cut : cuts_of(options)) {
    absl::StrAppend(&text, cut.method, " ", to_text(cut.keep), " ", cut.documents, " ",
                    cut.of_other_domain, " ", cut.full_weights, "\n");
  }
  return sha256_hex(text);
}

absl::StatusOr<RetentionDraft> RetentionDraft::open(const Mesh& mesh, const std::string& output) {
  absl::StatusOr<OutputPlace> place = OutputPlace();
  if (!output.empty()) place = output_place(output);
  absl::Status status = agree(*mesh.world, place.status());
  if (!status.ok()) return status;
  const bool is_file = !output.empty() && place->kind == OutputPlace::Kind::kFile;
  RetentionDraft draft(mesh, is_file ? place->path + ".part" : "");
  if (draft.path_.empty()) return draft;
  absl::StatusOr<std::string> text = read_for_all(mesh, draft.path_);
  if (!text.ok()) return text.status();
  if (text->empty()) return draft;
  absl::StatusOr<Json> models = parse_draft(*text, draft.path_);
  if (!models.ok()) return models.status();
  draft.models_ = *std::move(models);
  return draft;
}

std::map<std::string, DomainLosses> RetentionDraft::known(const std::string& model,
                                                          const std::string& identity,
                                                          size_t columns) const {
  std::map<std::string, DomainLosses> domains;
  const auto found = models_.find(model);
  if (found == models_.end()) return domains;
  if ((*found)["identity"] != identity) {
    if (mesh_->is_first()) {
      std::fprintf(stderr,
                   "emo: warning: %s: %s was measured with another model, other data or options: "
                   "it is measured again\n",
                   path_.c_str(), model.c_str());
    }
    return domains;
  }
  for (const auto& [label, json] : found->at("domains").items()) {
    DomainLosses losses{json.at("ids"), json.at("tokens"), {}};
    for (const Json& column : json.at("losses")) losses.losses.push_back(numbers_of(column));
    if (losses.losses.size() == columns) domains[label] = std::move(losses);
  }
  return domains;
}

absl::Status RetentionDraft::keep(const std::string& model, const std::string& identity,
                                  const std::string& domain, const DomainLosses& losses) {
  if (path_.empty()) return absl::OkStatus();
  Json& of_model = models_[model];
  if (of_model.is_null() || of_model["identity"] != identity) {
    of_model = {{"identity", identity}, {"domains", Json::object()}};
  }
  of_model["domains"][domain] = {
      {"ids", losses.ids}, {"tokens", losses.tokens}, {"losses", losses.losses}};
  absl::Status status;
  if (mesh_->is_first()) {
    const std::string digest = sha256_hex(models_.dump());
    status = write_file_durably(posix_file_system(), path_,
                                Json({{"models", models_}, {"sha256", digest}}).dump());
  }
  return agree(*mesh_->world, status);
}

absl::Status RetentionDraft::remove() const {
  return path_.empty() ? absl::OkStatus() : posix_file_system().remove_all(path_);
}

}  // namespace emo
