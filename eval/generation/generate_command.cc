#include "eval/commands.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/documents/document_reader.h"
#include "data/files/json.h"
#include "data/program/exit_code.h"
#include "eval/generation/generation.h"
#include "eval/open/mesh_options.h"
#include "eval/open/open_model.h"
#include "eval/open/pool_option.h"
#include "parallel/agreement.h"
#include "train/checkpoint/find_model.h"

namespace emo {
namespace {

struct Options {
  std::string checkpoint, experts, file;
  std::vector<std::string> prompts;
  std::string pool = "none";
  GenerationOptions generation;
  MeshOptions mesh;
  bool json = false;
};

// Of the options, then of the file: a text file is one prompt, JSON lines are one each.
absl::StatusOr<std::vector<std::string>> prompts_of(const Options& options) {
  std::vector<std::string> prompts = options.prompts;
  if (!options.file.empty()) {
    absl::StatusOr<DocumentReader> reader = DocumentReader::open({options.file});
    if (!reader.ok()) return reader.status();
    RawDocument raw;
    while (true) {
      absl::StatusOr<bool> more = reader->next(&raw);
      if (!more.ok()) return more.status();
      if (!*more) break;
      absl::StatusOr<Document> document = parse_document(raw, {"prompt", "prompts"});
      if (!document.ok()) return document.status();
      prompts.push_back(std::move(document->text));
    }
  }
  if (prompts.empty()) {
    return absl::InvalidArgumentError("say what to go on from: --prompt TEXT or --prompts FILE");
  }
  return prompts;
}

absl::StatusOr<std::vector<std::vector<int32_t>>> tokenize(const Tokenizer& tokenizer,
                                                           const std::vector<std::string>& prompts,
                                                           int64_t positions) {
  std::vector<std::vector<int32_t>> all;
  Tokenizer::Cache cache;
  for (const std::string& prompt : prompts) {
    std::vector<int32_t> tokens;
    absl::Status status = tokenizer.encode(prompt, &tokens, &cache);
    if (!status.ok()) return status;
    const auto length = static_cast<int64_t>(tokens.size());
    if (length < 1 || length >= positions) {
      return absl::InvalidArgumentError(absl::StrCat(
          "prompt ", all.size(), " has ", length, " tokens; the model takes 1 to ", positions - 1));
    }
    all.push_back(std::move(tokens));
  }
  return all;
}

void print_json(const Options& options, const OpenedModel& model,
                const std::vector<std::string>& prompts, const std::vector<Generated>& results,
                double seconds) {
  int64_t tokens = 0;
  OrderedJson answers = OrderedJson::array();
  for (size_t i = 0; i < results.size(); ++i) {
    tokens += static_cast<int64_t>(results[i].tokens.size());
    answers.push_back({{"prompt", prompts[i]},
                       {"text", results[i].text},
                       {"tokens", results[i].tokens},
                       {"end", results[i].end}});
  }
  const OrderedJson json = {{"checkpoint", model.folder},
                            {"pool", options.pool},
                            {"new_tokens", tokens},
                            {"seconds", seconds},
                            {"tokens_per_second", static_cast<double>(tokens) / seconds},
                            {"answers", answers}};
  std::printf("%s", to_text(json).c_str());
}

absl::StatusOr<int> run(Options options) {
  absl::StatusOr<Mesh> mesh = open_mesh(options.mesh);
  if (!mesh.ok()) return mesh.status();
  absl::StatusOr<std::vector<std::string>> prompts = prompts_of(options);
  absl::Status status = agree(*mesh->world, prompts.status());
  if (!status.ok()) return status;
  absl::StatusOr<OpenedModel> opened =
      open_model(options.checkpoint, *mesh, options.experts, options.mesh);
  if (!opened.ok()) return opened.status();
  absl::StatusOr<Tokenizer> tokenizer = open_tokenizer(*opened, *mesh);
  if (!tokenizer.ok()) return tokenizer.status();
  const ModelDescription& description = opened->description;
  absl::StatusOr<PoolPolicy> pool = parse_pool(options.pool, description.config.routed_top_k());
  status = pool.status();
  absl::StatusOr<std::vector<std::vector<int32_t>>> tokens =
      tokenize(*tokenizer, *prompts, description.max_positions);
  status.Update(tokens.status());
  status = agree(*mesh->world, status);
  if (!status.ok()) return status;

  GenerationOptions& generation = options.generation;
  generation.pass.pool = *pool;
  generation.eos_id = description.eos_id;
  generation.max_positions = description.max_positions;
  const bool one = prompts->size() == 1 && !options.json;
  if (one) {
    if (mesh->is_first()) std::printf("%s", prompts->front().c_str());
    generation.stream = [](int64_t, const std::string& text) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    };
  }
  const std::unique_ptr<Inference> inference = open_inference(*opened, *mesh);
  const auto start = std::chrono::steady_clock::now();
  const std::vector<Generated> results = generate(inference.get(), *tokenizer, *tokens, generation);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!mesh->is_first()) return kExitDone;
  if (options.json) print_json(options, *opened, *prompts, results, seconds);
  for (size_t i = 0; i < results.size() && !options.json && !one; ++i) {
    std::printf("%s== %zu ==\n%s%s\n", i > 0 ? "\n" : "", i, (*prompts)[i].c_str(),
                results[i].text.c_str());
  }
  if (one) std::printf("\n");
  return kExitDone;
}

}  // namespace

Command generate_command() {
  // Ranges let NaN pass.
  const auto a_number = [](const std::string& text) -> std::string {
    return std::isfinite(std::strtod(text.c_str(), nullptr)) ? "" : text + " is not a number";
  };
  auto options = std::make_shared<Options>();
  GenerationOptions& generation = options->generation;
  Command command;
  command.name = "generate";
  command.summary = "Let a model go on from a text";
  command.options.add("CHECKPOINT", &options->checkpoint, kModelHelp).required();
  add_subset_option(&command.options, &options->experts);
  command.options
      .add("--prompt", &options->prompts, "text to go on from; may be given several times")
      .each_once();
  command.options.add("--prompts", &options->file,
                      "file of prompts: JSON lines with a field 'prompt', or one text");
  command.options
      .add("--max-new-tokens", &generation.max_new_tokens, "at most so many for each prompt")
      .range(1, 1 << 30)
      .show_default();
  command.options
      .add("--temperature", &generation.sampling.temperature, "0: always the most likely token")
      .at_least(0)
      .check(a_number)
      .show_default();
  command.options
      .add("--top-p", &generation.sampling.top_p,
           "draw from the most likely tokens that together have this probability")
      .range(1e-9, 1.0)
      .check(a_number)
      .show_default();
  command.options.add("--seed", &generation.sampling.seed, "of the draws").show_default();
  command.options
      .add("--stop", &generation.stop, "text that ends an answer; may be given several times")
      .each_once()
      .check([](const std::string& text) { return text.empty() ? "an empty text" : ""; });
  command.options
      .add("--batch", &generation.sequences,
           "prompts at once on each rank, which shares the prompts with the others")
      .range(1, 4096)
      .show_default();
  command.options
      .add("--pool", &options->pool,
           "none, or the size N of a pool of experts that is chosen from the prompt and kept, or "
           "MIN-MAX: a size drawn for each prompt")
      .show_default();
  add_mesh_options(&command.options, &options->mesh);
  add_device_options(&command.options, &options->mesh);
  command.options.add("--json", &options->json, "answers as one JSON object on standard output");
  command.footer =
      "Example: emo generate runs/quickstart/emo --prompt 'In the beginning' "
      "--max-new-tokens 60";
  command.run = [options] { return run(*options); };
  return command;
}

}  // namespace emo
