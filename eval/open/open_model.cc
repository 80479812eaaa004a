#include "eval/open/open_model.h"

#include "absl/strings/str_cat.h"
#include "data/files/file_system.h"
#include "data/tokenizer/tokenizer_identity.h"
#include "parallel/agreement.h"
#include "train/checkpoint/find_model.h"
#include "train/step/device.h"
#include "train/step/finite.h"
#include "train/subset/cut_model.h"
#include "train/subset/expert_order.h"

namespace emo {
namespace {

// Puts the model where it is to compute.
absl::Status put_on_device(const MeshOptions& where, const Mesh& mesh, const ExpertOrder& order,
                           OpenedModel* opened) {
  const DeviceKind kind = device_named(where.device);
  const Precision precision = where.precision == "bf16" ? Precision::kBf16 : Precision::kFp32;
  if (kind == DeviceKind::kCpu && precision == Precision::kFp32) return absl::OkStatus();
  if (kind == DeviceKind::kCpu) {
    return absl::InvalidArgumentError("--precision bf16: the CPU evaluates in fp32; add --device");
  }
  const Model& host = *opened->model;
  absl::Status status = check_limits(host.config, kind, precision);
  if (!status.ok()) return absl::InvalidArgumentError(absl::StrCat("--device: ", status.message()));
  auto there = std::make_unique<Model>(host.config, host.contract, /*positions=*/1, mesh.position(),
                                       order, backend_for(kind, precision));
  load_parameters(host.parameters, there.get());
  opened->model = std::move(there);
  return absl::OkStatus();
}

absl::StatusOr<OpenedModel> open(const std::string& folder, const std::string& subset_path,
                                 const Mesh& mesh, const MeshOptions& where) {
  absl::StatusOr<ModelDescription> description = read_config_json(folder + "/config.json");
  if (!description.ok()) return description.status();
  absl::StatusOr<TensorFolder> tensors = TensorFolder::open(folder, "model");
  if (!tensors.ok()) return tensors.status();
  absl::StatusOr<ExpertOrder> order = carried_expert_order(folder, description->config);
  if (!order.ok()) return order.status();
  if (!subset_path.empty()) {
    absl::StatusOr<SubsetFile> subset =
        read_subset(subset_path, description->config, model_identity(*tensors));
    if (!subset.ok()) return subset.status();
    tensors = cut_tensors(*std::move(tensors), description->config, subset->experts_kept_per_layer);
    if (!tensors.ok()) return tensors.status();
    description->config = cut_config(description->config, subset->experts_kept_per_layer);
    order->clear();  // of experts that are no longer there
  }
  const ModelConfig& sizes = description->config;
  for (int64_t layer = 0; layer < sizes.n_layers; ++layer) {
    if (!sizes.is_dense(layer) && sizes.routed_experts(layer) < mesh.ep->size()) {
      return absl::InvalidArgumentError(absl::StrCat(sizes.routed_experts(layer),
                                                     " routed experts in layer ", layer, " on ep ",
                                                     mesh.ep->size(), "; use a smaller --ep"));
    }
  }
  OpenedModel opened{folder, *description, model_identity(*tensors),
                     std::make_unique<Model>(sizes, description->contract,
                                             /*positions=*/1, mesh.position(), *order)};
  absl::Status status = read_parameters(*tensors, "", sizes, opened.model->layout, /*exact=*/true,
                                        &opened.model->parameters);
  if (!status.ok()) return status;
  const std::string bad = first_bad_tensor(opened.model->layout, opened.model->parameters);
  if (!bad.empty()) {
    return absl::AbortedError(absl::StrCat(folder, ": parameter ", bad, " is not finite"));
  }
  status = put_on_device(where, mesh, *order, &opened);
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
  absl::StatusOr<TokenizerIdentity> identity = identify_tokenizer_file(tokenizer);
  if (!identity.ok()) return identity.status();
  if (!same_tokenizer(*identity, data->info().tokenizer)) {
    return absl::DataLossError(
        absl::StrCat(folder, ": prepared with another tokenizer than ", tokenizer));
  }
  return data;
}

}  // namespace

void add_subset_option(OptionList* list, std::string* subset) {
  list->add("--experts", subset,
            "SUBSET.json of emo experts rank: open only the experts that it keeps");
}

absl::StatusOr<OpenedModel> open_model(const std::string& path, const Mesh& mesh,
                                       const std::string& subset, const MeshOptions& where) {
  absl::StatusOr<std::string> found = find_model(path);
  absl::Status status = agree(*mesh.world, found.status());
  if (!status.ok()) return status;
  // A run may write a checkpoint meanwhile: all ranks open what the first one found.
  const std::string folder = gather_texts(*mesh.world, *found).front();
  absl::StatusOr<OpenedModel> opened = open(folder, subset, mesh, where);
  status = agree(*mesh.world, opened.status());
  if (!status.ok()) return status;
  return opened;
}

std::unique_ptr<Inference> open_inference(const OpenedModel& model, const Mesh& mesh) {
  return std::make_unique<Inference>(model.model.get(), mesh);
}

absl::StatusOr<Tokenizer> open_tokenizer(const OpenedModel& model, const Mesh& mesh) {
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::from_file(model.folder + "/tokenizer.json");
  absl::Status status = tokenizer.status();
  const int64_t rows = model.description.config.vocab_size;
  if (status.ok() && tokenizer->vocab_size() > rows) {
    status = absl::DataLossError(absl::StrCat(model.folder, "/tokenizer.json: has ",
                                              tokenizer->vocab_size(),
                                              " tokens, the model's vocabulary ", rows));
  }
  status = agree(*mesh.world, status);
  if (!status.ok()) return status;
  return tokenizer;
}

absl::StatusOr<TokenDataset> open_data_for(const OpenedModel& model, const std::string& folder,
                                           const Mesh& mesh) {
  absl::StatusOr<TokenDataset> data = open_data(model, folder);
  absl::Status status = agree(*mesh.world, data.status());
  if (!status.ok()) return status;
  return data;
}

}  // namespace emo
