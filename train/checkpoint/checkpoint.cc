#include "train/checkpoint/checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/rows/data_record.h"
#include "parallel/agreement.h"
#include "train/model_folder/manifest.h"
#include "train/model_folder/model_files.h"
#include "train/model_folder/remote_code.h"
#include "train/model_folder/tokenizer_files.h"
#include "train/subset/expert_order.h"
#include "train/subset/pruning_metadata.h"

namespace emo {
namespace {

constexpr char kPrefix[] = "step-";
constexpr char kMaster[] = "master/";

std::string step_folder(int64_t step) { return absl::StrFormat("%s%07d", kPrefix, step); }

// The writing ranks are those of the first expert group: together they hold everything once.
bool writes(const Mesh& mesh) { return mesh.dp->rank() == 0; }

std::string index_name(const std::string& stem) { return stem + ".safetensors.index.json"; }

std::string shard_name(const std::string& stem, const Mesh& mesh) {
  return absl::StrFormat("%s-%05d-of-%05d.safetensors", stem, mesh.ep->rank() + 1, mesh.ep->size());
}

// This rank's tensors of one set of buffers: its experts, and on the first rank all that is dense.
void add_tensors(const Model& model, const FlatBuffers& buffers, bool with_dense,
                 const std::string& prefix, std::vector<NamedTensor>* tensors) {
  for (const ParameterBuffer which : {ParameterBuffer::kDense, ParameterBuffer::kExperts}) {
    if (which == ParameterBuffer::kDense && !with_dense) continue;
    for (NamedTensor& tensor : tensors_of(model.layout, buffers, which, prefix)) {
      tensors->push_back(std::move(tensor));
    }
  }
}

// The same tensors where they are fp32, else rounded copies.
FlatBuffers rounded_to(Precision precision, const FlatBuffers& masters) {
  if (precision == Precision::kFp32) return masters;
  return {masters.dense.to(at::kBFloat16), masters.experts.to(at::kBFloat16)};
}

// What training goes on with beside the model, whole; nothing where a checkpoint is of the model
// alone.
struct Moments {
  FlatBuffers exp_avg, exp_avg_sq;
};

// Collective.
std::optional<Moments> gather_moments(const Mesh& mesh, const CheckpointContents& contents) {
  if (contents.optimizer == nullptr) return std::nullopt;
  const ParameterLayout& layout = contents.model->layout;
  return Moments{gather_owned(mesh, layout, contents.optimizer->exp_avg),
                 gather_owned(mesh, layout, contents.optimizer->exp_avg_sq)};
}

struct Shard {
  std::string stem;  // "model" or "optimizer"
  std::vector<NamedTensor> tensors;
};

// What this rank writes; `stored` and `moments` must outlive it.
std::vector<Shard> shards_of(const Mesh& mesh, const CheckpointContents& contents,
                             const FlatBuffers& stored, const std::optional<Moments>& moments) {
  const bool with_dense = mesh.ep->rank() == 0;
  const Model& model = *contents.model;
  std::vector<Shard> shards = {{"model", {}}};
  add_tensors(model, stored, with_dense, "", &shards[0].tensors);
  if (!moments) return shards;
  shards.push_back({"optimizer", {}});
  std::vector<NamedTensor>* state = &shards[1].tensors;
  if (contents.precision == Precision::kBf16) {
    add_tensors(model, model.parameters, with_dense, kMaster, state);
  }
  add_tensors(model, moments->exp_avg, with_dense, "exp_avg/", state);
  add_tensors(model, moments->exp_avg_sq, with_dense, "exp_avg_sq/", state);
  return shards;
}

// Collective. What one rank wrote, as text that travels: [{name, size, sha256, tensors?}].
absl::StatusOr<OrderedJson> write_shards(FileSystem& fs, const Mesh& mesh,
                                         const std::string& folder,
                                         const CheckpointContents& contents) {
  OrderedJson written = OrderedJson::array();
  const std::optional<Moments> moments = gather_moments(mesh, contents);
  if (!writes(mesh)) return written;
  const FlatBuffers stored = rounded_to(contents.precision, contents.model->parameters);
  for (const Shard& shard : shards_of(mesh, contents, stored, moments)) {
    absl::StatusOr<WrittenFile> file = write_safetensors(fs, folder, shard_name(shard.stem, mesh),
                                                         shard.tensors, {{"format", "pt"}});
    if (!file.ok()) return file.status();
    OrderedJson entry = file_json(*file);
    entry["stem"] = shard.stem;
    entry["tensors"] = OrderedJson::array();
    int64_t bytes = 0;
    for (const NamedTensor& tensor : shard.tensors) {
      entry["tensors"].push_back(tensor.name);
      bytes += static_cast<int64_t>(tensor.bytes.size());
    }
    entry["tensor_bytes"] = bytes;
    written.push_back(entry);
  }
  return written;
}

std::string state_json(const TrainingPosition& position, const Mesh& mesh) {
  OrderedJson config = OrderedJson::object();
  for (const auto& [key, value] : position.config) config[key] = value;
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  OrderedJson json = {
      {"step", position.step},
      {"sequences", position.sequences},
      {"tokens", position.tokens},
      {"learning_rate", position.learning_rate},
      {"data_fingerprint", position.data_fingerprint},
      {"config", config},
      {"written",
       {{"by", "emo"},
        {"host", host},
        {"unix_time", std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())},
        {"dp", mesh.dp->size()},
        {"ep", mesh.ep->size()}}}};
  if (position.data_start > 0) json["data_start"] = position.data_start;
  const ScheduleStart& start = position.schedule_start;
  if (start.step >= 0) json["schedule_start"] = {{"step", start.step}, {"rate", start.rate}};
  const EvaluationSize& evaluation = position.evaluation;
  if (evaluation.tokens > 0) {
    json["evaluation"] = {
        {"tokens", evaluation.tokens}, {"every", evaluation.every}, {"share", evaluation.share}};
  }
  return to_text(json);
}

// On the first rank: the indices, the small files and the manifest.
absl::Status write_description(FileSystem& fs, const Mesh& mesh, const std::string& folder,
                               const std::vector<std::string>& shards,
                               const CheckpointContents& contents) {
  std::vector<WrittenFile> files;
  OrderedJson maps = OrderedJson::object();  // stem -> {tensor: file}
  OrderedJson sizes = OrderedJson::object();
  for (const std::string& text : shards) {
    for (const OrderedJson& file : OrderedJson::parse(text)) {
      files.push_back({file["name"], file["size"], file["sha256"]});
      const std::string stem = file["stem"];
      if (!maps.contains(stem)) maps[stem] = OrderedJson::object();
      for (const OrderedJson& tensor : file["tensors"])
        maps[stem][tensor.get<std::string>()] = file["name"];
      sizes[stem] = sizes.value(stem, int64_t{0}) + file["tensor_bytes"].get<int64_t>();
    }
  }
  OrderedJson config = to_config_json(*contents.description);
  if (contents.precision == Precision::kBf16) config["torch_dtype"] = "bfloat16";
  std::vector<std::pair<std::string, std::string>> texts = {
      {"config.json", to_text(config)}, {"state.json", state_json(contents.position, mesh)}};
  for (const auto& [stem, map] : maps.items()) {
    const OrderedJson index = {{"metadata", {{"total_size", sizes[stem]}}}, {"weight_map", map}};
    texts.emplace_back(index_name(stem), to_text(index));
  }
  const ExpertOrder order = expert_order_of(contents.model->layout);
  if (!order.empty()) texts.emplace_back(kPlacementFile, to_text(to_json(order)));
  if (!contents.pruning.empty()) texts.emplace_back(kPruningFile, contents.pruning);
  if (!contents.data.empty()) texts.emplace_back(kDataRecordFile, contents.data);
  if (!contents.tokenizer.empty()) {
    for (auto& file : tokenizer_files(contents.tokenizer, *contents.description)) {
      texts.push_back(std::move(file));
    }
  }
  for (RemoteCodeFile& file : remote_code()) {
    texts.emplace_back(std::move(file.name), std::move(file.text));
  }
  for (const auto& [name, text] : texts) {
    absl::StatusOr<WrittenFile> file = write_text_file(fs, folder, name, text);
    if (!file.ok()) return file.status();
    files.push_back(*std::move(file));
  }
  return write_manifest(fs, folder, files);
}

// Steps of the complete checkpoints of a run, ascending.
absl::StatusOr<std::vector<int64_t>> complete_steps(const std::string& run_folder) {
  std::vector<int64_t> steps;
  if (!is_directory(run_folder)) return steps;
  absl::StatusOr<std::vector<std::string>> names = list_directory(run_folder);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    int64_t step = 0;
    if (absl::StartsWith(name, kPrefix) &&
        absl::SimpleAtoi(name.substr(sizeof kPrefix - 1), &step) && name == step_folder(step) &&
        path_exists(run_folder + "/" + name + "/" + kManifest)) {
      steps.push_back(step);
    }
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

}  // namespace

absl::StatusOr<std::string> write_checkpoint(FileSystem& fs, const Mesh& mesh,
                                             const std::string& run_folder,
                                             const CheckpointContents& contents) {
  const std::string folder = run_folder + "/" + step_folder(contents.position.step);
  const std::string temporary = folder + ".tmp";
  absl::Status status;
  if (mesh.is_first()) {
    if (path_exists(folder)) status = absl::AlreadyExistsError(folder + ": stands already");
    if (status.ok()) status = fs.remove_all(temporary);  // what an earlier crash left
    if (status.ok()) status = fs.make_directories(temporary);
  }
  status = agree(*mesh.world, status);
  if (!status.ok()) return status;

  absl::StatusOr<OrderedJson> written = write_shards(fs, mesh, temporary, contents);
  status = agree(*mesh.world, written.status());
  if (!status.ok()) return status;
  const std::vector<std::string> shards = gather_texts(*mesh.world, written->dump());
  if (mesh.is_first()) {
    status = write_description(fs, mesh, temporary, shards, contents);
    if (status.ok()) status = fs.rename(temporary, folder);
    if (status.ok()) status = fs.sync_directory(run_folder);
  }
  status = agree(*mesh.world, status);
  if (!status.ok()) return status;
  return folder;
}

absl::StatusOr<std::string> latest_checkpoint(const std::string& run_folder) {
  absl::StatusOr<std::vector<int64_t>> steps = complete_steps(run_folder);
  if (!steps.ok()) return steps.status();
  return steps->empty() ? "" : run_folder + "/" + step_folder(steps->back());
}

absl::Status remove_old_checkpoints(FileSystem& fs, const std::string& run_folder, int64_t keep) {
  if (keep == 0) return absl::OkStatus();
  absl::StatusOr<std::vector<int64_t>> steps = complete_steps(run_folder);
  if (!steps.ok()) return steps.status();
  for (size_t i = 0; i + static_cast<size_t>(keep) < steps->size(); ++i) {
    const std::string folder = run_folder + "/" + step_folder((*steps)[i]);
    // The manifest goes first, so that a half-removed folder is no checkpoint.
    absl::Status status = fs.remove_all(folder + "/" + kManifest);
    if (status.ok()) status = fs.remove_all(folder);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status verify_checkpoint(Communicator& world, const std::string& folder) {
  absl::StatusOr<std::vector<WrittenFile>> files = read_manifest(folder);
  absl::Status status = files.status();
  for (size_t i = 0; status.ok() && i < files->size(); ++i) {
    if (static_cast<int64_t>(i) % world.size() == world.rank())
      status = verify_file(folder, (*files)[i]);
  }
  return agree(world, status);
}

namespace {

// Checkpoints have none where nothing was evaluated yet, and older ones.
absl::StatusOr<EvaluationSize> read_evaluation_size(const Json& state, const std::string& path) {
  if (!state.contains("evaluation")) return EvaluationSize();
  const Json& json = state["evaluation"];
  absl::StatusOr<int64_t> tokens = json_field<int64_t>(json, "tokens", path);
  absl::StatusOr<int64_t> every = json_field<int64_t>(json, "every", path);
  absl::StatusOr<double> share = json_field<double>(json, "share", path);
  absl::Status status = tokens.status();
  status.Update(every.status());
  status.Update(share.status());
  if (!status.ok()) return status;
  return EvaluationSize{*tokens, *every, *share};
}

// Fills what state.json says of learning rates; older ones say nothing.
absl::Status read_rates(const Json& state, const std::string& path, TrainingPosition* position) {
  if (state.contains("learning_rate")) {
    absl::StatusOr<double> rate = json_field<double>(state, "learning_rate", path);
    if (!rate.ok()) return rate.status();
    position->learning_rate = *rate;
  }
  if (!state.contains("schedule_start")) return absl::OkStatus();
  const Json& start = state["schedule_start"];
  absl::StatusOr<int64_t> step = json_field<int64_t>(start, "step", path);
  absl::StatusOr<double> rate = json_field<double>(start, "rate", path);
  absl::Status status = step.status();
  status.Update(rate.status());
  if (status.ok()) position->schedule_start = {*step, *rate};
  return status;
}

}  // namespace

absl::StatusOr<TrainingPosition> read_position(const std::string& folder) {
  const std::string path = folder + "/state.json";
  absl::StatusOr<Json> json = read_json_file(path);
  if (!json.ok()) return json.status();
  TrainingPosition position;
  absl::Status status;
  const std::pair<const char*, int64_t*> numbers[] = {
      {"step", &position.step}, {"sequences", &position.sequences}, {"tokens", &position.tokens}};
  for (const auto& [key, value] : numbers) {
    absl::StatusOr<int64_t> read = json_field<int64_t>(*json, key, path);
    status.Update(read.status());
    if (read.ok()) *value = *read;
  }
  absl::StatusOr<std::string> fingerprint =
      json_field<std::string>(*json, "data_fingerprint", path);
  absl::StatusOr<std::map<std::string, std::string>> config =
      json_field<std::map<std::string, std::string>>(*json, "config", path);
  status.Update(fingerprint.status());
  status.Update(config.status());
  absl::StatusOr<EvaluationSize> evaluation = read_evaluation_size(*json, path);
  status.Update(evaluation.status());
  status.Update(read_rates(*json, path, &position));
  absl::StatusOr<int64_t> data_start = json_field_or<int64_t>(*json, "data_start", 0, path);
  status.Update(data_start.status());
  if (!status.ok()) return status;
  position.evaluation = *evaluation;
  position.data_start = *data_start;
  position.data_fingerprint = *fingerprint;
  position.config.assign(config->begin(), config->end());
  return position;
}

absl::Status read_model(const std::string& folder, Model* model) {
  absl::StatusOr<TensorFolder> tensors = TensorFolder::open(folder, "model");
  if (!tensors.ok()) return tensors.status();
  return read_parameters(*tensors, "", model->config, model->layout, /*exact=*/true,
                         &model->parameters);
}

bool has_optimizer(const std::string& folder) {
  return path_exists(folder + "/" + index_name("optimizer"));
}

absl::Status read_optimizer(const std::string& folder, int64_t step, Model* model,
                            OptimizerState* optimizer) {
  if (!has_optimizer(folder)) {
    return absl::FailedPreconditionError(
        folder +
        ": holds a model alone (checkpoint.last: model, an import or a cut), and no "
        "moments to go on with; a new run takes its weights with run.start_from");
  }
  absl::StatusOr<TensorFolder> tensors = TensorFolder::open(folder, "optimizer");
  if (!tensors.ok()) return tensors.status();
  optimizer->step = step;
  const auto master = tensors->tensors().lower_bound(kMaster);
  if (master != tensors->tensors().end() && absl::StartsWith(master->first, kMaster)) {
    absl::Status status =
        read_parameters(*tensors, kMaster, model->config, model->layout, true, &model->parameters);
    if (!status.ok()) return status;
  }
  const std::pair<const char*, FlatBuffers*> moments[] = {{"exp_avg/", &optimizer->exp_avg},
                                                          {"exp_avg_sq/", &optimizer->exp_avg_sq}};
  for (const auto& [prefix, owned] : moments) {
    FlatBuffers whole = make_buffers(model->layout);
    absl::Status status =
        read_parameters(*tensors, prefix, model->config, model->layout, true, &whole);
    if (!status.ok()) return status;
    *owned = owned_moments(model->layout, whole);
  }
  return absl::OkStatus();
}

}  // namespace emo
