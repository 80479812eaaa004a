#include "eval/open_model.h"

#include "absl/strings/str_cat.h"
#include "data/file_system.h"
#include "data/sha256.h"
#include "train/agreement.h"
#include "train/checkpoint.h"
#include "train/expert_order.h"

namespace emo {
namespace {

absl::StatusOr<OpenedModel> open(const std::string& folder, const Mesh& mesh) {
  const std::string config = folder + "/config.json";
  if (!path_exists(config)) {
    return absl::NotFoundError(
        folder + ": no config.json; name a checkpoint, such as runs/tiny/step-0000060");
  }
  absl::StatusOr<ModelDescription> description = read_config_json(config);
  if (!description.ok()) return description.status();
  if (description->config.moe_layers() > 0 &&
      description->config.routed_experts() < mesh.ep->size()) {
    return absl::InvalidArgumentError(absl::StrCat(description->config.routed_experts(),
                                                   " routed experts on ep ", mesh.ep->size()));
  }
  absl::StatusOr<ExpertOrder> order = carried_expert_order(folder, description->config);
  if (!order.ok()) return order.status();
  OpenedModel opened{
      folder, *description,
      std::make_unique<Model>(description->config, description->contract, mesh.position(), *order)};
  absl::Status status = read_model(folder, *opened.model);
  if (!status.ok()) return status;
  return opened;
}

absl::StatusOr<TokenDataset> open_data(const OpenedModel& model, const std::string& folder) {
  absl::StatusOr<TokenDataset> data = TokenDataset::open(folder);
  if (!data.ok()) return data.status();
  if (data->info().vocab_size > model.description.config.vocab_size) {
    return absl::DataLossError(absl::StrCat(folder, ": its tokenizer has ", data->info().vocab_size,
                                            " tokens, the model's vocabulary ",
                                            model.description.config.vocab_size));
  }
  const std::string tokenizer = model.folder + "/tokenizer.json";
  if (!path_exists(tokenizer)) return data;
  absl::StatusOr<std::string> text = read_file(tokenizer, 1u << 28);
  if (!text.ok()) return text.status();
  if (sha256_hex(*text) != data->info().tokenizer_sha256) {
    return absl::DataLossError(
        absl::StrCat(folder, ": prepared with another tokenizer than ", tokenizer));
  }
  return data;
}

}  // namespace

absl::StatusOr<OpenedModel> open_model(const std::string& folder, const Mesh& mesh) {
  absl::StatusOr<OpenedModel> opened = open(folder, mesh);
  absl::Status status = agree(*mesh.world, opened.status());
  if (!status.ok()) return status;
  return opened;
}

absl::StatusOr<TokenDataset> open_data_for(const OpenedModel& model, const std::string& folder,
                                           const Mesh& mesh) {
  absl::StatusOr<TokenDataset> data = open_data(model, folder);
  absl::Status status = agree(*mesh.world, data.status());
  if (!status.ok()) return status;
  return data;
}

}  // namespace emo
