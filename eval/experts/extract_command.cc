#include "eval/commands.h"

#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "data/files/json.h"
#include "data/program/exit_code.h"
#include "eval/open/mesh_options.h"
#include "train/checkpoint/find_model.h"
#include "train/checkpoint/weights_only_state.h"
#include "train/model_folder/hugging_face.h"
#include "train/model_folder/model_folder.h"
#include "train/subset/cut_model.h"
#include "train/subset/merge_models.h"
#include "train/subset/pruning_metadata.h"

namespace emo {
namespace {

// A model's folder, its description, as it stands in config.json and as we read it, and its
// tensors.
struct Folder {
  std::string path;
  ModelDescription description;
  ModelConfig config;
  OrderedJson json;
  TensorFolder tensors;
};

absl::StatusOr<Folder> open_folder(const std::string& model) {
  absl::StatusOr<std::string> folder = find_model(model);
  if (!folder.ok()) return folder.status();
  const std::string path = *folder + "/config.json";
  absl::StatusOr<ModelDescription> description = read_config_json(path);
  if (!description.ok()) return description.status();
  absl::StatusOr<std::string> text = read_file(path, 1u << 24);
  if (!text.ok()) return text.status();
  absl::StatusOr<TensorFolder> tensors = TensorFolder::open(*folder, "model");
  if (!tensors.ok()) return tensors.status();
  return Folder{*folder, *description, description->config, OrderedJson::parse(*text),
                *std::move(tensors)};
}

struct ExtractOptions {
  std::string checkpoint, subset, out;
  uint64_t max_shard_megabytes = 5000;
};

absl::StatusOr<int> extract(const ExtractOptions& options) {
  if (path_exists(options.out)) return absl::AlreadyExistsError(options.out + ": stands already");
  absl::StatusOr<Folder> folder = open_folder(options.checkpoint);
  if (!folder.ok()) return folder.status();
  absl::StatusOr<SubsetFile> subset =
      read_subset(options.subset, folder->config, model_identity(folder->tensors));
  if (!subset.ok()) return subset.status();
  absl::StatusOr<TensorFolder> tensors =
      cut_tensors(std::move(folder->tensors), folder->config, subset->experts_kept_per_layer);
  if (!tensors.ok()) return tensors.status();
  absl::StatusOr<TextFiles> texts = companion_files(folder->path);
  if (!texts.ok()) return texts.status();
  const ModelConfig cut = cut_config(folder->config, subset->experts_kept_per_layer);
  ModelFolder model{std::move(folder->json), *std::move(texts), all_tensors(*tensors),
                    options.max_shard_megabytes * 1000000};
  set_expert_counts(cut, &model.config);
  model.texts.emplace_back("state.json", weights_only_state(folder->path, folder->description));
  model.texts.emplace_back(kPruningFile, to_text(pruning_json(*subset, folder->config)));
  absl::Status status =
      write_model_folder(posix_file_system(), "extract", options.out, model).status();
  if (!status.ok()) return status;
  std::fprintf(stderr, "emo: %s: %s%lld of %lld experts a layer, %.1f MB\n", options.out.c_str(),
               cut.experts_per_layer.empty() ? "" : "at most ",
               static_cast<long long>(cut.num_experts),
               static_cast<long long>(folder->config.num_experts),
               static_cast<double>(bytes_of(model.copies)) / 1e6);
  return kExitDone;
}

struct MergeCommandOptions {
  std::string parent, tuned, out;
  MergeOptions merge;
  uint64_t max_shard_megabytes = 5000;
};

absl::StatusOr<int> merge(const MergeCommandOptions& options) {
  if (path_exists(options.out)) return absl::AlreadyExistsError(options.out + ": stands already");
  absl::StatusOr<Folder> parent = open_folder(options.parent);
  if (!parent.ok()) return parent.status();
  absl::StatusOr<std::string> tuned_folder = find_model(options.tuned);
  if (!tuned_folder.ok()) return tuned_folder.status();
  absl::StatusOr<SubsetFile> subset =
      read_pruning(*tuned_folder, parent->config, model_identity(parent->tensors));
  if (!subset.ok()) return subset.status();
  absl::StatusOr<TensorFolder> tuned = TensorFolder::open(*tuned_folder, "model");
  if (!tuned.ok()) return tuned.status();
  absl::StatusOr<TensorFolder> merged =
      merge_models(std::move(parent->tensors), *std::move(tuned), parent->config,
                   subset->experts_kept_per_layer, options.merge);
  if (!merged.ok()) return merged.status();
  absl::StatusOr<TextFiles> texts = companion_files(parent->path);
  if (!texts.ok()) return texts.status();
  texts->emplace_back("state.json", weights_only_state(parent->path, parent->description));
  absl::Status status = carry_pruning(parent->path, &*texts);  // where it was cut itself
  if (!status.ok()) return status;
  const ModelFolder model{std::move(parent->json), *std::move(texts), all_tensors(*merged),
                          options.max_shard_megabytes * 1000000};
  status = write_model_folder(posix_file_system(), "merge", options.out, model).status();
  if (!status.ok()) return status;
  return kExitDone;
}

void add_shard_option(OptionList* list, uint64_t* megabytes) {
  list->add("--max-shard", megabytes, "megabytes of a safetensors file")
      .range(1, 1 << 30)
      .show_default();
}

}  // namespace

Command experts_extract_command() {
  auto options = std::make_shared<ExtractOptions>();
  Command command;
  command.name = "experts extract";
  command.summary = "Write a smaller model that has only a subset's experts";
  command.options.add("CHECKPOINT", &options->checkpoint, kModelHelp).required();
  command.options.add("SUBSET", &options->subset, "SUBSET.json of emo experts rank").required();
  command.options.add("OUT", &options->out, "folder to write; must not stand yet").required();
  add_shard_option(&command.options, &options->max_shard_megabytes);
  command.footer =
      "Example: emo experts extract runs/quickstart/emo scripture.json "
      "scripture-model\n"
      "Kept experts and their router rows are copied as they are, numbered anew in their old "
      "order,\n"
      "shared ones last. The folder is a model as any other: emo eval scripture-model --data ...";
  command.run = [options] { return on_first_rank([&] { return extract(*options); }); };
  return command;
}

Command experts_merge_command() {
  auto options = std::make_shared<MergeCommandOptions>();
  Command command;
  command.name = "experts merge";
  command.summary = "Put the experts of an extracted model, tuned since, back into its parent";
  command.options.add("PARENT", &options->parent, "the model folder that was cut").required();
  command.options
      .add("TUNED", &options->tuned, "the cut model, or a checkpoint of a run that started from it")
      .required();
  command.options.add("OUT", &options->out, "folder to write; must not stand yet").required();
  command.options
      .add("--alpha", &options->merge.alpha,
           "1: the tuned numbers replace the parent's; 0.5: the mean of both")
      .range(0.0, 1.0)
      .show_default();
  command.options.add("--router", &options->merge.router, "also the router rows of these experts");
  command.options.add("--shared", &options->merge.shared, "also the shared experts");
  command.options.add("--rest", &options->merge.rest, "also attention, norms, embedding and head");
  add_shard_option(&command.options, &options->max_shard_megabytes);
  command.footer = "Example: emo experts merge runs/quickstart/emo tuned merged --alpha 0.5";
  command.run = [options] { return on_first_rank([&] { return merge(*options); }); };
  return command;
}

}  // namespace emo
