#include "eval/convert/conversion.h"

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "data/tokenizer/tokenizer.h"
#include "eval/verify/golden_folder.h"
#include "train/checkpoint/find_model.h"
#include "train/checkpoint/weights_only_state.h"
#include "train/config/run_config.h"
#include "train/model_folder/model_folder.h"
#include "train/model_folder/remote_code.h"
#include "train/model_folder/tensor_copy.h"
#include "train/model_folder/tokenizer_files.h"
#include "train/subset/pruning_metadata.h"

namespace emo {
namespace {

constexpr char kGenerationConfig[] = "generation_config.json";

absl::Status write_folder(FileSystem& fs, const std::string& work, const std::string& to,
                          const ModelFolder& parts, ConversionReport* report) {
  absl::StatusOr<std::vector<WrittenFile>> files = write_model_folder(fs, work, to, parts);
  if (!files.ok()) return files.status();
  report->tensors = static_cast<int64_t>(parts.copies.size());
  report->files = static_cast<int64_t>(files->size()) + 1;
  for (const WrittenFile& file : *files) report->bytes += file.size;
  return absl::OkStatus();
}

// tokenizer.json and what goes with it: the folder's own files, and ours where it lacks one.
absl::Status add_tokenizer(const std::string& from, const ModelDescription& description,
                           ModelFolder* parts, SpecialTokens* special) {
  absl::StatusOr<TextFiles> files = text_files(from, tokenizer_file_names());
  if (!files.ok()) return files.status();
  std::set<std::string> have;
  for (auto& [name, text] : *files) {
    if (text.empty()) continue;
    have.insert(name);
    parts->texts.emplace_back(name, std::move(text));
  }
  if (!have.contains("tokenizer.json")) return absl::OkStatus();
  const std::string tokenizer = parts->texts.front().second;
  *special = special_tokens(tokenizer, description);
  for (auto& [name, text] : tokenizer_files(tokenizer, description)) {
    if (!have.contains(name)) parts->texts.emplace_back(name, std::move(text));
  }
  return absl::OkStatus();
}

void add_remote_code(TextFiles* texts) {
  for (RemoteCodeFile& file : remote_code()) {
    texts->emplace_back(std::move(file.name), std::move(file.text));
  }
}

// Takes the folder's own generation_config.json along; whether it has one.
absl::StatusOr<bool> carry_generation_config(const std::string& from, TextFiles* texts) {
  absl::StatusOr<TextFiles> files = text_files(from, {kGenerationConfig});
  if (!files.ok()) return files.status();
  texts->insert(texts->end(), files->begin(), files->end());
  return !files->empty();
}

// What generate() does with the model: a chat's turn ends an answer too, and where there is no
// padding token, the end token pads. Unlike in config.json that keeps no row from being trained.
OrderedJson generation_config(const ModelDescription& d, const SpecialTokens& special) {
  OrderedJson ends = OrderedJson::array();
  if (d.stop_ids && d.stop_ids->size() > 1) {
    ends = *d.stop_ids;
  } else {
    if (special.turn_end_id >= 0 && special.turn_end_id < d.config.vocab_size) {
      ends.push_back(special.turn_end_id);
    }
    ends.push_back(d.eos_id);
  }
  OrderedJson json = {
      {"do_sample", true}, {"eos_token_id", ends}, {"pad_token_id", d.pad_id.value_or(d.eos_id)}};
  if (d.bos_id) json["bos_token_id"] = *d.bos_id;
  return json;
}

// The padding token is a token that no text has, so that a class which never trains its row (the
// stock ones) loses nothing: the one that the folder states, else the tokenizer's own, else none.
void complete_padding(const SpecialTokens& special, ModelDescription* d) {
  if (d->pad_id || special.pad_id < 0 || special.pad_id >= d->config.vocab_size) return;
  d->pad_id = special.pad_id;
}

// Where both the config and the tensors are wrong, one error says both.
absl::Status both(const absl::Status& a, const absl::Status& b) {
  if (a.ok() || b.ok()) return a.ok() ? b : a;
  const std::string message = absl::StrCat(a.message(), "\n", b.message());
  const bool missing = absl::IsNotFound(a) && absl::IsNotFound(b);
  return missing ? absl::NotFoundError(message) : absl::DataLossError(message);
}

absl::StatusOr<ForeignModel> read_description(const std::string& from) {
  if (path_exists(from + "/config.json")) return read_architecture(from + "/config.json");
  if (path_exists(from + "/golden.json")) {
    absl::StatusOr<ModelDescription> description = read_golden_sizes(from);
    if (!description.ok()) return description.status();
    return ForeignModel{Architecture::kEmo, *std::move(description)};
  }
  return absl::NotFoundError(from + ": neither config.json nor golden.json");
}

absl::Status check_export(const std::string& from, const ModelDescription& d,
                          const ExportOptions& options) {
  absl::Status status = check_expressible(options.architecture, d.config);
  if (!status.ok()) return absl::InvalidArgumentError(absl::StrCat(from, ": ", status.message()));
  if (d.config.moe_layers() > 0 && d.config.num_shared_experts > 1 && !options.force) {
    return absl::InvalidArgumentError(absl::StrCat(
        from, ": ", d.config.num_shared_experts,
        " shared experts. The reference's class weighs them by a softmax over their router rows, "
        "training weighs each by 1, so there it would compute something else than what was "
        "trained. The classes that go with the export weigh by 1; --force exports for them."));
  }
  const std::string tokenizer_path = from + "/tokenizer.json";
  if (options.vocab_size > 0 && path_exists(tokenizer_path)) {
    absl::StatusOr<Tokenizer> tokenizer = Tokenizer::from_file(tokenizer_path);
    if (!tokenizer.ok()) return tokenizer.status();
    if (tokenizer->vocab_size() > options.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat("--vocab-size ", options.vocab_size,
                                                     " leaves out tokens of ", tokenizer_path,
                                                     ", which has ", tokenizer->vocab_size()));
    }
  }
  if (options.vocab_size == 0) return absl::OkStatus();
  std::vector<int64_t> ids = d.stop_ids.value_or(std::vector<int64_t>());
  ids.insert(ids.end(), {d.eos_id, d.pad_id.value_or(0), d.bos_id.value_or(0)});
  const int64_t largest = *std::max_element(ids.begin(), ids.end());
  if (options.vocab_size <= largest) {
    return absl::InvalidArgumentError(absl::StrCat("--vocab-size ", options.vocab_size,
                                                   " leaves out the special token ", largest));
  }
  return absl::OkStatus();
}

// What the new folder's tensors are, from the old ones'.
void convert(const ExportOptions& options, ModelFolder* parts) {
  for (TensorCopy& copy : parts->copies) {
    const bool rows = copy.name == "model.embed_tokens.weight" || copy.name == "lm_head.weight";
    if (rows && options.vocab_size > 0) copy.shape[0] = options.vocab_size;
    if (options.dtype == "fp32") copy.dtype = "F32";
    if (options.dtype == "bf16") copy.dtype = "BF16";
    copy.name = name_in(options.architecture, copy.name);
  }
}

}  // namespace

absl::StatusOr<ConversionReport> export_model(FileSystem& fs, const std::string& path,
                                              const std::string& to, const ExportOptions& options) {
  if (path_exists(to)) return absl::AlreadyExistsError(to + ": stands already");
  absl::StatusOr<std::string> found = find_model(path);
  if (!found.ok()) return found.status();
  const std::string& from = *found;
  absl::StatusOr<ModelDescription> description = read_config_json(from + "/config.json");
  absl::StatusOr<TensorFolder> tensors = TensorFolder::open(from, "model");
  absl::Status status = both(description.status(), tensors.status());
  if (!status.ok()) return status;
  status = check_export(from, *description, options);
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<TensorCopy>> copies =
      match_tensors(*tensors, description->config, [](const std::string& name) { return name; });
  if (!copies.ok()) return copies.status();

  ModelFolder parts;
  parts.copies = *std::move(copies);
  parts.max_shard_bytes = options.max_shard_bytes;
  convert(options, &parts);
  if (options.vocab_size > 0) description->config.vocab_size = options.vocab_size;
  SpecialTokens special;
  status = add_tokenizer(from, *description, &parts, &special);
  if (status.ok()) status = carry_pruning(from, &parts.texts);
  if (!status.ok()) return status;
  complete_padding(special, &*description);
  parts.config = config_json_in(options.architecture, *description);
  parts.config["torch_dtype"] = parts.copies.front().dtype == "F32" ? "float32" : "bfloat16";
  const absl::StatusOr<bool> carried = carry_generation_config(from, &parts.texts);
  if (!carried.ok()) return carried.status();
  if (!*carried) {
    parts.texts.emplace_back(kGenerationConfig, to_text(generation_config(*description, special)));
  }
  if (options.architecture == Architecture::kEmo) {
    if (description->config.moe_layers() > 0) {
      parts.config["output_router_logits"] = true;
      parts.config["router_aux_loss_coef"] = 0.01;
    }
    add_remote_code(&parts.texts);
  }
  ConversionReport report;
  report.description = *description;
  status = write_folder(fs, "export", to, parts, &report);
  if (!status.ok()) return status;
  return report;
}

absl::StatusOr<ConversionReport> import_model(FileSystem& fs, const std::string& from,
                                              const std::string& to) {
  if (path_exists(to)) return absl::AlreadyExistsError(to + ": stands already");
  absl::StatusOr<ForeignModel> model = read_description(from);
  absl::StatusOr<TensorFolder> tensors = TensorFolder::open(from, "model");
  absl::Status status = both(model.status(), tensors.status());
  if (!status.ok()) return status;
  const ModelDescription& description = model->description;
  absl::StatusOr<std::vector<TensorCopy>> copies =
      match_tensors(*tensors, description.config,
                    [&](const std::string& name) { return name_in(model->architecture, name); });
  if (!copies.ok()) return copies.status();

  ModelFolder parts;
  parts.copies = *std::move(copies);
  SpecialTokens special;
  status = add_tokenizer(from, description, &parts, &special);
  if (status.ok()) status = carry_generation_config(from, &parts.texts).status();
  if (status.ok()) status = carry_pruning(from, &parts.texts);
  if (!status.ok()) return status;
  parts.config = to_config_json(description);
  const bool bf16 = parts.copies.front().dtype == "BF16";
  parts.config["torch_dtype"] = bf16 ? "bfloat16" : "float32";
  parts.texts.emplace_back("state.json", weights_only_state(from, description));
  add_remote_code(&parts.texts);
  ConversionReport report;
  report.description = description;
  status = write_folder(fs, "import", to, parts, &report);
  if (!status.ok()) return status;
  return report;
}

}  // namespace emo
